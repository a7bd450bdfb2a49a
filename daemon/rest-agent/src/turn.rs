//! One turn: tries, what each came to, and what follows from that.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Response, StatusCode, Url};

use crate::args::Target;
use crate::emit::{Emitter, End, head};
use crate::event::{Event, LimitKind, Reason, VERSION};
use crate::http::{Http, HttpError, MAX_DOCUMENT, MAX_REFUSAL};
use crate::refusal::{self, Meaning};
use crate::reset::{self, Reset};
use crate::retry::{Budget, random};
use crate::sse;
use crate::wire::{self, ApiError, Finish, Reader, Step, WireError};

/// Bytes of what a server says that go into an error.
const MAX_QUOTE: usize = 1024;
/// Names of models that an error lists at most.
const MAX_MODELS: usize = 100;

/// What goes on.
pub struct Turn {
    /// Where to.
    pub target: Target,
    /// The session that it goes on with.
    pub resume: Option<String>,
    /// The body of the request; none: there is no model, so they are listed.
    pub body: Option<bytes::Bytes>,
    /// What retries may take.
    pub budget: Budget,
    /// The client.
    pub http: Http,
    /// Where it is printed.
    pub emitter: Arc<Mutex<Emitter>>,
}

/// Why a try is over without an answer.
enum Trouble {
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
enum Next {
    Again { status: Option<u16>, kind: &'static str, reset: Option<Reset>, otherwise: Reason, error: String },
    Limit { kind: LimitKind, reset: Option<Reset>, source: &'static str, status: Option<u16>, error: String },
    End(End),
}

impl Turn {
    /// Tries until there is an end.
    ///
    /// # Errors
    /// That of printing.
    pub async fn run(mut self) -> std::io::Result<End> {
        for attempt in 1.. {
            let url = if self.body.is_some() { &self.target.url } else { &self.target.models_url };
            self.emitter().print(&Event::Request {
                version: VERSION,
                vendor: &self.target.vendor.to_string(),
                api: &self.target.api.to_string(),
                url: url.as_str(),
                model: self.target.model.as_deref(),
                attempt,
                resumes: self.resume.as_deref(),
            })?;
            let trouble = match self.attempt().await {
                Ok(end) => return Ok(end),
                Err(Trouble::Out(error)) => return Err(error),
                Err(trouble) => trouble,
            };
            match self.next(trouble) {
                Next::End(end) => return Ok(end),
                Next::Limit { kind, reset, source, status, error } => {
                    return self.limit(kind, reset, source, status, error);
                }
                Next::Again { status, kind, reset, otherwise, error } => {
                    let Some(pause) = self.pause(reset) else {
                        return self.give_up(status, kind, reset, otherwise, error);
                    };
                    let delay_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                    let event = Event::Retry { status, delay_ms, kind, error: &error, attempt: attempt + 1 };
                    self.emitter().print(&event)?;
                    tokio::time::sleep(pause).await;
                }
            }
        }
        unreachable!("tries are counted from 1 on, and each of them ends or is followed by another");
    }

    fn emitter(&self) -> MutexGuard<'_, Emitter> {
        self.emitter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn attempt(&self) -> Result<End, Trouble> {
        let Some(body) = &self.body else { return self.list_models().await };
        let mut response = self.http.post(self.target.url.clone(), body.clone()).await?;
        let mut reader = Reader::new(self.target.api);
        match self.shape(&mut response).await? {
            Shape::Stream(first) => self.stream(&mut response, first, &mut reader).await,
            Shape::Document(bytes) => {
                let steps = reader.document(&bytes).map_err(|error| invalid(response.status(), &error, &bytes))?;
                self.perform(steps, std::str::from_utf8(&bytes).unwrap_or(""))?.ok_or(Trouble::Cut)
            }
        }
    }

    /// Looks whether an answer is a stream or a document, and turns away all else.
    async fn shape(&self, response: &mut Response) -> Result<Shape, Trouble> {
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            let what = format!("it redirects to {to}, which is not followed: the key goes to no other host");
            return Err(Trouble::Invalid { status, what });
        }
        if !status.is_success() {
            let headers = response.headers().clone();
            // The status says most; a body that breaks off does not change it.
            let body = self.http.body(response, MAX_REFUSAL, true).await.unwrap_or_default();
            return Err(Trouble::Refused { status, headers, body });
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
        let kind = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        let (is_stream, is_json, is_html) =
            (kind == "text/event-stream", kind.ends_with("json"), kind.contains("html"));
        let mut first = Vec::new();
        while !is_html && first.iter().all(u8::is_ascii_whitespace) && first.len() < MAX_DOCUMENT {
            match self.http.chunk(response).await? {
                Some(chunk) => first.extend_from_slice(&chunk),
                None => return Err(Trouble::Invalid { status, what: "its answer is empty".into() }),
            }
        }
        match first.trim_ascii_start().first() {
            _ if is_stream => Ok(Shape::Stream(first)),
            Some(b'<') | None => Err(Trouble::Invalid { status, what: "it answers with HTML".into() }),
            Some(byte) if is_json || matches!(byte, b'{' | b'[') => {
                let rest = self.http.body(response, MAX_DOCUMENT.saturating_sub(first.len()), false).await?;
                first.extend_from_slice(&rest);
                Ok(Shape::Document(first))
            }
            Some(_) => Ok(Shape::Stream(first)),
        }
    }

    async fn stream(&self, response: &mut Response, first: Vec<u8>, reader: &mut Reader) -> Result<End, Trouble> {
        let status = response.status();
        let mut parser = sse::Parser::default();
        let mut next = Some(bytes::Bytes::from(first));
        let mut any = false;
        while let Some(chunk) = next {
            let mut events = Vec::new();
            parser.feed(&chunk, &mut |event| events.push(event));
            any |= !events.is_empty();
            if let Some(end) = self.events(&events, reader, status)? {
                return Ok(end);
            }
            next = self.http.chunk(response).await?;
        }
        let mut events = Vec::new();
        parser.finish(&mut |event| events.push(event));
        // What is left may be half of an event: then it is no news that it can't be read.
        match self.events(&events, reader, status) {
            Ok(Some(end)) => return Ok(end),
            Err(Trouble::Invalid { .. }) if any => {}
            other => drop(other?),
        }
        match reader.end() {
            Some(finish) => self.finish(finish, ""),
            None => Err(Trouble::Cut),
        }
    }

    fn events(&self, events: &[sse::Event], reader: &mut Reader, status: StatusCode) -> Result<Option<End>, Trouble> {
        for event in events {
            let steps = reader.event(event).map_err(|error| invalid(status, &error, &event.data))?;
            if let Some(bytes) = event.cut {
                let text = format!("an event of {bytes} bytes was cut: {} are kept", sse::MAX_DATA);
                self.emitter().print(&Event::Note { text: &text })?;
                self.emitter().foreign(&String::from_utf8_lossy(&event.data), event.cut)?;
            }
            let raw = if event.cut.is_some() { "" } else { std::str::from_utf8(&event.data).unwrap_or("") };
            if let Some(end) = self.perform(steps, raw)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// Prints what an event means; gives the end, if it is that.
    fn perform(&self, steps: Vec<Step>, raw: &str) -> Result<Option<End>, Trouble> {
        for step in steps {
            let mut emitter = self.emitter();
            match step {
                Step::Started { session, model } => emitter.started(session, model)?,
                Step::Text(text) => emitter.text(&text)?,
                Step::Thought(text) => emitter.thought(&text)?,
                Step::Search { queries, urls } => emitter.search(&queries, &urls)?,
                Step::Sources(found) => emitter.sources(found)?,
                Step::Usage(usage) => emitter.usage(usage)?,
                Step::Whole(text) => emitter.whole(&text)?,
                Step::Foreign if raw.is_empty() => {}
                Step::Foreign => emitter.foreign(raw, None)?,
                Step::Finish(finish) => {
                    drop(emitter);
                    return self.finish(finish, raw).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn finish(&self, finish: Finish, raw: &str) -> Result<End, Trouble> {
        let end = |reason, what: &str| Ok(End::new(reason, self.error(what)));
        match finish {
            Finish::Completed if self.emitter().has_answer() => {
                Ok(End { reason: Reason::Completed, status: None, error: None })
            }
            Finish::Completed => end(Reason::Empty, "its answer has no word; try again, or another model"),
            Finish::Incomplete(why) => {
                end(Reason::Incomplete, &format!("it cut its answer short ({why}); ask for less at once"))
            }
            Finish::ToolCall(tool) => end(
                Reason::ToolCall,
                &format!("the model wants the tool {tool:?} run, which a REST agent can't; say so in the prompt"),
            ),
            Finish::Failed(error) => {
                let reset = reset::find(&BTreeMap::new(), raw.as_bytes(), Timestamp::now());
                Err(Trouble::Failed { error, reset })
            }
        }
    }

    async fn list_models(&self) -> Result<End, Trouble> {
        let mut response = self.http.get(self.target.models_url.clone()).await?;
        let Shape::Document(bytes) = self.shape(&mut response).await? else {
            let what = "its list of models is a stream".to_owned();
            return Err(Trouble::Invalid { status: response.status(), what });
        };
        let models = wire::models(&bytes).map_err(|error| invalid(response.status(), &error, &bytes))?;
        let list = models.iter().take(MAX_MODELS).map(String::as_str).collect::<Vec<_>>().join(", ");
        let list = if list.is_empty() { "none".to_owned() } else { list };
        let what =
            format!("no model is set, and none is chosen for you; set one of those that this key can use: {list}");
        Ok(End::new(Reason::NoModel, self.error(&what)))
    }

    /// A line for people: whose API, where, what is wrong.
    fn error(&self, what: &str) -> String {
        let url = if self.body.is_some() { &self.target.url } else { &self.target.models_url };
        format!("{} ({url}): {what}", self.target.vendor)
    }

    /// What follows from trouble.
    fn next(&self, trouble: Trouble) -> Next {
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

    fn pause(&mut self, reset: Option<Reset>) -> Option<Duration> {
        let wanted = reset.map(|reset| reset.at.duration_since(Timestamp::now()));
        let wanted = wanted.map(|pause| pause.try_into().unwrap_or(Duration::ZERO));
        self.budget.pause(wanted, random())
    }

    /// All tries are used, or the reset is too far away for them.
    fn give_up(
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

    fn limit(
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

/// An answer that can be one.
enum Shape {
    /// A stream that begins so.
    Stream(Vec<u8>),
    /// A whole document.
    Document(Vec<u8>),
}

fn invalid(status: StatusCode, error: &WireError, bytes: &[u8]) -> Trouble {
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
fn quote(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_QUOTE)]);
    let text = text.trim();
    if text.starts_with('<') {
        "an HTML page".to_owned()
    } else {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Whether a key that is sent there can be read on the way.
#[must_use]
pub fn is_in_the_clear(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let local =
        host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback());
    url.scheme() == "http" && !local
}
