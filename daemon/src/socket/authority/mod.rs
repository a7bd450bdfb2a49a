//! Repairs the `:authority` header of gRPC clients on the accepted stream, before any HTTP/2 code reads it.
//!
//! gRPC clients written on grpc-c-core (Python, C++, Ruby, PHP), grpc-java and grpc-swift send the path of a Unix
//! socket as `:authority` (`tmp%2Fx.sock` or `/tmp/x.sock`). The h2 crate refuses that as malformed and resets the
//! stream before any service sees the call. [`Repair`] follows the frames (RFC 9113) and header blocks (RFC 7541) that
//! a client sends and replaces the illegal bytes of that one value by `-`. The length of nothing changes, so frames,
//! string lengths and the sizes in the dynamic table of HPACK stay exact.
//!
//! Covered: values that are plain or Huffman-coded; the name by its index in the static or the dynamic table, or
//! spelled out, plain or Huffman-coded; padding, priority and CONTINUATION; any splitting of the stream.
//!
//! Not covered, and left as they are: in Huffman-coded values every illegal character but space, `%` and `/` (those have
//! codes of six bits, as `-` has); a Huffman code that begins in one frame and ends in the next; an empty value. A
//! client that does such a thing gets the stream reset that it would have got without the repair.
//!
//! What is not valid HTTP/2 (a wrong preface, a frame over the default limit, a broken header block) switches the repair
//! off for the rest of the connection: the bytes pass unchanged and the HTTP/2 code refuses them by its own rules.
//! Nothing is buffered but one byte at most, which [`Repair::run`] asks for again.

mod block;
mod huffman;
mod rule;
mod table;

use block::Block;

/// What a client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest frame payload in bytes: the default of SETTINGS_MAX_FRAME_SIZE, which the server does not raise.
const MAX_FRAME: u32 = 16_384;
/// Bytes of a frame's header.
const FRAME_HEADER: usize = 9;
/// Bytes of the priority fields in a HEADERS frame.
const PRIORITY_FIELDS: u32 = 5;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The bytes are not what HTTP/2 allows.
#[derive(Debug, PartialEq, Eq)]
struct Broken;

/// Where in the sequence of frames the next byte is.
#[derive(Debug)]
enum At {
    /// So many bytes of the preface were seen.
    Preface(usize),
    /// So many bytes of a frame's header were seen.
    Header { seen: usize, bytes: [u8; FRAME_HEADER] },
    /// The length of the padding comes next.
    PadLength { left: u32, flags: u8 },
    /// So many bytes of the priority fields are still to come.
    Priority { fields: u32, left: u32, padding: u32, flags: u8 },
    /// Inside a fragment of a header block; `first` holds for its first byte.
    Fragment { left: u32, padding: u32, flags: u8, first: bool },
    /// Bytes of no interest.
    Skip { left: u32 },
    /// Switched off.
    Off,
}

const NEXT_FRAME: At = At::Header { seen: 0, bytes: [0; FRAME_HEADER] };

/// The state of one connection's repair.
#[derive(Debug)]
pub struct Repair {
    at: At,
    block: Block,
    /// The stream whose header block goes on in a CONTINUATION frame.
    open_block: Option<u32>,
    /// Whether the first byte of the next call was seen in the last one.
    held: bool,
}

impl Default for Repair {
    fn default() -> Self {
        Self { at: At::Preface(0), block: Block::default(), open_block: None, held: false }
    }
}

impl Repair {
    /// Repairs the next bytes of the stream in place and returns how many of them may be passed on. That is all of
    /// them, or all but the last one: then the caller begins the next call's `data` with that byte.
    #[must_use]
    pub fn run(&mut self, data: &mut [u8]) -> usize {
        if data.is_empty() {
            return 0;
        }
        let mut next = usize::from(self.held);
        while next < data.len() {
            match self.step(data, next) {
                Ok(used) => next += used,
                Err(Broken) => self.at = At::Off,
            }
        }
        self.held = matches!(self.at, At::Fragment { left, padding, .. } if left > padding)
            && self.block.may_change_last_byte();
        data.len() - usize::from(self.held)
    }

