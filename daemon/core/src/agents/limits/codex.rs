//! Codex's refusals. Its stream has words for people alone, the same for a turn that failed and on standard error.

use super::Refusal;
use super::words::{FORBIDDEN, SPEND, Words};
use crate::agents::event::{LimitKind, LimitSource, StreamSummary};
use crate::agents::outcome::ExitFacts;

/// What a failed run was refused for.
pub(super) fn refused(exit: &ExitFacts, parsed: &StreamSummary) -> Refusal {
    // What the stream says of its end is closer than standard error, and of the same kind.
    let words = parsed.error.as_deref().and_then(kind_of).map(|kind| (kind, LimitSource::Text));
    words.or_else(|| match &parsed.error {
        Some(_) => None,
        None => stderr(&exit.stderr_tail).map(|kind| (kind, LimitSource::Stderr)),
    })
}

/// What the words of an error refuse.
pub(crate) fn kind_of(text: &str) -> Option<LimitKind> {
    kind(&Words::of(text))
}

/// Where the stream says nothing, it did not come to asking: there is no login, or no answer.
fn stderr(text: &str) -> Option<LimitKind> {
    kind(&Words::of_end(text))
}

fn kind(words: &Words) -> Option<LimitKind> {
    let status = words.status(&["last status: ", "unexpected status ", "http error: ", "status code "]);
    if words.any(&FORBIDDEN) || words.any(&LOGIN) || matches!(status, Some(401 | 403)) {
        Some(LimitKind::Auth)
    } else if words.any(&SPEND) || words.any(&["billing hard limit"]) {
        Some(LimitKind::Spend)
    } else if words.any(&["hit your usage limit", "usage limit has been reached", "usage_limit_reached"]) {
        // Before credits: it offers to buy some.
        Some(LimitKind::Window)
    } else if words.any(&CREDITS) || status == Some(402) {
        Some(LimitKind::Credits)
    } else if words.any(&["requests per day", "tokens per day"]) {
        Some(LimitKind::Daily)
    } else if words.any(&["rate limit reached", "rate limit exceeded", "rate_limit_exceeded"]) || status == Some(429) {
        Some(LimitKind::Window)
    } else if words.any(&OVERLOAD) || status.is_some_and(|status| status >= 500) {
        Some(LimitKind::Overload)
    } else {
        None
    }
}

const LOGIN: [&str; 9] = [
    "401 unauthorized",
    "403 forbidden",
    "not logged in",
    "log out and sign in again",
    "refresh token",
    "incorrect api key",
    "invalid_api_key",
    "missing environment variable",
    "to use codex with your chatgpt plan",
];

const CREDITS: [&str; 5] = [
    "out of credits",
    "insufficient_quota",
    "credit_balance_exhausted",
    "quota exceeded. check your plan",
    "exceeded your current quota",
];

const OVERLOAD: [&str; 5] = [
    "is at capacity",
    "high demand",
    "server_is_overloaded",
    "servers are currently overloaded",
    "overloaded. please try again",
];
