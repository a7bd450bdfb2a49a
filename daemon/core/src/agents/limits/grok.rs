//! Grok's refusals. Its stream has one line of words for people, which may begin with a code: `usage_limit_reached: …`.

use super::Refusal;
use super::words::{FORBIDDEN, SPEND, Words};
use crate::agents::event::{LimitKind, LimitSource, StreamSummary};
use crate::agents::outcome::ExitFacts;

/// What a failed run was refused for.
pub(super) fn refused(exit: &ExitFacts, parsed: &StreamSummary) -> Refusal {
    let words = parsed.error.as_deref().and_then(kind_of).map(|kind| (kind, LimitSource::Text));
    words.or_else(|| match &parsed.error {
        Some(_) => None,
        None => kind(&Words::of_end(&exit.stderr_tail)).map(|kind| (kind, LimitSource::Stderr)),
    })
}

/// What the words of an error refuse.
pub(crate) fn kind_of(text: &str) -> Option<LimitKind> {
    kind(&Words::of(text))
}

fn kind(words: &Words) -> Option<LimitKind> {
    let status = words.status(&["status ", "status: ", "status code ", "\"http_status\": ", "unauthorized ("]);
    if words.any(&FORBIDDEN) || words.any(&LOGIN) || matches!(status, Some(401 | 403)) {
        Some(LimitKind::Auth)
    } else if words.any(&CREDITS) || status == Some(402) {
        // Before the spending limit, which the same sentence offers as the other possibility: neither ends by itself soon.
        Some(LimitKind::Credits)
    } else if words.any(&SPEND) {
        Some(LimitKind::Spend)
    } else if words.any(&["daily limit"]) {
        Some(LimitKind::Daily)
    } else if words.any(&WINDOW) || status == Some(429) {
        Some(LimitKind::Window)
    } else if words.any(&OVERLOAD) || status.is_some_and(|status| status >= 500) {
        Some(LimitKind::Overload)
    } else {
        None
    }
}

const LOGIN: [&str; 6] =
    ["not logged in", "incorrect api key", "invalid api key", "unauthenticated", "401 unauthorized", "please log in"];

const CREDITS: [&str; 4] = ["out of credits", "run out of credits", "used all available credits", "insufficient_quota"];

const WINDOW: [&str; 8] = [
    "reached your usage limit",
    "resource has been exhausted",
    "usage_limit_reached",
    "usage limit has been reached",
    "hit your usage limit",
    "rate limit reached",
    "rate limit exceeded",
    "rate_limit_exceeded",
];

const OVERLOAD: [&str; 4] = ["is at capacity", "high demand", "service unavailable", "temporarily overloaded"];
