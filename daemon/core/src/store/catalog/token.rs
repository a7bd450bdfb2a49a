//! Page tokens: a digest of the list (kind, filter, order) and a place in it.
//!
//! Written in hexadecimal, so that nobody is tempted to read or build one. No secret: what a caller may list is not
//! decided here.

use std::fmt::Write;

use super::ListError;

/// Bytes of a token at most: three ids and a number.
const MAX_TOKEN: usize = 512;

/// The token of a place in a list.
pub(super) fn write(digest: u64, position: &str) -> String {
    let mut token = format!("{digest:016x}");
    for byte in position.bytes() {
        write!(token, "{byte:02x}").expect("writing to a String does not fail");
    }
    token
}

/// The place that a token of the list with this digest names.
pub(super) fn read(token: &str, digest: u64) -> Result<String, ListError> {
    let is_hex =
        token.len() <= MAX_TOKEN && token.len().is_multiple_of(2) && token.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_hex || token.len() < 16 {
        return Err(ListError::BadToken);
    }
    let (head, tail) = token.split_at(16);
    if u64::from_str_radix(head, 16) != Ok(digest) {
        return Err(ListError::OtherList);
    }
    let bytes: Option<Vec<u8>> =
        tail.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(ListError::BadToken)
}
