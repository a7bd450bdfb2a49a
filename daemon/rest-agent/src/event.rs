//! The lines of our stream. What they mean is in the crate's documentation; who prints them is [`crate::emit`].

use serde::Serialize;
use serde_json::value::RawValue;

/// Version of the stream.
pub const VERSION: u32 = 1;
/// Bytes of text in one `text` or `thought` line at most: readers keep lines whole, and show them as they come.
pub const MAX_DELTA: usize = 64 << 10;

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    /// A try begins.
    Request {
        /// [`VERSION`].
        version: u32,
        /// Whose API it is.
        vendor: &'a str,
        /// Which of its APIs.
        api: &'a str,
        /// Where the request goes.
        url: &'a str,
        /// What was asked for.
        model: Option<&'a str>,
        /// From 1.
        attempt: u32,
        /// The session that it goes on with.
        resumes: Option<&'a str>,
    },
    /// The vendor has begun.
    Started {
        /// What `--resume` takes.
        session: Option<&'a str>,
        /// The model that answers.
        model: Option<&'a str>,
    },
    /// A piece of the answer.
    Text {
        /// At most [`MAX_DELTA`] bytes.
        delta: &'a str,
    },
    /// A piece of the reasoning.
    Thought {
        /// At most [`MAX_DELTA`] bytes.
        delta: &'a str,
    },
    /// The vendor searches.
    Search {
        /// What for.
        queries: &'a [String],
        /// Pages that it reads.
        urls: &'a [String],
    },
    /// New sources.
    Sources {
        /// At least one.
        sources: &'a [Source],
    },
    /// A pause before another try.
    Retry {
        /// HTTP status, if there was an answer.
        status: Option<u16>,
        /// Milliseconds.
        delay_ms: u64,
        /// What is wrong.
        kind: &'a str,
        /// In the vendor's words, or the network's.
        error: &'a str,
        /// The number of the try to come.
        attempt: u32,
    },
    /// The vendor refuses work.
    Limit {
        /// What ran out.
        kind: LimitKind,
        /// RFC 3339, UTC.
        resets_at: Option<String>,
        /// How that is known.
        source: &'a str,
        /// HTTP status.
        status: Option<u16>,
        /// In the vendor's words.
        message: &'a str,
    },
    /// What the turn took.
    Usage(Usage),
    /// What a person may want to know.
    Note {
        /// One sentence.
        text: &'a str,
    },
    /// An event of the vendor's that is not known.
    Vendor {
        /// As it came, on one line.
        #[serde(skip_serializing_if = "Option::is_none")]
        event: Option<&'a RawValue>,
        /// Its first bytes, where it is too long.
        #[serde(skip_serializing_if = "Option::is_none")]
        head: Option<&'a str>,
        /// All its bytes, where it is too long.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<usize>,
    },
    /// The whole answer.
    Answer {
        /// With its sources.
        text: &'a str,
        /// Bytes of the whole answer without its sources.
        bytes: u64,
        /// Sources that are listed in it.
        sources: usize,
        /// Whether the vendor had finished.
        complete: bool,
    },
    /// The end.
    Ended {
        /// A word of [`Reason`].
        reason: Reason,
        /// Whether that is an error.
        is_error: bool,
        /// HTTP status that ended it.
        status: Option<u16>,
        /// One line for people: vendor, URL, what is wrong, what to do.
        error: Option<&'a str>,
        /// As in [`Event::Started`].
        session: Option<&'a str>,
        /// As in [`Event::Started`].
        model: Option<&'a str>,
    },
}

/// A source of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Its number, from 1: the vendor's, where it gives one.
    pub n: u32,
    /// `http` or `https`.
    pub url: String,
    /// Its title.
    pub title: Option<String>,
    /// When it was published, in the vendor's words.
    pub date: Option<String>,
}

/// Tokens and cost of the turn; `None`: the vendor does not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Input tokens that no cache served.
    pub input: Option<u64>,
    /// Input tokens read from a cache.
    pub cache_read: Option<u64>,
    /// Input tokens written to a cache.
    pub cache_write: Option<u64>,
    /// Output tokens, reasoning included.
    pub output: Option<u64>,
    /// Those of them that are reasoning.
    pub reasoning: Option<u64>,
    /// US dollars, as billed.
    pub cost_usd: Option<f64>,
    /// The model that answered.
    pub model: Option<String>,
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// The allowance of a window of time.
    Window,
    /// That of a day.
    Daily,
    /// A spending limit that somebody set.
    Spend,
    /// Money.
    Credits,
    /// Nothing of ours: the vendor is overloaded.
    Overload,
    /// The key is not accepted.
    Auth,
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A complete answer.
    Completed,
    /// The vendor cut its answer short.
    Incomplete,
    /// The model wants a tool run.
    ToolCall,
    /// No word.
    Empty,
    /// The vendor says no.
    Refused,
    /// What is to be resumed is gone.
    SessionNotFound,
    /// The vendor failed.
    Failed,
    /// Overloaded or broken.
    Overloaded,
    /// Can't be reached.
    Network,
    /// Silence.
    Timeout,
    /// Broke off in the middle.
    Cut,
    /// No answer of this API.
    Invalid,
    /// `--done` could not be written.
    DoneFailed,
    /// Bad arguments or prompt.
    Usage,
    /// No model was named.
    NoModel,
    /// The key is missing or refused.
    Auth,
    /// A usage limit.
    Limit,
    /// SIGINT or SIGTERM.
    Interrupted,
}

impl Reason {
    /// The exit code; for [`Reason::Interrupted`] that of SIGINT.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Completed => 0,
            Self::Usage | Self::NoModel => 2,
            Self::Auth => 3,
            Self::Limit => 4,
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}
