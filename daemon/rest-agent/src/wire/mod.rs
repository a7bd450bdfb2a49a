//! The vendors' APIs: what is sent, and what their events mean. No network, no printing.
//!
//! Types here name only what is read; a field that comes twice is an error, a field of another type than expected is as
//! good as absent unless nothing works without it.

pub mod chat;
pub mod responses;
mod usage;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::args::{Api, Target};
use crate::event::Usage;
use crate::sources::Found;
use crate::sse;

/// What an event of the vendor's means.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// It has begun.
    Started {
        /// Its id of the answer, if that can be resumed.
        session: Option<String>,
        /// The model that answers.
        model: Option<String>,
    },
    /// A piece of the answer.
    Text(String),
    /// A piece of the reasoning.
    Thought(String),
    /// A search.
    Search {
        /// What for.
        queries: Vec<String>,
        /// Pages that are read.
        urls: Vec<String>,
    },
    /// Sources, maybe known ones.
    Sources(Vec<Found>),
    /// What the turn took.
    Usage(Usage),
    /// The whole answer.
    Whole(String),
    /// Not known: to be passed on.
    Foreign,
    /// The vendor has finished.
    Finish(Finish),
}

/// How the vendor finished.
#[derive(Clone, Debug, PartialEq)]
pub enum Finish {
    /// With a complete answer.
    Completed,
    /// It cut its answer short, and why.
    Incomplete(String),
    /// It wants this tool run.
    ToolCall(String),
    /// With an error.
    Failed(ApiError),
}

/// An error in the vendor's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status, where it is named inside a stream.
    pub status: Option<u16>,
    /// Its word for the error, and for its kind, joined by a space.
    pub code: String,
    /// What it says.
    pub message: String,
}

/// Why an event is none of this API.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not UTF-8.
    #[error("its answer is not UTF-8")]
    NotUtf8,
    /// Not JSON, or not the shape of this API.
    #[error("its answer is not the JSON of this API: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON that says nothing.
    #[error("its answer has neither output nor error")]
    Nothing,
}

/// Reads the events of one try.
#[derive(Debug)]
pub enum Reader {
    /// Agent and responses.
    Responses(responses::Reader),
    /// Chat.
    Chat(chat::Reader),
}

impl Reader {
    /// A reader for one try.
    #[must_use]
    pub fn new(api: Api) -> Self {
        match api {
            Api::Agent | Api::Responses => Self::Responses(responses::Reader::default()),
            Api::Chat => Self::Chat(chat::Reader::default()),
        }
    }

    /// Reads one event of a stream.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn event(&mut self, event: &sse::Event) -> Result<Vec<Step>, WireError> {
        if event.cut.is_some() {
            return Ok(self.cut_event(event));
        }
        let text = std::str::from_utf8(&event.data).map_err(|_| WireError::NotUtf8)?;
        match (text.trim(), self) {
            ("", _) => Ok(Vec::new()),
            ("[DONE]", reader) => Ok(reader.end().map(Step::Finish).into_iter().collect()),
            (text, Self::Responses(reader)) => reader.event(text),
            (text, Self::Chat(reader)) => reader.event(text),
        }
    }

    /// An event that was too long to be kept. If it says that the answer is complete, then that is all we need of it.
    fn cut_event(&mut self, event: &sse::Event) -> Vec<Step> {
        const COMPLETED: &str = "response.completed";
        let head = String::from_utf8_lossy(&event.data[..event.data.len().min(256)]);
        let named = event.name == COMPLETED.as_bytes();
        let typed = head.replace(char::is_whitespace, "").contains(&format!("\"type\":\"{COMPLETED}\""));
        if matches!(self, Self::Responses(_)) && (named || (event.name.is_empty() && typed)) {
            vec![Step::Foreign, Step::Finish(Finish::Completed)]
        } else {
            vec![Step::Foreign]
        }
    }

    /// Reads an answer that came in one piece, by a server that does not stream.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn document(&mut self, bytes: &[u8]) -> Result<Vec<Step>, WireError> {
        let text = std::str::from_utf8(bytes).map_err(|_| WireError::NotUtf8)?;
        match self {
            Self::Responses(reader) => reader.document(text),
            Self::Chat(reader) => reader.document(text),
        }
    }

    /// The stream is at its end; `None`: in the middle of an answer.
    #[must_use]
    pub fn end(&mut self) -> Option<Finish> {
        match self {
            Self::Responses(_) => None,
            Self::Chat(reader) => reader.end(),
        }
    }
}

