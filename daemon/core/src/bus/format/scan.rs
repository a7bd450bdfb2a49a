//! Finds entries in the bytes of a file: one at a time, from any entry's begin, without I/O.
//!
//! ```text
//!            legacy line or noise            verified by x-len and x-crc32c, or ended by `---` or the file's end
//!             ┌──────┐                             ┌──────────────────────────┐
//!  Start ─────┴──`---`──► header ──`---`──► body ──┴──► Between ──`---`──► header …
//!                           │ no mapping                  │ any other line
//!                           ▼                             ▼
//!                          Lost ◄─────────────────────── Lost ──(blank line, `---`)──► header …
//! ```
//!
//! In `Lost` only a `---` after a blank line begins an entry: writers put that line there, while the `---` that ends a
//! header follows a header line. So one damaged entry cannot take its successor along, and what stands in a damaged
//! body is not taken for an entry. One exception: a broken header without `x-len` (torn, then joined by a program that
//! does not repair) may be followed at once by a whole one.

use std::borrow::Cow;

use jiff::Timestamp;

use super::header::{self, Header};
use super::{body, checksum};

/// Bytes of an entry at most; what is longer is skipped and counted. Ours stay below 2.5 MiB.
pub(crate) const MAX_ENTRY: usize = 8 << 20;
/// Bytes of a header at most: four times what we write.
const MAX_HEADER_READ: usize = 4 * super::MAX_HEADER;
/// Stored bytes that an `x-len` may promise: the largest body, every line of it indented, and room.
const MAX_STORED: u64 = 2 << 20;
/// Bytes of blank lines after which they are taken as read.
const MAX_BLANK: usize = 64 << 10;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Before the first `---`: lines of the old form are entries.
    #[default]
    Start,
    /// After an entry.
    Between,
    /// After something that is no entry.
    Lost,
}

/// Where a scan is, apart from its offset. `State::default()` is for the begin of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    phase: Phase,
    /// Lines so far, in `Start`.
    line: u64,
    /// The line before was blank.
    blank: bool,
    /// The `---` here begins an entry, whatever stands before it.
    forced: bool,
    /// In the middle of an endless line.
    midline: bool,
    /// Lines `msg_id:` seen in this lost region.
    ids: u64,
}

impl State {
    /// For the begin of an entry that is not one of the old form.
    pub(crate) fn between() -> Self {
        Self { phase: Phase::Between, ..Self::default() }
    }

    /// Whether lines of the old form still count.
    pub(crate) fn is_start(self) -> bool {
        self.phase == Phase::Start
    }
}

/// An entry that was found. Offsets are relative to the buffer.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// Its first byte (`---`, or that of its line).
    pub(crate) start: usize,
    /// The byte after its final newline.
    pub(crate) end: usize,
    pub(crate) header: Header,
    pub(crate) body: Cow<'a, str>,
    /// The checksum does not hold, or the text is not UTF-8.
    pub(crate) damaged: bool,
    /// It ends where the file ends and nothing says that it is whole: it may still grow.
    pub(crate) provisional: bool,
}

/// What the end of a file looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tail<T> {
    /// Another entry may be appended.
    #[default]
    Clean,
    /// An entry without its end begins at `start`; `ours`: its header promises more than is there.
    Torn { start: T, ours: bool },
}

/// One step of a scan.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// An entry.
    Entry(Box<Entry<'a>>),
    /// So many records were lost.
    Lost(u64),
    /// The buffer ends before the file does: go on from [`Scanner::pos`] with more bytes.
    More,
    /// Nothing whole is left.
    End(Tail<usize>),
}

/// A scan over a buffer.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    buf: &'a [u8],
    eof: bool,
    /// Everything before is done with.
    pub(crate) pos: usize,
    /// The state at [`Self::pos`].
    pub(crate) state: State,
}

struct Opened<'a> {
    open: usize,
    body: usize,
    header: Header,
    crlf: bool,
    /// Verification has failed for an entry that carries our keys.
    suspect: bool,
    buf: &'a [u8],
}

impl<'a> Scanner<'a> {
    /// `eof`: the buffer ends where the file does.
    pub(crate) fn new(buf: &'a [u8], state: State, eof: bool) -> Self {
        Self { buf, eof, pos: 0, state }
    }

    fn commit(&mut self, pos: usize, state: State) {
        self.pos = pos;
        self.state = state;
    }

