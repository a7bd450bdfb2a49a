//! Errors of the core as gRPC statuses with `google.rpc` details. The reasons are in `conductor_proto::reason`.

use std::collections::HashMap;
use std::time::Duration;

use conductor_core::bus::BusError;
use conductor_core::store::StoreError;
use conductor_core::store::catalog::{Compacted, FindError, ListError};
use conductor_core::supervisor::CommandError;
use conductor_proto::reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::auth::{Denied, IdentityError};

/// When a caller tries again after a bus was locked.
const RETRY_BUS: Duration = Duration::from_secs(1);
/// When a caller tries again after the daemon ended: the time of a restart.
const RETRY_DAEMON: Duration = Duration::from_secs(2);

/// A status with its reason.
pub(super) fn status(code: Code, reason: &str, message: impl Into<String>) -> Status {
    with(code, reason, message, [], |_| ())
}

/// An invalid field.
pub(super) fn field(field: &str, problem: impl std::fmt::Display) -> Status {
    let problem = problem.to_string();
    let message = format!("{field}: {problem}");
    with(Code::InvalidArgument, reason::INVALID_FIELD, message, [("field", field.to_owned())], |details| {
        details.add_bad_request_violation(field, problem);
    })
}

/// The daemon is ending.
pub(super) fn shutting_down() -> Status {
    with(Code::Unavailable, reason::SHUTTING_DOWN, "the daemon is ending", [], |details| {
        details.set_retry_info(Some(RETRY_DAEMON));
    })
}

/// The reader did not take what was sent to it.
pub(super) fn slow_reader(detail: impl Into<String>) -> Status {
    with(Code::ResourceExhausted, reason::SLOW_READER, detail, [], |details| {
        details.set_retry_info(Some(Duration::ZERO));
    })
}

/// The reason of a status, for records.
pub(super) fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map_or_else(|| format!("{:?}", status.code()), |info| info.reason)
}

fn with<const N: usize>(
    code: Code,
    reason: &str,
    message: impl Into<String>,
    metadata: [(&str, String); N],
    more: impl FnOnce(&mut ErrorDetails),
) -> Status {
    let metadata: HashMap<String, String> = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut details = ErrorDetails::with_error_info(reason, reason::DOMAIN, metadata);
    more(&mut details);
    Status::with_error_details(code, message, details)
}

fn internal(error: &dyn std::error::Error) -> Status {
    tracing::error!(%error, "a call failed");
    status(Code::Internal, reason::INTERNAL, error.to_string())
}

fn disk_full(message: String) -> Status {
    status(Code::ResourceExhausted, reason::DISK_FULL, message)
}

/// A refusal of the supervisor.
pub(super) fn command(error: &CommandError) -> Status {
    let text = error.to_string();
    match error {
        CommandError::InvalidField { field: name, problem } => field(name, problem),
        CommandError::NotFound { what, near, .. } => not_found(what, text, near),
        CommandError::Ambiguous { candidates, .. } => ambiguous(text, candidates),
        CommandError::AlreadyExists { .. } => status(Code::AlreadyExists, reason::ALREADY_EXISTS, text),
        CommandError::RequestIdReused(_) => status(Code::AlreadyExists, reason::REQUEST_ID_REUSED, text),
        CommandError::WrongState(_) => status(Code::FailedPrecondition, reason::WRONG_STATE, text),
        CommandError::Foreign(_) => status(Code::FailedPrecondition, reason::FOREIGN, text),
        CommandError::Limit(_) => status(Code::ResourceExhausted, reason::LIMIT, text),
        CommandError::DiskFull { .. } => disk_full(text),
        CommandError::Agent(_) => status(Code::FailedPrecondition, reason::AGENT_UNAVAILABLE, text),
        CommandError::Bus(error) => bus(error),
        CommandError::ShuttingDown => shutting_down(),
        CommandError::Io { .. } => internal(error),
    }
}