/// The body of a request.
#[must_use]
pub fn request(target: &Target, preset: Option<&str>, tools: &[String], resume: Option<&str>, prompt: &str) -> Vec<u8> {
    let mut body = json!({ "stream": true });
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body[name] = value;
        }
    };
    set("model", target.model.as_deref().map(Value::from));
    if target.api == Api::Chat {
        set("messages", Some(json!([{ "role": "user", "content": prompt }])));
        set("stream_options", Some(json!({ "include_usage": true })));
    } else {
        set("input", Some(prompt.into()));
        set("preset", preset.map(Value::from));
        set("previous_response_id", resume.map(Value::from));
        let tools: Vec<Value> = tools.iter().map(|tool| json!({ "type": tool })).collect();
        set("tools", (!tools.is_empty()).then(|| tools.into()));
    }
    body.to_string().into_bytes()
}

/// Reads the names of a list of models.
///
/// # Errors
/// [`WireError`].
pub fn models(bytes: &[u8]) -> Result<Vec<String>, WireError> {
    #[derive(Deserialize)]
    struct List {
        data: Vec<Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        id: String,
    }
    let list: List = serde_json::from_slice(bytes)?;
    Ok(list.data.into_iter().map(|model| model.id).collect())
}

/// Reads the error of an answer that is one; `None`: it has none that we can read.
#[must_use]
pub fn error(body: &[u8]) -> Option<ApiError> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        error: Maybe<RawError>,
        #[serde(default)]
        message: Maybe<String>,
        #[serde(default)]
        detail: Maybe<String>,
        #[serde(default)]
        code: Maybe<Code>,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let mut error = body.error.value().map(ApiError::from).unwrap_or_default();
    if error.message.is_empty() {
        error.message = body.message.value().or(body.detail.value()).unwrap_or_default();
    }
    if let Some(code) = body.code.value() {
        code.add_to(&mut error);
    }
    (error != ApiError::default()).then_some(error)
}

/// An error as vendors write it: a text, or an object.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawError {
    Text(String),
    Object {
        #[serde(default)]
        message: Maybe<String>,
        #[serde(default)]
        code: Maybe<Code>,
        #[serde(default, rename = "type")]
        kind: Maybe<String>,
        #[serde(default)]
        status: Maybe<u16>,
    },
}

/// An error's code: a word, or an HTTP status.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Code {
    Number(u16),
    Word(String),
}

impl Code {
    fn add_to(self, error: &mut ApiError) {
        match self {
            Self::Number(status) if (400..600).contains(&status) => error.status = error.status.or(Some(status)),
            Self::Number(number) => error.code = format!("{} {number}", error.code).trim().to_owned(),
            Self::Word(word) => match word.parse() {
                Ok(status) if (400..600).contains(&status) => error.status = error.status.or(Some(status)),
                _ => error.code = format!("{} {word}", error.code).trim().to_owned(),
            },
        }
    }
}

impl From<RawError> for ApiError {
    fn from(raw: RawError) -> Self {
        match raw {
            RawError::Text(message) => Self { message, ..Self::default() },
            RawError::Object { message, code, kind, status } => {
                let mut error = Self {
                    status: status.value(),
                    code: kind.value().unwrap_or_default(),
                    message: message.value().unwrap_or_default(),
                };
                if let Some(code) = code.value() {
                    code.add_to(&mut error);
                }
                error
            }
        }
    }
}

/// A field that may be anything, and counts only if it is a `T`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Maybe<T> {
    Value(T),
    Other(IgnoredAny),
}

impl<T> Default for Maybe<T> {
    fn default() -> Self {
        Self::Other(IgnoredAny)
    }
}

impl<T> Maybe<T> {
    fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Other(_) => None,
        }
    }
}

/// A page that the vendor read or cites.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Page {
    id: Maybe<u32>,
    url: Maybe<String>,
    title: Maybe<String>,
    date: Maybe<String>,
}

impl Page {
    /// As a source. xAI writes the number of a citation as its title.
    fn found(self) -> Option<Found> {
        let title = self.title.value();
        let numbered = title.as_deref().and_then(|title| title.parse().ok());
        Some(Found {
            number: self.id.value().or(numbered),
            url: self.url.value()?,
            title: title.filter(|_| numbered.is_none()),
            date: self.date.value(),
        })
    }
}

/// All pages that have an address.
fn found(pages: Vec<Maybe<Page>>) -> Vec<Found> {
    pages.into_iter().filter_map(Maybe::value).filter_map(Page::found).collect()
}

/// Addresses in a list; the place in the list is the number that the answer's marks mean.
fn cited(urls: Vec<Maybe<String>>) -> Vec<Found> {
    let numbered = (1..).zip(urls);
    numbered.filter_map(|(n, url)| Some(Found { number: Some(n), url: url.value()?, ..Found::default() })).collect()
}

#[cfg(test)]
mod tests;
