//! What a refusal means: whether to try again, whose turn it is to act, and until when. Pure: JSON first, text last.

use crate::event::LimitKind;
use crate::reset::Reset;
use crate::wire::ApiError;

/// What a refusal means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Trying again may help.
    Again {
        /// The word for it in a `retry` event.
        kind: &'static str,
        /// When the vendor wants to hear of us again.
        reset: Option<Reset>,
    },
    /// Trying again is no use before the reset, or before somebody pays.
    Limit {
        /// What ran out.
        kind: LimitKind,
        /// When there is more.
        reset: Option<Reset>,
        /// How the kind is known: `json`, `text` or `status`.
        source: &'static str,
    },
    /// The key is not accepted.
    Auth,
    /// The session that was to be resumed is gone.
    SessionNotFound,
    /// The vendor says no.
    Refused,
    /// The vendor failed, and does not say that it may work later.
    Failed,
}

/// Classifies an answer with the status `status` (none: an error inside a stream) that says `error`. `resumes`: whether a
/// session was to be resumed.
#[must_use]
pub fn classify(status: Option<u16>, error: &ApiError, reset: Option<Reset>, resumes: bool) -> Meaning {
    let status = status.filter(|status| *status >= 400).or(error.status);
    let code = error.code.to_ascii_lowercase();
    let text = error.message.to_ascii_lowercase();
    let auth_text = ["incorrect api key", "invalid api key", "invalid_api_key", "no api key"];
    let says_auth = |words: &str| auth_text.iter().any(|bad| words.contains(bad));
    // Money can be asked for with these alone; elsewhere the words may be about anything.
    if matches!(status, None | Some(402 | 403 | 429))
        && let Some((kind, source)) = money(&code, &text)
    {
        return Meaning::Limit { kind, reset, source };
    }
    match status {
        Some(402) => Meaning::Limit { kind: LimitKind::Credits, reset, source: "status" },
        Some(401 | 403) => Meaning::Auth,
        Some(400) if says_auth(&code) || says_auth(&text) => Meaning::Auth,
        Some(400 | 404) if resumes && gone(&code, &text) => Meaning::SessionNotFound,
        Some(429) if daily(&code) => Meaning::Limit { kind: LimitKind::Daily, reset, source: "json" },
        Some(429) if daily(&text) => Meaning::Limit { kind: LimitKind::Daily, reset, source: "text" },
        Some(429) => Meaning::Again { kind: "rate_limit", reset },
        Some(408) => Meaning::Again { kind: "timeout", reset },
        Some(503 | 529) => Meaning::Again { kind: "overloaded", reset },
        // Not implemented, and not supported: these don't pass.
        Some(501 | 505) => Meaning::Failed,
        Some(500..) => Meaning::Again { kind: "server_error", reset },
        Some(_) => Meaning::Refused,
        None => in_stream(&code, &text, reset),
    }
}

/// An error inside a stream, which has no status.
fn in_stream(code: &str, text: &str, reset: Option<Reset>) -> Meaning {
    let any = |words: &[&str]| words.iter().any(|word| code.contains(word));
    if any(&["auth", "api_key", "permission"]) {
        Meaning::Auth
    } else if any(&["rate_limit", "too_many_requests"]) {
        let kind = if daily(text) { Some(LimitKind::Daily) } else { None };
        kind.map_or(Meaning::Again { kind: "rate_limit", reset }, |kind| Meaning::Limit { kind, reset, source: "text" })
    } else if any(&["overloaded", "unavailable"]) {
        Meaning::Again { kind: "overloaded", reset }
    } else if any(&["server_error", "internal", "timeout"]) {
        Meaning::Again { kind: "server_error", reset }
    } else if any(&["invalid_request", "not_found", "invalid_prompt"]) {
        Meaning::Refused
    } else {
        Meaning::Failed
    }
}

