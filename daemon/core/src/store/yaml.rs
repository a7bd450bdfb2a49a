//! YAML of our own files, with errors that name line and column. The only place that knows which YAML crate is used.
//!
//! Not for `run-info.yaml` as it usually is ([`super::run_info`] reads that by hand, many times faster) and not for bus
//! headers, whose bytes are prescribed.

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use serde_yaml::{Mapping, Value};

/// Why a text is not the YAML that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct YamlError {
    /// Line from 1, where it is known.
    pub line: Option<usize>,
    /// Column from 1, where it is known.
    pub column: Option<usize>,
    /// What is wrong and what was expected.
    pub message: String,
}

impl std::fmt::Display for YamlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl From<serde_yaml::Error> for YamlError {
    fn from(error: serde_yaml::Error) -> Self {
        let place = error.location();
        let text = error.to_string();
        // The crate appends the place to most messages; here it comes first, once.
        let message = match text.rfind(" at line ") {
            Some(at) if place.is_some() => text[..at].to_owned(),
            _ => text,
        };
        Self { line: place.as_ref().map(|at| at.line()), column: place.as_ref().map(|at| at.column()), message }
    }
}

/// Reads one document.
///
/// # Errors
/// Text that is not UTF-8, not YAML, or not a `T`.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, YamlError> {
    from_str(utf8(bytes)?)
}

/// Reads one document.
///
/// # Errors
/// Text that is not YAML, or not a `T`.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    serde_yaml::from_str(text).map_err(YamlError::from)
}

/// Turns a value that was read into a `T`.
///
/// # Errors
/// A value that is not a `T`.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, YamlError> {
    serde_yaml::from_value(value).map_err(YamlError::from)
}

/// Writes one document, with its final newline.
///
/// # Errors
/// A value that YAML can't express, such as a map with maps as keys.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, YamlError> {
    serde_yaml::to_string(value).map_err(YamlError::from)
}

/// The text, or where its first byte is that is no UTF-8.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, YamlError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        YamlError { line: Some(line), column: Some(column), message: "not UTF-8".to_owned() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Point {
        #[expect(dead_code, reason = "only its type matters")]
        x: u32,
    }

    #[test]
    fn an_error_names_line_and_column_once() {
        let error = from_str::<Point>("# c\nx: [\n").expect_err("unterminated");
        assert!(error.line.is_some());
        assert_eq!(error.to_string().matches("line ").count(), 1, "{error}");
        let error = from_str::<Point>("x: red\n").expect_err("no number");
        assert!(error.to_string().contains("line 1, column 4"), "{error}");
    }

    #[test]
    fn bytes_that_are_no_text_are_named_by_place() {
        let error = from_slice::<Point>(b"x: 1\ny: \xff\n").expect_err("not UTF-8");
        assert_eq!((error.line, error.column), (Some(2), Some(4)));
    }
}
