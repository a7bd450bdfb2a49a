//! What the store can't do, and about which file.

use std::io;
use std::path::{Path, PathBuf};

use super::daemon_lock::Holder;
use super::yaml::YamlError;
use crate::types::{ProjectId, TaskKey};

/// An error of the store. The text is a fragment that names the file and the reason.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was tried: `open`, `read`, `write`, …
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A path that is absolute, empty, or has `.` or `..` in it.
    #[error("{} leads out of the root", .0.display())]
    Escapes(PathBuf),
    /// A symbolic link where none may be.
    #[error("{} is or passes a symbolic link", .0.display())]
    Symlink(PathBuf),
    /// A folder, socket, pipe or device where a regular file is expected.
    #[error("{} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// A file over its limit.
    #[error("{} has more than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file of a later version of this program: neither read nor rewritten.
    #[error("{} has version {version}, newer than {supported}: refused", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
        /// The newest that this build reads.
        supported: u32,
    },
    /// A file of ours that can't be understood.
    #[error("{}: {source}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: YamlError,
    },
    /// Another conductord owns this root.
    #[error("{} is in use by another conductord ({holder})", root.display())]
    Locked {
        /// The root.
        root: PathBuf,
        /// Who holds it.
        holder: Holder,
    },
    /// A project of that name is there.
    #[error("project {0} exists")]
    ProjectExists(ProjectId),
    /// A project that still has tasks.
    #[error("project {0} still has tasks")]
    ProjectNotEmpty(ProjectId),
    /// A task folder that is there already.
    #[error("task {0} exists")]
    TaskExists(TaskKey),
    /// No free name was found.
    #[error("no free folder name for {name} after {tries} tries")]
    NoFreeName {
        /// The first name tried.
        name: String,
        /// Names tried.
        tries: u32,
    },
    /// A project bound to a path that is not absolute, not UTF-8, or has a line break.
    #[error("{} can't be a project's folder: an absolute UTF-8 path on one line is needed", .0.display())]
    BadProjectPath(PathBuf),
}

impl StoreError {
    pub(super) fn io(doing: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { doing, path: path.as_ref().to_owned(), source }
    }

    /// Whether the reason is that there is no such file or folder.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the reason is a full disk or quota, so that new work is refused and running work goes on.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
