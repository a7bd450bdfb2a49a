//! What is on disk: lists, hashes and single files of a storage tree. Reads only.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Every path below `root`, relative, with `d`, `f`, `l` or `?` for its kind.
#[must_use]
pub fn list(root: &Path) -> BTreeMap<String, char> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_dir() => 'd',
                Ok(kind) if kind.is_file() => 'f',
                Ok(kind) if kind.is_symlink() => 'l',
                _ => '?',
            };
            if kind == 'd' {
                open.push(entry.path());
            }
            if let Ok(relative) = entry.path().strip_prefix(root) {
                found.insert(relative.display().to_string(), kind);
            }
        }
    }
    found
}

/// Content hash of every regular file below `root`, by relative path.
#[must_use]
pub fn hashes(root: &Path) -> BTreeMap<String, u64> {
    let files = list(root).into_iter().filter(|(_, kind)| *kind == 'f');
    files
        .map(|(path, _)| {
            let mut hasher = DefaultHasher::new();
            fs::read(root.join(&path)).unwrap_or_default().hash(&mut hasher);
            (path, hasher.finish())
        })
        .collect()
}

/// Copies a tree of folders and regular files.
///
/// # Errors
/// Something can't be read or written.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for (path, kind) in list(from) {
        if kind == 'd' {
            fs::create_dir_all(to.join(&path))?;
        }
    }
    for (path, kind) in list(from) {
        if kind == 'f' {
            fs::copy(from.join(&path), to.join(&path)).with_context(|| path.clone())?;
        }
    }
    Ok(())
}

/// The run folders of a task, in the order of their names' time fields.
#[must_use]
pub fn runs(task_folder: &Path) -> Vec<PathBuf> {
    let mut runs: Vec<PathBuf> =
        fs::read_dir(task_folder.join("runs")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    runs.sort();
    runs
}

/// The value of a top-level key of a YAML file of ours, unquoted; `None` if it has none.
#[must_use]
pub fn yaml_value(file: &Path, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let prefix = format!("{key}:");
    let value = text.lines().find_map(|line| line.strip_prefix(&prefix))?.trim();
    Some(value.trim_matches('"').trim_matches('\'').to_owned())
}
