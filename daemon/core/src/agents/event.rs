//! Normal events: what an agent's stream means, whatever the vendor. No parsing.

use std::collections::BTreeMap;
use std::time::Duration;

pub use crate::types::{Limit, LimitKind, LimitSource, Usage, UsageScope};

/// Bytes of one text that an event carries; more of it stays in the raw file, at the event's offset.
pub const MAX_TEXT: usize = 64 << 10;
/// Models of one stream whose use is told apart; further ones count in the sum alone.
pub const MAX_MODELS: usize = 64;
/// The last bytes of the final answer that a summary keeps at least, and up to twice as many, where the answer is put
/// together from several texts.
pub const MAX_ANSWER: usize = 1 << 20;

/// One event, with the place of its raw line.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The stream of the raw line.
    pub stream: Stream,
    /// Offset of the first byte of the raw line in that stream.
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
        /// Whether it goes on where the piece before it stopped: nothing belongs between the two, no new line either.
        piece: bool,
    },
    /// The agent thought something.
    Thought {
        /// What, at most [`MAX_TEXT`] bytes.
        text: String,
        /// As for [`EventKind::Text`].
        piece: bool,
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
        /// What it gave back, at most [`MAX_TEXT`] bytes; `None`: the vendor does not tell.
        result: Option<String>,
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
    /// Tokens and cost.
    Usage {
        /// What the numbers cover.
        scope: UsageScope,
        /// The model, where they are of one.
        model: Option<String>,
        /// The numbers.
        usage: Usage,
    },
    /// The vendor program says that it is finished.
    Ended {
        /// Its word for why: `success`, `error_max_turns`, …
        reason: String,
        /// Whether it calls that an error.
        is_error: bool,
    },
}

/// One of an agent's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a whole stream came to. Bounded: see [`MAX_ANSWER`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamSummary {
    /// The vendor's session id.
    pub session: Option<String>,
    /// The model that answered.
    pub model: Option<String>,
    /// Tokens and cost; `None`: the vendor did not say.
    pub usage: Option<Usage>,
    /// What `usage` covers: the process, or the vendor's whole thread. Numbers of single turns are added up here.
    pub usage_scope: UsageScope,
    /// The same by model, at most [`MAX_MODELS`]; empty where the vendor does not tell them apart.
    pub models: BTreeMap<String, Usage>,
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
    /// Takes the next bytes of a stream and gives the events of the lines that they complete. The two streams may be fed
    /// in any order.
    fn feed(&mut self, stream: Stream, chunk: &[u8], sink: &mut dyn FnMut(Event));

    /// The streams have ended: takes last lines without their newline.
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
