//! One turn: tries, and what is printed of each. What follows from one that fails is in [`crate::trouble`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Response, StatusCode, Url};

use crate::args::Target;
use crate::emit::{Emitter, End, head};
use crate::event::{Event, Reason, VERSION};
use crate::http::{Http, MAX_DOCUMENT, MAX_REFUSAL};
use crate::reset;
use crate::retry::Budget;
use crate::sse;
use crate::trouble::{Next, Trouble, invalid, quote};
use crate::wire::{self, Finish, Reader, Step};

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

    pub(crate) fn emitter(&self) -> MutexGuard<'_, Emitter> {
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
        let begin = quote(&first);
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
        any |= !events.is_empty();
        // What is left may be half of an event: that it can't be read means that the stream was cut.
        match self.events(&events, reader, status) {
            Ok(Some(end)) => return Ok(end),
            Ok(None) | Err(Trouble::Invalid { .. }) => {}
            Err(trouble) => return Err(trouble),
        }
        match reader.end() {
            Some(finish) => self.finish(finish, ""),
            None if any => Err(Trouble::Cut),
            None => Err(Trouble::Invalid { status, what: format!("its answer has no event: {:?}", head(&begin, 120)) }),
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
}

/// An answer that can be one.
enum Shape {
    /// A stream that begins so.
    Stream(Vec<u8>),
    /// A whole document.
    Document(Vec<u8>),
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
