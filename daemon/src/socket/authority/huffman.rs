//! The Huffman code of HPACK (RFC 7541, appendix B), as far as finding the borders of its symbols needs.
//!
//! The code is canonical: codes are handed out by length, and within a length by the value of the symbol. So the number
//! of codes of each length says where each code ends; which symbol it stands for is needed for the six-bit codes alone.

use super::Broken;

/// Number of codes by length in bits. All 257 symbols, the end-of-string symbol (30 ones) included.
const CODES: [u32; 31] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];
/// Bits of the codes that can be replaced by one another.
const SIX_BITS: u32 = 6;
/// Codes of six bits whose symbols are illegal in an authority: space, `%` and `/`.
const ILLEGAL: [u32; 3] = [0b01_0100, 0b01_0101, 0b01_1000];
/// Code of `-`.
const DASH: u16 = 0b01_0110;
/// The code of the end-of-string symbol, which may not occur.
const END_OF_STRING: u32 = (1 << 30) - 1;
/// Longest padding in bits that a string may end with.
const MAX_PADDING: u32 = 7;

/// Reads a Huffman-coded string byte by byte.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Bits of the code that is being read.
    code: u32,
    /// How many they are.
    bits: u32,
    /// First code of the length `bits`.
    first: u32,
    /// Symbols that were read.
    symbols: u32,
}

impl Reader {
    /// Reads a byte. With `repair`, an illegal symbol that ends in it is replaced, unless it begins in a byte before
    /// that is not at hand.
    pub(super) fn byte(&mut self, byte: &mut u8, previous: Option<&mut u8>, repair: bool) -> Result<(), Broken> {
        let mut pair = u16::from_be_bytes([previous.as_deref().copied().unwrap_or(0), *byte]);
        let begin = if previous.is_some() { 0 } else { 8 };
        for position in 8..16 {
            let bit = u32::from(pair >> (15 - position) & 1);
            let Some((code, bits)) = self.bit(bit)? else { continue };
            if repair && bits == SIX_BITS && ILLEGAL.contains(&code) && position + 1 >= begin + SIX_BITS {
                let shift = 15 - position;
                pair = pair & !(0x3f << shift) | DASH << shift;
            }
        }
        let [high, low] = pair.to_be_bytes();
        *byte = low;
        if let Some(previous) = previous {
            *previous = high;
        }
        Ok(())
    }

    /// Adds a bit; a code that is complete with it is returned with its length.
    fn bit(&mut self, bit: u32) -> Result<Option<(u32, u32)>, Broken> {
        // First code of the next length: the first after the codes of this length, one bit longer.
        self.first = (self.first + CODES[self.bits as usize]) << 1;
        self.code = self.code << 1 | bit;
        self.bits += 1;
        if self.code - self.first >= CODES[self.bits as usize] {
            return Ok(None);
        }
        let complete = (self.code, self.bits);
        if complete == (END_OF_STRING, 30) {
            return Err(Broken);
        }
        *self = Self { symbols: self.symbols + 1, ..Self::default() };
        Ok(Some(complete))
    }

    /// Whether an illegal symbol may have begun in the last byte and not ended.
    pub(super) fn is_within_short_code(&self) -> bool {
        (1..SIX_BITS).contains(&self.bits)
    }

    /// Ends the string and returns its decoded length in bytes.
    pub(super) fn end(&self) -> Result<u32, Broken> {
        // Padding is the beginning of the end-of-string symbol: ones.
        let padding_is_ones = self.code == (1 << self.bits) - 1;
        if self.bits <= MAX_PADDING && padding_is_ones { Ok(self.symbols) } else { Err(Broken) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_complete_and_has_257_symbols() {
        assert_eq!(CODES.iter().sum::<u32>(), 257);
        let used: u64 = CODES.iter().zip(0u32..).map(|(count, bits)| u64::from(*count) << (30 - bits)).sum();
        assert_eq!(used, 1 << 30, "every sequence of bits begins with exactly one code");
    }

    #[test]
    fn the_lengths_of_encoded_strings_are_found() {
        for text in ["", "a", "www.example.com", "tmp%2Fx.sock", "\0\u{1}~^`{}|\\", "ÿþ \r\n\t"] {
            let mut coded = Vec::new();
            httlib_huffman::encode(text.as_bytes(), &mut coded).expect("encodes");
            let mut reader = Reader::default();
            for byte in &mut coded {
                reader.byte(byte, None, false).expect("valid");
            }
            assert_eq!(reader.end().map(|length| length as usize), Ok(text.len()), "{text:?}");
        }
    }

    #[test]
    fn the_end_symbol_and_wrong_padding_are_refused() {
        let read = |bytes: &[u8]| {
            let mut reader = Reader::default();
            bytes.iter().try_for_each(|byte| reader.byte(&mut byte.clone(), None, false))?;
            reader.end()
        };
        assert_eq!(read(&[0xff; 4]), Err(Broken), "the end symbol");
        assert_eq!(read(&[0xff]), Err(Broken), "padding of a whole byte");
        assert_eq!(read(&[0b0000_0000]), Err(Broken), "padding of zeros");
        assert_eq!(read(&[0b0000_0111]), Ok(1));
    }
}
