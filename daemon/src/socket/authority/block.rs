//! The instructions of a header block (RFC 7541, section 6), read byte by byte.

use super::Broken;
use super::huffman::Reader;
use super::rule::Rule;
use super::table::{Name, Table};

/// Largest integer: no valid index, length or table size of a connection with default limits reaches it.
const MAX_INTEGER: u32 = 1 << 24;
/// The name as it is spelled out plain.
const PLAIN_NAME: &[u8] = b":authority";
/// The name as it is spelled out Huffman-coded; the code of a text is unique.
const HUFFMAN_NAME: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];

/// What an integer in the block means.
#[derive(Clone, Copy, Debug)]
enum Meaning {
    /// A header that is in a table.
    Indexed,
    /// The name of a literal header; 0: it is spelled out.
    NameIndex,
    /// A new size of the dynamic table.
    TableSize,
    /// The length of a string.
    Length { part: Part, huffman: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Name,
    Value,
}

#[derive(Debug)]
enum At {
    /// An instruction begins.
    Instruction,
    /// The rest of an integer.
    Integer { meaning: Meaning, value: u32, shift: u32 },
    /// The first byte of a string's length.
    Length(Part),
    /// A string.
    Text { part: Part, left: u32, huffman: Option<Reader>, seen: u32 },
}

/// Reads the header blocks of one direction of one connection.
#[derive(Debug)]
pub(super) struct Block {
    at: At,
    table: Table,
    /// Whether the literal header that is being read goes into the dynamic table.
    adds: bool,
    name: Name,
    /// Whether the name that is being read equals `:authority` so far.
    matches: bool,
    rule: Rule,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            at: At::Instruction,
            table: Table::default(),
            adds: false,
            name: Name::default(),
            matches: false,
            rule: Rule::default(),
        }
    }
}

impl Block {
    /// Reads a byte and repairs it, and where a Huffman code reaches back the byte before it in the same fragment.
    pub(super) fn byte(&mut self, byte: &mut u8, previous: Option<&mut u8>) -> Result<(), Broken> {
        match &mut self.at {
            At::Instruction => {
                let (meaning, bits) = match *byte {
                    0x80.. => (Meaning::Indexed, 7),
                    0x40.. => (Meaning::NameIndex, 6),
                    0x20.. => (Meaning::TableSize, 5),
                    // Without indexing, and never indexed.
                    _ => (Meaning::NameIndex, 4),
                };
                self.adds = bits == 6;
                self.begin_integer(meaning, *byte, bits)
            }
            At::Length(part) => {
                let meaning = Meaning::Length { part: *part, huffman: *byte & 0x80 != 0 };
                self.begin_integer(meaning, *byte, 7)
            }
            At::Integer { meaning, value, shift } => {
                let more = u32::from(*byte & 0x7f).checked_shl(*shift).ok_or(Broken)?;
                *value = value.checked_add(more).filter(|sum| *sum <= MAX_INTEGER).ok_or(Broken)?;
                *shift += 7;
                // Three further bytes reach the maximum; zeros after that are a trick.
                if *byte & 0x80 == 0 {
                    let (meaning, value) = (*meaning, *value);
                    return self.integer(meaning, value);
                }
                if *shift > 21 { Err(Broken) } else { Ok(()) }
            }
            At::Text { .. } => self.text(byte, previous),
        }
    }

    /// Ends a header block; none may end within an instruction.
    pub(super) fn end(&mut self) -> Result<(), Broken> {
        if matches!(self.at, At::Instruction) { Ok(()) } else { Err(Broken) }
    }

    /// Whether the byte that follows may need a change of the last one.
    pub(super) fn may_change_last_byte(&self) -> bool {
        matches!(&self.at, At::Text { part: Part::Value, huffman: Some(reader), .. }
            if self.name.is_authority && reader.is_within_short_code())
    }

    fn begin_integer(&mut self, meaning: Meaning, byte: u8, bits: u32) -> Result<(), Broken> {
        let mask = (1u8 << bits) - 1;
        let value = u32::from(byte & mask);
        if byte & mask == mask {
            self.at = At::Integer { meaning, value, shift: 0 };
            return Ok(());
        }
        self.integer(meaning, value)
    }

    fn integer(&mut self, meaning: Meaning, value: u32) -> Result<(), Broken> {
        self.at = match meaning {
            Meaning::Indexed => {
                self.table.name(value)?;
                At::Instruction
            }
            Meaning::TableSize => {
                self.table.resize(value)?;
                At::Instruction
            }
            Meaning::NameIndex if value == 0 => At::Length(Part::Name),
            Meaning::NameIndex => {
                self.name = self.table.name(value)?;
                At::Length(Part::Value)
            }
            Meaning::Length { part, huffman } => {
                let spelled = if huffman { HUFFMAN_NAME } else { PLAIN_NAME };
                self.matches = usize::try_from(value) == Ok(spelled.len());
                self.rule = Rule::default();
                self.at = At::Text { part, left: value, huffman: huffman.then(Reader::default), seen: 0 };
                return if value == 0 { self.end_text() } else { Ok(()) };
            }
        };
        Ok(())
    }

    fn text(&mut self, byte: &mut u8, previous: Option<&mut u8>) -> Result<(), Broken> {
        let At::Text { part, left, huffman, seen } = &mut self.at else { return Err(Broken) };
        let repair = *part == Part::Value && self.name.is_authority;
        if *part == Part::Name {
            let spelled = if huffman.is_some() { HUFFMAN_NAME } else { PLAIN_NAME };
            self.matches &= spelled.get(*seen as usize) == Some(&*byte);
        }
        match huffman {
            // The byte before the first one of the string is no part of it.
            Some(reader) => reader.byte(byte, previous.filter(|_| *seen > 0), repair)?,
            None if repair && !self.rule.is_legal(*byte) => *byte = b'-',
            None => {}
        }
        *seen += 1;
        *left -= 1;
        if *left == 0 { self.end_text() } else { Ok(()) }
    }

    fn end_text(&mut self) -> Result<(), Broken> {
        let At::Text { part, huffman, seen, .. } = &self.at else { return Err(Broken) };
        let length = match huffman {
            Some(reader) => reader.end()?,
            None => *seen,
        };
        self.at = match part {
            Part::Name => {
                self.name = Name { length, is_authority: self.matches };
                At::Length(Part::Value)
            }
            Part::Value => {
                if self.adds {
                    self.table.insert(self.name, length)?;
                }
                At::Instruction
            }
        };
        Ok(())
    }
}
