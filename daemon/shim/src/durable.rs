//! Durable writes: a file is either what it was or what it is to be, whatever dies in between.
//!
//! Not for appends, and not for files that several programs write.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::failpoint;

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// Replaces `path` with `bytes`: temporary file in the same folder, write, fsync, rename, fsync of the folder.
///
/// # Errors
/// Those of the calls named above. After an error `path` is unchanged, or replaced but not yet known to be on disk.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    failpoint::hit("durable.before_write")?;
    let folder = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?.to_string_lossy();
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!(".{name}.{}-{sequence}.tmp", std::process::id()));
    let written = write_new(&temporary, bytes, mode).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        // The write's error is the one that matters; a leftover is swept by name at the next start.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    failpoint::hit("durable.after_rename")?;
    File::open(folder)?.sync_all()?;
    failpoint::hit("durable.after_dir_fsync")
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    failpoint::hit("durable.after_write")?;
    file.sync_all()?;
    failpoint::hit("durable.after_fsync")
}
