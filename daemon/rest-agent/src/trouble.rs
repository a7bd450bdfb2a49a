//! What a try that brought no answer came to, and what follows from that: another try, a limit, the end. Nothing is sent
//! here.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use crate::emit::{End, head};
use crate::event::{Event, LimitKind, Reason};
use crate::http::HttpError;
use crate::refusal::{self, Meaning};
use crate::reset::{self, Reset};
use crate::retry::random;
use crate::turn::Turn;
use crate::wire::{self, ApiError, WireError};

/// Bytes of what a server says that go into an error.
const MAX_QUOTE: usize = 1024;

/// Why a try is over without an answer.
pub(crate) enum Trouble {
    /// A status that is no success.
    Refused { status: StatusCode, headers: HeaderMap, body: Vec<u8> },
    /// The same inside a stream.
    Failed { error: ApiError, reset: Option<Reset> },
    /// The network.
    Http(HttpError),
    /// The stream ended in the middle.
    Cut,
    /// Not the answer of this API.
    Invalid { status: StatusCode, what: String },
    /// The stream can't be printed.
    Out(std::io::Error),
}

impl From<HttpError> for Trouble {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Out(error)
    }
}

/// What follows from trouble.
pub(crate) enum Next {
    Again { status: Option<u16>, kind: &'static str, reset: Option<Reset>, otherwise: Reason, error: String },
    Limit { kind: LimitKind, reset: Option<Reset>, source: &'static str, status: Option<u16>, error: String },
    End(End),
}

impl Turn {
    /// A line for people: whose API, where, what is wrong.
    pub(crate) fn error(&self, what: &str) -> String {
        let url = if self.body.is_some() { &self.target.url } else { &self.target.models_url };
        format!("{} ({url}): {what}", self.target.vendor)
    }

    /// What follows from trouble.
    pub(crate) fn next(&self, trouble: Trouble) -> Next {
        let now = Timestamp::now();
        match trouble {
            Trouble::Refused { status, headers, body } => {
                let reset = reset::find(&headers, &body, now);
                let error =
                    wire::error(&body).unwrap_or_else(|| ApiError { message: quote(&body), ..ApiError::default() });
                self.refused(Some(status.as_u16()), &error, reset)
            }
            Trouble::Failed { error, reset } => self.refused(error.status, &error, reset),
            Trouble::Http(error @ (HttpError::Network(_) | HttpError::Idle(_))) => {
                let (kind, otherwise) = match &error {
                    HttpError::Idle(_) => ("timeout", Reason::Timeout),
                    _ => ("network", Reason::Network),
                };
                let hint = if kind == "timeout" {
                    "; a longer --idle-timeout waits longer"
                } else {
                    "; is the address right, and the network up?"
                };
                self.again(None, kind, None, otherwise, self.error(&format!("{error}{hint}")))
            }
            Trouble::Http(error @ HttpError::TooLong) => {
                Next::End(End::new(Reason::Invalid, self.error(&error.to_string())))
            }
            Trouble::Http(error) => Next::End(End::new(Reason::Network, self.error(&error.to_string()))),
            Trouble::Cut => {
                let error = self.error("the stream broke off in the middle of the answer");
                self.again(None, "cut", None, Reason::Cut, error)
            }
            Trouble::Invalid { status, what } => {
                let what = format!(
                    "{what} (status {}); is this the base URL of the API, and no proxy or login page?",
                    status.as_u16()
                );
                Next::End(End { status: Some(status.as_u16()), ..End::new(Reason::Invalid, self.error(&what)) })
            }
            Trouble::Out(error) => Next::End(End::new(Reason::Failed, self.error(&error.to_string()))),
        }
    }

    fn refused(&self, status: Option<u16>, error: &ApiError, reset: Option<Reset>) -> Next {
        let said = said(status, error);
        let hint = |what: &str| self.error(&format!("{said}; {what}"));
        let end = |reason, error| Next::End(End { reason, status, error: Some(error) });
        match refusal::classify(status, error, reset, self.resume.is_some()) {
            Meaning::Again { kind, reset } => {
                let otherwise = if kind == "rate_limit" { Reason::Limit } else { Reason::Overloaded };
                self.again(status, kind, reset, otherwise, self.error(&said))
            }
            Meaning::Limit { kind, reset, source } => {
                let error = hint(match kind {
                    LimitKind::Credits => "buy credits for its account",
                    LimitKind::Spend => "raise its spending limit, or wait for the next period",
                    _ => "wait for the reset",
                });
                Next::Limit { kind, reset, source, status, error }
            }
            Meaning::Auth => {
                let error = hint(&format!("check the key in {}", self.target.vendor.key_name()));
                Next::Limit { kind: LimitKind::Auth, reset: None, source: "status", status, error }
            }
            Meaning::SessionNotFound => end(Reason::SessionNotFound, hint("start without --resume")),
            Meaning::Refused => end(Reason::Refused, hint("check model, parameters and base URL")),
            Meaning::Failed => end(Reason::Failed, hint("try again later")),
        }
    }

    /// Another try, unless something of the answer was seen: then it is the end, with what there is.
    fn again(
        &self,
        status: Option<u16>,
        kind: &'static str,
        reset: Option<Reset>,
        otherwise: Reason,
        error: String,
    ) -> Next {
        if self.emitter().progress() {
            let reason = if matches!(otherwise, Reason::Network) { Reason::Cut } else { otherwise };
            if reason != Reason::Limit {
                return Next::End(End { reason, status, error: Some(error) });
            }
            return Next::Limit { kind: LimitKind::Window, reset, source: "json", status, error };
        }
        Next::Again { status, kind, reset, otherwise, error }
    }

    pub(crate) fn pause(&mut self, reset: Option<Reset>) -> Option<Duration> {
        let wanted = reset.map(|reset| reset.at.duration_since(Timestamp::now()));
        let wanted = wanted.map(|pause| pause.try_into().unwrap_or(Duration::ZERO));
        self.budget.pause(wanted, random())
    }

    /// All tries are used, or the reset is too far away for them.
    pub(crate) fn give_up(
        &self,
        status: Option<u16>,
        kind: &str,
        reset: Option<Reset>,
        otherwise: Reason,
        error: String,
    ) -> std::io::Result<End> {
        let source = reset.map_or("status", |reset| reset.source);
        match otherwise {
            Reason::Limit => {
                let error = format!("{error}; wait for the reset");
                self.limit(LimitKind::Window, reset, source, status, error)
            }
            Reason::Overloaded => {
                let error = format!("{error} ({kind}); it was tried as often as allowed, try again later");
                let end = self.limit(LimitKind::Overload, reset, source, status, error)?;
                Ok(End { reason: Reason::Overloaded, ..end })
            }
            _ => Ok(End { reason: otherwise, status, error: Some(error) }),
        }
    }

    pub(crate) fn limit(
        &self,
        kind: LimitKind,
        reset: Option<Reset>,
        source: &str,
        status: Option<u16>,
        error: String,
    ) -> std::io::Result<End> {
        let resets_at = reset.map(|reset| reset.at.to_string());
        let source = reset.map_or(source, |reset| reset.source);
        self.emitter().print(&Event::Limit { kind, resets_at, source, status, message: &error })?;
        let reason = if kind == LimitKind::Auth { Reason::Auth } else { Reason::Limit };
        Ok(End { reason, status, error: Some(error) })
    }
}

pub(crate) fn invalid(status: StatusCode, error: &WireError, bytes: &[u8]) -> Trouble {
    Trouble::Invalid { status, what: format!("{error}: {:?}", head(&quote(bytes), 120)) }
}

/// The vendor's own words for a refusal.
fn said(status: Option<u16>, error: &ApiError) -> String {
    let status =
        status.map(|status| match StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason()) {
            Some(name) => format!("it answers {status} {name}"),
            None => format!("it answers {status}"),
        });
    let mut text = status.unwrap_or_else(|| "it failed".to_owned());
    for part in [error.code.trim(), error.message.trim()] {
        if !part.is_empty() {
            text.push_str(": ");
            text.push_str(head(part, MAX_QUOTE));
        }
    }
    text.trim_end_matches(['.', ' ']).to_owned()
}

/// The beginning of a body, for people.
pub(crate) fn quote(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_QUOTE)]);
    let text = text.trim();
    if text.starts_with('<') {
        "an HTML page".to_owned()
    } else {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
