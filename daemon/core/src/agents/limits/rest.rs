//! Refusals that `conductor-rest-agent` tells: it has classified them already.

use super::Refusal;
use crate::agents::event::{LimitKind, LimitSource, StreamSummary};
use crate::agents::outcome::ExitFacts;

/// What a failed run was refused for. Its exit code tells as much where the stream was cut.
pub(super) fn refused(exit: &ExitFacts, parsed: &StreamSummary) -> Refusal {
    match (parsed.reason.as_deref(), &parsed.limit) {
        (Some("limit" | "auth") | None, Some(limit)) => Some((limit.kind, limit.source)),
        (Some("auth"), None) => Some((LimitKind::Auth, LimitSource::Json)),
        (Some("limit"), None) => Some((LimitKind::Window, LimitSource::Json)),
        // Out of order, or out of reach: the run is not to blame.
        (Some("overloaded" | "network" | "timeout"), _) => Some((LimitKind::Overload, LimitSource::Json)),
        (Some(_), _) => None,
        (None, None) => match exit.code {
            Some(3) => Some((LimitKind::Auth, LimitSource::Json)),
            Some(4) => Some((LimitKind::Window, LimitSource::Json)),
            _ => None,
        },
    }
}
