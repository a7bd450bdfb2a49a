//! The file system calls of a bus: opening without following links, the lock, the one write, cutting back.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::archive;
use super::error::BusError;
use super::segment::FileId;

/// Mode of a bus, as conductor-loop has it; the folders above keep others out.
const FILE_MODE: u32 = 0o644;

/// What stands at `path`, if anything; a link or another kind of file is refused.
pub(super) fn look(path: &Path) -> Result<Option<Metadata>, BusError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() => Err(BusError::Symlink(path.to_owned())),
        Ok(meta) if !meta.is_file() => Err(BusError::NotRegular(path.to_owned())),
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BusError::io("look at", path, error)),
    }
}

/// Device and inode of what `meta` is of.
pub(super) fn identity(meta: &Metadata) -> FileId {
    (meta.dev(), meta.ino())
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK a pipe put in the file's place between look and open would hang us.
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// Opens a bus or archive for reading; `None` if there is none.
pub(super) fn open_reader(path: &Path) -> Result<Option<File>, BusError> {
    if look(path)?.is_none() {
        return Ok(None);
    }
    let opened = options().write(true).open(path);
    let opened = match opened {
        // A bus that we may only read can still be shown. Writing matters for late entries of an archive alone.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => options().open(path),
        other => other,
    };
    match opened {
        Ok(file) => regular(path, file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BusError::io("open", path, error)),
    }
}

fn regular(path: &Path, file: File) -> Result<File, BusError> {
    let meta = file.metadata().map_err(|error| BusError::io("look at", path, error))?;
    if meta.is_file() { Ok(file) } else { Err(BusError::NotRegular(path.to_owned())) }
}

/// A bus opened for appending.
#[derive(Debug)]
pub(super) struct Appender {
    file: File,
    pub(super) id: FileId,
}

/// What an append did.
pub(super) enum Appended {
    /// All of it, beginning at this offset.
    At(u64),
    /// Nothing is left of it.
    Failed(io::Error),
}

impl Appender {
    /// Opens the bus at `path` and makes it if needed, durable by name. Its folder must be there: a bus must not bring a
    /// removed task's folder back.
    pub(super) fn open(path: &Path) -> Result<Self, BusError> {
        let made = look(path)?.is_none();
        let opened = options().append(true).create(true).mode(FILE_MODE).open(path);
        let file = regular(path, opened.map_err(|error| BusError::io("open", path, error))?)?;
        if made {
            archive::sync_folder(path).map_err(|error| BusError::io("sync the folder of", path, error))?;
        }
        let meta = file.metadata().map_err(|error| BusError::io("look at", path, error))?;
        Ok(Self { id: identity(&meta), file })
    }

    /// Takes the lock if it is free.
    pub(super) fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Gives the lock back.
    pub(super) fn unlock(&self) {
        // Only a bad descriptor makes this fail, and closing it would free the lock too.
        let _ = self.file.unlock();
    }

    /// The file's size in bytes.
    pub(super) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Appends `bytes` by one write. What a short or failed write left is cut off again.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<Appended> {
        let before = self.size()?;
        let written = loop {
            match self.file.write(bytes) {
                // Nothing was written; the lock is still ours.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match written {
            Ok(count) if count == bytes.len() => {
                let end = self.file.stream_position()?;
                Ok(Appended::At(end - count as u64))
            }
            Ok(count) => {
                self.cut_if(before + count as u64, before)?;
                // A write to a file is short when the disk is full or the process is being killed.
                Ok(Appended::Failed(io::Error::from_raw_os_error(libc::ENOSPC)))
            }
            Err(error) => Ok(Appended::Failed(error)),
        }
    }

    /// Cuts the file to `size` if it still ends at `end`: a program that appends without the lock must not lose its
    /// entry to our repair.
    pub(super) fn cut_if(&self, end: u64, size: u64) -> io::Result<()> {
        if self.size()? == end { self.file.set_len(size) } else { Ok(()) }
    }

    /// Makes the content durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