    /// The next entry or event.
    pub(crate) fn step(&mut self) -> Step<'a> {
        let (mut p, mut state) = (self.pos, self.state);
        loop {
            if p == self.buf.len() {
                return if self.eof { Step::End(Tail::Clean) } else { Step::More };
            }
            let Some((line, next)) = line_at(self.buf, p) else {
                return self.unterminated(p);
            };
            if state.midline {
                state.midline = false;
                self.commit(next, state);
                p = next;
                continue;
            }
            if line == b"---" && (state.forced || state.blank || state.phase != Phase::Lost) {
                return self.opened(p, next, state);
            }
            state.forced = false;
            state.line += 1;
            if line.is_empty() {
                state.blank = true;
                p = next;
                if p - self.pos > MAX_BLANK {
                    self.commit(p, state);
                }
                continue;
            }
            state.blank = false;
            if let Some(step) = self.other_line(line, p, next, &mut state) {
                return step;
            }
            p = next;
        }
    }

    /// A line outside of entries.
    fn other_line(&mut self, line: &'a [u8], start: usize, next: usize, state: &mut State) -> Option<Step<'a>> {
        let id = u64::from(line.starts_with(b"msg_id:"));
        let lost = match state.phase {
            Phase::Start => {
                if let Some((header, body)) = legacy(line, state.line) {
                    self.commit(next, *state);
                    let entry =
                        Entry { start, end: next, header, body: body.into(), damaged: false, provisional: false };
                    return Some(Step::Entry(Box::new(entry)));
                }
                if id > 0 {
                    // A header whose opening is damaged: the `---` behind it must not be taken for one.
                    state.phase = Phase::Lost;
                    state.ids = id;
                }
                1
            }
            Phase::Between => {
                state.phase = Phase::Lost;
                state.ids = id;
                1
            }
            Phase::Lost => {
                let before = state.ids.max(1);
                state.ids += id;
                state.ids.max(1) - before
            }
        };
        self.commit(next, *state);
        (lost > 0).then_some(Step::Lost(lost))
    }

    /// Bytes without a newline up to the buffer's end.
    fn unterminated(&mut self, p: usize) -> Step<'a> {
        if self.eof {
            return Step::End(Tail::Torn { start: self.pos, ours: false });
        }
        if self.buf.len() - p > MAX_ENTRY { self.oversize(self.buf.len(), true) } else { Step::More }
    }

    /// Gives up on what begins at `self.pos` and goes on at `pos`.
    fn oversize(&mut self, pos: usize, midline: bool) -> Step<'a> {
        let lost = u64::from(self.state.phase != Phase::Lost);
        let state = State { phase: Phase::Lost, midline, ids: self.state.ids.max(1), ..State::default() };
        self.commit(pos, state);
        // In a lost region nothing new is lost; the caller wants an event all the same, to see that it moved.
        Step::Lost(lost)
    }

    /// At an opening `---`: `first` is where the header begins.
    fn opened(&mut self, open: usize, first: usize, state: State) -> Step<'a> {
        let (mut q, mut blank) = (first, false);
        let (close, body) = loop {
            let too_long = q - first > MAX_HEADER_READ || (!self.eof && self.buf.len() - q > MAX_HEADER_READ);
            match line_at(self.buf, q) {
                Some((b"---", next)) => break (q, next),
                Some((line, next)) if q - first <= MAX_HEADER_READ => {
                    blank = line.is_empty();
                    q = next;
                }
                _ if too_long => return self.oversize(first, false),
                _ if !self.eof => return Step::More,
                _ => return self.unclosed(first, state),
            }
        };
        let text = &self.buf[first..close];
        let has_length = contains(text, b"x-len:");
        let parsed = if has_length && blank { None } else { std::str::from_utf8(text).ok().and_then(header::parse) };
        // Where the opening is only a guess, what follows must look like a header.
        let guessed = state.phase == Phase::Lost && !state.blank;
        match parsed.filter(|header| !guessed || (!header.id.is_empty() && !header.kind.is_empty())) {
            Some(header) => {
                let opened =
                    Opened { open, body, header, crlf: text.ends_with(b"\r\n"), suspect: false, buf: self.buf };
                self.body(opened)
            }
            None => self.bad_header(close, body, state, blank, has_length),
        }
    }

    /// A header whose end the file does not have.
    fn unclosed(&self, first: usize, state: State) -> Step<'a> {
        let ended = self.buf.ends_with(b"\n");
        if state.phase == Phase::Lost && state.forced && ended {
            return Step::End(Tail::Clean);
        }
        Step::End(Tail::Torn { start: self.pos, ours: contains(&self.buf[first..], b"\n    x-len: \"") })
    }

    fn bad_header(&mut self, close: usize, body: usize, state: State, blank: bool, has_length: bool) -> Step<'a> {
        let text = &self.buf[self.pos..close];
        let found = text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"msg_id:")).count() as u64;
        let (ids, lost) = if state.phase == Phase::Lost {
            (state.ids + found, (state.ids + found).max(1) - state.ids.max(1))
        } else {
            (found, found.max(1))
        };
        let lost_state = State { phase: Phase::Lost, ids, ..State::default() };
        if blank || !has_length {
            self.commit(close, State { forced: true, blank, ..lost_state });
        } else {
            self.commit(body, lost_state);
        }
        Step::Lost(lost)
    }

    /// Behind a good header: finds the body's end.
    fn body(&mut self, mut opened: Opened<'a>) -> Step<'a> {
        let (buf, begin) = (self.buf, opened.body);
        let have = (buf.len() - begin) as u64;
        let promised = opened.header.length.filter(|length| *length <= MAX_STORED);
        opened.suspect = opened.header.length.is_some() || opened.header.crc.is_some();
        let mut short = false;
        if let Some(length) = promised {
            if have > length {
                let end = begin + usize::try_from(length).expect("bounded by MAX_STORED");
                let stored = &buf[begin..end];
                if buf[end] == b'\n' && opened.header.crc == Some(checksum(&opened.header.id, stored)) {
                    opened.suspect = !opened.header.escaped && body::needs_escape(stored);
                    return self.found(opened, end, end + 1, false);
                }
            } else if !self.eof {
                return Step::More;
            } else {
                short = true;
            }
        }
        let mut q = begin;
        loop {
            match line_at(buf, q) {
                Some((b"---", _)) => {
                    let (stored, end) = strip(buf, begin, q, opened.crlf, true);
                    return self.found(opened, stored, end, false);
                }
                Some((_, next)) => q = next,
                None if self.eof => break,
                None if buf.len() - begin > MAX_ENTRY => return self.oversize(begin, false),
                None => return Step::More,
            }
            if q - begin > MAX_ENTRY {
                return self.oversize(q, false);
            }
        }
        self.last_body(opened, q, short)
    }

    /// A body that the file's end ends; its last, unterminated line begins at `last`.
    fn last_body(&mut self, opened: Opened<'a>, last: usize, short: bool) -> Step<'a> {
        let (buf, begin) = (self.buf, opened.body);
        if last == buf.len() && last > begin {
            let (stored, end) = strip(buf, begin, last, opened.crlf, false);
            let whole = opened.header.crc == Some(checksum(&opened.header.id, &buf[begin..stored]));
            if !short || whole {
                return self.found(opened, stored, end, !whole);
            }
        } else if !short && matches!(&buf[last..], b"-" | b"--" | b"---") && buf[begin..last].ends_with(b"\n\n") {
            // The entry is whole; what is torn is the delimiter of the next one.
            let (stored, end) = strip(buf, begin, last, opened.crlf, true);
            return self.found(opened, stored, end, false);
        }
        Step::End(Tail::Torn { start: self.pos, ours: opened.header.length.is_some() })
    }

    /// An entry whose stored body ends at `stored` and which itself ends at `end`.
    fn found(&mut self, opened: Opened<'a>, stored: usize, end: usize, provisional: bool) -> Step<'a> {
        let Opened { open, body, header, suspect, buf, .. } = opened;
        self.commit(end, State::between());
        let text = String::from_utf8_lossy(&buf[body..stored]);
        let valid = matches!(text, Cow::Borrowed(_));
        let body = if header.escaped { Cow::Owned(body::unescape(&text)) } else { text };
        let damaged = suspect || !valid;
        Step::Entry(Box::new(Entry { start: open, end, header, body, damaged, provisional }))
    }
}

/// The line at `p` without its line end, and where the next one begins; `None` if it has no newline.
fn line_at(buf: &[u8], p: usize) -> Option<(&[u8], usize)> {
    let length = find_newline(&buf[p..])?;
    let mut line = &buf[p..p + length];
    while let [rest @ .., b'\r'] = line {
        line = rest;
    }
    Some((line, p + length + 1))
}

fn find_newline(buf: &[u8]) -> Option<usize> {
    // SAFETY: pointer and length are those of a live slice, and memchr reads no further.
    let found = unsafe { libc::memchr(buf.as_ptr().cast(), i32::from(b'\n'), buf.len()) };
    (!found.is_null()).then(|| found as usize - buf.as_ptr() as usize)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Where the stored body `begin..end` ends without its final newline (and `separator`: without the blank line behind
/// it), and where the entry ends.
fn strip(buf: &[u8], begin: usize, end: usize, crlf: bool, separator: bool) -> (usize, usize) {
    let newline = |end: usize| {
        let text = &buf[begin..end];
        match (crlf, text) {
            (true, [.., b'\r', b'\n']) => end - 2,
            (_, [.., b'\n']) => end - 1,
            _ => end,
        }
    };
    let once = newline(end);
    if separator && newline(once) < once { (newline(once), once) } else { (once, end) }
}

/// `[YYYY-MM-DD HH:MM:SS] TYPE: text`, as conductor-loop's first versions wrote.
fn legacy(line: &[u8], number: u64) -> Option<(Header, String)> {
    let text = std::str::from_utf8(line).ok()?;
    let (time, rest) = text.strip_prefix('[')?.split_once(']')?;
    let time = legacy_time(time)?;
    let rest = rest.trim();
    let word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let (kind, body) = match rest.split_once(':') {
        Some((kind, body)) if !kind.is_empty() && kind.chars().all(word) => (kind, body.trim()),
        _ => ("INFO", rest),
    };
    let id = format!("LEGACY-LINE-{number:09}");
    Some((Header { id, time: Some(time), kind: kind.to_owned(), ..Header::default() }, body.to_owned()))
}

fn legacy_time(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        let dated = text.len() > 10;
        dated.then(|| jiff::tz::Offset::UTC.to_timestamp(civil).ok())?
    })
}