/// A refusal of a bus.
pub(super) fn bus(error: &BusError) -> Status {
    let text = error.to_string();
    match error {
        BusError::UnknownCursor(_) => status(Code::NotFound, reason::UNKNOWN_CURSOR, text),
        BusError::TooLarge { what, .. } => field(what, text),
        BusError::InvalidUtf8 => field("body", text),
        BusError::EmptyKind | BusError::InvalidKind(_) => field("type", text),
        BusError::ReservedMeta(_) | BusError::InvalidMetaKey(_) => field("meta", text),
        BusError::LockTimeout { .. } => with(Code::Unavailable, reason::BUS_LOCKED, text, [], |details| {
            details.set_retry_info(Some(RETRY_BUS));
        }),
        BusError::NoSpace(_) => disk_full(text),
        BusError::Closed => shutting_down(),
        _ => internal(error),
    }
}

/// A refusal of the store.
pub(super) fn store(what: &str, error: &StoreError) -> Status {
    if error.is_not_found() {
        return not_found(what, format!("this {what} does not exist"), &[]);
    }
    if error.is_disk_full() {
        return disk_full(error.to_string());
    }
    internal(error)
}

/// Nothing, or too much, was found.
pub(super) fn find(what: &str, error: &FindError) -> Status {
    match error {
        FindError::Ambiguous { candidates, .. } => ambiguous(format!("{what} {error}"), candidates),
        FindError::NotFound { nearest, .. } => not_found(what, format!("{what} {error}"), nearest),
    }
}

/// No such thing.
pub(super) fn not_found(what: &str, message: impl Into<String>, near: &[String]) -> Status {
    let metadata = [("what", what.to_owned()), ("nearest", near.join(","))];
    with(Code::NotFound, reason::NOT_FOUND, message, metadata, |_| ())
}

fn ambiguous(message: String, candidates: &[String]) -> Status {
    with(Code::InvalidArgument, reason::AMBIGUOUS_ID, message, [("candidates", candidates.join(","))], |_| ())
}

/// A page token that is none.
pub(super) fn list(error: &ListError) -> Status {
    with(Code::InvalidArgument, reason::BAD_PAGE_TOKEN, error.to_string(), [], |details| {
        details.add_bad_request_violation("page_token", error.to_string());
    })
}

/// A revision that is not kept.
pub(super) fn compacted(error: &Compacted, epoch: u64) -> Status {
    let metadata = [
        ("oldest_revision", error.oldest.to_string()),
        ("revision", error.newest.to_string()),
        ("epoch", epoch.to_string()),
    ];
    with(Code::OutOfRange, reason::REVISION_COMPACTED, error.to_string(), metadata, |_| ())
}

/// An action that the caller's scope does not have.
pub(super) fn denied(error: &Denied) -> Status {
    status(Code::PermissionDenied, reason::DENIED, error.to_string())
}

/// A caller who is not believed.
pub(super) fn identity(error: &IdentityError) -> Status {
    status(Code::Unauthenticated, reason::TOKEN_REQUIRED, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_reason_and_a_bad_field_is_named() {
        let error = command(&CommandError::field("slug", "too short"));
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "slug: too short"));
        let details = error.get_error_details();
        let info = details.error_info().expect("always there");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_FIELD", "conductor.dev"));
        let violations = &details.bad_request().expect("of a field").field_violations;
        assert_eq!((violations[0].field.as_str(), violations[0].description.as_str()), ("slug", "too short"));
    }

    #[test]
    fn an_error_that_waiting_heals_says_how_long() {
        let locked = BusError::LockTimeout { path: "/b".into(), waited: Duration::from_secs(10) };
        for error in [bus(&locked), command(&CommandError::ShuttingDown)] {
            assert_eq!(error.code(), Code::Unavailable);
            let details = error.get_error_details();
            assert!(details.retry_info().and_then(|info| info.retry_delay).is_some_and(|delay| !delay.is_zero()));
        }
        assert_eq!(reason_of(&bus(&locked)), "BUS_LOCKED");
    }

    #[test]
    fn a_shortened_id_that_fits_several_lists_them() {
        let error = command(&CommandError::Ambiguous {
            what: "task",
            name: "a".to_owned(),
            candidates: vec!["p/ab".to_owned(), "p/ac".to_owned()],
        });
        let details = error.get_error_details();
        assert_eq!(details.error_info().expect("always").metadata["candidates"], "p/ab,p/ac");
    }
}
