//! Opening files beneath a folder, with no way out of it: no `..`, no symbolic link in any component.
//!
//! Linux resolves the whole path in the kernel (`openat2`); where that is missing (older kernels, some sandboxes,
//! macOS) each component is opened by itself with `O_NOFOLLOW`. Nothing is created here.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::StoreError;

/// A part of a regular file, from an offset on.
#[derive(Debug)]
pub struct FileRange {
    reader: Take<File>,
    /// Offset of the first byte, at most [`Self::file_len`].
    pub offset: u64,
    /// Length of the file when it was opened, in bytes.
    pub file_len: u64,
}

impl Read for FileRange {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.reader.read(into)
    }
}

/// Refuses a path that is absolute, empty, or not made of names alone.
pub(super) fn check_relative(path: &Path) -> Result<(), StoreError> {
    let names_only = path.components().all(|part| matches!(part, Component::Normal(_)));
    let has_nul = path.as_os_str().as_encoded_bytes().contains(&0);
    if names_only && !has_nul && !path.as_os_str().is_empty() {
        Ok(())
    } else {
        Err(StoreError::Escapes(path.to_owned()))
    }
}

/// Opens a regular file beneath `folder` for reading.
pub(super) fn open_file(folder: BorrowedFd<'_>, path: &Path) -> Result<(File, u64), StoreError> {
    check_relative(path)?;
    // O_NONBLOCK: a pipe in the place of a file must not hold us up until it is found out.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::from(open(folder, path, flags).map_err(|errno| explain(path, errno))?);
    let meta = file.metadata().map_err(|error| StoreError::io("stat", path, error))?;
    if !meta.is_file() {
        return Err(StoreError::NotRegular(path.to_owned()));
    }
    Ok((file, meta.len()))
}

