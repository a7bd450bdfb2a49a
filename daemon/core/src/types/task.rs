//! A piece of work and the words of its loop.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::RunKey;
use super::run::{millis, opt_millis};

/// Attempts that a loop makes unless its spec says otherwise (as in conductor-loop).
pub const DEFAULT_MAX_RESTARTS: u32 = 100;
/// Pause between an exit without `DONE` and the next attempt (as in conductor-loop).
pub const DEFAULT_RESTART_DELAY: Duration = Duration::from_secs(1);
/// How long `DONE` waits for live children (as in conductor-loop).
pub const DEFAULT_CHILD_WAIT: Duration = Duration::from_secs(300);

/// What a task is to do. Fixed when it is submitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// First line of the prompt, for lists; at most 200 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// The agent's name in the configuration.
    pub agent: String,
    /// Loop, or a single run.
    #[serde(default)]
    pub mode: Mode,
    /// Working folder of its agents, absolute.
    pub cwd: String,
    /// Model; `None`: the agent's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Further arguments for the agent's program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
    /// The run whose agent submitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RunKey>,
    /// Nesting: 0 for a task of a person, else one more than its parent's.
    #[serde(default)]
    pub depth: u32,
    /// Attempts at most.
    pub max_restarts: u32,
    /// Pause after an exit without `DONE`.
    #[serde(with = "millis")]
    pub restart_delay: Duration,
    /// How long `DONE` waits for live children.
    #[serde(with = "millis")]
    pub child_wait_timeout: Duration,
    /// What happens then.
    #[serde(default)]
    pub on_child_timeout: ChildPolicy,
    /// Wall time of one run.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "opt_millis")]
    pub wall_time: Option<Duration>,
    /// Bytes of each log of one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_limit: Option<u64>,
    /// Time without a sign of life after which a run is warned of; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "opt_millis")]
    pub idle_warn: Option<Duration>,
    /// Time without a sign of life after which a run is ended; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "opt_millis")]
    pub idle_timeout: Option<Duration>,
    /// What happens to processes that an agent leaves behind.
    #[serde(default)]
    pub on_exit: ExitPolicy,
    /// What its agents may write to; `None`: as their configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Permissions>,
    /// It tries its agent out: it starts although the account takes no work for now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probe: bool,
}

/// What an agent may write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    /// Its working folder, its task's folder, its vendor's own state, and a private `/tmp`.
    Confined,
    /// Whatever its user may.
    Full,
}

impl Permissions {
    /// The name used on disk, on the wire and on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Confined => "confined",
            Self::Full => "full",
        }
    }
}

/// Loop or single run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Restart until `DONE`.
    #[default]
    Loop,
    /// One run; its exit is the task's end.
    Once,
}

/// What happens to live children when a finished task has waited long enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildPolicy {
    /// The task ends; they go on, owned and visible.
    #[default]
    Detach,
    /// They are stopped, then the task ends.
    Stop,
    /// The task waits on.
    Wait,
}

/// What happens to processes that an agent leaves behind when it ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitPolicy {
    /// They are ended.
    #[default]
    Sweep,
    /// They are left and named.
    Report,
    /// They are left.
    Keep,
}

/// Where a loop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It waits for a slot.
    Queued,
    /// A run is being prepared and spawned.
    Starting,
    /// A run lives.
    Running,
    /// It waits for the time of its next attempt.
    Backoff,
    /// It waits until its account takes work again.
    WaitingLimit,
    /// `DONE` is there; children still live.
    WaitingChildren,
    /// Its run is being ended.
    Stopping,
    /// It has an end.
    Finished,
}

impl Phase {
    /// The name used on disk, on the wire and on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::WaitingLimit => "waiting_limit",
            Self::WaitingChildren => "waiting_children",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
        }
    }
}

/// Why a loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The agent wrote `DONE` (or its only run completed).
    Done,
    /// All attempts were used, or the only run failed.
    MaxRestarts,
    /// A stop was asked for; it can be resumed.
    Stopped,
    /// It was cancelled for good.
    Cancelled,
    /// Something that only a person can put right.
    NeedsAttention,
}

impl EndReason {
    /// The name used on disk, on the wire and on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::MaxRestarts => "max_restarts",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
            Self::NeedsAttention => "needs_attention",
        }
    }
}

/// The end of a loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// One sentence, which for `needs_attention` names the command that leaves it.
    pub detail: String,
    /// When.
    pub time: Timestamp,
}

/// Stop or cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentKind {
    /// It can be resumed.
    Stop,
    /// It is final.
    Cancel,
}

/// A wish to stop that no loop, queue or recovery overrides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StopIntent {
    /// Stop or cancel.
    pub kind: IntentKind,
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// When.
    pub time: Timestamp,
}
