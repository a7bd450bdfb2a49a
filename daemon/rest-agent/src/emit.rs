//! Prints the stream: one whole line at a time, without the key, and keeps the answer that it was made of.
//!
//! What happens is decided elsewhere. One emitter is shared by the turn and by the thread that waits for signals.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::done;
use crate::event::{Event, MAX_DELTA, Reason, Usage};
use crate::key::Key;
use crate::sources::{Found, Sources};

/// Bytes of the answer that are kept, its sources included: what conductord keeps of one.
pub const MAX_ANSWER: usize = 1 << 20;
/// Bytes of a foreign event that are passed on whole.
const MAX_FOREIGN: usize = 1 << 20;
/// Bytes of a longer one.
const FOREIGN_HEAD: usize = 64 << 10;
/// Bytes of an error's line.
const MAX_ERROR: usize = 4 << 10;

/// How it ended.
#[derive(Clone, Debug)]
pub struct End {
    /// Why.
    pub reason: Reason,
    /// HTTP status that ended it.
    pub status: Option<u16>,
    /// For people; none where all is well.
    pub error: Option<String>,
}

impl End {
    /// An end without a status.
    #[must_use]
    pub fn new(reason: Reason, error: impl Into<String>) -> Self {
        Self { reason, status: None, error: Some(error.into()) }
    }
}

/// Where lines go. A file can be made durable; a pipe can't, and need not.
pub trait Out: Write + Send {
    /// Makes what was written durable.
    ///
    /// # Errors
    /// That of the disk.
    fn sync(&mut self) -> io::Result<()>;
}

impl Out for File {
    fn sync(&mut self) -> io::Result<()> {
        if self.metadata()?.is_file() { self.sync_all() } else { Ok(()) }
    }
}

/// Prints, and remembers what the last lines need.
pub struct Emitter {
    out: Box<dyn Out>,
    key: Option<Key>,
    session: Option<String>,
    model: Option<String>,
    /// The head of the answer.
    text: String,
    /// Bytes of the whole answer.
    bytes: u64,
    sources: Sources,
    /// Whether anything of an answer was printed.
    progress: bool,
    begun: bool,
    ended: bool,
}

impl Emitter {
    /// Prints to `out`.
    #[must_use]
    pub fn new(out: Box<dyn Out>) -> Self {
        Self {
            out,
            key: None,
            session: None,
            model: None,
            text: String::new(),
            bytes: 0,
            sources: Sources::default(),
            progress: false,
            begun: false,
            ended: false,
        }
    }

    /// From now on no line holds this key.
    pub fn hide(&mut self, key: Key) {
        self.key = Some(key);
    }

    /// Whether anything of an answer was printed: a text, thought, search or source.
    #[must_use]
    pub fn progress(&self) -> bool {
        self.progress
    }

