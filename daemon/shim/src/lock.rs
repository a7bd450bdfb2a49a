//! Whole-file kernel locks (`flock`): who owns a run, a root, a tree.
//!
//! A lock ends with its last descriptor, so any death releases it. Lock files are never unlinked: a second file of
//! the same name would be a second lock.

use crate::durable::PRIVATE;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Pause between two tries of [`exclusive_within`]: short against its usual second, long against a probe.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A held exclusive lock. Dropping it releases the lock, unless the descriptor was also inherited by a child.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// The locked file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Takes the lock of `path`, creating the file if there is none. `None`: somebody else holds it, or probes it now.
///
/// # Errors
/// Those of opening the file and of `flock`, except that it is held.
pub fn try_exclusive(path: &Path) -> io::Result<Option<FileLock>> {
    let file = open_or_create(path)?;
    Ok(flock(&file, libc::LOCK_EX | libc::LOCK_NB)?.then_some(FileLock { file }))
}

/// As [`try_exclusive`], tried again for `time`. A moment's retry is needed even for a free lock, since a probe
/// ([`is_held`]) holds it for an instant.
///
/// # Errors
/// As [`try_exclusive`].
pub fn exclusive_within(path: &Path, time: Duration) -> io::Result<Option<FileLock>> {
    let file = open_or_create(path)?;
    let deadline = Instant::now() + time;
    loop {
        if flock(&file, libc::LOCK_EX | libc::LOCK_NB)? {
            return Ok(Some(FileLock { file }));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}

/// Whether some process holds the exclusive lock of `path`, without waiting. A file that does not exist is not held.
///
/// # Errors
/// Those of opening the file and of `flock`.
pub fn is_held(path: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(!flock(&file, libc::LOCK_SH | libc::LOCK_NB)?)
}

fn open_or_create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Whether the lock was taken.
fn flock(file: &File, operation: i32) -> io::Result<bool> {
    loop {
        // SAFETY: the descriptor is open for the whole call; no pointers are passed.
        if unsafe { libc::flock(file.as_raw_fd(), operation) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(code) if code == libc::EWOULDBLOCK => return Ok(false),
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_a_second_holder_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        assert!(!is_held(&path).unwrap());
        let held = try_exclusive(&path).unwrap().unwrap();
        assert!(try_exclusive(&path).unwrap().is_none());
        assert!(is_held(&path).unwrap());
        drop(held);
        assert!(!is_held(&path).unwrap());
        assert!(path.exists(), "a lock file is never unlinked");
    }

    #[test]
    fn waiting_for_a_lock_gives_up_after_the_time_and_succeeds_when_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let held = try_exclusive(&path).unwrap().unwrap();
        let begun = Instant::now();
        assert!(exclusive_within(&path, Duration::from_millis(60)).unwrap().is_none());
        assert!(begun.elapsed() >= Duration::from_millis(60));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| exclusive_within(&path, Duration::from_secs(30)).unwrap());
            drop(held);
            assert!(waiter.join().unwrap().is_some());
        });
    }
}
