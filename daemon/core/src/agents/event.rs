//! Normal events: what an agent's stream means, whatever the vendor. No parsing.

use std::time::Duration;

use jiff::Timestamp;

use crate::types::Usage;

/// Bytes of one text that an event carries; more of it stays in the raw file, at the event's offset.
pub const MAX_TEXT: usize = 64 << 10;
/// Bytes of the final answer that a summary keeps, where it is put together from several texts.
pub const MAX_ANSWER: usize = 1 << 20;

/// One event, with the place of its raw line.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Offset of the first byte of the raw line in the agent's standard output.
    pub offset: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// The vendor program began a session.
    Started {
        /// Its session id.
        session: Option<String>,
        /// The model.
        model: Option<String>,
    },
    /// The agent said something, or wrote a line that is no event.
    Text {
        /// What, at most [`MAX_TEXT`] bytes.
        text: String,
        /// Where `text` is only the beginning: bytes of the whole (of the raw line, where that was too long to parse).
        whole: Option<u64>,
    },
    /// The agent thought something.
    Thought {
        /// What, at most [`MAX_TEXT`] bytes.
        text: String,
    },
    /// A tool began.
    ToolStart {
        /// The vendor's id of the call.
        id: String,
        /// Name of the tool.
        name: String,
        /// Its input as JSON, at most [`MAX_TEXT`] bytes.
        input: String,
    },
    /// A tool ended.
    ToolEnd {
        /// The vendor's id of the call.
        id: String,
        /// Whether it succeeded.
        ok: bool,
        /// Exit code, where the vendor tells it.
        exit: Option<i32>,
    },
    /// The vendor program tries a request again.
    Retry {
        /// HTTP status, if there was an answer.
        status: Option<u16>,
        /// Pause before it.
        delay: Option<Duration>,
        /// The vendor's word for what is wrong: `overloaded`, `rate_limit`, …
        kind: String,
    },
    /// The vendor refuses work.
    Limit(Limit),
    /// Tokens and cost of the process so far.
    Usage(Usage),
    /// The vendor program says that it is finished.
    Ended {
        /// Its word for why: `success`, `error_max_turns`, …
        reason: String,
        /// Whether it calls that an error.
        is_error: bool,
    },
}

/// A refusal of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What ran out.
    pub kind: LimitKind,
    /// When there is more, if the vendor said.
    pub resets_at: Option<Timestamp>,
    /// How it is known.
    pub source: LimitSource,
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// The allowance of a window of time.
    Window,
    /// The login: it is not accepted.
    Auth,
}

/// How a limit is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitSource {
    /// From a field of the stream.
    Json,
}

/// What a whole stream came to. Bounded: see [`MAX_ANSWER`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamSummary {
    /// The vendor's session id.
    pub session: Option<String>,
    /// The model that answered.
    pub model: Option<String>,
    /// Tokens and cost of the process; `None`: the vendor did not say.
    pub usage: Option<Usage>,
    /// The final answer.
    pub answer: Option<String>,
    /// Whether the vendor program said that it is finished.
    pub ended: bool,
    /// Its word for why.
    pub reason: Option<String>,
    /// Whether it called that an error.
    pub is_error: bool,
    /// What it said of that error, at most [`MAX_TEXT`] bytes.
    pub error: Option<String>,
    /// HTTP status that ended it.
    pub api_status: Option<u16>,
    /// The vendor's word for the last error of its service: `rate_limit`, `authentication_failed`, …
    pub api_error: Option<String>,
    /// The last refusal of work.
    pub limit: Option<Limit>,
    /// Complete lines read.
    pub lines: u64,
    /// Lines whose kind is not known: signs of life and nothing else.
    pub unknown: u64,
}

/// Reads a stream in any pieces; the same bytes give the same events however they are cut. Bounded memory: one line of
/// at most 16 MiB.
pub trait EventParser: Send {
    /// Takes the next bytes and gives the events of the lines that they complete.
    fn feed(&mut self, chunk: &[u8], sink: &mut dyn FnMut(Event));

    /// The stream has ended: takes a last line without its newline.
    fn finish(&mut self, sink: &mut dyn FnMut(Event));

    /// What it came to so far.
    fn summary(&self) -> &StreamSummary;
}

/// The first bytes of a text, at most `limit`, not cutting a character.
#[must_use]
pub fn head(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
