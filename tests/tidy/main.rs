//! Rules that no compiler checks: the layers, the dependencies, the text of files, and the style of the wire contract.
//!
//! Each boundary of `docs/ARCHITECTURE.md` that can be read off the sources is a test here.

mod proto;

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Names of a section's dependencies in a `Cargo.toml`.
fn dependencies(manifest: &str, section: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(manifest)).expect(manifest);
    let mut inside = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == format!("[{section}]");
        } else if inside && let Some((name, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            names.push(name.trim().trim_end_matches(".workspace").to_owned());
        }
    }
    names
}

/// Every Rust file of the workspace.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = ["proto", "daemon", "ctl", "tests"].iter().map(|name| root().join(name)).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("data") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn the_core_knows_no_grpc_http_or_command_line() {
    for forbidden in ["tonic", "tonic-prost", "prost", "prost-types", "axum", "hyper", "clap", "conductor-proto"] {
        assert!(
            !dependencies("daemon/core/Cargo.toml", "dependencies").iter().any(|name| name == forbidden),
            "{forbidden}"
        );
    }
}

#[test]
fn the_shim_is_small_and_has_no_runtime() {
    let names = dependencies("daemon/shim/Cargo.toml", "dependencies");
    assert_eq!(names, ["libc", "serde", "serde_json"]);
}

#[test]
fn the_wire_types_know_nothing_of_the_domain_and_the_command_line_reaches_the_daemon_only_by_them() {
    assert!(!dependencies("proto/Cargo.toml", "dependencies").iter().any(|name| name.starts_with("conductor")));
    let ours: Vec<String> = dependencies("ctl/Cargo.toml", "dependencies")
        .into_iter()
        .filter(|name| name.starts_with("conductor"))
        .collect();
    assert_eq!(ours, ["conductor-proto"]);
}

#[test]
fn the_packages_that_were_asked_for_are_direct_dependencies_in_use() {
    let used = [
        ("daemon/Cargo.toml", &["tonic", "tokio", "tracing-subscriber", "tracing-journald", "sd-notify", "clap"][..]),
        (
            "daemon/core/Cargo.toml",
            &["notify", "dashmap", "nix", "serde_yaml", "secrecy", "schemars", "crc32c", "jiff"],
        ),
        ("ctl/Cargo.toml", &["clap", "clap_complete", "clap_mangen", "comfy-table", "indicatif", "ratatui", "tonic"]),
        ("proto/Cargo.toml", &["tonic"]),
    ];
    for (manifest, names) in used {
        let folder = root().join(manifest).parent().expect("a manifest is in a folder").join("src");
        let text: String = sources()
            .iter()
            .filter(|path| path.starts_with(&folder))
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        let direct = dependencies(manifest, "dependencies");
        for name in names {
            assert!(direct.iter().any(|direct| direct == name), "{manifest} lacks {name}");
            assert!(text.contains(&name.replace('-', "_")), "{manifest} does not use {name}");
        }
    }
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let silent: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|path| {
            let text = fs::read_to_string(path).unwrap();
            !text.starts_with("//! ") || text.starts_with("//! placeholder")
        })
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn no_allow_no_todo_and_no_unwrap_outside_tests() {
    let mut found = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        // Test modules are at the end of a file; files of tests only are not looked at.
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let only_tests = path
            .components()
            .any(|part| ["e2e", "tidy", "vendors", "benches"].iter().any(|name| part.as_os_str() == *name))
            || path.file_stem().is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests"))
            || path.components().any(|part| part.as_os_str() == "tests" && !path.starts_with(root().join("tests")));
        let words: &[&str] = if only_tests {
            &["#[allow("]
        } else {
            &[".unwrap()", "#[allow(", "#![allow(", "todo!(", "unimplemented!(", "dbg!("]
        };
        for (number, line) in code.lines().enumerate() {
            let line = line.trim();
            if !line.starts_with("//") && words.iter().any(|word| line.contains(word)) && !line.contains('"') {
                found.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
