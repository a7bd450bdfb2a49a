//! Why a run failed: tells a usage limit, an outage and a login problem apart from other failures. Pure; the run's end
//! and a time zone come from outside.
//!
//! Only a run that failed is looked at, so that an answer that merely talks about limits is none. What is JSON comes
//! first, standard error second, words for people last; of words only those that the vendor's program is known to print
//! for exactly that.

pub(crate) mod claude;
mod clock;
pub(crate) mod codex;
pub(crate) mod gemini;
pub(crate) mod grok;
mod rest;
mod words;

use jiff::tz::TimeZone;

use super::event::{Limit, LimitKind, LimitSource, StreamSummary};
use super::outcome::{Classified, EndCause, ExitFacts, one_line};
use super::stream::Vendor;
use crate::types::{Outcome, Timestamp};

/// Reasons of vendors that say no more than that it failed, or that nothing did.
const EMPTY_REASONS: [&str; 6] = ["success", "completed", "failed", "error", "unknown", "end_turn"];

/// What refused a run, and how that is known.
pub(crate) type Refusal = Option<(LimitKind, LimitSource)>;

/// The outcome of a run. What we did to the process comes first, then what the stream says, then the exit code. `zone` is
/// that of clocks that are printed without one; `mask` takes the agent's key out of a text that is kept.
#[must_use]
pub(crate) fn classify(
    vendor: Vendor,
    exit: &ExitFacts,
    parsed: &StreamSummary,
    zone: &TimeZone,
    mask: &dyn Fn(&str) -> String,
) -> Classified {
    let plain = ExitFacts { stderr_tail: mask(&exit.stderr_tail), ..exit.clone() }.classify();
    if exit.cause != EndCause::Natural || plain.outcome == Outcome::Oom || plain.outcome == Outcome::Lost {
        return plain;
    }
    let exit_failed = plain.outcome != Outcome::Completed;
    let failed = if parsed.ended { parsed.is_error } else { exit_failed };
    if !failed {
        return unfinished(vendor, parsed).unwrap_or(plain);
    }
    let refused = match vendor {
        Vendor::Claude => claude::refused(parsed),
        Vendor::Codex => codex::refused(exit, parsed),
        Vendor::Gemini => gemini::refused(exit, parsed),
        Vendor::Grok => grok::refused(exit, parsed),
        Vendor::Rest => rest::refused(exit, parsed),
    };
    // A signal ended it, whatever it was complaining of.
    let refused = refused.filter(|(kind, source)| {
        plain.outcome != Outcome::Signaled || (*kind != LimitKind::Overload && *source == LimitSource::Json)
    });
    let stderr = match vendor {
        Vendor::Gemini => gemini::last_error(&exit.stderr_tail).unwrap_or_default(),
        _ => &exit.stderr_tail,
    };
    let limit = refused.map(|refused| limit(refused, stderr, exit.ended, parsed, zone));
    let outcome = match &limit {
        Some(limit) => limit.outcome(),
        None if exit_failed => plain.outcome,
        // It calls that an error and exits with 0.
        None => Outcome::Failed,
    };
    let words = parsed.error.as_deref().map(|words| one_line(&mask(words)));
    let reason = parsed.reason.as_deref().filter(|reason| !EMPTY_REASONS.contains(reason));
    let summary = match (words, reason) {
        (Some(words), Some(reason)) => Some(format!("{}: {words}", one_line(reason))),
        (Some(words), None) => Some(words),
        (None, Some(reason)) => Some(one_line(reason)),
        (None, None) => plain.summary.or_else(|| Some("it says that it failed, and exited with code 0".to_owned())),
    };
    Classified { outcome, summary, limit }
}

/// Gemini CLI exits with 0 when SIGTERM or SIGINT ends it in the middle of a turn, and only the missing result tells.
fn unfinished(vendor: Vendor, parsed: &StreamSummary) -> Option<Classified> {
    (vendor == Vendor::Gemini && !parsed.ended && parsed.session.is_some()).then(|| Classified {
        outcome: Outcome::Failed,
        summary: Some("exit code 0 before its turn was finished".to_owned()),
        limit: None,
    })
}

/// The limit with its reset: from JSON, else from standard error, else from the words of the error.
fn limit(
    (kind, source): (LimitKind, LimitSource),
    stderr: &str,
    ended: Timestamp,
    parsed: &StreamSummary,
    zone: &TimeZone,
) -> Limit {
    // Nothing to wait for but a person.
    if matches!(kind, LimitKind::Auth | LimitKind::Credits) {
        return Limit { kind, resets_at: None, source };
    }
    let told = parsed.limit.as_ref().and_then(|told| Some((told.resets_at?, told.source)));
    let told = told.filter(|(reset, _)| clock::believable(*reset, ended));
    let found = told
        .or_else(|| clock::last_reset(stderr, ended, zone).map(|reset| (reset, LimitSource::Stderr)))
        .or_else(|| {
            let words = parsed.error.as_deref()?;
            clock::reset(words, ended, zone).map(|reset| (reset, LimitSource::Text))
        });
    match found {
        Some((reset, source)) => Limit { kind, resets_at: Some(reset), source },
        None => Limit { kind, resets_at: None, source },
    }
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

#[cfg(test)]
mod tests;