    /// Whether the last line is printed.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// `text` without the key.
    #[must_use]
    pub fn masked(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.to_owned(), |key| key.mask(text).into_owned())
    }

    /// Prints a line that needs nothing more.
    ///
    /// # Errors
    /// That of writing.
    pub fn print(&mut self, event: &Event<'_>) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        let mut line = serde_json::to_string(event).map_err(io::Error::from)?;
        if let Some(key) = &self.key
            && let std::borrow::Cow::Owned(masked) = key.mask(&line)
        {
            line = masked;
        }
        line.push('\n');
        self.out.write_all(line.as_bytes())?;
        self.out.flush()
    }

    /// The vendor has begun.
    ///
    /// # Errors
    /// That of writing.
    pub fn started(&mut self, session: Option<String>, model: Option<String>) -> io::Result<()> {
        let news = |new: &Option<String>, old: &Option<String>| new.is_some() && new != old;
        if self.begun && !news(&session, &self.session) && !news(&model, &self.model) {
            return Ok(());
        }
        self.begun = true;
        self.session = session.or(self.session.take());
        self.model = model.or(self.model.take());
        let (session, model) = (self.session.clone(), self.model.clone());
        self.print(&Event::Started { session: session.as_deref(), model: model.as_deref() })
    }

    /// A piece of the answer.
    ///
    /// # Errors
    /// That of writing.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.progress |= !text.is_empty();
        self.bytes += text.len() as u64;
        let room = MAX_ANSWER.saturating_sub(self.text.len());
        self.text.push_str(head(text, room));
        for delta in pieces(text) {
            self.print(&Event::Text { delta })?;
        }
        Ok(())
    }

    /// A piece of the reasoning.
    ///
    /// # Errors
    /// That of writing.
    pub fn thought(&mut self, text: &str) -> io::Result<()> {
        self.progress |= !text.is_empty();
        pieces(text).try_for_each(|delta| self.print(&Event::Thought { delta }))
    }

    /// A search.
    ///
    /// # Errors
    /// That of writing.
    pub fn search(&mut self, queries: &[String], urls: &[String]) -> io::Result<()> {
        self.progress = true;
        self.print(&Event::Search { queries, urls })
    }

    /// Sources, new and known.
    ///
    /// # Errors
    /// That of writing.
    pub fn sources(&mut self, found: Vec<Found>) -> io::Result<()> {
        let new = self.sources.add(found);
        if new.is_empty() {
            return Ok(());
        }
        self.progress = true;
        self.print(&Event::Sources { sources: &new })
    }

    /// What the turn took.
    ///
    /// # Errors
    /// That of writing.
    pub fn usage(&mut self, mut usage: Usage) -> io::Result<()> {
        usage.model = usage.model.or_else(|| self.model.clone());
        self.print(&Event::Usage(usage))
    }

    /// The vendor's own version of the whole answer: it counts, and is printed if nothing was yet.
    ///
    /// # Errors
    /// That of writing.
    pub fn whole(&mut self, text: &str) -> io::Result<()> {
        if self.bytes == 0 {
            return self.text(text);
        }
        self.bytes = text.len() as u64;
        head(text, MAX_ANSWER).clone_into(&mut self.text);
        Ok(())
    }

    /// Whether the answer has a word.
    #[must_use]
    pub fn has_answer(&self) -> bool {
        !self.text.trim().is_empty()
    }

    /// An event of the vendor's that is not known; `bytes`: all of it, where `raw` is only its head.
    ///
    /// # Errors
    /// That of writing.
    pub fn foreign(&mut self, raw: &str, bytes: Option<u64>) -> io::Result<()> {
        // Line breaks between the tokens of JSON mean nothing, and inside its strings there are none.
        let mut line = raw.replace(['\n', '\r'], " ");
        // Escapes could hide the key from the mask, but not from who reads the JSON.
        let plain = line.contains('\\').then(|| serde_json::from_str::<Value>(&line).ok()).flatten();
        if let Some(plain) = plain.map(|plain| plain.to_string()).filter(|plain| self.masked(plain) != *plain) {
            line = plain;
        }
        let event = if line.len() <= MAX_FOREIGN && bytes.is_none() {
            serde_json::from_str::<&RawValue>(&line).ok()
        } else {
            None
        };
        if event.is_some() {
            return self.print(&Event::Vendor { event, head: None, bytes: None });
        }
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(raw.len());
        self.print(&Event::Vendor { event: None, head: Some(head(raw, FOREIGN_HEAD)), bytes: Some(bytes) })
    }

    /// Prints the answer and the end, and creates `done` after a complete answer. Gives how it really ended.
    ///
    /// # Errors
    /// That of writing.
    pub fn end(&mut self, mut end: End, done: Option<&Path>) -> io::Result<Reason> {
        let complete = end.reason == Reason::Completed;
        if complete || self.bytes > 0 {
            self.answer(complete)?;
        }
        if let Some(path) = done.filter(|_| complete) {
            // The answer before the word that it is there: whatever dies between, nothing is claimed that is not so.
            if let Err(error) = self.out.sync().and_then(|()| done::create(path)) {
                let text = format!("the answer is complete, but {} could not be written: {error}", path.display());
                end = End::new(Reason::DoneFailed, text);
            }
        }
        let error = end.error.as_deref().map(|error| self.masked(&one_line(error)));
        if let Some(error) = &error {
            // Nobody may read it; the stream has it as well.
            let _ = writeln!(io::stderr(), "{error}");
        }
        let (session, model) = (self.session.clone(), self.model.clone());
        self.print(&Event::Ended {
            reason: end.reason,
            is_error: end.reason != Reason::Completed,
            status: end.status,
            error: error.as_deref(),
            session: session.as_deref(),
            model: model.as_deref(),
        })?;
        self.ended = true;
        Ok(end.reason)
    }

    fn answer(&mut self, complete: bool) -> io::Result<()> {
        let (section, sources) = self.sources.section();
        let mut text = head(self.text.trim_end(), MAX_ANSWER - section.len()).to_owned();
        text.push_str(&section);
        self.print(&Event::Answer { text: &text, bytes: self.bytes, sources, complete })
    }
}

/// The first bytes of a text, at most `limit`, not cutting a character.
pub(crate) fn head(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A text in pieces of at most [`MAX_DELTA`].
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let piece = head(text, MAX_DELTA);
        text = &text[piece.len()..];
        (!piece.is_empty()).then_some(piece)
    })
}

/// As one line of at most [`MAX_ERROR`] bytes.
fn one_line(text: &str) -> String {
    head(text, MAX_ERROR).split_whitespace().collect::<Vec<_>>().join(" ")
}
