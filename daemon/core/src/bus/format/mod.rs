//! The bytes of a bus file: pure functions, no I/O.
//!
//! [`encode`] writes entries, [`scan`] finds them in a file, [`header`] reads their YAML, [`body`] makes bodies safe
//! for readers that only look at lines. `docs/bus.md` has the format for other programs.

pub(super) mod body;
pub(super) mod encode;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub(super) mod header;
pub(super) mod scalar;
pub(super) mod scan;

#[cfg(test)]
mod tests;

/// Bytes of a body at most, as posted: what the wire and the screen are built for.
pub const MAX_BODY: usize = 1 << 20;
/// Bytes of a header that we write at most: a few hundred references, and a page in memory.
pub const MAX_HEADER: usize = 64 << 10;
/// Characters of a kind at most.
pub const MAX_KIND: usize = 64;
/// Bytes of a meta key at most (YAML's limit for a simple key is 1,024).
pub const MAX_META_KEY: usize = 128;

/// Meta key with the length of the stored body.
pub(super) const X_LEN: &str = "x-len";
/// Meta key with the checksum.
pub(super) const X_CRC: &str = "x-crc32c";
/// Meta key that says that lines of the body were indented.
pub(super) const X_ESC: &str = "x-esc";
/// Meta key with the key of a state change.
pub(super) const X_KEY: &str = "x-key";

/// Castagnoli checksum over the message's id, a newline and the stored body.
pub(super) fn checksum(id: &str, stored: &[u8]) -> u32 {
    let crc = crc32c::crc32c(id.as_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, b"\n"), stored)
}
