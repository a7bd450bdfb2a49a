//! Why a run failed: tells a usage limit, an outage and a login problem apart from other failures. Pure; the run's end
//! and a time zone come from outside.

mod claude;

use jiff::tz::TimeZone;

use super::event::{Limit, LimitSource, StreamSummary};
use super::outcome::{Classified, EndCause, ExitFacts, one_line};
use super::stream::Vendor;
use crate::types::Outcome;

/// The outcome of a run. What we did to the process comes first, then what the stream says, then the exit code. `zone` is
/// that of clocks that are printed without one; `mask` takes the agent's key out of a text that is kept.
pub(crate) fn classify(
    vendor: Vendor,
    exit: &ExitFacts,
    parsed: &StreamSummary,
    _zone: &TimeZone,
    mask: &dyn Fn(&str) -> String,
) -> Classified {
    let plain = ExitFacts { stderr_tail: mask(&exit.stderr_tail), ..exit.clone() }.classify();
    if exit.cause != EndCause::Natural || plain.outcome == Outcome::Oom || plain.outcome == Outcome::Lost {
        return plain;
    }
    let exit_failed = plain.outcome != Outcome::Completed;
    let failed = if parsed.ended { parsed.is_error } else { exit_failed };
    if !failed {
        return plain;
    }
    let words = parsed.error.as_deref().map(|words| one_line(&mask(words)));
    let refused = match vendor {
        Vendor::Claude => claude::refused(parsed),
        Vendor::Codex | Vendor::Gemini | Vendor::Grok | Vendor::Rest => None,
    };
    let limit = refused.map(|kind| match &parsed.limit {
        Some(told) if told.kind == kind => told.clone(),
        _ => Limit { kind, resets_at: None, source: LimitSource::Json },
    });
    let outcome = match &limit {
        Some(limit) => limit.outcome(),
        None if exit_failed => plain.outcome,
        // It calls that an error and exits with 0.
        None => Outcome::Failed,
    };
    let reason = parsed.reason.as_deref().filter(|reason| *reason != "success");
    let summary = match (words, reason) {
        (Some(words), Some(reason)) => Some(format!("{}: {words}", one_line(reason))),
        (Some(words), None) => Some(words),
        (None, Some(reason)) => Some(one_line(reason)),
        (None, None) => plain.summary,
    };
    Classified { outcome, summary, limit }
}

/// The zone in which a program prints clocks whose `TZ` is this; without one the system's.
#[must_use]
pub(crate) fn zone(tz: Option<&str>) -> TimeZone {
    let Some(tz) = tz else { return TimeZone::system() };
    let name = tz.strip_prefix(':').unwrap_or(tz);
    if name.is_empty() {
        return TimeZone::UTC;
    }
    // What the C library can't read is UTC for it.
    TimeZone::get(name).or_else(|_| TimeZone::posix(name)).unwrap_or(TimeZone::UTC)
}
