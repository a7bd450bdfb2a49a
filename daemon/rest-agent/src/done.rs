//! `DONE`: the one file that this program writes.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use conductor_shim::durable;

/// Mode of the file: whoever may read the task's folder may know that the task is finished.
const MODE: u32 = 0o644;

/// Creates `path` durably: it and its name are on disk when the call returns. A regular file that is there already is
/// left as it is.
///
/// # Errors
/// Those of creating and fsyncing; `AlreadyExists` if something else than a regular file is there.
pub fn create(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(MODE).open(path) {
        Ok(file) => file.sync_all()?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::symlink_metadata(path)?.is_file() => {}
        Err(error) => return Err(error),
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    durable::fsync_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_is_a_regular_file_and_nothing_that_was_there_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("DONE");
        create(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        fs::write(&path, "the agent's words").unwrap();
        create(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"the agent's words");
    }

    #[test]
    fn a_folder_or_a_link_in_the_place_of_done_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("DONE");
        fs::create_dir(&path).unwrap();
        assert_eq!(create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert_eq!(create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!folder.path().join("elsewhere").exists());
        assert!(create(&folder.path().join("missing/DONE")).is_err());
    }
}
