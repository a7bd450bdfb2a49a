//! The root folder: where everything is, and the only door to it.
//!
//! Reads are confined to the root by the kernel (see `confined`). Writes go through [`conductor_shim::durable`] after
//! the folder has been checked the same way. What the files mean is told by the other modules of the store.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

use super::confined::{self, FileRange};
use super::{DaemonLock, StoreError, daemon_lock};
use crate::types::{ProjectId, RunKey, TaskKey};

/// Folder of conductord's own files.
pub const CONDUCTOR: &str = ".conductor";
/// Folder into which deleted folders are renamed before they are emptied, so that a deletion is one step.
const TRASH: &str = ".conductor/trash";
/// Number of the next folder in the trash.
static NEXT_IN_TRASH: AtomicU64 = AtomicU64::new(0);
/// Mode of folders: agents' output may hold secrets.
const FOLDER_MODE: u32 = 0o700;
/// Mode of files, for the same reason.
const FILE_MODE: u32 = 0o600;

/// The folder below which everything lives. Cheap to share in an `Arc`.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    folder: OwnedFd,
}

impl Root {
    /// Opens the root, creating it and `.conductor/` (mode 0700) where they are missing. Takes no lock.
    ///
    /// # Errors
    /// A folder that can't be created or opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)
            .map_err(|error| StoreError::io("create", path, error))?;
        // The way *to* the root may pass links; below it there are none.
        let path = path.canonicalize().map_err(|error| StoreError::io("resolve", path, error))?;
        let folder = File::open(&path).map_err(|error| StoreError::io("open", &path, error))?.into();
        let root = Self { path, folder };
        root.ensure_folder(Path::new(CONDUCTOR))?;
        Ok(root)
    }

    /// The absolute path of the root, free of links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes this process the one conductord of the root.
    ///
    /// # Errors
    /// [`StoreError::Locked`] with the holder if there is another; else a failure of the file system.
    pub fn lock_daemon(&self, now: Timestamp) -> Result<DaemonLock, StoreError> {
        confined::open_folder(self.fd(), Path::new(CONDUCTOR))?;
        DaemonLock::take(&self.path, self.path.join(CONDUCTOR).join("daemon.lock"), now)
    }

    /// Counts a daemon start, durably; the number grows for ever.
    ///
    /// # Errors
    /// The number can't be written.
    pub fn bump_epoch(&self, now: Timestamp) -> Result<u64, StoreError> {
        daemon_lock::bump_epoch(self, now)
    }

    /// `.conductor/NAME`, for files such as `queue.yaml` and `audit.jsonl`.
    #[must_use]
    pub fn conductor_file(&self, name: &str) -> PathBuf {
        self.path.join(CONDUCTOR).join(name)
    }

    /// The folder of a project.
    #[must_use]
    pub fn project_dir(&self, project: &ProjectId) -> PathBuf {
        self.path.join(project.as_str())
    }

    /// The folder of a task.
    #[must_use]
    pub fn task_dir(&self, task: &TaskKey) -> PathBuf {
        self.path.join(task_rel(task))
    }

    /// The folder of a run.
    #[must_use]
    pub fn run_dir(&self, run: &RunKey) -> PathBuf {
        self.path.join(run_rel(run))
    }

    /// The bus of a project.
    #[must_use]
    pub fn project_bus(&self, project: &ProjectId) -> PathBuf {
        self.project_dir(project).join("PROJECT-MESSAGE-BUS.md")
    }

    /// The bus of a task.
    #[must_use]
    pub fn task_bus(&self, task: &TaskKey) -> PathBuf {
        self.task_dir(task).join("TASK-MESSAGE-BUS.md")
    }

    /// `DONE` of a task.
    #[must_use]
    pub fn done_file(&self, task: &TaskKey) -> PathBuf {
        self.task_dir(task).join("DONE")
    }

    /// `TASK.md` of a task.
    #[must_use]
    pub fn prompt_file(&self, task: &TaskKey) -> PathBuf {
        self.task_dir(task).join("TASK.md")
    }

    /// `shim/` of a run.
    #[must_use]
    pub fn shim_dir(&self, run: &RunKey) -> PathBuf {
        self.run_dir(run).join(conductor_shim::protocol::FOLDER)
    }

    /// Opens a regular file beneath the root for reading, and says how long it is.
    ///
    /// # Errors
    /// A path that leaves the root or passes a link, no such file, not a regular file.
    pub fn open_beneath(&self, rel: impl AsRef<Path>) -> Result<(File, u64), StoreError> {
        confined::open_file(self.fd(), rel.as_ref())
    }

    /// Reads a whole regular file beneath the root.
    ///
    /// # Errors
    /// As [`Self::open_beneath`]; [`StoreError::TooLarge`] beyond `max` bytes.
    pub fn read_file_beneath(&self, rel: impl AsRef<Path>, max: u64) -> Result<Vec<u8>, StoreError> {
        confined::read_file(self.fd(), rel.as_ref(), max)
    }

    /// Opens a part of a regular file beneath the root: at most `max` bytes from `offset` on. An offset beyond the end
    /// is the end.
    ///
    /// # Errors
    /// As [`Self::open_beneath`].
    pub fn open_range(&self, rel: impl AsRef<Path>, offset: u64, max: u64) -> Result<FileRange, StoreError> {
        confined::open_range(self.fd(), rel.as_ref(), offset, max)
    }

    /// Replaces a file durably (mode 0600).
    ///
    /// # Errors
    /// A path that leaves the root or passes a link, or a failed write. See [`conductor_shim::durable::write_atomic`].
    pub fn write_file(&self, rel: impl AsRef<Path>, bytes: &[u8]) -> Result<(), StoreError> {
        let rel = rel.as_ref();
        self.check_parent(rel)?;
        let path = self.path.join(rel);
        if path.symlink_metadata().is_ok_and(|meta| !meta.is_file()) {
            return Err(StoreError::NotRegular(rel.to_owned()));
        }
        conductor_shim::durable::write_atomic(&path, bytes, FILE_MODE)
            .map_err(|error| StoreError::io("write", rel, error))
    }

    /// Makes a folder (mode 0700) that must be new, and makes its name durable.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] inside [`StoreError::Io`] if the name is taken; others as for writing.
    pub fn create_folder(&self, rel: impl AsRef<Path>) -> Result<(), StoreError> {
        let rel = rel.as_ref();
        let parent = self.check_parent(rel)?;
        DirBuilder::new()
            .mode(FOLDER_MODE)
            .create(self.path.join(rel))
            .map_err(|error| StoreError::io("create", rel, error))?;
        parent.sync_all().map_err(|error| StoreError::io("sync", rel, error))
    }

    /// Makes a folder if it is missing.
    ///
    /// # Errors
    /// As [`Self::create_folder`]; a link or a file of that name.
    pub fn ensure_folder(&self, rel: impl AsRef<Path>) -> Result<(), StoreError> {
        let rel = rel.as_ref();
        match self.create_folder(rel) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                confined::open_folder(self.fd(), rel).map(drop)
            }
            other => other,
        }
    }

    /// Whether a regular file is there. Anything else of that name is an error, as is a link on the way.
    ///
    /// # Errors
    /// [`StoreError::NotRegular`], [`StoreError::Symlink`], or a failure to look.
    pub fn has_file(&self, rel: impl AsRef<Path>) -> Result<bool, StoreError> {
        match self.open_beneath(rel) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a task says that it is finished.
    ///
    /// # Errors
    /// `DONE` is there and is not a regular file, or the task's folder can't be reached.
    pub fn is_done(&self, task: &TaskKey) -> Result<bool, StoreError> {
        self.has_file(task_rel(task).join("DONE"))
    }

    /// Removes a task's folder with all that is in it. It is gone at once (a rename), then emptied.
    /// That nothing lives in it is for the caller to know.
    ///
    /// # Errors
    /// It can't be renamed, or not emptied (then it is in the trash and emptied at the next start).
    pub fn remove_task(&self, task: &TaskKey) -> Result<(), StoreError> {
        self.remove(&task_rel(task))
    }

    /// Removes what deletions that were cut short have left.
    ///
    /// # Errors
    /// The trash can't be listed or emptied.
    pub fn empty_trash(&self) -> Result<(), StoreError> {
        match std::fs::remove_dir_all(self.path.join(TRASH)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", TRASH, error)),
            _ => Ok(()),
        }
    }

    pub(super) fn remove(&self, rel: &Path) -> Result<(), StoreError> {
        let parent = self.check_parent(rel)?;
        self.ensure_folder(TRASH)?;
        // A number is never handed out twice, so that removals at the same time don't choose the same name.
        let to = loop {
            let number = NEXT_IN_TRASH.fetch_add(1, Ordering::Relaxed);
            let to = self.path.join(TRASH).join(format!("{}-{number}", std::process::id()));
            if to.symlink_metadata().is_err() {
                break to;
            }
        };
        std::fs::rename(self.path.join(rel), &to).map_err(|error| StoreError::io("remove", rel, error))?;
        parent.sync_all().map_err(|error| StoreError::io("sync", rel, error))?;
        // Follows no links (std's promise), so a link in the tree costs the link alone.
        std::fs::remove_dir_all(&to).map_err(|error| StoreError::io("remove", rel, error))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Opens the folder that holds `rel`, so that it is known to be a real folder beneath the root.
    fn check_parent(&self, rel: &Path) -> Result<File, StoreError> {
        confined::check_relative(rel)?;
        match rel.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => Ok(confined::open_folder(self.fd(), parent)?.into()),
            _ => self.folder.try_clone().map(File::from).map_err(|error| StoreError::io("open", rel, error)),
        }
    }
}

/// The path of a task's folder, relative to the root.
#[must_use]
pub fn task_rel(task: &TaskKey) -> PathBuf {
    Path::new(task.project.as_str()).join(task.task.as_str())
}

/// The path of a run's folder, relative to the root.
#[must_use]
pub fn run_rel(run: &RunKey) -> PathBuf {
    task_rel(&run.task).join("runs").join(run.run.as_str())
}
