//! A Python client without channel options is served: grpcio sends the socket's path as `:authority`.

mod common;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGES: [&str; 2] = ["grpcio==GRPC", "grpcio-health-checking==GRPC"];
/// The version with which the form of its `:authority` was captured.
const GRPC: &str = "1.85.1";

#[tokio::test]
async fn stock_grpcio_is_served() {
    let Some(python) = python() else { return };
    // A folder whose path needs escapes: grpcio sends the space as %20 and the slashes as %2F.
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("with space").join("s.sock");
    let _server = common::serve_health(&path);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/health_check.py");
    let target = path.display().to_string();
    let run = tokio::task::spawn_blocking(move || {
        Command::new(python).arg(script).args([format!("unix:{target}"), format!("unix://{target}")]).output()
    });
    let output = run.await.expect("no panic").expect("python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("ok unix:").count(), 2);
}

/// A Python with the pinned packages, in a cache that outlives the test; `None`, with the reason printed, where it can't
/// be had.
fn python() -> Option<PathBuf> {
    let works = |words: &[&str]| Command::new("python3").args(words).output().is_ok_and(|out| out.status.success());
    if !works(&["-c", "import venv, ensurepip"]) {
        println!("skipped: python3 with venv and pip is not installed (apt-get install python3-venv)");
        return None;
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        |cache| PathBuf::from(cache).join("conductor-tests"),
    );
    std::fs::create_dir_all(&cache).expect("the cache folder");
    let lock = File::create(cache.join("python.lock")).expect("the lock");
    lock.lock().expect("nobody else installs");
    let venv = cache.join(format!("grpcio-{GRPC}"));
    let python = venv.join("bin/python");
    if !venv.join("complete").exists() {
        let run = |program: &Path, words: &[&str]| {
            let output = Command::new(program).args(words).output().expect("runs");
            assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let packages = PACKAGES.map(|package| package.replace("GRPC", GRPC));
        run(Path::new("python3"), &["-m", "venv", "--clear", venv.to_str().expect("UTF-8")]);
        run(&python, &["-m", "pip", "install", "--quiet", "--only-binary", ":all:", &packages[0], &packages[1]]);
        File::create(venv.join("complete")).expect("the mark");
    }
    Some(python)
}
