//! The records of the catalog, filled by the supervisor.

use std::path::PathBuf;

use jiff::Timestamp;

use super::has_ended;
use crate::store::foreign::ForeignState;
use crate::store::ids;
use crate::store::scan::{ScannedProject, ScannedTask, TaskKind};
use crate::types::{End, EndReason, Phase, ProjectId, RunId, RunKey, RunStatus, TaskKey, TaskSpec};

/// A project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectRecord {
    /// Its id.
    pub id: ProjectId,
    /// The source tree that it is bound to.
    pub root: Option<PathBuf>,
    /// When it was made; `None` for another program's.
    pub created: Option<Timestamp>,
    /// Whether it was made by another program.
    pub foreign: bool,
    /// Why one of its files could not be read.
    pub problem: Option<String>,
    /// Revision of its latest change; given by the catalog.
    pub revision: u64,
}

/// A task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRecord {
    /// Its key.
    pub key: TaskKey,
    /// What it is to do; `None` for a foreign or unreadable task.
    pub spec: Option<TaskSpec>,
    /// Where its loop is; `None` for a foreign or unreadable task.
    pub phase: Option<Phase>,
    /// One sentence: why it is where it is.
    pub why: String,
    /// How its loop ended.
    pub end: Option<End>,
    /// Attempts made.
    pub attempts: u32,
    /// The run that lives, or is being started.
    pub current_run: Option<RunId>,
    /// The latest run that has ended.
    pub previous_run: Option<RunId>,
    /// The run whose agent started it.
    pub parent: Option<RunKey>,
    /// The tasks that its runs started, oldest first; given by the catalog.
    pub children: Vec<TaskKey>,
    /// Set if it is another program's.
    pub foreign: Option<ForeignTask>,
    /// When it was submitted.
    pub created: Timestamp,
    /// When something of it last changed.
    pub updated: Timestamp,
    /// Revision of its latest change; given by the catalog.
    pub revision: u64,
    /// Why its file could not be read.
    pub problem: Option<String>,
    /// First line of its prompt, at most 200 bytes.
    pub title: String,
    /// Time of the next attempt, while it waits for one.
    pub next_attempt: Option<Timestamp>,
}

/// What is shown of another program's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignTask {
    /// Where it seems to be.
    pub state: ForeignState,
    /// `depends_on` of its TASK-CONFIG.yaml.
    pub depends_on: Vec<String>,
}

impl TaskRecord {
    /// An empty record: no phase, no runs, everything as of `created`.
    #[must_use]
    pub fn new(key: TaskKey, created: Timestamp) -> Self {
        Self {
            key,
            spec: None,
            phase: None,
            why: String::new(),
            end: None,
            attempts: 0,
            current_run: None,
            previous_run: None,
            parent: None,
            children: Vec::new(),
            foreign: None,
            created,
            updated: created,
            revision: 0,
            problem: None,
            title: String::new(),
            next_attempt: None,
        }
    }

    /// What a scan found. For a task of ours the supervisor sets phase, why, end and attempts from the loop's state.
    #[must_use]
    pub fn from_scan<S>(task: &ScannedTask<S>) -> Self {
        let mut record = Self::new(task.key.clone(), ids::task_time(&task.key.task));
        let running = task.runs.iter().rev().find(|run| run.info.status == RunStatus::Running);
        record.current_run = running.map(|run| run.key.run.clone());
        let ended = task.runs.iter().rev().find(|run| run.info.status != RunStatus::Running);
        record.previous_run = ended.map(|run| run.key.run.clone());
        if let Some(last) = task.runs.last() {
            record.updated = last.info.end_time.unwrap_or(last.info.start_time);
        }
        match &task.kind {
            TaskKind::Own(file) => {
                record.created = file.created;
                record.updated = record.updated.max(file.created);
                record.parent = file.spec.parent.clone();
                record.spec = Some(file.spec.clone());
            }
            TaskKind::Unreadable(reason) => {
                record.why = format!("its record can't be read: {reason}");
                record.problem = Some(reason.clone());
            }
            TaskKind::Foreign { markers, state, why } => {
                record.attempts = u32::try_from(task.runs.len()).unwrap_or(u32::MAX);
                record.why = why.clone();
                record.problem = markers.problem.clone();
                record.end =
                    foreign_end(*state).map(|reason| End { reason, detail: why.clone(), time: record.updated });
                record.foreign = Some(ForeignTask { state: *state, depends_on: markers.depends_on.clone() });
            }
        }
        record
    }

    /// Whether it still has something to do, as far as is known.
    #[must_use]
    pub fn is_active(&self) -> bool {
        match &self.foreign {
            Some(foreign) => foreign.state == ForeignState::Running,
            None => !has_ended(self.phase),
        }
    }

    /// The word for where it is: a phase, the state of a foreign task, or `unknown`.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match (&self.foreign, self.phase) {
            (Some(foreign), _) => foreign.state.name(),
            (None, Some(phase)) => phase.name(),
            (None, None) => "unknown",
        }
    }
}

/// What an end of another program's task is in our words; `None`: it has none.
fn foreign_end(state: ForeignState) -> Option<EndReason> {
    match state {
        ForeignState::AllFinished => Some(EndReason::Done),
        ForeignState::Cancelled => Some(EndReason::Cancelled),
        ForeignState::Stopped => Some(EndReason::Stopped),
        _ => None,
    }
}

impl From<&ScannedProject> for ProjectRecord {
    fn from(project: &ScannedProject) -> Self {
        Self {
            id: project.id.clone(),
            root: project.files.root.clone(),
            created: project.files.created,
            foreign: !project.files.ours,
            problem: project.files.problem.clone(),
            revision: 0,
        }
    }
}
