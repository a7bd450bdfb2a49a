//! Claude Code's refusals.

use crate::agents::event::{LimitKind, StreamSummary};

/// What a failed stream was refused for. The status of the last answer comes first, the vendor's word for it second, and
/// a text that Claude Code itself made up for a login problem last.
pub(crate) fn refused(parsed: &StreamSummary) -> Option<LimitKind> {
    match (parsed.api_status, parsed.api_error.as_deref()) {
        (Some(429), _) => Some(LimitKind::Window),
        (Some(401 | 403), _) => Some(LimitKind::Auth),
        (Some(_), _) => None,
        (None, Some("rate_limit")) => Some(LimitKind::Window),
        (None, Some("authentication_failed" | "oauth_org_not_allowed")) => Some(LimitKind::Auth),
        (None, _) => parsed.error.as_deref().filter(|text| login_text(text)).map(|_| LimitKind::Auth),
    }
}

/// Texts of a result that is an error and came without a status: nothing was asked, as there is no login.
fn login_text(text: &str) -> bool {
    ["Invalid API key", "Not logged in", "Please run /login", "OAuth token has expired"]
        .iter()
        .any(|start| text.starts_with(start))
}
