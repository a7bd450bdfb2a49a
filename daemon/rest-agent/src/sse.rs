//! Server-sent events, from bytes in any pieces: the same bytes give the same events however they are cut. Bounded
//! memory. What the events mean is not known here.

use std::mem;

/// Bytes of one event's data at most; a longer one is cut, and says so.
pub const MAX_DATA: usize = 16 << 20;
/// Bytes of a cut event that are kept.
pub const CUT_HEAD: usize = 64 << 10;
/// Room that a buffer keeps when a line is done: a rare long one should not stay in memory for ever.
const KEPT_ROOM: usize = 256 << 10;
/// Bytes of an event's name at most.
const MAX_NAME: usize = 256;
/// `data: `, which a line has besides the data.
const PREFIX: usize = 6;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its `event` field, empty where there is none.
    pub name: Vec<u8>,
    /// Its data lines, joined by newlines; the first [`CUT_HEAD`] bytes, where there were over [`MAX_DATA`].
    pub data: Vec<u8>,
    /// Bytes of data that came, where it was cut.
    pub cut: Option<u64>,
}

/// The parser. It keeps at most one line and one event, each of [`MAX_DATA`].
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// Bytes of the line, those that were dropped included.
    line_bytes: u64,
    after_cr: bool,
    after_first_line: bool,
    name: Vec<u8>,
    data: Option<Vec<u8>>,
    /// Bytes of the event's data, those that were dropped included.
    data_bytes: u64,
}

impl Parser {
    /// Takes the next bytes and gives the events that they complete.
    pub fn feed(&mut self, mut chunk: &[u8], sink: &mut dyn FnMut(Event)) {
        while let Some(&first) = chunk.first() {
            if mem::take(&mut self.after_cr) && first == b'\n' {
                chunk = &chunk[1..];
                continue;
            }
            let end = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let room = (MAX_DATA + PREFIX).saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            self.line_bytes += part.len() as u64;
            let Some(end) = end else { return };
            self.after_cr = chunk[end] == b'\r';
            chunk = &chunk[end + 1..];
            self.end_of_line(sink);
        }
    }

    /// The stream has ended: gives an event whose empty line is missing.
    pub fn finish(&mut self, sink: &mut dyn FnMut(Event)) {
        if self.line_bytes > 0 {
            self.end_of_line(sink);
        }
        self.dispatch(sink);
    }

    fn end_of_line(&mut self, sink: &mut dyn FnMut(Event)) {
        let mut line = mem::take(&mut self.line);
        let bytes = mem::take(&mut self.line_bytes);
        if !mem::replace(&mut self.after_first_line, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            self.dispatch(sink);
        } else {
            let colon = line.iter().position(|&byte| byte == b':');
            let value = colon.map_or(line.len(), |colon| colon + 1 + usize::from(line.get(colon + 1) == Some(&b' ')));
            match &line[..colon.unwrap_or(line.len())] {
                b"data" => self.append(&line[value..], bytes.saturating_sub(value as u64)),
                b"event" => self.name = line[value..].iter().take(MAX_NAME).copied().collect(),
                // Comments (no name), `id` and `retry`: nothing is resumed here.
                _ => {}
            }
        }
        line.clear();
        line.shrink_to(KEPT_ROOM);
        self.line = line;
    }

    /// Adds a data line of which `bytes` came.
    fn append(&mut self, value: &[u8], bytes: u64) {
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                self.data_bytes += bytes + 1;
            }
            None => {
                self.data = Some(Vec::new());
                self.data_bytes = bytes;
            }
        }
        if let Some(data) = &mut self.data {
            let room = MAX_DATA.saturating_sub(data.len());
            data.extend_from_slice(&value[..value.len().min(room)]);
        }
    }

    fn dispatch(&mut self, sink: &mut dyn FnMut(Event)) {
        let name = mem::take(&mut self.name);
        let bytes = mem::take(&mut self.data_bytes);
        let Some(mut data) = self.data.take() else { return };
        let cut = (bytes > MAX_DATA as u64).then_some(bytes);
        if cut.is_some() {
            data.truncate(CUT_HEAD);
            data.shrink_to_fit();
        }
        sink(Event { name, data, cut });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The events of `pieces`, one after the other.
    fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        pieces.into_iter().for_each(|piece| parser.feed(piece, &mut |event| events.push(event)));
        parser.finish(&mut |event| events.push(event));
        events
    }

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into(), cut: None }
    }

    #[test]
    fn names_comments_joined_lines_and_all_line_ends_are_read() {
        let stream = b"\xef\xbb\xbf: hello\nevent: a\ndata: {\"x\":\ndata:1}\n\ndata: two\r\n\r\nid: 7\rdata:  three\r\rdata\n\n:\n\nevent: lonely\n\ndata: last";
        let expected =
            [event("a", "{\"x\":\n1}"), event("", "two"), event("", " three"), event("", ""), event("", "last")];
        assert_eq!(events([&stream[..]]), expected);
    }

    #[test]
    fn an_event_over_the_limit_is_cut_and_says_so_and_the_next_one_is_whole() {
        for size in [MAX_DATA, MAX_DATA + 1, MAX_DATA + 7, 2 * MAX_DATA] {
            let mut stream = b"event: big\ndata: ".to_vec();
            stream.resize(stream.len() + size, b'x');
            stream.extend_from_slice(b"\n\ndata: next\n\n");
            let read = events(stream.chunks(1 << 20));
            let cut = (size > MAX_DATA).then_some(size as u64);
            assert_eq!((read[0].cut, &read[0].name[..]), (cut, &b"big"[..]));
            assert_eq!(read[0].data.len(), if size > MAX_DATA { CUT_HEAD } else { size });
            assert_eq!(read[1], event("", "next"));
        }
    }

    #[test]
    fn many_short_data_lines_are_bounded_as_well() {
        let mut stream = b"data: xxxxxxxxxxxxxxx\n".repeat((MAX_DATA >> 4) + 10);
        stream.push(b'\n');
        let read = events(stream.chunks(65_536));
        assert!(read[0].cut.unwrap() > MAX_DATA as u64);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            stream in "(data: |data:|event: |: |\\r|\\n|\\r\\n|\u{feff}|x|é|\\{\\}|id: 1){0,60}",
            cuts in prop::collection::vec(0usize..400, 0..12),
        ) {
            let bytes = stream.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(events(pieces), events([bytes]));
        }

        #[test]
        fn no_bytes_are_too_wild(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            prop_assert_eq!(events(bytes.chunks(1)), events([&bytes[..]]));
        }
    }
}
