//! One execution of one agent.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Permissions, ProjectId, RunId, RunKey, TaskId, TaskKey};

/// The four states that `run-info.yaml` version 1 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It has no end yet.
    Running,
    /// It ended with exit code 0.
    Completed,
    /// It ended otherwise.
    Failed,
    /// Its file can't be read, or its end is not known.
    Unknown,
}

/// Whose process it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ownership {
    /// Started by a supervisor.
    #[default]
    Managed,
    /// Started by hand and only recorded; it can't be stopped by us.
    External,
}

/// Why a run ended. Every run of ours ends in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Exit code 0.
    Completed,
    /// Another exit code.
    Failed,
    /// Ended by a signal that we did not send.
    Signaled,
    /// Ended by the kernel for want of memory.
    Oom,
    /// Its wall time, or its time without any sign of life, was used up.
    TimedOut,
    /// A log reached its limit.
    LogLimit,
    /// We were asked to stop it.
    Stopped,
    /// The vendor refused more work for now.
    UsageLimited,
    /// The vendor refused the login.
    AuthFailed,
    /// The program could not be executed.
    SpawnFailed,
    /// What happened can't be known.
    Lost,
}

impl Outcome {
    /// The name used on disk, on the wire and on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Signaled => "signaled",
            Self::Oom => "oom",
            Self::TimedOut => "timed_out",
            Self::LogLimit => "log_limit",
            Self::Stopped => "stopped",
            Self::UsageLimited => "usage_limited",
            Self::AuthFailed => "auth_failed",
            Self::SpawnFailed => "spawn_failed",
            Self::Lost => "lost",
        }
    }
}

/// The record of one run: `run-info.yaml` in memory. Optional text is `None` where the key is absent.
#[derive(Clone, Debug, PartialEq)]
pub struct RunInfo {
    /// The run's id, equal to its folder's name.
    pub run_id: RunId,
    /// The run whose agent started this task or run.
    pub parent_run_id: Option<RunId>,
    /// The attempt before this one.
    pub previous_run_id: Option<RunId>,
    /// Its project.
    pub project_id: ProjectId,
    /// Its task.
    pub task_id: TaskId,
    /// The agent's name in the configuration.
    pub agent: String,
    /// Whose process it is.
    pub ownership: Ownership,
    /// The agent's pid; 0 until it is known.
    pub pid: i32,
    /// The agent's process group; 0 until it is known.
    pub pgid: i32,
    /// When it was started.
    pub start_time: Timestamp,
    /// When it ended; `None` while it runs.
    pub end_time: Option<Timestamp>,
    /// Exit code; -1 while it runs, after a signal, and where it is not known.
    pub exit_code: i32,
    /// State.
    pub status: RunStatus,
    /// Working folder.
    pub cwd: Option<String>,
    /// `prompt.md`.
    pub prompt_path: Option<String>,
    /// `output.md`.
    pub output_path: Option<String>,
    /// `agent-stdout.txt`.
    pub stdout_path: Option<String>,
    /// `agent-stderr.txt`.
    pub stderr_path: Option<String>,
    /// The command for people; never with a secret.
    pub commandline: Option<String>,
    /// One sentence on a failure.
    pub error_summary: Option<String>,
    /// What the program says of its version, `""` if unknown.
    pub agent_version: String,

    // Our keys: absent in conductor-loop's files.
    /// Why it ended; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// Its ordinal within its task's loop, from 1; 0 for a foreign run.
    pub attempt: u32,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// The vendor's session id.
    pub session_id: Option<String>,
    /// The model that answered.
    pub model: Option<String>,
    /// Tokens and cost of this run; `None` if the vendor did not say.
    pub usage: Option<Usage>,
    /// The same by model, where the vendor tells them apart.
    pub models: BTreeMap<String, Usage>,
    /// Reading of the vendor's counter of the whole thread at the end of this run, where it counts so: the next run of
    /// that session is charged with what comes on top.
    pub thread_usage: Option<Usage>,
    /// What refused more work and so ended it.
    pub limit: Option<Limit>,
    /// The account that it used, under which limits are kept.
    pub account: Option<String>,
    /// Login or key that the agent used, for people: `login`, `key from token_file`.
    pub login: Option<String>,
    /// What it may write to; `None`: not known.
    pub permissions: Option<Permissions>,
    /// What was done for it that nobody asked for, one sentence each.
    pub notes: Vec<String>,
    /// Absolute path of the program.
    pub program: Option<String>,
    /// Limits in force.
    pub limits: Limits,
    /// Mechanism by which the tree is ended: `cgroup` or `walk`; `None` until it is known.
    pub tier: Option<String>,
    /// What was left of the tree when the leader had ended.
    pub stragglers: Vec<Straggler>,
    /// Who asked for the stop, and why.
    pub stop_reason: Option<String>,
    /// Bytes of standard output.
    pub stdout_bytes: Option<u64>,
    /// Bytes of standard error.
    pub stderr_bytes: Option<u64>,
    /// User and system CPU time in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Largest resident set of a process, KiB.
    pub max_rss_kib: Option<u64>,
    /// Since when it has shown no sign of life, once that is worth a warning. Not on disk: it is learned anew by each
    /// conductord.
    pub idle_since: Option<Timestamp>,
}

impl RunInfo {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> RunKey {
        TaskKey::new(self.project_id.clone(), self.task_id.clone()).run(self.run_id.clone())
    }

    /// Whether it has ended, in whatever way.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.status != RunStatus::Running
    }
}

