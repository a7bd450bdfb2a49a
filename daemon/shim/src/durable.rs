//! Durable writes: a file is either the old one or the new one, whatever dies, and is on disk when the call returns.
//!
//! Not here: locks ([`crate::lock`]), appends (the bus and the logs have their own rules), YAML.

use crate::failpoint;
use serde::{Serialize, de::DeserializeOwned};
use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Mode of every protocol file: they carry the agent's environment, secrets included.
pub const PRIVATE: u32 = 0o600;

/// Largest protocol file that is read, in bytes. A specification carries a whole environment, which the kernel bounds
/// at 6 MiB together with the arguments; JSON escapes can double that.
pub const MAX_RECORD_BYTES: u64 = 16 << 20;

/// Room that holds a record as they usually are, so that it is read at once and not in small pieces.
const USUAL_RECORD_BYTES: usize = 4 << 10;

/// Writes `bytes` to `path` with exactly the permission bits `mode`: temporary file in the same folder, write, fsync,
/// rename, fsync of the folder.
///
/// # Errors
/// Any error of those steps. After an error before the rename `path` is unchanged and the temporary file is removed;
/// after a crash a file `.NAME.PID.N.tmp` may stay behind, which nobody reads.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let result = write_temporary(&temporary, bytes, mode).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = result {
        // The first error is the one to report; a temporary file that stays is harmless.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    failpoint::hit("durable.after_rename")?;
    fsync_parent(path)
}

fn write_temporary(temporary: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    failpoint::hit("durable.before_write")?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW)
        .open(temporary)?;
    // The umask may have cleared bits, and an older file of that name may have had others.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    failpoint::hit("durable.after_write")?;
    file.sync_all()?;
    failpoint::hit("durable.after_fsync")
}

/// Writes `value` as JSON with mode [`PRIVATE`], as [`write_atomic`] does.
///
/// # Errors
/// As [`write_atomic`]; `InvalidData` if `value` can't be written as JSON.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_atomic(path, &to_json(value)?, PRIVATE)
}

/// The bytes that [`write_json`] would write: one line of JSON and a newline.
///
/// # Errors
/// `InvalidData` if `value` can't be written as JSON.
pub fn to_json<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a JSON file of at most [`MAX_RECORD_BYTES`]. Keys that `T` does not know are ignored.
///
/// # Errors
/// `NotFound` if there is none, `InvalidData` if it is too long or no such value, or the error of opening or reading.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let mut bytes = Vec::with_capacity(USUAL_RECORD_BYTES);
    file.take(MAX_RECORD_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_RECORD_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than any protocol file may be"));
    }
    serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// As [`read_json`], with `None` for a file that does not exist.
///
/// # Errors
/// As [`read_json`], except `NotFound`.
pub fn read_json_if_exists<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match read_json(path) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the names in `folder` durable.
///
/// # Errors
/// Those of opening and fsyncing the folder.
pub fn fsync_dir(folder: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(folder)?.sync_all()?;
    failpoint::hit("durable.after_dir_fsync")
}

fn fsync_parent(path: &Path) -> io::Result<()> {
    fsync_dir(parent(path)?)
}

fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(folder) => Ok(folder),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file")),
    }
}

/// A hidden name in the same folder, unique among the live threads of all processes that see this folder.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let suffix = format!(".{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    hidden_beside(path, &suffix)
}

fn hidden_beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(suffix);
    Ok(parent(path)?.join(hidden))
}

/// A record whose space on disk is taken now, so that writing it later can't fail on a full disk.
///
/// Until [`Preallocated::finish`] it is `.NAME.tmp` in the same folder. That name is fixed, so that whoever finishes
/// the work of a dead writer also inherits its space.
#[derive(Debug)]
pub struct Preallocated {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Preallocated {
    /// Takes `capacity` bytes for the later file `path`, or takes over what a dead writer has taken.
    ///
    /// # Errors
    /// `StorageFull` if the disk is full now, or another error of creating or allocating. What a dead writer has taken
    /// stays for [`Preallocated::unreserved`].
    pub fn create(path: &Path, capacity: u64) -> io::Result<Self> {
        let record = Self::unreserved(path)?;
        allocate(&record.file, capacity)?;
        Ok(record)
    }

    /// The same with as much space as there happens to be: for a writer that has to go on in any case.
    ///
    /// # Errors
    /// Those of opening or creating the temporary file.
    pub fn unreserved(path: &Path) -> io::Result<Self> {
        let temporary = hidden_beside(path, ".tmp")?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&temporary)?;
        Ok(Self { file, temporary, path: path.to_owned() })
    }

    /// Turns the reserved space into the file with this content, durably. May be called again after an error.
    ///
    /// # Errors
    /// Those of writing, fsync and rename; `StorageFull` only if `bytes` is longer than the capacity.
    pub fn finish(&self, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        failpoint::hit("durable.before_write")?;
        self.file.write_all_at(bytes, 0)?;
        self.file.set_len(bytes.len() as u64)?;
        failpoint::hit("durable.after_write")?;
        self.file.sync_all()?;
        failpoint::hit("durable.after_fsync")?;
        match std::fs::rename(&self.temporary, &self.path) {
            // A repeated call after the rename worked and the fsync of the folder failed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path.exists() => {}
            other => other?,
        }
        failpoint::hit("durable.after_rename")?;
        fsync_parent(&self.path)
    }

    /// Gives the space back without a record.
    pub fn discard(self) {
        // Nothing reads it; a leftover costs only its space.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, capacity: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let length = libc::off_t::try_from(capacity).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: the descriptor is open for the whole call; no pointers are passed.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Without `posix_fallocate` the space is taken by writing zeros.
#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, capacity: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let zeros = [0u8; 4096];
    let mut offset = 0;
    while offset < capacity {
        let step = (capacity - offset).min(zeros.len() as u64);
        file.write_all_at(&zeros[..step as usize], offset)?;
        offset += step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_file_with_the_mode_asked_for_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomic(&path, b"one", 0o640).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn json_round_trips_and_a_cut_file_is_invalid_data() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let value = vec!["a".to_owned(), "b\n".to_owned()];
        write_json(&path, &value).unwrap();
        assert_eq!(read_json::<Vec<String>>(&path).unwrap(), value);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() - 2 {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read_json::<Vec<String>>(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        assert!(read_json_if_exists::<Vec<String>>(&folder.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn a_symbolic_link_is_not_followed_when_reading() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("real"), "[]").unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
        assert!(read_json::<Vec<String>>(&folder.path().join("link")).is_err());
    }

    #[test]
    fn a_preallocated_record_is_complete_and_a_successor_takes_over_the_space() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exit.json");
        drop(Preallocated::create(&path, 65_536).unwrap());
        assert_eq!(std::fs::metadata(folder.path().join(".exit.json.tmp")).unwrap().len(), 65_536);
        let record = Preallocated::create(&path, 65_536).unwrap();
        assert!(!path.exists());
        record.finish(b"{}\n").unwrap();
        record.finish(b"{}\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"{}\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
