//! The key, and how it stays out of everything that is printed.

use std::borrow::Cow;

use secrecy::{ExposeSecret, SecretString};

/// Shorter keys are not masked: they are no secrets, and replacing them would tear words apart.
const MIN_MASKED: usize = 6;
/// Bytes of a key at most: what servers take as one header.
const MAX_KEY: usize = 4096;
/// What stands in its place.
const MASK: &str = "***";

/// A key that fits a header.
#[derive(Clone, Debug)]
pub struct Key {
    plain: SecretString,
    /// As it looks inside a JSON string, where that differs.
    escaped: Option<SecretString>,
}

/// Why a key is none.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// It is no header value.
    #[error("{0} holds a space, a line break or another character that no key has")]
    BadCharacter(&'static str),
    /// It is too long.
    #[error("{0} is over {MAX_KEY} bytes long")]
    TooLong(&'static str),
}

impl Key {
    /// Takes the value of the environment variable `name`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn new(name: &'static str, value: Option<String>) -> Result<Self, KeyError> {
        let value = value.filter(|value| !value.is_empty()).ok_or(KeyError::Missing(name))?;
        if value.len() > MAX_KEY {
            return Err(KeyError::TooLong(name));
        }
        if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError::BadCharacter(name));
        }
        let quoted = serde_json::Value::from(value.as_str()).to_string();
        let escaped = &quoted[1..quoted.len() - 1];
        let escaped = (escaped != value).then(|| SecretString::from(escaped));
        Ok(Self { plain: SecretString::from(value), escaped })
    }

    /// The header that carries it.
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.plain.expose_secret())
    }

    /// `text` without the key, as it is and as it looks inside JSON.
    #[must_use]
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let plain = self.plain.expose_secret();
        if plain.len() < MIN_MASKED {
            return Cow::Borrowed(text);
        }
        let mut text = Cow::Borrowed(text);
        for form in [self.escaped.as_ref().map(ExposeSecret::expose_secret), Some(plain)].into_iter().flatten() {
            if text.contains(form) {
                text = Cow::Owned(text.replace(form, MASK));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_missing_or_has_a_line_break_is_refused_by_its_name() {
        assert_eq!(Key::new("XAI_API_KEY", None).unwrap_err().to_string(), "XAI_API_KEY is not set");
        assert_eq!(Key::new("XAI_API_KEY", Some(String::new())).unwrap_err().to_string(), "XAI_API_KEY is not set");
        for bad in ["xai-abc\n", "xai abc", "xai-\u{e9}", "xai\0"] {
            let error = Key::new("XAI_API_KEY", Some(bad.into())).unwrap_err().to_string();
            assert!(error.starts_with("XAI_API_KEY holds") && !error.contains(bad), "{error}");
        }
    }

    #[test]
    fn a_key_is_masked_as_it_is_and_as_it_looks_in_json() {
        let key = Key::new("K", Some(r#"xai-"quoted\""#.into())).unwrap();
        let line = serde_json::json!({ "text": r#"your key xai-"quoted\" is bad"# }).to_string();
        assert_eq!(key.mask(&line), r#"{"text":"your key *** is bad"}"#);
        assert_eq!(key.mask(r#"xai-"quoted\""#), "***");
        assert!(!format!("{key:?}").contains("quoted"));
    }
}