/// Limits of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "opt_millis")]
    pub wall_time: Option<Duration>,
    /// Bytes of each log; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    /// Time without a sign of life after which its task is warned; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "opt_millis")]
    pub idle_warn: Option<Duration>,
    /// Time without a sign of life after which it is ended; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "opt_millis")]
    pub idle_timeout: Option<Duration>,
}

/// A process that was left over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Straggler {
    /// Its pid.
    pub pid: i32,
    /// Its command name.
    pub name: String,
    /// Whether it is gone.
    pub ended: bool,
}

/// Tokens and cost of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Input tokens that no cache served.
    pub input: u64,
    /// Input tokens read from a cache.
    pub cache_read: u64,
    /// Input tokens written to a cache.
    pub cache_write: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
    /// Output tokens that were reasoning; 0 where the vendor does not tell them apart.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reasoning: u64,
    /// What it cost; `None`: unknown, which is not zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

impl Usage {
    /// Adds tokens and money. A sum of which some part is unknown is partial; only a sum of nothing known has no cost.
    pub fn add(&mut self, other: &Self) {
        let empty = self.tokens() == 0 && self.cost.is_none();
        self.cost = match (self.cost, other.cost) {
            (Some(a), Some(b)) => Some(Cost { usd: a.usd + b.usd, kind: a.kind.weaker(b.kind) }),
            (None, Some(b)) if empty => Some(b),
            (Some(a), None) if other.tokens() == 0 => Some(a),
            (Some(known), None) | (None, Some(known)) => Some(Cost { kind: CostKind::Partial, ..known }),
            (None, None) => None,
        };
        let sum = |a: &mut u64, b: u64| *a = a.saturating_add(b);
        sum(&mut self.input, other.input);
        sum(&mut self.cache_read, other.cache_read);
        sum(&mut self.cache_write, other.cache_write);
        sum(&mut self.output, other.output);
        sum(&mut self.reasoning, other.reasoning);
    }

    /// What was used beyond an earlier reading of the same counter; a counter that fell began anew and counts whole.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let fell = self.input < earlier.input
            || self.cache_read < earlier.cache_read
            || self.cache_write < earlier.cache_write
            || self.output < earlier.output;
        if fell {
            return self.clone();
        }
        Self {
            input: self.input - earlier.input,
            cache_read: self.cache_read - earlier.cache_read,
            cache_write: self.cache_write - earlier.cache_write,
            output: self.output - earlier.output,
            reasoning: self.reasoning.saturating_sub(earlier.reasoning),
            cost: match (self.cost, earlier.cost) {
                (Some(now), Some(then)) if now.usd >= then.usd => Some(Cost { usd: now.usd - then.usd, ..now }),
                (Some(now), None) if earlier.tokens() == 0 => Some(now),
                _ => None,
            },
        }
    }

    /// All tokens, whatever their price.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write).saturating_add(self.output)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A refusal of work by a vendor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What ran out.
    pub kind: LimitKind,
    /// When there is more, if the vendor said so believably (in the future, within 8 days).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<Timestamp>,
    /// How it is known.
    pub source: LimitSource,
}

impl Limit {
    /// The outcome of a run that it ended. An overloaded service is no limit of the account: the run failed.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.kind {
            LimitKind::Window | LimitKind::Daily | LimitKind::Spend | LimitKind::Credits => Outcome::UsageLimited,
            LimitKind::Auth => Outcome::AuthFailed,
            LimitKind::Overload => Outcome::Failed,
        }
    }
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// The allowance of a window of time (five hours, a week, a minute).
    Window,
    /// The allowance of a day.
    Daily,
    /// A limit of money that somebody set, which ends by itself.
    Spend,
    /// The account is out of credits: waiting helps only if somebody pays.
    Credits,
    /// The service is overloaded or out of order.
    Overload,
    /// The login is not accepted, or may not do this: waiting does not help.
    Auth,
}

impl LimitKind {
    /// The name used on disk, on the wire and on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Daily => "daily",
            Self::Spend => "spend",
            Self::Credits => "credits",
            Self::Overload => "overload",
            Self::Auth => "auth",
        }
    }
}

/// How a limit is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitSource {
    /// From a field of the vendor's stream.
    Json,
    /// From the program's standard error.
    Stderr,
    /// From words for people within the stream.
    Text,
}

impl LimitSource {
    /// The name used on disk, on the wire and on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Stderr => "stderr",
            Self::Text => "text",
        }
    }
}

/// What numbers of tokens and cost cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageScope {
    /// One request or turn: to be added up.
    Delta,
    /// The process from its start on.
    #[default]
    Process,
    /// The vendor's thread from its first turn on, earlier processes included.
    Thread,
}

/// Money.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// US dollars.
    pub usd: f64,
    /// How sure that is.
    pub kind: CostKind,
}

/// How sure a cost is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostKind {
    /// As billed.
    Exact,
    /// The vendor's or our estimate.
    Estimated,
    /// Part of the use is missing from it.
    Partial,
}

impl CostKind {
    /// The name used on disk, on the wire and on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Estimated => "estimated",
            Self::Partial => "partial",
        }
    }

    /// What a sum of two is.
    #[must_use]
    pub fn weaker(self, other: Self) -> Self {
        match (self, other) {
            (Self::Partial, _) | (_, Self::Partial) => Self::Partial,
            (Self::Estimated, _) | (_, Self::Estimated) => Self::Estimated,
            (Self::Exact, Self::Exact) => Self::Exact,
        }
    }
}

/// Durations on disk are whole milliseconds.
pub(crate) mod opt_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        value.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}

/// As [`opt_millis`], for a value that is always there.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        u64::try_from(value.as_millis()).unwrap_or(u64::MAX).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(from)?))
    }
}
