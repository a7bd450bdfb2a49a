//! The words of the domain: identifiers, runs, tasks and messages. No behaviour, no I/O.

mod id;
mod message;
mod run;
mod task;

pub use id::{IdError, MessageId, ProjectId, RunId, RunKey, TaskId, TaskKey};
pub use message::{Link, Message, MessageDraft, Parent};
pub use run::{
    Cost, CostKind, Limit, LimitKind, LimitSource, Limits, Outcome, Ownership, RunInfo, RunStatus, Straggler, Usage,
    UsageScope,
};
pub use task::{
    ChildPolicy, DEFAULT_CHILD_WAIT, DEFAULT_MAX_RESTARTS, DEFAULT_RESTART_DELAY, End, EndReason, ExitPolicy,
    IntentKind, Mode, Permissions, Phase, StopIntent, TaskSpec,
};

pub use jiff::Timestamp;
