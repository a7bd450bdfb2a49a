//! Reads a header. Headers in the plain form that we and conductor-loop write take a fast path; everything else that
//! is YAML goes through the YAML library.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use super::{X_CRC, X_ESC, X_KEY, X_LEN};
use crate::types::{Link, Parent};

/// What a header says, with the keys of the format taken out of `meta`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// `""` if it is missing.
    pub(crate) id: String,
    pub(crate) time: Option<Timestamp>,
    pub(crate) kind: String,
    pub(crate) project: String,
    pub(crate) task: String,
    pub(crate) run: String,
    pub(crate) issue: Option<String>,
    pub(crate) parents: Vec<Parent>,
    pub(crate) links: Vec<Link>,
    pub(crate) meta: BTreeMap<String, String>,
    pub(crate) length: Option<u64>,
    pub(crate) crc: Option<u32>,
    pub(crate) escaped: bool,
    pub(crate) key: Option<String>,
}

/// Reads the text between the delimiters; `None` if it is no YAML mapping of the right types.
pub(crate) fn parse(text: &str) -> Option<Header> {
    let raw = match fast(text) {
        Some(raw) => raw,
        None => serde_yaml::from_str::<Raw>(text).ok()?,
    };
    // Text with none of our keys is a body or a page's front matter, not the header of an entry.
    raw.says_anything().then(|| raw.finish())
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Raw {
    msg_id: Option<String>,
    ts: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    project_id: Option<String>,
    task_id: Option<String>,
    run_id: Option<String>,
    issue_id: Option<String>,
    parents: Option<Vec<RawParent>>,
    links: Option<Vec<RawLink>>,
    meta: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct RawLink {
    url: Option<String>,
    label: Option<String>,
    kind: Option<String>,
}

impl Raw {
    fn says_anything(&self) -> bool {
        [&self.msg_id, &self.ts, &self.kind, &self.project_id, &self.task_id, &self.run_id, &self.issue_id]
            .iter()
            .any(|field| field.is_some())
    }

    fn finish(self) -> Header {
        let mut meta: BTreeMap<String, String> =
            self.meta.unwrap_or_default().into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect();
        let length = meta.remove(X_LEN).and_then(|text| decimal(&text));
        let crc =
            meta.remove(X_CRC).filter(|text| text.len() == 8).and_then(|text| u32::from_str_radix(&text, 16).ok());
        let escaped = meta.remove(X_ESC).is_some_and(|text| text == "1");
        let key = meta.remove(X_KEY);
        let links = self.links.unwrap_or_default().into_iter().map(|link| Link {
            url: link.url.unwrap_or_default(),
            label: link.label.unwrap_or_default(),
            kind: link.kind.unwrap_or_default(),
        });
        Header {
            id: self.msg_id.unwrap_or_default(),
            time: self.ts.and_then(|text| text.parse().ok()),
            kind: self.kind.unwrap_or_default(),
            project: self.project_id.unwrap_or_default(),
            task: self.task_id.unwrap_or_default(),
            run: self.run_id.unwrap_or_default(),
            issue: self.issue_id.filter(|text| !text.is_empty()),
            parents: self.parents.unwrap_or_default().into_iter().map(|parent| parent.0).collect(),
            links: links.collect(),
            meta,
            length,
            crc,
            escaped,
            key,
        }
    }
}

fn decimal(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// The plain subset: `key: scalar` lines and a `meta` of scalars indented by four. `None`: let the library read it.
fn fast(text: &str) -> Option<Raw> {
    let mut raw = Raw::default();
    let mut in_meta = false;
    for line in text.strip_suffix('\n')?.split('\n') {
        if let Some(pair) = line.strip_prefix("    ") {
            let (key, value) = pair.split_once(": ")?;
            let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            // Numbers and words such as `null` are left to the library as keys, like anything unusual.
            if !in_meta || !plain || !key.starts_with(|c: char| c.is_ascii_lowercase()) || is_null(key) {
                return None;
            }
            if raw.meta.as_mut()?.insert(key.to_owned(), Some(scalar(value)?.to_owned())).is_some() {
                return None;
            }
            continue;
        }
        in_meta = line == "meta:";
        if in_meta {
            if raw.meta.replace(BTreeMap::new()).is_some() {
                return None;
            }
            continue;
        }
        let (key, value) = line.split_once(": ")?;
        let field = match key {
            "msg_id" => &mut raw.msg_id,
            "ts" => &mut raw.ts,
            "type" => &mut raw.kind,
            "project_id" => &mut raw.project_id,
            "task_id" => &mut raw.task_id,
            "run_id" => &mut raw.run_id,
            "issue_id" => &mut raw.issue_id,
            _ => return None,
        };
        if field.replace(scalar(value)?.to_owned()).is_some() {
            return None;
        }
    }
    // An empty `meta:` is a null, and the library knows that.
    if raw.meta.as_ref().is_some_and(BTreeMap::is_empty) { None } else { Some(raw) }
}

fn is_null(text: &str) -> bool {
    matches!(text, "null" | "Null" | "NULL")
}

/// A scalar whose text is surely its value.
fn scalar(text: &str) -> Option<&str> {
    if let Some(quoted) = text.strip_prefix('"') {
        let inner = quoted.strip_suffix('"')?;
        let simple = inner.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
        return simple.then_some(inner);
    }
    let bytes = text.as_bytes();
    let simple = bytes.first().is_some_and(|first| first.is_ascii_alphanumeric() || *first == b'/')
        && bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !is_null(text);
    simple.then_some(text)
}

/// A parent is an id alone (the old form) or a mapping.
struct RawParent(Parent);

impl<'de> Deserialize<'de> for RawParent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawParent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message id, or a mapping with msg_id, kind and meta")
            }

            fn visit_str<E: de::Error>(self, id: &str) -> Result<RawParent, E> {
                Ok(RawParent(Parent { id: id.to_owned(), ..Parent::default() }))
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<RawParent, E> {
                self.visit_str(&id.to_string())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawParent, A::Error> {
                #[derive(Default, serde::Deserialize)]
                #[serde(default)]
                struct Full {
                    msg_id: Option<String>,
                    kind: Option<String>,
                    meta: Option<BTreeMap<String, Option<String>>>,
                }
                let full = Full::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let meta = full.meta.unwrap_or_default();
                Ok(RawParent(Parent {
                    id: full.msg_id.unwrap_or_default(),
                    kind: full.kind.unwrap_or_default(),
                    meta: meta.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect(),
                }))
            }
        }
        from.deserialize_any(Either)
    }
}
