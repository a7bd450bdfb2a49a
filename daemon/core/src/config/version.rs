//! Versions of programs, and ranges of them. Knows no program: what one says of its version comes as a text.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A version: three numbers, and whether it is a release (what is none comes before its release).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    numbers: [u64; 3],
    release: bool,
}

impl Version {
    /// The first version in what a program prints: `2.1.197 (Claude Code)`, `codex-cli 0.169.0`, `v0.62.0-preview.1`.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        text.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | '/' | '@')).find_map(Self::of_word)
    }

    fn of_word(word: &str) -> Option<Self> {
        let word = word.strip_prefix(['v', 'V']).unwrap_or(word);
        let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
        let (digits, rest) = word.split_at(end);
        let parts = numbers(digits)?;
        let rest_fits = rest.is_empty() || rest.starts_with('-') || rest.starts_with('+');
        if parts.len() < 2 || !rest_fits {
            return None;
        }
        Some(Self { numbers: filled(&parts), release: !rest.starts_with('-') })
    }

    fn release(numbers: [u64; 3]) -> Self {
        Self { numbers, release: true }
    }
}

/// Versions that may run: bounds that all hold, separated by commas or spaces. `2.1.197` is that version, `2.1` all of
/// 2.1; there are `=`, `>`, `>=`, `<`, `<=`, `^` (compatible) and `~` (patches).
#[derive(Clone, PartialEq, Eq)]
pub struct VersionRange {
    text: String,
    /// Each is from (inclusive) and to (exclusive).
    bounds: Vec<(Option<Version>, Option<Version>)>,
}

impl VersionRange {
    /// Reads a range; `None`: it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bounds = Vec::new();
        // An operator may stand apart from its version.
        let mut open = String::new();
        for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
            open.push_str(word);
            if word.bytes().any(|b| b.is_ascii_digit()) {
                bounds.push(bound(&open)?);
                open.clear();
            }
        }
        (open.is_empty() && !bounds.is_empty()).then(|| Self { text: text.trim().to_owned(), bounds })
    }

    /// Whether a version is in it. What is no release counts as older than its release.
    #[must_use]
    pub fn contains(&self, version: Version) -> bool {
        self.bounds.iter().all(|(from, to)| {
            from.is_none_or(|from| version >= from) && to.is_none_or(|to| version < Version { release: false, ..to })
        })
    }

    /// As npm takes it behind a package's `@`.
    #[must_use]
    pub fn npm(&self) -> String {
        self.text.replace(',', " ").split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// One bound, such as `>=2.1`.
fn bound(text: &str) -> Option<(Option<Version>, Option<Version>)> {
    let digits = text.find(|c: char| c.is_ascii_digit())?;
    let (operator, version) = text.split_at(digits);
    let parts = numbers(version)?;
    let from = Version::release(filled(&parts));
    // The first version behind all that begin with the first `count` numbers.
    let behind = |count: usize| {
        let mut next = [0; 3];
        next[..count].copy_from_slice(&filled(&parts)[..count]);
        next[count - 1] = next[count - 1].saturating_add(1);
        Version::release(next)
    };
    let whole = parts.len();
    Some(match operator {
        "" | "=" | "==" => (Some(from), Some(behind(whole))),
        ">=" => (Some(from), None),
        ">" => (Some(behind(whole)), None),
        "<" => (None, Some(from)),
        "<=" => (None, Some(behind(whole))),
        "~" => (Some(from), Some(behind(whole.min(2)))),
        // The first number that is not 0 has to stay.
        "^" => (Some(from), Some(behind(parts.iter().position(|n| *n != 0).map_or(whole, |place| place + 1)))),
        _ => return None,
    })
}

/// One to three numbers with dots between them.
fn numbers(text: &str) -> Option<Vec<u64>> {
    let parts = text.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>()?;
    (parts.len() <= 3).then_some(parts)
}

fn filled(parts: &[u64]) -> [u64; 3] {
    std::array::from_fn(|index| parts.get(index).copied().unwrap_or(0))
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for VersionRange {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for VersionRange {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = VersionRange;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version or a range in quotes, such as '2.1.197' or '>=2.1, <3'")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<VersionRange, E> {
                VersionRange::parse(text).ok_or_else(|| {
                    E::custom(format_args!(
                        "{text:?} is no version and no range; write for example 2.1.197 or '>=2.1, <3'"
                    ))
                })
            }
        }
        from.deserialize_any(Text)
    }
}

impl JsonSchema for VersionRange {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "VersionRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A version such as 2.1.197, or a range such as >=2.1, <3",
            "pattern": r"^ *((=|==|>|>=|<|<=|\^|~)? *\d+(\.\d+){0,2}[, ]*)+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(range: &str, version: &str) -> bool {
        VersionRange::parse(range).unwrap().contains(Version::find(version).unwrap())
    }

    #[test]
    fn the_version_is_found_in_what_every_program_prints() {
        for (text, expected) in [
            ("2.1.197 (Claude Code)", Some([2, 1, 197])),
            ("codex-cli 0.169.0", Some([0, 169, 0])),
            ("0.61.0", Some([0, 61, 0])),
            ("grok 1.0.41 (4220f3b224a6)", Some([1, 0, 41])),
            ("conductor-rest-agent 0.1.0", Some([0, 1, 0])),
            ("v3.2", Some([3, 2, 0])),
            ("program/1.2.3", Some([1, 2, 3])),
            ("version 7", None),
            ("1.2.3.4", None),
            ("no version", None),
            ("1.x", None),
            ("99999999999999999999999.1", None),
        ] {
            assert_eq!(Version::find(text).map(|version| version.numbers), expected, "{text}");
        }
    }

    #[test]
    fn a_range_holds_what_its_bounds_say() {
        for (range, inside, outside) in [
            ("2.1.197", &["2.1.197", "2.1.197+b1"][..], &["2.1.196", "2.1.198", "2.1.197-rc.1"][..]),
            ("2.1", &["2.1.0", "2.1.999"], &["2.0.9", "2.2.0", "2.2.0-rc.1"]),
            ("2", &["2.0.0", "2.9.9"], &["3.0.0", "1.9.9"]),
            (">=2.1, <3", &["2.1.0", "2.99.0"], &["2.0.9", "3.0.0", "3.0.0-beta", "2.1.0-beta"]),
            (">= 2.1 < 3", &["2.1.0"], &["3.0.0"]),
            (">2.1", &["2.2.0"], &["2.1.9"]),
            ("<=2.1", &["2.1.9", "0.1.0"], &["2.2.0"]),
            ("=0.61.0", &["0.61.0"], &["0.61.1"]),
            ("^1.2.3", &["1.2.3", "1.9.0"], &["1.2.2", "2.0.0"]),
            ("^0.169", &["0.169.0", "0.169.9"], &["0.170.0"]),
            ("~1.2.3", &["1.2.9"], &["1.3.0", "1.2.2"]),
            ("~1", &["1.9.0"], &["2.0.0"]),
        ] {
            assert!(inside.iter().all(|version| fits(range, version)), "{range} {inside:?}");
            assert!(!outside.iter().any(|version| fits(range, version)), "{range} {outside:?}");
        }
    }

    #[test]
    fn what_is_no_range_is_none() {
        for text in ["", " ", "latest", ">=", "1.2.3.4", "=>2", "1.x", "2.1 ||", ">=2.1 <", "1..2", "-1"] {
            assert_eq!(VersionRange::parse(text), None, "{text:?}");
        }
        assert_eq!(VersionRange::parse(" >=2.1,  <3 ").unwrap().npm(), ">=2.1 <3");
    }
}