    /// Whether the stream turned out not to be HTTP/2 as it is expected.
    #[must_use]
    pub fn is_off(&self) -> bool {
        matches!(self.at, At::Off)
    }

    /// Handles one byte, or several of no interest, and returns how many.
    fn step(&mut self, data: &mut [u8], next: usize) -> Result<usize, Broken> {
        let available = data.len() - next;
        let mut used = 1;
        match &mut self.at {
            At::Off => used = available,
            At::Preface(seen) => {
                if data[next] != PREFACE[*seen] {
                    return Err(Broken);
                }
                *seen += 1;
                if *seen == PREFACE.len() {
                    self.at = NEXT_FRAME;
                }
            }
            At::Header { seen, bytes } => {
                bytes[*seen] = data[next];
                *seen += 1;
                if *seen == FRAME_HEADER {
                    let bytes = *bytes;
                    self.enter_frame(bytes)?;
                }
            }
            At::Skip { left } => {
                used = available.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= u32::try_from(used).map_err(|_| Broken)?;
                if *left == 0 {
                    self.at = NEXT_FRAME;
                }
            }
            At::PadLength { left, flags } => {
                let (left, flags) = (*left - 1, *flags);
                self.enter_headers(left, u32::from(data[next]), flags)?;
            }
            At::Priority { fields, left, padding, flags } => {
                *fields -= 1;
                *left -= 1;
                if *fields == 0 {
                    let (left, padding, flags) = (*left, *padding, *flags);
                    self.enter_fragment(left, padding, flags)?;
                }
            }
            At::Fragment { left, padding, flags, first } => {
                *left -= 1;
                let (before, from) = data.split_at_mut(next);
                let previous = if std::mem::take(first) { None } else { before.last_mut() };
                self.block.byte(&mut from[0], previous)?;
                if *left == *padding {
                    let (padding, flags) = (*padding, *flags);
                    self.leave_fragment(padding, flags)?;
                }
            }
        }
        Ok(used)
    }

    fn enter_frame(&mut self, bytes: [u8; FRAME_HEADER]) -> Result<(), Broken> {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        let length = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        if length > MAX_FRAME {
            return Err(Broken);
        }
        match (self.open_block, kind) {
            (Some(open), CONTINUATION) if open == stream => self.enter_fragment(length, 0, flags),
            (Some(_), _) | (None, CONTINUATION) => Err(Broken),
            (None, HEADERS) => {
                self.open_block = Some(stream);
                if flags & PADDED == 0 {
                    return self.enter_headers(length, 0, flags);
                }
                if length == 0 {
                    return Err(Broken);
                }
                self.at = At::PadLength { left: length, flags };
                Ok(())
            }
            (None, _) => {
                self.skip(length);
                Ok(())
            }
        }
    }

    /// After the length of the padding of a HEADERS frame: `left` counts the padding in.
    fn enter_headers(&mut self, left: u32, padding: u32, flags: u8) -> Result<(), Broken> {
        if flags & PRIORITY == 0 {
            return self.enter_fragment(left, padding, flags);
        }
        if left < PRIORITY_FIELDS + padding {
            return Err(Broken);
        }
        self.at = At::Priority { fields: PRIORITY_FIELDS, left, padding, flags };
        Ok(())
    }

    fn enter_fragment(&mut self, left: u32, padding: u32, flags: u8) -> Result<(), Broken> {
        if left < padding {
            return Err(Broken);
        }
        if left == padding {
            return self.leave_fragment(padding, flags);
        }
        self.at = At::Fragment { left, padding, flags, first: true };
        Ok(())
    }

    fn leave_fragment(&mut self, padding: u32, flags: u8) -> Result<(), Broken> {
        if flags & END_HEADERS != 0 {
            self.open_block = None;
            self.block.end()?;
        }
        self.skip(padding);
        Ok(())
    }

    fn skip(&mut self, left: u32) {
        self.at = if left == 0 { NEXT_FRAME } else { At::Skip { left } };
    }
}

#[cfg(test)]
mod tests;
