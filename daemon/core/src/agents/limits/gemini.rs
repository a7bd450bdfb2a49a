//! Gemini CLI's refusals: an exit code for a login, words in the result's error, and the error's fields on standard
//! error.

use super::Refusal;
use super::words::{FORBIDDEN, SPEND, Words};
use crate::agents::event::{LimitKind, LimitSource, StreamSummary};
use crate::agents::outcome::ExitFacts;

/// Exit code for a login that can't be had (its `errors.ts`).
const EXIT_AUTH: i32 = 41;

/// What a failed run was refused for.
pub(super) fn refused(exit: &ExitFacts, parsed: &StreamSummary) -> Refusal {
    if exit.code == Some(EXIT_AUTH) || parsed.reason.as_deref() == Some("FatalAuthenticationError") {
        return Some((LimitKind::Auth, LimitSource::Json));
    }
    let words = parsed.error.as_deref().and_then(kind_of).map(|kind| (kind, LimitSource::Text));
    words.or_else(|| {
        let last = match last_error(&exit.stderr_tail) {
            Some(last) => last,
            // It has said why it failed; the rest of standard error is of retries that went well in the end.
            None if parsed.error.is_some() => return None,
            None => &exit.stderr_tail,
        };
        stderr(&Words::of_end(last)).map(|kind| (kind, LimitSource::Stderr))
    })
}

/// The part of standard error that is about the error that ended it. Those that it tried again after stand there too.
pub(super) fn last_error(stderr: &str) -> Option<&str> {
    stderr.rsplit_once("Error when talking to Gemini API").map(|(_, last)| last)
}

/// What the words of an error refuse.
pub(crate) fn kind_of(text: &str) -> Option<LimitKind> {
    kind(&Words::of(text))
}

/// Standard error has the whole error in it.
fn stderr(words: &Words) -> Option<LimitKind> {
    kind(words).or_else(|| {
        match words.status(&["\n  status: ", "\n    status: ", "\n    code: ", "failed with status "]) {
            Some(429) => Some(LimitKind::Window),
            Some(401 | 403) => Some(LimitKind::Auth),
            Some(402) => Some(LimitKind::Credits),
            Some(500..) => Some(LimitKind::Overload),
            _ => None,
        }
    })
}

fn kind(words: &Words) -> Option<LimitKind> {
    if words.any(&FORBIDDEN) || words.any(&LOGIN) {
        Some(LimitKind::Auth)
    } else if words.any(&["exhausted your daily quota", "perday"]) {
        Some(LimitKind::Daily)
    } else if words.any(&SPEND) {
        Some(LimitKind::Spend)
    } else if words.any(&["out of credits", "credits are depleted", "billing account"]) {
        Some(LimitKind::Credits)
    } else if words.any(&WINDOW) {
        Some(LimitKind::Window)
    } else if words.any(&OVERLOAD) {
        Some(LimitKind::Overload)
    } else {
        None
    }
}

const LOGIN: [&str; 6] = [
    "api key not valid",
    "api_key_invalid",
    "invalid auth method selected",
    "please set an auth method",
    "unauthenticated",
    "permission_denied",
];

const WINDOW: [&str; 5] = [
    "exhausted your capacity",
    "exceeded your current quota",
    "resource has been exhausted",
    "resource_exhausted",
    "you have reached the quota limit",
];

const OVERLOAD: [&str; 4] = [
    "model is overloaded",
    "no capacity available",
    "\"status\":\"unavailable\"",
    "currently experiencing high demand",
];
