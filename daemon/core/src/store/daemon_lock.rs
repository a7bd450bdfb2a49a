//! One conductord per root: a kernel lock that any death releases, and the epoch that counts daemon starts.
//!
//! The lock file is never unlinked: unlinking would let two programs hold locks on two files of one name. Its text only
//! says who holds it; the lock itself is what counts.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Root, StoreError};

/// Bytes of the lock file that are read: two short lines, written by us.
const HOLDER_LIMIT: u64 = 256;
/// Bytes of the epoch file that are read: one number.
const EPOCH_LIMIT: u64 = 64;

/// Who holds a root, as far as the lock file says. For people only: the kernel's lock decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its process id, as seen by itself.
    pub pid: Option<u32>,
    /// When it took the lock.
    pub since: Option<Timestamp>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, self.since) {
            (Some(pid), Some(since)) => write!(f, "pid {pid}, since {since}"),
            (Some(pid), None) => write!(f, "pid {pid}"),
            _ => f.write_str("which has not said who it is"),
        }
    }
}

/// How long a held lock is tried: a daemon that was killed while it spawned a shim leaves its descriptors to that
/// process until it has executed the shim.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause between two tries.
const RETRY: Duration = Duration::from_millis(10);

/// The right to change a root. Released when dropped, or by the death of the process.
#[derive(Debug)]
pub struct DaemonLock {
    file: File,
    path: PathBuf,
}

impl DaemonLock {
    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn take(root: &Path, path: PathBuf, now: Timestamp) -> Result<Self, StoreError> {
        let failed = |doing| {
            let path = path.clone();
            move |error| StoreError::io(doing, path, error)
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(failed("open"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(RETRY),
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Locked { root: root.to_owned(), holder: read_holder(&mut file) });
                }
                Err(TryLockError::Error(error)) => return Err(failed("lock")(error)),
            }
        }
        let text = format!("pid: {}\nsince: {now}\n", std::process::id());
        file.set_len(0).map_err(failed("write"))?;
        file.rewind().and_then(|()| file.write_all(text.as_bytes())).map_err(failed("write"))?;
        Ok(Self { file, path })
    }
}

impl Drop for DaemonLock {
    fn drop(&mut self) {
        // Closing releases it too; this says so where a descriptor was duplicated by a fork in progress.
        let _ = self.file.unlock();
    }
}

fn read_holder(file: &mut File) -> Holder {
    let mut text = String::new();
    if file.take(HOLDER_LIMIT).read_to_string(&mut text).is_err() {
        return Holder::default();
    }
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    Holder {
        pid: value("pid:").and_then(|text| text.parse().ok()),
        since: value("since:").and_then(|text| text.parse().ok()),
    }
}

/// Counts one more daemon start, durably, and returns the new number (from 1).
///
/// A file that can't be read must not make the number fall back: it then becomes the seconds since 1970, which no
/// count of starts reaches.
pub(super) fn bump_epoch(root: &Root, now: Timestamp) -> Result<u64, StoreError> {
    let rel = Path::new(".conductor/epoch");
    let last = match root.read_file_beneath(rel, EPOCH_LIMIT) {
        Ok(bytes) => std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse::<u64>().ok()),
        Err(error) if error.is_not_found() => Some(0),
        Err(error @ StoreError::Symlink(_)) => return Err(error),
        Err(_) => None,
    };
    let seconds = u64::try_from(now.as_second()).unwrap_or(1);
    let next = last.and_then(|last| last.checked_add(1)).unwrap_or(seconds);
    root.write_file(rel, format!("{next}\n").as_bytes())?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_conductord_on_a_root_fails_and_names_the_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = Root::open(dir.path()).expect("a root");
        let now: Timestamp = "2026-11-22T15:11:32Z".parse().expect("a time");
        let first = root.lock_daemon(now).expect("free");
        let error = root.lock_daemon(now).expect_err("held");
        let text = error.to_string();
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
        assert!(text.contains("2026-11-22T15:11:32Z"), "{text}");
        let path = first.path().to_owned();
        drop(first);
        assert!(path.exists(), "the file stays");
        root.lock_daemon(now).expect("free again");
    }

    #[test]
    fn the_epoch_grows_with_every_start_even_when_its_file_is_damaged() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = Root::open(dir.path()).expect("a root");
        let now = Timestamp::now();
        assert_eq!(root.bump_epoch(now).expect("written"), 1);
        assert_eq!(root.bump_epoch(now).expect("written"), 2);
        std::fs::write(root.path().join(".conductor/epoch"), b"\xff\x00").expect("damage");
        let after = root.bump_epoch(now).expect("written");
        assert!(after > 1_000_000);
        assert_eq!(root.bump_epoch(now).expect("written"), after + 1);
    }
}
