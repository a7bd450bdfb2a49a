//! Revisions and the latest changes, for watchers: a snapshot at a revision, then what came after it.
//!
//! The log is a ring; a watcher that falls behind it lists again. Nobody waits for a watcher.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Catalog, ProjectRecord, TaskRecord};
use crate::types::RunInfo;

/// Changes that are kept: at 400 changes a second a watcher has ten seconds to come back.
pub const CHANGE_LOG: usize = 4096;

/// One change.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its number, larger than that of every change before it.
    pub revision: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// To what: as it is now, or as it was last.
    pub object: Object,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new, or differs from before.
    Upsert,
    /// It is gone.
    Delete,
}

/// What changed.
#[derive(Clone, Debug)]
pub enum Object {
    /// A project.
    Project(Arc<ProjectRecord>),
    /// A task.
    Task(Arc<TaskRecord>),
    /// A run.
    Run(Arc<RunInfo>),
}

/// The revision is not in the log: too old, or not of this daemon start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {asked} is not kept (from {oldest} to {newest} is): list again")]
pub struct Compacted {
    /// What was asked for.
    pub asked: u64,
    /// The oldest revision after which all changes are kept.
    pub oldest: u64,
    /// The latest.
    pub newest: u64,
}

/// Everything, as of one revision.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Changes after this one are not in it.
    pub revision: u64,
    /// By id.
    pub projects: Vec<Arc<ProjectRecord>>,
    /// By project, then time.
    pub tasks: Vec<Arc<TaskRecord>>,
    /// By project, task and time.
    pub runs: Vec<Arc<RunInfo>>,
}

#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    revision: u64,
    ring: VecDeque<Change>,
}

impl ChangeLog {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The revision that the next [`Self::push`] gives.
    pub(super) fn next(&self) -> u64 {
        self.revision + 1
    }

    pub(super) fn push(&mut self, kind: ChangeKind, object: Object) {
        self.revision += 1;
        if self.ring.len() == CHANGE_LOG {
            self.ring.pop_front();
        }
        self.ring.push_back(Change { revision: self.revision, kind, object });
    }

    fn since(&self, revision: u64) -> Result<Vec<Change>, Compacted> {
        let oldest = self.revision - self.ring.len() as u64;
        if revision < oldest || revision > self.revision {
            return Err(Compacted { asked: revision, oldest, newest: self.revision });
        }
        let skip = usize::try_from(revision - oldest).unwrap_or(usize::MAX);
        Ok(self.ring.iter().skip(skip).cloned().collect())
    }
}

impl Catalog {
    /// Everything as of now: what a watcher starts with.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.read();
        Snapshot {
            revision: inner.log.revision(),
            projects: inner.projects.values().cloned().collect(),
            tasks: inner.tasks.values().cloned().collect(),
            runs: inner.runs.values().cloned().collect(),
        }
    }

    /// The changes after a revision, oldest first; none if it is the latest.
    ///
    /// # Errors
    /// [`Compacted`]: the caller takes a [`Self::snapshot`] instead.
    pub fn changes_since(&self, revision: u64) -> Result<Vec<Change>, Compacted> {
        self.read().log.since(revision)
    }
}
