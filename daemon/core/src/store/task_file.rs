//! `task.yaml`, version 1: our record of a task. A task without it is foreign ([`super::foreign`]).
//!
//! The envelope is the store's; the loop's state `S` belongs to [`crate::ralph`] and the bus position `P` of an intent
//! to [`crate::bus`]. Nothing here decides anything.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::root::task_rel;
use super::{Root, StoreError, yaml};
use crate::types::{Link, MessageDraft, Parent, ProjectId, RunId, TaskId, TaskKey, TaskSpec};

/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// Name of the file in the task's folder.
pub const FILE: &str = "task.yaml";
/// Bytes of the file at most: a spec with long arguments and a page of intents of 1 MiB messages.
pub const MAX_BYTES: u64 = 64 << 20;

/// What is on disk of a task of ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(serialize = "S: Serialize, P: Serialize", deserialize = "S: DeserializeOwned, P: DeserializeOwned"))]
pub struct TaskFile<S, P = yaml::Value> {
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
    /// Bus entries that are promised and perhaps not written yet.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub posts: Vec<PostIntent<P>>,
    /// Requests that made or changed it, for 24 hours each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestRecord>,
}

/// A bus entry that is recorded before it is written, so that recovery can write it exactly once: it looks for `key`
/// from `position` on, and posts only if the key is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(serialize = "P: Serialize", deserialize = "P: DeserializeOwned"))]
pub struct PostIntent<P = yaml::Value> {
    /// Names the state change; unique within the bus.
    pub key: String,
    /// The bus.
    pub bus: PostBus,
    /// A place in that bus at or before which the entry can't be.
    pub position: P,
    /// What is to be written.
    pub draft: Draft,
}

/// Which bus, seen from the task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum PostBus {
    /// The task's own.
    Task,
    /// Its project's.
    Project,
    /// That of the task whose run started it.
    ParentTask {
        /// That task.
        task: TaskKey,
    },
}

/// [`MessageDraft`] as it lies on disk, without its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    kind: String,
    project: ProjectId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<TaskId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<RunId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issue: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parents: Vec<DraftParent>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    links: Vec<DraftLink>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    meta: BTreeMap<String, String>,
    body: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DraftParent {
    id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    meta: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DraftLink {
    url: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    label: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kind: String,
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

impl<P> PostIntent<P> {
    /// Records a draft. Its key is `key`, whatever the draft said.
    #[must_use]
    pub fn new(key: String, bus: PostBus, position: P, draft: MessageDraft) -> Self {
        Self { key, bus, position, draft: draft.into() }
    }

    /// The message to write, with its key.
    #[must_use]
    pub fn message(&self) -> MessageDraft {
        let draft = self.draft.clone();
        MessageDraft {
            kind: draft.kind,
            project: draft.project,
            task: draft.task,
            run: draft.run,
            issue: draft.issue,
            parents: draft.parents.into_iter().map(|p| Parent { id: p.id, kind: p.kind, meta: p.meta }).collect(),
            links: draft.links.into_iter().map(|l| Link { url: l.url, label: l.label, kind: l.kind }).collect(),
            meta: draft.meta,
            body: draft.body,
            key: Some(self.key.clone()),
        }
    }
}

impl From<MessageDraft> for Draft {
    fn from(draft: MessageDraft) -> Self {
        Self {
            kind: draft.kind,
            project: draft.project,
            task: draft.task,
            run: draft.run,
            issue: draft.issue,
            parents: draft.parents.into_iter().map(|p| DraftParent { id: p.id, kind: p.kind, meta: p.meta }).collect(),
            links: draft.links.into_iter().map(|l| DraftLink { url: l.url, label: l.label, kind: l.kind }).collect(),
            meta: draft.meta,
            body: draft.body,
        }
    }
}

impl<S, P> TaskFile<S, P> {
    /// A file for a new task, without intents and requests.
    #[must_use]
    pub fn new(key: TaskKey, created: Timestamp, spec: TaskSpec, state: S) -> Self {
        Self {
            version: VERSION,
            task_id: key.task,
            project_id: key.project,
            created,
            spec,
            state,
            posts: Vec::new(),
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
pub fn read<S: DeserializeOwned, P: DeserializeOwned>(
    root: &Root,
    key: &TaskKey,
) -> Result<Option<TaskFile<S, P>>, StoreError> {
    let rel = task_rel(key).join(FILE);
    let bytes = match root.read_file_beneath(&rel, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let damaged = |source| StoreError::Yaml { path: rel.clone(), source };
    // Our files say their version first; only others need a parse of their own for it.
    if !bytes.starts_with(b"version: 1\n") {
        let version = yaml::from_slice::<Versioned>(&bytes).map_err(damaged)?.version;
        if let Some(version) = version.filter(|version| *version > u64::from(VERSION)) {
            return Err(StoreError::Newer { path: rel, version, supported: VERSION });
        }
    }
    let mut file: TaskFile<S, P> = yaml::from_slice(&bytes).map_err(damaged)?;
    // The path is the truth: a folder may have been renamed by hand.
    file.task_id = key.task.clone();
    file.project_id = key.project.clone();
    Ok(Some(file))
}

/// Writes a task's file, durably. That the file there is not newer was found out by reading it at start.
///
/// # Errors
/// A state that YAML can't express, or a failed write.
pub fn write<S: Serialize, P: Serialize>(root: &Root, file: &TaskFile<S, P>) -> Result<(), StoreError> {
    let rel = task_rel(&file.key()).join(FILE);
    let text = yaml::to_string(file).map_err(|source| StoreError::Yaml { path: rel.clone(), source })?;
    root.write_file(rel, text.as_bytes())
}
