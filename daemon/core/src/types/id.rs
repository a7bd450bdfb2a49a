//! Identifiers: validated when made, so that no other module checks them again.
//!
//! | id | form |
//! | --- | --- |
//! | project | `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?` |
//! | task | `task-YYYYMMDD-HHMMSS-<slug>`, slug 3 to 50 of `[a-z0-9-]` without a dash at an end |
//! | run | `YYYYMMDD-HHMMSSffff-<pid>-<seq>`, ffff the real ten-thousandths of the second, UTC |
//! | message | `MSG-YYYYMMDD-HHMMSS-<9-digit ns>-PID<5 digits>-<4-digit seq>`, or what another program wrote |
//!
//! Tasks and runs are ordered by their time fields and numbers, never as text; messages by their place in the file.
//! (conductor-loop wrote `0000` for ffff, and compared pid and seq as text.)

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is no identifier. The message says what the form is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a project id.
    #[error("{0:?} is not a project id: 1 to 63 of a-z, 0-9 and '-', no '-' at an end")]
    Project(String),
    /// Not a task id.
    #[error("{0:?} is not a task id: task-YYYYMMDD-HHMMSS-SLUG, slug 3 to 50 of a-z, 0-9 and '-', no '-' at an end")]
    Task(String),
    /// Not a run id.
    #[error("{0:?} is not a run id: YYYYMMDD-HHMMSSffff-PID-SEQ")]
    Run(String),
    /// Not a message id.
    #[error("{0:?} is not a message id: 1 to 200 printable ASCII characters without spaces")]
    Message(String),
}

/// Length beyond which the text of a rejected id is cut in the error, so that a 10 kB id makes no 10 kB error.
const SHOWN: usize = 80;

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $error:ident, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.into())) } else { Err(IdError::$error(shown(text))) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// A project: a namespace of tasks.
    ProjectId, Project, valid_project
}
text_id! {
    /// A task within its project.
    TaskId, Task, valid_task
}
text_id! {
    /// A run within its task.
    RunId, Run, valid_run
}
text_id! {
    /// A message of a bus. Other programs' ids are accepted as they are.
    MessageId, Message, valid_message
}

fn valid_slug(text: &str, min: usize, max: usize) -> bool {
    (min..=max).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn valid_project(text: &str) -> bool {
    valid_slug(text, 1, 63)
}

fn digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|b| b.is_ascii_digit())
}

fn valid_task(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("task-") else { return false };
    let mut parts = rest.splitn(3, '-');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(date), Some(time), Some(slug)) => {
            digits(date, 8) && digits(time, 6) && valid_date(date) && valid_time(time) && valid_slug(slug, 3, 50)
        }
        _ => false,
    }
}

fn valid_run(text: &str) -> bool {
    let mut parts = text.split('-');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(date), Some(time), Some(pid), Some(seq), None) => {
            digits(date, 8)
                && digits(time, 10)
                && valid_date(date)
                && valid_time(&time[..6])
                && number(pid)
                && number(seq)
        }
        _ => false,
    }
}

fn valid_message(text: &str) -> bool {
    (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// One to ten digits: fits a `u64` and bounds the length of a folder name.
fn number(text: &str) -> bool {
    (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

fn valid_date(date: &str) -> bool {
    let (month, day) = (&date[4..6], &date[6..8]);
    ("01"..="12").contains(&month) && ("01"..="31").contains(&day)
}

fn valid_time(time: &str) -> bool {
    &time[..2] < "24" && &time[2..4] < "60" && &time[4..6] <= "60"
}

impl TaskId {
    /// The part of people's choosing, after the time.
    #[must_use]
    pub fn slug(&self) -> &str {
        &self.0[21..]
    }

    /// Digits of date and time, `YYYYMMDDHHMMSS`: what tasks are ordered by.
    fn time_digits(&self) -> (&str, &str) {
        (&self.0[5..13], &self.0[14..20])
    }
}

impl Ord for TaskId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.time_digits().cmp(&other.time_digits()).then_with(|| self.slug().cmp(other.slug()))
    }
}

impl PartialOrd for TaskId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl RunId {
    /// Time fields as text of equal length, then pid and sequence as numbers.
    fn order(&self) -> (&str, u64, u64) {
        let mut tail = self.0[20..].split('-').map(|part| part.parse::<u64>().unwrap_or(u64::MAX));
        (&self.0[..19], tail.next().unwrap_or(0), tail.next().unwrap_or(0))
    }
}

impl Ord for RunId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for RunId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ProjectId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for ProjectId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A task, wherever it is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskKey {
    /// Its project.
    pub project: ProjectId,
    /// Its id within the project.
    pub task: TaskId,
}

impl TaskKey {
    /// Puts the two together.
    #[must_use]
    pub fn new(project: ProjectId, task: TaskId) -> Self {
        Self { project, task }
    }

    /// The key of one of its runs.
    #[must_use]
    pub fn run(&self, run: RunId) -> RunKey {
        RunKey { task: self.clone(), run }
    }
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.task)
    }
}

impl fmt::Debug for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A run, wherever it is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    /// Its task.
    pub task: TaskKey,
    /// Its id within the task.
    pub run: RunId,
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.task, self.run)
    }
}

impl fmt::Debug for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_ids_are_accepted_and_refused_by_their_form() {
        for good in ["task-20260101-000000-demo", "task-20261231-235959-a-b", "task-20260101-000000-abc"] {
            assert!(good.parse::<TaskId>().is_ok(), "{good}");
        }
        for bad in [
            "task-2026-1-x",
            "task-20260101-000000-Demo",
            "task-20260101-000000-ab",
            "task-20260101-000000-abc-",
            "task-20260101-000000--abc",
            "task-20261301-000000-abc",
            "task-20260101-250000-abc",
            "x1",
            "",
            "../x",
            "task-20260101-000000-a/b",
        ] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad}");
        }
        let long = format!("task-20260101-000000-{}", "a".repeat(51));
        assert!(long.parse::<TaskId>().is_err());
    }

    #[test]
    fn runs_are_ordered_by_time_then_by_number_and_not_as_text() {
        let id = |text: &str| text.parse::<RunId>().expect("a run id");
        assert!(id("20261122-1511320000-9-2") < id("20261122-1511320000-10-1"));
        assert!(id("20261122-1511320000-9-2") < id("20261122-1511320000-9-10"));
        assert!(id("20261122-1511320001-1-1") > id("20261122-1511320000-99999-99"));
        assert!("20261122-151132000-1-1".parse::<RunId>().is_err());
    }

    #[test]
    fn an_error_about_a_long_id_is_short() {
        let error = "x".repeat(10_000).parse::<RunId>().expect_err("too long");
        assert!(error.to_string().len() < 300);
    }

    #[test]
    fn projects_are_accepted_and_refused_by_their_form() {
        for good in ["a", "demo", "a-b", &"a".repeat(63)] {
            assert!(good.parse::<ProjectId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "..", "a/b", "%2e", &"a".repeat(64), "a\0"] {
            assert!(bad.parse::<ProjectId>().is_err(), "{bad:?}");
        }
    }
}
