//! What the files of another program (conductor-loop) mean, for a task without our `task.yaml`.
//!
//! Only looks: nothing is written, deleted or signalled, and nothing is decided about what happens next.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::liveness::Liveness;
use super::root::task_rel;
use super::{Root, StoreError, yaml};
use crate::types::{Ownership, RunInfo, RunStatus, TaskKey};

/// How long a STOP-REQUESTED with a time counts.
const STOP_VALID: SignedDuration = SignedDuration::from_secs(60);
/// Bytes of a marker file at most; those files have a few lines.
const MAX_BYTES: u64 = 64 << 10;
/// Dependencies that are read of a task.
const MAX_DEPENDENCIES: usize = 1000;

/// Where a foreign task seems to be, with the words of conductor-loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForeignState {
    /// `DONE` is there.
    AllFinished,
    /// It was cancelled.
    Cancelled,
    /// Another program runs it.
    Running,
    /// It was stopped.
    Stopped,
    /// A task that it depends on is not done.
    Blocked,
    /// All its runs completed, without `DONE`.
    Completed,
    /// All its runs failed.
    Failed,
    /// Some of its runs failed.
    PartialFailure,
    /// It has no runs.
    Idle,
    /// What its runs did can't be read.
    Unknown,
}

impl ForeignState {
    /// The name used on the wire and on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AllFinished => "all_finished",
            Self::Cancelled => "cancelled",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Blocked => "blocked",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::PartialFailure => "partial_failure",
            Self::Idle => "idle",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ForeignState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The marker files of a foreign task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Markers {
    /// `DONE` is a regular file.
    pub done: bool,
    /// STOP-REQUESTED.
    pub stop: Option<Stop>,
    /// CANCELLED, with its reason (`""` if it gives none).
    pub cancelled: Option<String>,
    /// `depends_on` of TASK-CONFIG.yaml: task ids as text, since they may have any form.
    pub depends_on: Vec<String>,
    /// Why a marker could not be read.
    pub problem: Option<String>,
}

/// A STOP-REQUESTED that can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `permanent`.
    Permanent,
    /// It counts for 60 s from this time on.
    At(Timestamp),
}

impl Stop {
    /// Whether it counts at `now`. A time in the future (a clock that was set back) counts.
    #[must_use]
    pub fn is_valid(self, now: Timestamp) -> bool {
        match self {
            Self::Permanent => true,
            Self::At(time) => now.duration_since(time) <= STOP_VALID,
        }
    }
}

#[derive(Deserialize)]
struct TaskConfig {
    #[serde(default)]
    depends_on: Vec<String>,
}

/// Reads the marker files of a task.
#[must_use]
pub fn markers(root: &Root, task: &TaskKey) -> Markers {
    let mut markers = Markers::default();
    let rel = task_rel(task);
    match root.is_done(task) {
        Ok(done) => markers.done = done,
        Err(error) => markers.problem = Some(error.to_string()),
    }
    let mut text = |name: &str| match root.read_file_beneath(rel.join(name), MAX_BYTES) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            if !error.is_not_found() {
                markers.problem.get_or_insert(error.to_string());
            }
            None
        }
    };
    let stop = text("STOP-REQUESTED");
    let cancelled = text("CANCELLED");
    let config = text("TASK-CONFIG.yaml");
    markers.stop = stop.as_deref().and_then(parse_stop);
    markers.cancelled = cancelled.as_deref().map(reason);
    match config.map(|text| yaml::from_str::<Option<TaskConfig>>(&text)) {
        None | Some(Ok(None)) => {}
        Some(Ok(Some(config))) => markers.depends_on = normalise(config.depends_on),
        Some(Err(source)) => {
            let error = StoreError::Yaml { path: rel.join("TASK-CONFIG.yaml"), source };
            markers.problem.get_or_insert(error.to_string());
        }
    }
    markers
}

