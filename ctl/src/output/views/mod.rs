//! The stable form of every resource for programs, and its table and details for people.
//!
//! Field names are those of the proto. What is absent is `null`; a text that is absent is `""`; enum values are
//! lower-case words; times are RFC 3339 in UTC; durations are texts such as `"1.5s"`.

mod agent;
mod daemon;
pub(crate) mod doctor;
mod message;
mod process;
mod project;
mod run;
mod task;
pub(crate) mod usage;

pub(crate) use message::MessageView;
pub(crate) use run::RunView;
pub(crate) use task::{TaskView, attempts};

use prost_types::{Duration, Timestamp};

use super::time;

fn timestamp(time: Option<&Timestamp>) -> Option<String> {
    time.and_then(time::rfc3339)
}

fn duration(duration: Option<&Duration>) -> Option<String> {
    duration.map(time::duration_text)
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// A duration for people; `none` where there is no limit.
fn limit(duration: Option<&Duration>) -> String {
    duration.map_or_else(|| "none".into(), |duration| time::duration(time::from_wire(duration)))
}

/// What happens to a run without a sign of life, for people.
fn idle_limit(warn: Option<&Duration>, end: Option<&Duration>) -> String {
    match (warn, end) {
        (None, None) => "none".into(),
        (None, Some(_)) => limit(end),
        (Some(_), None) => format!("none, warned after {}", limit(warn)),
        (Some(_), Some(_)) => format!("{}, warned after {}", limit(end), limit(warn)),
    }
}
