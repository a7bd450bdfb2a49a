//! Failures as data: their exit code, their text and what to do about them.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use conductor_proto::client::ConnectError;
use conductor_proto::reason;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::launch::LaunchError;
use crate::output::{Screen, time};

/// Exit codes; `docs/cli.md` lists them for people.
pub(crate) mod exit {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const NOT_FOUND: u8 = 3;
    pub(crate) const DENIED: u8 = 4;
    pub(crate) const UNREACHABLE: u8 = 5;
    pub(crate) const CONFLICT: u8 = 6;
    pub(crate) const TIMEOUT: u8 = 124;
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line can't be carried out as it is.
    #[error("{0}")]
    Usage(String),
    /// The daemon refused.
    #[error("failed to {action}: {}", status.message())]
    Refused { action: String, status: Box<Status> },
    /// Nobody listens.
    #[error("{0}")]
    Unreachable(#[from] ConnectError),
    /// The connection broke and did not come back in time.
    #[error("failed to {action}: the daemon is gone{}", waited(*waited_for))]
    Gone { action: String, waited_for: Duration },
    /// The daemon could not be started.
    #[error("failed to start the daemon")]
    Launch(#[from] LaunchError),
    /// A call or a wait took too long.
    #[error("{action}: no end after {}", time::duration(*after))]
    TimedOut { action: String, after: Duration },
    /// Something that was followed is there no more.
    #[error("{0}")]
    Vanished(String),
    /// Ctrl-C; what to do next was said already.
    #[error("interrupted")]
    Interrupted,
    /// A task did not end as wished; its end was said already.
    #[error("not done")]
    NotDone,
    /// A person said no.
    #[error("nothing was changed")]
    Declined,
    /// The system refused.
    #[error("failed to {action}")]
    Io {
        action: String,
        #[source]
        source: io::Error,
    },
    /// Whoever read our output has closed it.
    #[error("the reader of the output is gone")]
    ClosedPipe,
}

fn waited(time: Duration) -> String {
    if time.is_zero() { String::new() } else { format!(" for {} now", time::duration(time)) }
}

impl Failure {
    /// What the system refused.
    pub(crate) fn io(action: impl Into<String>, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe;
        }
        Self::Io { action: action.into(), source }
    }

    /// What the daemon, or the way to it, answered.
    pub(crate) fn status(action: &str, status: Status) -> Self {
        if is_lost(&status) {
            return Self::Gone { action: action.to_owned(), waited_for: Duration::ZERO };
        }
        Self::Refused { action: action.to_owned(), status: Box::new(status) }
    }

    /// Whether what was asked for does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == exit::NOT_FOUND
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Refused { status, .. } => status_code(status),
            Self::Unreachable(_) | Self::Gone { .. } | Self::Launch(_) => exit::UNREACHABLE,
            Self::TimedOut { .. } => exit::TIMEOUT,
            Self::Vanished(_) => exit::NOT_FOUND,
            Self::Interrupted => exit::INTERRUPTED,
            Self::NotDone | Self::Declined | Self::Io { .. } => exit::FAILED,
            Self::ClosedPipe => 0,
        }
    }

    /// Says what went wrong, once, and what to do.
    pub(crate) fn report(&self, screen: &Screen) -> ExitCode {
        if !matches!(self, Self::Interrupted | Self::NotDone | Self::ClosedPipe) {
            screen.error(&self.chain());
            for line in self.hints() {
                screen.hint(&line);
            }
        }
        ExitCode::from(self.code())
    }

    fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            let part = error.to_string();
            // A transport error repeats its own source; each part is said once.
            if !text.contains(&part) {
                text = format!("{text}: {part}");
            }
            next = error.source();
        }
        if let Self::Refused { status, .. } = self {
            for violation in status.get_details_bad_request().into_iter().flat_map(|bad| bad.field_violations) {
                if !text.contains(&violation.description) {
                    text = format!("{text}\n  {}: {}", violation.field, violation.description);
                }
            }
        }
        text
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Unreachable(ConnectError::PathTooLong { .. }) => {
                vec!["name a shorter path with --socket or $CONDUCTOR_SOCKET".into()]
            }
            Self::Unreachable(_) | Self::Gone { .. } => {
                vec!["start the daemon: conductorctl daemon start (or: systemctl --user start conductord)".into()]
            }
            Self::Launch(error) => error.hints(),
            Self::TimedOut { .. } => vec!["allow more time with --timeout".into()],
            Self::Refused { status, .. } => refusal_hints(status),
            _ => Vec::new(),
        }
    }
}

fn refusal_hints(status: &Status) -> Vec<String> {
    let mut hints = Vec::new();
    if let Some(info) = status.get_details_error_info() {
        let text = match info.reason.as_str() {
            reason::TOKEN_REQUIRED => "inside a run, CONDUCTOR_TOKEN proves which run it is; don't unset it",
            reason::DENIED => "inside a run, only its own project and its own descendants can be changed",
            reason::AGENT_UNAVAILABLE => "see what is wrong with it: conductorctl doctor",
            reason::CONFIG_INVALID => {
                "the last good configuration stays in force; check the file: conductord config check"
            }
            reason::UNKNOWN_CURSOR => "read from the beginning, without --after",
            reason::BUS_LOCKED => "another program holds the lock of this bus; try again",
            reason::REQUEST_ID_REUSED => "use another --request-id, or none",
            reason::INTERNAL => "the daemon's log says more",
            _ => "",
        };
        if let (reason::AMBIGUOUS_ID, Some(names)) = (info.reason.as_str(), info.metadata.get("candidates")) {
            if !names.split([',', ' ']).any(|name| !name.is_empty() && status.message().contains(name)) {
                hints.push(format!("it could be: {names}"));
            }
            hints.push("give more of the id".into());
        }
        if !text.is_empty() {
            hints.push(text.into());
        }
    }
    if let Some(delay) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
        hints.push(format!("try again in {}", time::duration(delay)));
    }
    hints
}

/// The reason in the status's `ErrorInfo`.
pub(crate) fn reason_of(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// Whether the connection, and not the daemon's logic, failed: every error of the daemon carries a reason.
pub(crate) fn is_lost(status: &Status) -> bool {
    match reason_of(status).as_deref() {
        Some(reason::SHUTTING_DOWN) => true,
        Some(_) => false,
        None => matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal),
    }
}

fn status_code(status: &Status) -> u8 {
    match reason_of(status).as_deref() {
        Some(reason::NOT_FOUND | reason::UNKNOWN_CURSOR) => exit::NOT_FOUND,
        Some(reason::DENIED | reason::TOKEN_REQUIRED) => exit::DENIED,
        Some(reason::ALREADY_EXISTS | reason::REQUEST_ID_REUSED | reason::WRONG_STATE | reason::FOREIGN) => {
            exit::CONFLICT
        }
        Some(reason::INVALID_FIELD | reason::AMBIGUOUS_ID | reason::BAD_PAGE_TOKEN) => exit::USAGE,
        Some(reason::SHUTTING_DOWN) => exit::UNREACHABLE,
        Some(_) => exit::FAILED,
        None => match status.code() {
            Code::NotFound => exit::NOT_FOUND,
            Code::PermissionDenied | Code::Unauthenticated => exit::DENIED,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => exit::CONFLICT,
            Code::InvalidArgument => exit::USAGE,
            Code::DeadlineExceeded => exit::TIMEOUT,
            Code::Unavailable => exit::UNREACHABLE,
            _ => exit::FAILED,
        },
    }
}
