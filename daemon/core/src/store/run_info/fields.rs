//! The keys and values of a flat YAML file, fast where it is plain.
//!
//! A file of conductor-loop's or ours is lines of `key: value`. Such lines are cut by hand, which is what lets a
//! restart read ten thousand of them in a fraction of a second; anything else (block scalars, comments, line
//! continuations, doubled keys) goes to the YAML parser. Both ways give the same values; a property test says so.

use std::borrow::Cow;
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::yaml::{self, Mapping, Value, YamlError};

/// Keys of a file at most: twice what we write, so that keys of later versions are no reason for the slow way.
const MAX_KEYS: usize = 80;

/// The values by key.
pub(super) enum Fields<'a> {
    /// Cut by hand.
    Plain(Vec<(&'a str, Scalar<'a>, usize)>),
    /// By the YAML parser.
    Parsed(Mapping),
}

/// A value on one line.
pub(super) enum Scalar<'a> {
    /// Without quotes.
    Bare(&'a str),
    /// Out of quotes.
    Quoted(Cow<'a, str>),
    /// `{…}` or `[…]`, which is JSON when we wrote it.
    Flow(&'a str),
}

impl<'a> Fields<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, YamlError> {
        let text = yaml::utf8(bytes)?;
        if let Some(plain) = cut(text) {
            return Ok(Self::Plain(plain));
        }
        match yaml::from_str::<Value>(text)? {
            Value::Mapping(map) => Ok(Self::Parsed(map)),
            Value::Null => Ok(Self::Parsed(Mapping::new())),
            _ => Err(message(None, "keys and values were expected")),
        }
    }

    /// `version`; a file without one is of version 1.
    pub(super) fn version(&self) -> Result<u64, YamlError> {
        Ok(self.number("version")?.unwrap_or(1))
    }

    /// Text; `None` if the key is absent or null.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, YamlError> {
        match self {
            Self::Plain(_) => Ok(match self.plain(key) {
                None => None,
                Some((Scalar::Bare(text), _)) if is_null(text) => None,
                Some((Scalar::Bare(text), _)) => Some((*text).to_owned()),
                Some((Scalar::Quoted(text), _)) => Some(text.clone().into_owned()),
                Some((Scalar::Flow(_), _)) => return Err(self.wrong(key, "text")),
            }),
            Self::Parsed(map) => match map.get(key) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.clone())),
                Some(Value::Bool(value)) => Ok(Some(value.to_string())),
                Some(Value::Number(value)) => Ok(Some(value.to_string())),
                Some(_) => Err(self.wrong(key, "text")),
            },
        }
    }

    /// A whole number; `None` if the key is absent or null.
    pub(super) fn number<N: FromStr>(&self, key: &str) -> Result<Option<N>, YamlError> {
        match self.text(key)? {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| self.wrong(key, "a whole number in range")),
        }
    }

    /// A time; `None` if the key is absent, or the zero time that stands for "not yet".
    pub(super) fn time(&self, key: &str) -> Result<Option<Timestamp>, YamlError> {
        match self.text(key)? {
            None => Ok(None),
            Some(text) if text == super::emit::NO_TIME => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| self.wrong(key, "a time such as 2026-11-22T15:11:32Z")),
        }
    }

    /// A structured value; `None` if the key is absent or null.
    pub(super) fn nested<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, YamlError> {
        let Self::Parsed(map) = self else {
            return match self.plain(key) {
                None => Ok(None),
                Some((Scalar::Bare(text), _)) if is_null(text) => Ok(None),
                Some((Scalar::Bare(text), _)) => {
                    yaml::from_str(text).map(Some).map_err(|_| self.wrong(key, "a known value"))
                }
                Some((Scalar::Quoted(text), _)) => {
                    serde_json::from_value(text.as_ref().into()).map(Some).map_err(|_| self.wrong(key, "a known value"))
                }
                Some((Scalar::Flow(text), _)) => match serde_json::from_str(text) {
                    Ok(value) => Ok(Some(value)),
                    Err(_) => yaml::from_str(text).map(Some).map_err(|_| self.wrong(key, "what this key holds")),
                },
            };
        };
        match map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                yaml::from_value(value.clone()).map(Some).map_err(|_| self.wrong(key, "what this key holds"))
            }
        }
    }

    /// The error of a value that is not what it should be.
    pub(super) fn wrong(&self, key: &str, expected: &str) -> YamlError {
        message(self.plain(key).map(|(_, line)| line), &format!("{key}: {expected} was expected"))
    }

    fn plain(&self, key: &str) -> Option<(&Scalar<'a>, usize)> {
        let Self::Plain(list) = self else { return None };
        list.iter().find(|(name, ..)| *name == key).map(|(_, value, line)| (value, *line))
    }
}

fn message(line: Option<usize>, text: &str) -> YamlError {
    YamlError { line, column: line.map(|_| 1), message: text.to_owned() }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Cuts a file into keys and values, or gives up (`None`) at anything that isn't plain.
fn cut(text: &str) -> Option<Vec<(&str, Scalar<'_>, usize)>> {
    let mut list: Vec<(&str, Scalar<'_>, usize)> = Vec::with_capacity(24);
    for (index, line) in text.lines().enumerate() {
        let (key, value) = line.split_once(':')?;
        let known_form = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !known_form || list.len() == MAX_KEYS || list.iter().any(|(name, ..)| *name == key) {
            return None;
        }
        let value = match value.strip_prefix(' ') {
            Some(value) => value,
            None if value.is_empty() => value,
            None => return None,
        };
        list.push((key, scalar(value)?, index + 1));
    }
    // `lines` would hide a carriage return before the newline.
    (!text.contains('\r')).then_some(list)
}

fn scalar(text: &str) -> Option<Scalar<'_>> {
    let Some(first) = text.bytes().next() else { return Some(Scalar::Bare("")) };
    match first {
        b'"' => double_quoted(text).map(Scalar::Quoted),
        b'\'' => single_quoted(text).map(Scalar::Quoted),
        b'{' | b'[' => serde_json::from_str::<serde::de::IgnoredAny>(text).ok().map(|_| Scalar::Flow(text)),
        _ => is_bare(text).then_some(Scalar::Bare(text)),
    }
}

/// Whether a text without quotes is one plain scalar that YAML reads as it stands.
fn is_bare(text: &str) -> bool {
    let mut chars = text.chars();
    let starts_plain = match chars.next() {
        Some('-') => chars.next().is_some_and(char::is_alphanumeric),
        Some(first) => first.is_alphanumeric() || "/._~+(".contains(first),
        None => false,
    };
    starts_plain
        && text.chars().all(|c| c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric())
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
}

fn double_quoted(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains(['\\', '"']) {
        return inner.bytes().all(|byte| byte >= b' ').then_some(Cow::Borrowed(inner));
    }
    // Our escapes are JSON's; others are for the YAML parser.
    serde_json::from_str::<String>(text).ok().map(Cow::Owned)
}

fn single_quoted(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    if inner.bytes().any(|byte| byte < b' ') {
        return None;
    }
    if !inner.contains('\'') {
        return Some(Cow::Borrowed(inner));
    }
    let unpaired = inner.replace("''", "").contains('\'');
    (!unpaired).then(|| Cow::Owned(inner.replace("''", "'")))
}
