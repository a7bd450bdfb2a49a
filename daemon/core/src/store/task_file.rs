//! `task.yaml`, version 1: our record of a task. A task without it is foreign ([`super::foreign`]).
//!
//! The envelope is the store's; the loop's state `S` belongs to [`crate::ralph`]. Nothing here decides anything.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::root::task_rel;
use super::{Root, StoreError, yaml};
use crate::types::{ProjectId, TaskId, TaskKey, TaskSpec};

/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// Name of the file in the task's folder.
pub const FILE: &str = "task.yaml";
/// Bytes of the file at most: a spec with long arguments and a page of intents of 1 MiB messages.
pub const MAX_BYTES: u64 = 64 << 20;

/// What is on disk of a task of ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(serialize = "S: Serialize", deserialize = "S: DeserializeOwned"))]
pub struct TaskFile<S> {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Its id, equal to its folder's name.
    pub task_id: TaskId,
    /// Its project, equal to the name of the folder above.
    pub project_id: ProjectId,
    /// When it was submitted (or adopted).
    pub created: Timestamp,
    /// What it is to do.
    pub spec: TaskSpec,
    /// The loop's state.
    pub state: S,
    /// Requests that made or changed it, for 24 hours each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestRecord>,
}

/// A request that was carried out, by which its repetition is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The caller's request id.
    pub id: String,
    /// Digest of its content, by which another request with the same id is told apart.
    pub digest: String,
    /// The verb: `submit`, `stop`, …
    pub verb: String,
    /// When it was carried out.
    pub time: Timestamp,
}

impl<S> TaskFile<S> {
    /// A file for a new task, without requests.
    #[must_use]
    pub fn new(key: TaskKey, created: Timestamp, spec: TaskSpec, state: S) -> Self {
        Self {
            version: VERSION,
            task_id: key.task,
            project_id: key.project,
            created,
            spec,
            state,
            requests: Vec::new(),
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> TaskKey {
        TaskKey::new(self.project_id.clone(), self.task_id.clone())
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: Option<u64>,
}

/// Reads a task's file; `None` if it has none, so that it is foreign.
///
/// # Errors
/// [`StoreError::Newer`], [`StoreError::Yaml`] with the place, or a failed read. The file stays as it is.
pub fn read<S: DeserializeOwned>(root: &Root, key: &TaskKey) -> Result<Option<TaskFile<S>>, StoreError> {
    let rel = task_rel(key).join(FILE);
    let bytes = match root.read_file_beneath(&rel, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    parse(key, &bytes).map(Some)
}

/// Understands the bytes of a `task.yaml` that lies in the folder of `key`.
///
/// # Errors
/// [`StoreError::Newer`], or [`StoreError::Yaml`] with the place.
pub fn parse<S: DeserializeOwned>(key: &TaskKey, bytes: &[u8]) -> Result<TaskFile<S>, StoreError> {
    let damaged = |source| StoreError::Yaml { path: task_rel(key).join(FILE), source };
    // Our files say their version first; only others need a parse of their own for it.
    if !bytes.starts_with(b"version: 1\n") {
        let version = yaml::from_slice::<Versioned>(bytes).map_err(damaged)?.version;
        if let Some(version) = version.filter(|version| *version > u64::from(VERSION)) {
            return Err(StoreError::Newer { path: task_rel(key).join(FILE), version, supported: VERSION });
        }
    }
    let mut file: TaskFile<S> = yaml::from_slice(bytes).map_err(damaged)?;
    // The path is the truth: a folder may have been renamed by hand.
    file.task_id = key.task.clone();
    file.project_id = key.project.clone();
    Ok(file)
}

/// The text of a task's file.
///
/// # Errors
/// A state that YAML can't express.
pub fn emit<S: Serialize>(file: &TaskFile<S>) -> Result<String, StoreError> {
    yaml::to_string(file).map_err(|source| StoreError::Yaml { path: task_rel(&file.key()).join(FILE), source })
}

/// Writes a task's file, durably. That the file there is not newer was found out by reading it at start.
///
/// # Errors
/// A state that YAML can't express, or a failed write.
pub fn write<S: Serialize>(root: &Root, file: &TaskFile<S>) -> Result<(), StoreError> {
    let rel = task_rel(&file.key()).join(FILE);
    root.write_file(rel, emit(file)?.as_bytes())
}
