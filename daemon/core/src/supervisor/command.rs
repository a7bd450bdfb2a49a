//! What can be asked of the supervisor, and how it refuses.

use std::path::PathBuf;
use std::time::Duration;

use crate::agents::PrepareError;
use crate::bus::BusError;
use crate::types::{ChildPolicy, ExitPolicy, IdError, Mode, Permissions, ProjectId, RunKey, TaskId, TaskKey};

/// Longest prompt in bytes (DESIGN §7).
pub const MAX_PROMPT: usize = 16 * 1024 * 1024;

/// Longest request id in bytes.
pub const MAX_REQUEST_ID: usize = 128;

/// Who asks. Rights were checked before; this is for records and for what a call inherits from its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// For people: `dev (uid 1000, pid 4711)`, `run 2026…`.
    pub who: String,
    /// The run from inside which the call came.
    pub run: Option<RunKey>,
}

/// A new task. `None` means the configured default.
#[derive(Clone, Debug, Default)]
pub struct Submit {
    /// Its project; `None`: the caller's run's project.
    pub project: Option<ProjectId>,
    /// The whole id, or `None`.
    pub task: Option<TaskId>,
    /// Last part of the id, or `None`: from the prompt's words.
    pub slug: Option<String>,
    /// The prompt.
    pub prompt: String,
    /// What it is to do.
    pub spec: SpecDraft,
    /// The run that submits; `None`: the caller's run.
    pub parent: Option<RunKey>,
    /// For idempotency.
    pub request_id: Option<String>,
}

/// The parts of a [`crate::types::TaskSpec`] that a caller may set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpecDraft {
    /// Agent's name.
    pub agent: Option<String>,
    /// Loop or single run.
    pub mode: Mode,
    /// Working folder.
    pub cwd: Option<PathBuf>,
    /// Model.
    pub model: Option<String>,
    /// Further arguments.
    pub extra_args: Vec<String>,
    /// Attempts at most.
    pub max_restarts: Option<u32>,
    /// Pause between attempts.
    pub restart_delay: Option<Duration>,
    /// How long `DONE` waits for children.
    pub child_wait_timeout: Option<Duration>,
    /// What then.
    pub on_child_timeout: Option<ChildPolicy>,
    /// Wall time of a run.
    pub wall_time: Option<Duration>,
    /// Bytes of a log.
    pub log_limit: Option<u64>,
    /// Time without a sign of life until a warning; zero: never.
    pub idle_warn: Option<Duration>,
    /// Time without a sign of life until the end; zero: never.
    pub idle_timeout: Option<Duration>,
    /// What happens to left-over processes.
    pub on_exit: ExitPolicy,
    /// What the agents may write to; `None`: as their configuration says.
    pub permissions: Option<Permissions>,
    /// It tries its agent out: it starts although the account takes no work for now.
    pub probe: bool,
}

/// A stop of a task or a run.
#[derive(Clone, Debug, Default)]
pub struct StopRequest {
    /// Why, for people.
    pub reason: String,
    /// Pause between SIGINT and SIGTERM; `None`: configured.
    pub int_grace: Option<Duration>,
    /// Pause between SIGTERM and the kill; `None`: configured.
    pub term_grace: Option<Duration>,
    /// Leave submitted tasks alone.
    pub keep_children: bool,
    /// For idempotency.
    pub request_id: Option<String>,
}

/// A resume of a task.
#[derive(Clone, Debug, Default)]
pub struct ResumeRequest {
    /// A USER message for the next attempt.
    pub message: Option<String>,
    /// For a foreign task: its spec from now on.
    pub adopt: Option<SpecDraft>,
    /// For idempotency.
    pub request_id: Option<String>,
}

/// A refusal.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A field has no valid value.
    #[error("{field}: {problem}")]
    InvalidField {
        /// Name of the field on the wire.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// No such thing.
    #[error("no {what} {name:?}{}", did_you_mean(near))]
    NotFound {
        /// `project`, `task`, `run`, `file`.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// Names that are near to it.
        near: Vec<String>,
    },
    /// A shortened id fits several.
    #[error("{name:?} fits more than one {what}: {}", candidates.join(", "))]
    Ambiguous {
        /// `task` or `run`.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// Some of what it fits.
        candidates: Vec<String>,
    },
    /// The id is taken.
    #[error("{what} {name:?} exists already")]
    AlreadyExists {
        /// `project` or `task`.
        what: &'static str,
        /// The id.
        name: String,
    },
    /// The request id was used with another content.
    #[error("the request id {0:?} was used with another content")]
    RequestIdReused(String),
    /// The resource is not in a state that allows this.
    #[error("{0}")]
    WrongState(String),
    /// It belongs to another program.
    #[error("{0} belongs to another program; `conductorctl task resume {0}` adopts it")]
    Foreign(TaskKey),
    /// A named limit is reached.
    #[error("{0}")]
    Limit(String),
    /// The disk is full.
    #[error("the disk of {} is full; free some space and try again", path.display())]
    DiskFull {
        /// What could not be written.
        path: PathBuf,
    },
    /// The agent can't be used.
    #[error(transparent)]
    Agent(#[from] PrepareError),
    /// The bus refused.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The daemon is ending.
    #[error("the daemon is ending")]
    ShuttingDown,
    /// The file system refused.
    #[error("failed to {action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

fn did_you_mean(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => format!("; did you mean {}?", names.join(" or ")),
    }
}

impl CommandError {
    /// An invalid field.
    pub fn field(field: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::InvalidField { field, problem: problem.to_string() }
    }

    /// An invalid id in `field`.
    #[must_use]
    pub fn id(field: &'static str, error: &IdError) -> Self {
        Self::field(field, error)
    }
}