/// Whether it is about money: credits that are used up, or a spending limit that somebody set.
fn money(code: &str, text: &str) -> Option<(LimitKind, &'static str)> {
    let credits = ["insufficient_quota", "credit", "billing_hard_limit", "payment_required", "insufficient_balance"];
    if credits.iter().any(|word| code.contains(word)) {
        return Some((LimitKind::Credits, "json"));
    }
    if code.contains("spend") {
        return Some((LimitKind::Spend, "json"));
    }
    let credits = [
        "available credits",
        "out of credits",
        "no credits",
        "insufficient credits",
        "credit balance",
        "credits exhausted",
        "add credits",
        "purchase more credits",
        "exceeded your current quota",
        "insufficient_quota",
        "insufficient quota",
        "insufficient balance",
    ];
    if credits.iter().any(|words| text.contains(words)) {
        return Some((LimitKind::Credits, "text"));
    }
    let spend = ["spending limit", "spend limit", "spending cap"];
    spend.iter().any(|words| text.contains(words)).then_some((LimitKind::Spend, "text"))
}

/// Whether it is the allowance of a day.
fn daily(text: &str) -> bool {
    ["per day", "per_day", "daily", "(rpd)", "(tpd)"].iter().any(|words| text.contains(words))
}

/// Whether it is about the answer that was to be resumed.
fn gone(code: &str, text: &str) -> bool {
    let about = ["previous_response", "previous response", "response with id", "response not found", "response id"];
    let named = |words: &str| about.iter().any(|word| words.contains(word));
    code.contains("previous_response_not_found")
        || (named(text)
            && ["not found", "expired", "no longer", "does not exist"].iter().any(|word| text.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(status: u16, code: &str, message: &str) -> Meaning {
        let error = ApiError { status: None, code: code.into(), message: message.into() };
        classify((status > 0).then_some(status), &error, None, true)
    }

    fn limit(kind: LimitKind, source: &'static str) -> Meaning {
        Meaning::Limit { kind, reset: None, source }
    }

    fn again(kind: &'static str) -> Meaning {
        Meaning::Again { kind, reset: None }
    }

    #[test]
    fn refusals_mean_what_their_status_code_and_text_say_in_that_order() {
        let xai_money = "Your team 16f2 has either used all available credits or reached its monthly spending limit.";
        for (status, code, message, expected) in [
            (429, "", "Too many requests", again("rate_limit")),
            (429, "rate_limit_exceeded", "Tokens per Minute (actual/limit): 65605/16000.", again("rate_limit")),
            (429, "", xai_money, limit(LimitKind::Credits, "text")),
            (403, "permission-denied", xai_money, limit(LimitKind::Credits, "text")),
            (403, "", "You have run out of credits or need a Grok subscription.", limit(LimitKind::Credits, "text")),
            (429, "insufficient_quota", "", limit(LimitKind::Credits, "json")),
            (429, "", "individual spend limit reached", limit(LimitKind::Spend, "text")),
            (429, "", "limit of 50 requests per day", limit(LimitKind::Daily, "text")),
            (402, "", "", limit(LimitKind::Credits, "status")),
            (402, "", "monthly spending limit", limit(LimitKind::Spend, "text")),
            (401, "", "Add credits", Meaning::Auth),
            (403, "", "disabled by your admin", Meaning::Auth),
            (400, "Client specified an invalid argument", "Incorrect API key provided: xa***.", Meaning::Auth),
            (400, "", "temperature must be below 2; add credits", Meaning::Refused),
            (404, "", "Response with id resp_1 not found", Meaning::SessionNotFound),
            (400, "previous_response_not_found", "", Meaning::SessionNotFound),
            (404, "", "The model grok-0 does not exist", Meaning::Refused),
            (408, "", "", again("timeout")),
            (500, "", "daily", again("server_error")),
            (503, "", "", again("overloaded")),
            (529, "", "", again("overloaded")),
            (501, "", "", Meaning::Failed),
            (0, "rate_limit_exceeded", "", again("rate_limit")),
            (0, "server_error", "", again("server_error")),
            (0, "", "out of credits", limit(LimitKind::Credits, "text")),
            (0, "invalid_request_error", "", Meaning::Refused),
            (0, "", "boom", Meaning::Failed),
        ] {
            assert_eq!(meaning(status, code, message), expected, "{status} {code} {message}");
        }
    }

    #[test]
    fn a_status_inside_a_stream_counts_as_one() {
        let error = ApiError { status: Some(502), code: String::new(), message: "bad gateway".into() };
        assert_eq!(classify(Some(200), &error, None, false), again("server_error"));
    }
}
