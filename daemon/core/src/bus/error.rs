//! Why a bus refuses or fails. Messages are fragments for "failed to …: {error}"; the mapping to a wire status is the
//! caller's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::types::MessageId;

/// Everything that can go wrong with a bus. Cheap to clone: one failed batch answers many callers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BusError {
    /// The cursor names no message of this bus or its archives.
    #[error("no message {0} on this bus: read again from the start, or from a message that it has")]
    UnknownCursor(MessageId),
    /// A part of the message is larger than its limit.
    #[error("the {what} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Which part: `body`, `header`, `batch`.
        what: &'static str,
        /// Its size in bytes (for `batch`, messages).
        size: usize,
        /// What is allowed, in the same unit.
        limit: usize,
    },
    /// The file, or a text to be written, is not UTF-8.
    #[error("the text is not valid UTF-8")]
    InvalidUtf8,
    /// The kind is empty.
    #[error("the message has no type: name one, such as FACT, PROGRESS or QUESTION")]
    EmptyKind,
    /// The kind is not one printable line of at most 64 characters.
    #[error("the type {0:?} is not one printable line of at most 64 characters")]
    InvalidKind(String),
    /// A meta key begins with `x-`, which is kept for the file format.
    #[error("the meta key {0:?} is reserved: keys that begin with x- belong to the file format")]
    ReservedMeta(String),
    /// A meta key is empty, too long or not printable.
    #[error("{0:?} is not a meta key: 1 to 128 printable characters on one line")]
    InvalidMetaKey(String),
    /// Another writer held the lock for too long.
    #[error("another program has held the lock of {path} for {waited:?}")]
    LockTimeout {
        /// The bus.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// The path is a symbolic link.
    #[error("{0} is a symbolic link, which a bus must not be")]
    Symlink(PathBuf),
    /// The path is a folder, a device, a pipe or a socket.
    #[error("{0} is not a regular file")]
    NotRegular(PathBuf),
    /// Another program cut or rewrote the file in place; what was read of it before may be gone.
    #[error("{0} was cut or rewritten by another program")]
    Rewritten(PathBuf),
    /// The disk or the quota is full. Nothing was written.
    #[error("no space left to write {0}")]
    NoSpace(PathBuf),
    /// Any other failure of the file system. What was asked for was not done.
    #[error("failed to {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The runtime is shutting down, or the committer died; whether the message was written is unknown.
    #[error("the bus is closed")]
    Closed,
}

impl BusError {
    /// Classifies a failure of the file system.
    pub(super) fn io(action: &'static str, path: &Path, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace(path.to_owned()),
            Some(libc::ELOOP) => Self::Symlink(path.to_owned()),
            _ => Self::Io { action, path: path.to_owned(), source: Arc::new(error) },
        }
    }
}
