//! The durable state of a loop.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::PostIntent;
use crate::types::{End, Limit, LimitKind, MessageId, Outcome, Phase, RunId, StopIntent};

/// What `task.yaml` keeps of a loop. Everything else follows from it and from the files of its runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoopState {
    /// Where the loop is.
    pub phase: Phase,
    /// Ordinal of the latest attempt; 0 before the first.
    pub attempt: u32,
    /// Attempts begun since the task was submitted or resumed: what `max_restarts` bounds.
    pub used: u32,
    /// Place in the order of the queue; compared among queued tasks.
    #[serde(default)]
    pub queue_order: u64,
    /// The run that lives, or is being started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The latest run that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastRun>,
    /// Crashes in a row.
    #[serde(default)]
    pub crashes: u32,
    /// The next run continues the latest attempt instead of beginning one.
    #[serde(default)]
    pub continue_attempt: bool,
    /// The vendor's session in which a continued attempt goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// When a pause ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Why no run could be started the last time, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What the latest pause in [`Phase::WaitingLimit`] waits for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<AccountLimit>,
    /// Until when `DONE` waits for children.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_deadline: Option<Timestamp>,
    /// A wish that nothing here overrides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<StopIntent>,
    /// The end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// Messages up to this one were carried by a prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<MessageId>,
    /// Value of `heard` before the current run, to go back to if it never starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_before: Option<MessageId>,
    /// A person asked to end the turn and to go on with a message at once.
    #[serde(default)]
    pub interrupting: bool,
    /// Number of ends so far: makes the keys of an end's entries unique across resumes.
    #[serde(default)]
    pub ends: u32,
    /// Entries not known to be posted yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbox: Vec<PostIntent>,
}

impl LoopState {
    /// A task that was just submitted.
    #[must_use]
    pub fn new(queue_order: u64) -> Self {
        Self {
            phase: Phase::Queued,
            attempt: 0,
            used: 0,
            queue_order,
            run: None,
            last: None,
            crashes: 0,
            continue_attempt: false,
            session: None,
            not_before: None,
            trouble: None,
            limit: None,
            child_deadline: None,
            intent: None,
            end: None,
            heard: None,
            heard_before: None,
            interrupting: false,
            ends: 0,
            outbox: Vec::new(),
        }
    }

    /// Whether it needs anything of the supervisor still.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Finished && self.outbox.is_empty()
    }
}

/// The latest ended run, for the next prompt and for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastRun {
    /// The run.
    pub run: RunId,
    /// Why it ended.
    pub outcome: Outcome,
    /// Its exit code, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// One sentence on a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

impl LastRun {
    /// For people: `exit code 3`, `signal 9`, `timed_out`.
    #[must_use]
    pub fn describe(&self) -> String {
        let base = match (self.outcome, self.exit_code, self.signal) {
            (Outcome::Completed | Outcome::Failed, Some(code), _) => format!("exit code {code}"),
            (Outcome::Signaled, _, Some(signal)) => format!("signal {signal}"),
            (outcome, _, _) => outcome.name().replace('_', " "),
        };
        match &self.summary {
            // Most summaries begin with the same words.
            Some(text) if text.starts_with(&base) => text.clone(),
            Some(text) => format!("{base}: {text}"),
            None => base,
        }
    }
}

/// How a run ended, as the supervisor reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEnd {
    /// What is kept of it.
    pub last: LastRun,
    /// The vendor's session, if it told one.
    pub session: Option<String>,
    /// It did something that shows: it ended with 0 or posted to a bus.
    pub progressed: bool,
    /// It was cut from outside: the same attempt goes on.
    pub interruption: Option<Interruption>,
    /// What refused more work.
    pub limit: Option<Limit>,
    /// The account that refused it.
    pub account: Option<String>,
    /// Last lines of standard error.
    pub stderr_tail: String,
}

/// An account that takes no more work for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountLimit {
    /// The account.
    pub account: String,
    /// What ran out.
    pub kind: LimitKind,
    /// When it is asked again.
    pub until: Timestamp,
    /// Whether the vendor named that time; else it is [`UNKNOWN_LIMIT_PAUSE`] after the refusal.
    pub known: bool,
}

impl AccountLimit {
    /// What a refusal at a time means for its account.
    #[must_use]
    pub fn new(account: String, limit: &Limit, now: Timestamp) -> Self {
        let told = limit.resets_at.filter(|at| *at > now);
        let until = told.unwrap_or_else(|| now.checked_add(UNKNOWN_LIMIT_PAUSE).unwrap_or(Timestamp::MAX));
        Self { account, kind: limit.kind, until, known: told.is_some() }
    }

    /// For people: `window limit of claude/login until 2026-11-22T18:00:00Z`.
    #[must_use]
    pub fn describe(&self) -> String {
        // Nobody plans by a fraction of a second.
        let until = Timestamp::from_second(self.until.as_second()).unwrap_or(self.until);
        let when = if self.known {
            format!("until {until}")
        } else {
            format!("until a time that is not known; asked again at {until}")
        };
        format!("{} limit of the account {} {when}", self.kind.name(), self.account)
    }
}

/// Pause after a usage limit whose end the vendor did not say.
pub const UNKNOWN_LIMIT_PAUSE: Duration = Duration::from_secs(15 * 60);

/// What cut a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// conductord died before the agent was executed.
    NeverStarted,
    /// Machine or container restarted.
    Reboot,
    /// Conductor itself ended it: a stop of the run, a shutdown.
    Asked,
    /// The vendor's session that it was to go on with is not there any more: it did nothing.
    SessionLost,
}