/// One line: `permanent`, or a time. Anything else is no stop (so reads conductor-loop, which then deletes the file).
fn parse_stop(text: &str) -> Option<Stop> {
    match text.trim() {
        "permanent" => Some(Stop::Permanent),
        time => time.parse().ok().map(Stop::At),
    }
}

fn reason(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("reason:"));
    line.map(|line| line.trim().trim_matches('"').to_owned()).unwrap_or_default()
}

/// As conductor-loop: each entry may be a list with commas, doubles and empty ones are left out.
fn normalise(list: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for name in list.iter().flat_map(|entry| entry.split(',')).map(str::trim) {
        if !name.is_empty() && out.len() < MAX_DEPENDENCIES && !out.iter().any(|known| known == name) {
            out.push(name.to_owned());
        }
    }
    out
}

/// What a run of another program is to be shown as, when its file says `running` (or `failed` with an unknown code).
/// The file stays as it is.
pub fn reconcile(info: &mut RunInfo, done: bool, live: &Liveness) {
    match info.status {
        RunStatus::Running if live.is_alive(info.pid, info.pgid, info.start_time) => {
            info.ownership = Ownership::External;
        }
        RunStatus::Running if done => {
            info.status = RunStatus::Completed;
            if info.exit_code == -1 {
                info.exit_code = 0;
            }
            info.error_summary = Some("shown as completed: its process is gone and the task is DONE".to_owned());
        }
        RunStatus::Running => {
            info.status = RunStatus::Failed;
            if info.exit_code == 0 {
                info.exit_code = -1;
            }
            info.error_summary = Some("shown as failed: its process is gone and left no end".to_owned());
        }
        RunStatus::Failed if done && info.exit_code == -1 => {
            info.status = RunStatus::Completed;
            info.exit_code = 0;
        }
        _ => {}
    }
}

/// Where a foreign task seems to be, and one sentence on it. `runs` as shown ([`reconcile`]d), oldest first; `is_done`
/// says of a dependency whether it is done.
pub fn state<'a>(
    markers: &Markers,
    runs: impl Iterator<Item = &'a RunInfo>,
    now: Timestamp,
    is_done: impl Fn(&str) -> bool,
) -> (ForeignState, String) {
    let (mut running, mut completed, mut failed, mut unknown) = (0_usize, 0_usize, 0_usize, 0_usize);
    for run in runs {
        match run.status {
            RunStatus::Running => running += 1,
            RunStatus::Completed => completed += 1,
            RunStatus::Failed => failed += 1,
            RunStatus::Unknown => unknown += 1,
        }
    }
    let total = running + completed + failed + unknown;
    if running > 0 {
        return (ForeignState::Running, "another program runs it".to_owned());
    }
    if markers.done {
        return (ForeignState::AllFinished, "DONE is there".to_owned());
    }
    if let Some(reason) = &markers.cancelled {
        let why = if reason.is_empty() { "it was cancelled".to_owned() } else { format!("it was cancelled: {reason}") };
        return (ForeignState::Cancelled, why);
    }
    if markers.stop.is_some_and(|stop| stop.is_valid(now)) {
        return (ForeignState::Stopped, "STOP-REQUESTED is there".to_owned());
    }
    if let Some(open) = markers.depends_on.iter().find(|task| !is_done(task)) {
        return (ForeignState::Blocked, format!("it depends on {open}, which is not done"));
    }
    match (total, completed, failed) {
        (0, ..) => (ForeignState::Idle, "it has no runs".to_owned()),
        (_, 0, 0) => (ForeignState::Unknown, "none of its runs can be read".to_owned()),
        (_, _, 0) => (ForeignState::Completed, format!("{completed} of {total} runs completed, without DONE")),
        (_, 0, _) => (ForeignState::Failed, format!("{failed} of {total} runs failed, without DONE")),
        _ => (ForeignState::PartialFailure, format!("{failed} of {total} runs failed, without DONE")),
    }
}

#[cfg(test)]
mod tests;
