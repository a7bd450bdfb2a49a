//! Cuts a stream into lines of bounded length and remembers where each began. Knows nothing of what lines mean.

use super::event::MAX_TEXT;

/// Bytes of a line that is parsed; a longer one is only shown in part.
pub(crate) const MAX_LINE: usize = 16 << 20;
/// Capacity that is kept between lines, so that one long line does not hold its memory for the rest of the run.
const KEPT_CAPACITY: usize = 1 << 20;

/// One line of a stream, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A whole line.
    Whole(&'a [u8]),
    /// The first bytes of a line over the limit, and how long it was.
    Cut(&'a [u8], u64),
}

/// The state between two pieces of a stream.
#[derive(Debug)]
pub(crate) struct Lines {
    limit: usize,
    /// Offset of the current line's first byte.
    start: u64,
    /// Bytes of the current line so far, kept or not.
    length: u64,
    /// The current line, or its first [`MAX_TEXT`] bytes once it is over the limit.
    buffer: Vec<u8>,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self::with_limit(MAX_LINE)
    }

    fn with_limit(limit: usize) -> Self {
        Self { limit, start: 0, length: 0, buffer: Vec::new() }
    }

    /// Takes the next bytes; `each` gets the offset and the text of every line that they complete.
    pub(crate) fn feed(&mut self, mut chunk: &[u8], each: &mut dyn FnMut(u64, Line<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            let (line, rest) = (&chunk[..end], &chunk[end + 1..]);
            if self.length == 0 && line.len() <= self.limit {
                // The usual case: the whole line is in this piece and needs no copy.
                each(self.start, Line::Whole(line));
                self.start += line.len() as u64 + 1;
            } else {
                self.push(line);
                self.complete(1, each);
            }
            chunk = rest;
        }
        self.push(chunk);
    }

    /// Gives a last line that has no newline.
    pub(crate) fn finish(&mut self, each: &mut dyn FnMut(u64, Line<'_>)) {
        if self.length > 0 {
            self.complete(0, each);
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.length <= self.limit as u64 {
            self.buffer.extend_from_slice(bytes);
            return;
        }
        let missing = MAX_TEXT.saturating_sub(self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..missing.min(bytes.len())]);
        self.buffer.truncate(MAX_TEXT);
        self.buffer.shrink_to(KEPT_CAPACITY);
    }

    fn complete(&mut self, newline: u64, each: &mut dyn FnMut(u64, Line<'_>)) {
        let whole = self.length <= self.limit as u64;
        let line = if whole { Line::Whole(&self.buffer) } else { Line::Cut(&self.buffer, self.length) };
        each(self.start, line);
        self.start += self.length + newline;
        self.length = 0;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_CAPACITY);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Found = Vec<(u64, Vec<u8>, Option<u64>)>;

    fn split(chunks: &[&[u8]], limit: usize) -> Found {
        let (mut lines, mut found) = (Lines::with_limit(limit), Vec::new());
        let mut each = |offset: u64, line: Line<'_>| match line {
            Line::Whole(text) => found.push((offset, text.to_vec(), None)),
            Line::Cut(text, length) => found.push((offset, text.to_vec(), Some(length))),
        };
        for chunk in chunks {
            lines.feed(chunk, &mut each);
        }
        lines.finish(&mut each);
        found
    }

    #[test]
    fn lines_come_with_their_offsets_and_the_last_needs_no_newline() {
        let found = split(&[b"ab\n", b"\nc", b"d"], 100);
        assert_eq!(found, [(0, b"ab".to_vec(), None), (3, vec![], None), (4, b"cd".to_vec(), None)]);
    }

    #[test]
    fn a_line_over_the_limit_keeps_its_beginning_and_its_length() {
        let long = vec![b'x'; 3 * MAX_TEXT];
        let found = split(&[&long, b"y\nz\n"], 2 * MAX_TEXT);
        assert_eq!(found[0], (0, vec![b'x'; MAX_TEXT], Some(3 * MAX_TEXT as u64 + 1)));
        assert_eq!(found[1], (3 * MAX_TEXT as u64 + 2, b"z".to_vec(), None));
    }

    #[test]
    fn a_stream_that_never_ends_its_line_keeps_little_memory() {
        let mut lines = Lines::new();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..64 {
            lines.feed(&chunk, &mut |_, _| {});
        }
        assert!(lines.buffer.len() <= MAX_TEXT && lines.buffer.capacity() <= KEPT_CAPACITY);
    }

    proptest! {
        #[test]
        fn the_cutting_of_the_stream_makes_no_difference(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400),
            cuts in proptest::collection::vec(0usize..400, 0..8),
            limit in 1usize..40,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&bytes[from..cut]);
                from = cut;
            }
            chunks.push(&bytes[from..]);
            prop_assert_eq!(split(&chunks, limit), split(&[&bytes], limit));
        }
    }
}
