//! A folder of a vendor's program that is ours: the user's settings hold in it, but not the user's login. For a run that
//! has a key, with a program that would prefer the login.
//!
//! It is below the root, one for each agent, and stays: the program keeps its sessions in it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use conductor_shim::durable;

use super::RunRequest;

/// The folder that stands in for an agent's home folder, where its program looks for its own.
pub(super) fn folder(run: &RunRequest, agent: &str) -> PathBuf {
    run.root.join(".conductor/agents").join(agent)
}

/// Makes the folder, with links to what is there of `names` in the user's. May be called again, and by several at once.
pub(super) fn make(folder: &Path, users: &Path, names: &[&str]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for name in names {
        let (link, target) = (folder.join(name), users.join(name));
        let there = fs::symlink_metadata(&link).ok();
        if fs::read_link(&link).is_ok_and(|old| old == target) || !target.exists() {
            continue;
        }
        match there {
            // The program replaced our link by a file of its own: that is newer than the link.
            Some(metadata) if !metadata.is_symlink() => continue,
            Some(_) => fs::remove_file(&link)?,
            None => {}
        }
        match symlink(&target, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Writes a private file, if it is to change.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    durable::write_atomic(path, text.as_bytes(), durable::PRIVATE)
}
