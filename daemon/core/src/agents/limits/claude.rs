//! Claude Code's refusals: a status and a word in JSON, and texts that its documentation of errors lists.

use super::Refusal;
use super::words::{FORBIDDEN, SPEND, Words};
use crate::agents::event::{LimitKind, LimitSource, StreamSummary};

/// What a failed stream was refused for, and whether its fields or its words tell it.
pub(crate) fn refused(parsed: &StreamSummary) -> Refusal {
    kind_of(parsed).map(|kind| {
        let json = parsed.api_status.is_some() || parsed.api_error.is_some();
        (kind, if json { LimitSource::Json } else { LimitSource::Text })
    })
}

/// The status of the last answer comes first, the vendor's word for it second. A text that Claude Code itself made up
/// comes last, for nothing was asked then, as there is no login, or an old one does not tell a status.
fn kind_of(parsed: &StreamSummary) -> Option<LimitKind> {
    let words = Words::of(parsed.error.as_deref().unwrap_or_default());
    match (parsed.api_status, parsed.api_error.as_deref()) {
        (Some(429), _) | (None, Some("rate_limit")) => Some(limited(&words)),
        (Some(402), _) | (_, Some("billing_error")) => Some(LimitKind::Credits),
        (Some(401 | 403), _) => Some(LimitKind::Auth),
        (Some(400), _) if words.any(&["credit balance is too low"]) => Some(LimitKind::Credits),
        // A limit of money that was set for the key's organization or workspace.
        (Some(400), _) if words.any(&["reached your specified api usage limits"]) => Some(LimitKind::Spend),
        (Some(400), _) if words.any(&FORBIDDEN) => Some(LimitKind::Auth),
        (Some(status), _) => (status >= 500).then_some(LimitKind::Overload),
        (None, Some("authentication_failed" | "oauth_org_not_allowed")) => Some(LimitKind::Auth),
        (None, Some("overloaded" | "server_error")) => Some(LimitKind::Overload),
        (None, _) if words.begin(&LOGIN) => Some(LimitKind::Auth),
        (None, _) if words.begin(&["credit balance is too low"]) => Some(LimitKind::Credits),
        (None, _) if words.begin(&LIMITED) => Some(limited(&words)),
        (None, _) => None,
    }
}

/// What a refusal for too much use is about.
fn limited(words: &Words) -> LimitKind {
    if words.any(&FORBIDDEN) {
        LimitKind::Auth
    } else if words.any(&SPEND) {
        LimitKind::Spend
    } else if words.any(&[
        "credit balance is too low",
        "out of extra usage",
        "out of credits",
        "usage credits required",
    ]) {
        LimitKind::Credits
    } else if words.any(&["temporarily limiting requests"]) {
        LimitKind::Overload
    } else {
        LimitKind::Window
    }
}

/// Beginnings of texts of a result that is an error and came without a status: there is no login that is accepted.
const LOGIN: [&str; 8] = [
    "invalid api key",
    "not logged in",
    "please run /login",
    "login expired",
    "oauth token has expired",
    "oauth token revoked",
    "could not resolve authentication method",
    "your organization has disabled",
];

/// Beginnings of such texts for a limit.
const LIMITED: [&str; 4] =
    ["you've hit your ", "claude ai usage limit reached", "claude usage limit reached", "5-hour limit reached"];
