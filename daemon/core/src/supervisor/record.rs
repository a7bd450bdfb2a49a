//! From the durable state of a loop to what readers see of the task.

use crate::ralph::LoopState;
use crate::store::{TaskFile, TaskRecord};
use crate::types::{EndReason, Phase, Timestamp};

/// `task.yaml` as the supervisor uses it.
pub(super) type File = TaskFile<LoopState>;

/// The record of a task of ours.
pub(super) fn task(file: &File, now: Timestamp) -> TaskRecord {
    let state = &file.state;
    let mut record = TaskRecord::new(file.key(), file.created);
    record.title = file.spec.title.clone();
    record.spec = Some(file.spec.clone());
    record.phase = Some(state.phase);
    record.why = why(file);
    record.end = state.end.clone();
    record.attempts = state.attempt;
    record.current_run = state.run.clone();
    record.previous_run = state.last.as_ref().map(|last| last.run.clone());
    record.parent = file.spec.parent.clone();
    record.next_attempt = state.not_before.filter(|_| matches!(state.phase, Phase::Backoff | Phase::WaitingLimit));
    record.updated = now;
    record
}

/// One sentence: why the task is where it is, and what comes next.
fn why(file: &File) -> String {
    let state = &file.state;
    let last = state.last.as_ref().map(|last| format!("the last run ended with {}", last.describe()));
    match state.phase {
        Phase::Queued => "it waits for a free slot".to_owned(),
        Phase::Starting => format!("attempt {} is being prepared", state.attempt + 1),
        Phase::Running => match &state.run {
            Some(_) if state.interrupting => "its turn is being ended, so that it reads a message".to_owned(),
            Some(_) => format!("attempt {} of at most {} runs", state.attempt, file.spec.max_restarts),
            None => format!("attempt {} has ended and is being judged", state.attempt),
        },
        Phase::Backoff => {
            let reason = state.trouble.clone().or(last).unwrap_or_else(|| "it pauses".to_owned());
            format!("{reason}; the next attempt comes by itself")
        }
        Phase::WaitingLimit => match &state.limit {
            Some(limit) => format!(
                "{}; it goes on by itself, `conductorctl task resume {}` tries at once",
                limit.describe(),
                file.task_id
            ),
            None => "it waits for a usage limit".to_owned(),
        },
        Phase::WaitingChildren => "DONE is there; it waits for tasks that it started".to_owned(),
        Phase::Stopping => match &state.intent {
            Some(intent) => format!("{} asked to end it; its run is being ended", intent.who),
            None => "its run is being ended".to_owned(),
        },
        Phase::Finished => match &state.end {
            Some(end) if end.reason == EndReason::Done => end.detail.clone(),
            Some(end) if end.reason == EndReason::MaxRestarts => {
                format!("{}; `conductorctl task resume {}` gives it new attempts", end.detail, file.task_id)
            }
            Some(end) if end.reason == EndReason::Stopped => {
                format!("{}; `conductorctl task resume {}` continues it", end.detail, file.task_id)
            }
            Some(end) => end.detail.clone(),
            None => "it has ended".to_owned(),
        },
    }
}