/// Opens a folder beneath `folder`.
pub(super) fn open_folder(folder: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, StoreError> {
    check_relative(path)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    open(folder, path, flags).map_err(|errno| explain(path, errno))
}

/// Reads a whole regular file of at most `max` bytes.
pub(super) fn read_file(folder: BorrowedFd<'_>, path: &Path, max: u64) -> Result<Vec<u8>, StoreError> {
    let (file, len) = open_file(folder, path)?;
    if len > max {
        return Err(StoreError::TooLarge { path: path.to_owned(), limit: max });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1);
    file.take(max + 1).read_to_end(&mut bytes).map_err(|error| StoreError::io("read", path, error))?;
    if bytes.len() as u64 > max {
        return Err(StoreError::TooLarge { path: path.to_owned(), limit: max });
    }
    Ok(bytes)
}

/// Opens a regular file at an offset; an offset beyond its end is its end.
pub(super) fn open_range(folder: BorrowedFd<'_>, path: &Path, offset: u64, max: u64) -> Result<FileRange, StoreError> {
    let (mut file, file_len) = open_file(folder, path)?;
    let offset = offset.min(file_len);
    file.seek(SeekFrom::Start(offset)).map_err(|error| StoreError::io("seek", path, error))?;
    Ok(FileRange { reader: file.take(max), offset, file_len })
}

fn explain(path: &Path, errno: Errno) -> StoreError {
    match errno {
        Errno::ELOOP => StoreError::Symlink(path.to_owned()),
        Errno::EXDEV => StoreError::Escapes(path.to_owned()),
        Errno::ENXIO => StoreError::NotRegular(path.to_owned()),
        other => StoreError::io("open", path, other.into()),
    }
}

#[cfg(target_os = "linux")]
fn open(folder: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::fcntl::{OpenHow, ResolveFlag, openat2};

    static MISSING: AtomicBool = AtomicBool::new(false);
    if !MISSING.load(Ordering::Relaxed) {
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        match openat2(folder, path, OpenHow::new().flags(flags).resolve(resolve)) {
            // EPERM is how seccomp filters that don't know the call answer; the slow way then finds the real reason.
            Err(Errno::ENOSYS | Errno::EPERM) => MISSING.store(true, Ordering::Relaxed),
            // A rename elsewhere during the walk: the slow way is not disturbed by it.
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    open_by_component(folder, path, flags)
}

#[cfg(not(target_os = "linux"))]
fn open(folder: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    open_by_component(folder, path, flags)
}

/// The walk that needs no `openat2`.
fn open_by_component(folder: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let step = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mut parts = path.components().peekable();
    let mut at: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        let from = at.as_ref().map_or(folder, AsFd::as_fd);
        let flags = if parts.peek().is_some() { step } else { flags };
        let opened = openat(from, part.as_os_str(), flags, Mode::empty()).map_err(|errno| {
            // O_DIRECTORY with O_NOFOLLOW answers ENOTDIR for a link; say what it is.
            if errno == Errno::ENOTDIR && is_link(from, part.as_os_str()) { Errno::ELOOP } else { errno }
        })?;
        at = Some(opened);
    }
    at.ok_or(Errno::EINVAL)
}

fn is_link(folder: BorrowedFd<'_>, name: &std::ffi::OsStr) -> bool {
    use nix::fcntl::AtFlags;
    use nix::sys::stat::{SFlag, fstatat};
    fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder(path: &Path) -> OwnedFd {
        OwnedFd::from(File::open(path).expect("the folder opens"))
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let fd = folder(dir.path());
        for bad in ["", "/etc/passwd", "../x", "a/../../x", ".", "./a", "a\0b"] {
            let error = read_file(fd.as_fd(), Path::new(bad), 10).expect_err(bad);
            assert!(matches!(error, StoreError::Escapes(_)), "{bad}: {error}");
        }
    }

    #[test]
    fn symbolic_links_are_refused_in_every_component_by_both_walks() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("real")).expect("mkdir");
        std::fs::write(dir.path().join("real/file"), "x").expect("write");
        symlink("real", dir.path().join("link")).expect("symlink");
        symlink("file", dir.path().join("real/alias")).expect("symlink");
        let fd = folder(dir.path());
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        for bad in ["link/file", "real/alias"] {
            assert!(matches!(read_file(fd.as_fd(), Path::new(bad), 10), Err(StoreError::Symlink(_))), "{bad}");
            assert_eq!(open_by_component(fd.as_fd(), Path::new(bad), flags).err(), Some(Errno::ELOOP), "{bad}");
        }
        assert_eq!(read_file(fd.as_fd(), Path::new("real/file"), 10).expect("readable"), b"x");
        assert!(open_by_component(fd.as_fd(), Path::new("real/file"), flags).is_ok());
    }

    #[test]
    fn only_regular_files_within_the_limit_are_read_and_a_pipe_does_not_block() {
        let dir = tempfile::tempdir().expect("a folder");
        let fd = folder(dir.path());
        nix::unistd::mkfifo(&dir.path().join("pipe"), Mode::S_IRWXU).expect("mkfifo");
        assert!(matches!(read_file(fd.as_fd(), Path::new("pipe"), 10), Err(StoreError::NotRegular(_))));
        std::fs::create_dir(dir.path().join("dir")).expect("mkdir");
        assert!(matches!(read_file(fd.as_fd(), Path::new("dir"), 10), Err(StoreError::NotRegular(_))));
        std::fs::write(dir.path().join("big"), "12345").expect("write");
        assert!(matches!(read_file(fd.as_fd(), Path::new("big"), 4), Err(StoreError::TooLarge { limit: 4, .. })));
    }

    #[test]
    fn a_range_starts_at_its_offset_and_ends_at_its_length() {
        let dir = tempfile::tempdir().expect("a folder");
        let fd = folder(dir.path());
        std::fs::write(dir.path().join("log"), "0123456789").expect("write");
        let read = |offset, max| {
            let mut range = open_range(fd.as_fd(), Path::new("log"), offset, max).expect("a range");
            let mut text = String::new();
            range.read_to_string(&mut text).expect("text");
            (text, range.offset, range.file_len)
        };
        assert_eq!(read(3, 4), ("3456".to_owned(), 3, 10));
        assert_eq!(read(8, 40), ("89".to_owned(), 8, 10));
        assert_eq!(read(80, 40), (String::new(), 10, 10));
    }
}
