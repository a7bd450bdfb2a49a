//! Durations and sizes as people write them: always with a unit. No arithmetic.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Units of time, largest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units of size, largest first, in bytes. Only binary ones: `MB` means two different numbers to two people.
const SIZE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text is no duration or size. The message says what one looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A number alone.
    #[error("{0:?} has no unit; write for example {1}")]
    NoUnit(String, &'static str),
    /// Anything else.
    #[error("{0:?} is not {1}")]
    Form(String, &'static str),
    /// The number does not fit.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

const TIME_FORM: &str = "a duration: whole numbers with d, h, m, s or ms, largest first, such as 90s, 10m or 1h30m";
const TIME_OR_OFF_FORM: &str =
    "a duration (whole numbers with d, h, m, s or ms, largest first, such as 90s, 10m or 1h30m) or off";
const SIZE_FORM: &str = "a size: a whole number with B, KiB, MiB, GiB or TiB, such as 512MiB or 2GiB";
/// Characters of a wrong value that an error repeats.
const SHOWN: usize = 40;

/// A duration in whole milliseconds: `90s`, `10m`, `1h30m`, `250ms`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(Duration);

/// A duration, or `off` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOrOff(Option<Time>);

/// A size in bytes: `512MiB`, `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Time {
    /// From seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// From milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The value.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl TimeOrOff {
    /// None.
    pub const OFF: Self = Self(None);

    /// From seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Some(Time::seconds(seconds)))
    }

    /// The duration as it was written; `None` for `off`.
    #[must_use]
    pub const fn time(self) -> Option<Time> {
        self.0
    }

    /// The value; `None` for `off`.
    #[must_use]
    pub fn get(self) -> Option<Duration> {
        self.0.map(Time::get)
    }
}

impl Size {
    /// From bytes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// From mebibytes.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The value in bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Splits `1h30m` into (1, "h"), (30, "m"). `None`: not of that form.
fn parts(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut rest = text;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|&at| at > 0)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(letters);
        if unit.is_empty() {
            return None;
        }
        found.push((number, unit));
        rest = next;
    }
    (!found.is_empty()).then_some(found)
}

fn parse(
    text: &str,
    units: &[(&str, u64)],
    many: bool,
    form: &'static str,
    example: &'static str,
) -> Result<u64, UnitError> {
    let wrong = || UnitError::Form(shown(text), form);
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(UnitError::NoUnit(shown(text), example));
    }
    let parts = parts(text).ok_or_else(wrong)?;
    if parts.len() > 1 && !many {
        return Err(wrong());
    }
    let (mut total, mut next_unit) = (0_u64, 0);
    for (number, unit) in parts {
        let index = units.iter().position(|(name, _)| *name == unit).filter(|&i| i >= next_unit).ok_or_else(wrong)?;
        next_unit = index + 1;
        let too_large = || UnitError::TooLarge(shown(text));
        let number: u64 = number.parse().map_err(|_| too_large())?;
        total = number.checked_mul(units[index].1).and_then(|v| total.checked_add(v)).ok_or_else(too_large)?;
    }
    Ok(total)
}

impl FromStr for Time {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, &TIME_UNITS, true, TIME_FORM, "90s, 10m or 1h30m").map(Self::millis)
    }
}

impl FromStr for TimeOrOff {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "off" => Ok(Self::OFF),
            text => parse(text, &TIME_UNITS, true, TIME_OR_OFF_FORM, "90s, 10m or off")
                .map(|millis| Self(Some(Time::millis(millis)))),
        }
    }
}

impl FromStr for Size {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, &SIZE_UNITS, false, SIZE_FORM, "512MiB or 2GiB").map(Self)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in TIME_UNITS {
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl fmt::Display for TimeOrOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => time.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = SIZE_UNITS
            .into_iter()
            .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

macro_rules! text_value {
    ($name:ident, $form:expr, $example:expr, $pattern:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($form)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        Err(E::custom(UnitError::NoUnit(number.to_string(), $example)))
                    }
                }
                from.deserialize_any(Text)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

text_value!(Time, TIME_FORM, "90s, 10m or 1h30m", "^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$");
text_value!(
    TimeOrOff,
    TIME_OR_OFF_FORM,
    "90s, 10m or off",
    "^(off|(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$"
);
text_value!(Size, SIZE_FORM, "512MiB or 2GiB", "^[0-9]+(B|KiB|MiB|GiB|TiB)$");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, millis) in [
            ("90s", 90_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
        ] {
            assert_eq!(text.parse::<Time>(), Ok(Time::millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_duration_without_unit_is_refused_with_a_hint() {
        let error = "90".parse::<Time>().unwrap_err().to_string();
        assert_eq!(error, "\"90\" has no unit; write for example 90s, 10m or 1h30m");
        for bad in ["", "s", "1.5h", "-1s", "1s1h", "1h1h", "1 s", "1w", "10min", "99999999999999999999s", "1h30"] {
            assert!(bad.parse::<Time>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_duration_that_may_be_none_says_so_in_a_word() {
        assert_eq!("off".parse(), Ok(TimeOrOff::OFF));
        assert_eq!("10m".parse(), Ok(TimeOrOff::seconds(600)));
        assert_eq!(serde_json::to_string(&[TimeOrOff::OFF, TimeOrOff::seconds(90)]).unwrap(), r#"["off","1m30s"]"#);
        for bad in ["", "OFF", "none", "10", "0"] {
            assert!(bad.parse::<TimeOrOff>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_with_binary_units_only() {
        assert_eq!("512MiB".parse::<Size>(), Ok(Size::mib(512)));
        assert_eq!("2GiB".parse::<Size>(), Ok(Size::bytes(2 << 30)));
        for bad in ["1", "1MB", "1mib", "1GiB1B", "MiB", "16777216TiB", ""] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_as_the_same(millis in any::<u64>(), bytes in any::<u64>()) {
            prop_assert_eq!(Time::millis(millis).to_string().parse(), Ok(Time::millis(millis)));
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "\\PC{0,20}") {
            let _ = text.parse::<Time>();
            let _ = text.parse::<Size>();
        }
    }
}
