//! What all parsers of streams share: two streams cut into lines, each line given to a [`Reader`] of one vendor.

use super::event::{Event, EventKind, EventParser, MAX_TEXT, Stream, StreamSummary, head};
use super::lines::{Line, Lines};

/// Knows one vendor's lines. No I/O, no clock.
pub(crate) trait Reader: Send {
    /// One line, without its newline.
    fn line(&mut self, stream: Stream, offset: u64, line: &Line<'_>, sink: &mut dyn FnMut(Event));

    /// What the streams came to so far.
    fn summary(&self) -> &StreamSummary;
}

/// A parser of one run's streams.
#[derive(Debug)]
pub(crate) struct Parser<R> {
    stdout: Lines,
    stderr: Lines,
    reader: R,
}

impl<R: Reader> Parser<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { stdout: Lines::new(), stderr: Lines::new(), reader }
    }
}

impl<R: Reader> EventParser for Parser<R> {
    fn feed(&mut self, stream: Stream, chunk: &[u8], sink: &mut dyn FnMut(Event)) {
        let Self { stdout, stderr, reader } = self;
        let lines = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        lines.feed(chunk, &mut |offset, line| reader.line(stream, offset, &line, sink));
    }

    fn finish(&mut self, sink: &mut dyn FnMut(Event)) {
        let Self { stdout, stderr, reader } = self;
        stdout.finish(&mut |offset, line| reader.line(Stream::Stdout, offset, &line, sink));
        stderr.finish(&mut |offset, line| reader.line(Stream::Stderr, offset, &line, sink));
    }

    fn summary(&self) -> &StreamSummary {
        self.reader.summary()
    }
}

/// A program whose lines are text and nothing else: every line of standard output is a [`EventKind::Text`].
#[derive(Debug, Default)]
pub(crate) struct Plain(StreamSummary);

impl Reader for Plain {
    fn line(&mut self, stream: Stream, offset: u64, line: &Line<'_>, sink: &mut dyn FnMut(Event)) {
        if stream == Stream::Stdout {
            self.0.lines += 1;
            sink(text_event(stream, offset, line));
        }
    }

    fn summary(&self) -> &StreamSummary {
        &self.0
    }
}

/// The event of a line that is only text.
pub(crate) fn text_event(stream: Stream, offset: u64, line: &Line<'_>) -> Event {
    let (bytes, length) = match line {
        Line::Whole(bytes) => (*bytes, bytes.len() as u64),
        Line::Cut(bytes, length) => (*bytes, *length),
    };
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_suffix('\r').unwrap_or(&text);
    let shown = head(text, MAX_TEXT);
    let cut = shown.len() < text.len() || matches!(line, Line::Cut(..));
    Event {
        stream,
        offset,
        kind: EventKind::Text { text: shown.to_owned(), whole: cut.then_some(length), piece: false },
    }
}
