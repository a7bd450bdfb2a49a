//! Message ids: making ours, and what can be learned from one.

use std::fmt::Write as _;
use std::sync::Mutex;

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::types::MessageId;

/// Digits of an id of our form; the key by which a file's ids grow.
const FORM: &[u8] = b"MSG-dddddddd-dddddd-ddddddddd-PIDddddd-dddd";

struct Last {
    nanos: i128,
    sequence: u32,
}

static LAST: Mutex<Last> = Mutex::new(Last { nanos: 0, sequence: 0 });

/// A new id and the time now. Ids of one process grow strictly, also when the clock is set back; the nanosecond makes
/// them unique across restarts that reuse a pid.
pub(super) fn next() -> (MessageId, Timestamp) {
    let now = Timestamp::now();
    let (nanos, sequence) = {
        let mut last = LAST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.nanos = now.as_nanosecond().max(last.nanos + 1);
        last.sequence = (last.sequence + 1) % 10_000;
        (last.nanos, last.sequence)
    };
    let time = Timestamp::from_nanosecond(nanos).unwrap_or(now);
    let civil = Offset::UTC.to_datetime(time);
    let mut text = String::with_capacity(FORM.len());
    write!(
        text,
        "MSG-{:04}{:02}{:02}-{:02}{:02}{:02}-{:09}-PID{:05}-{sequence:04}",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second(),
        civil.subsec_nanosecond(),
        std::process::id() % 100_000,
    )
    .expect("writing to a string does not fail");
    (text.parse().expect("the form of our ids is valid"), now)
}

/// The digits of an id of our form as one number, which orders them as their text does; `None` for any other form.
pub(super) fn key(id: &str) -> Option<u128> {
    let text = id.as_bytes();
    if text.len() != FORM.len() {
        return None;
    }
    let mut key = 0;
    for (byte, form) in text.iter().zip(FORM) {
        match form {
            b'd' if byte.is_ascii_digit() => key = key * 10 + u128::from(byte - b'0'),
            b'd' => return None,
            _ if byte != form => return None,
            _ => {}
        }
    }
    Some(key)
}

/// What a key is divided by to get its second, as `YYYYMMDDHHMMSS`.
const SECOND: u128 = 1_000_000_000_000_000_000;

/// The second of a key, as `YYYYMMDDHHMMSS`, UTC.
pub(super) fn second(key: u128) -> u64 {
    u64::try_from(key / SECOND).unwrap_or(u64::MAX)
}

/// No key of this time or later is smaller.
pub(super) fn first_key(time: Timestamp) -> u128 {
    let civil = Offset::UTC.to_datetime(time);
    let parts = [civil.month(), civil.day(), civil.hour(), civil.minute(), civil.second()];
    let year = u128::try_from(civil.year()).unwrap_or(0);
    parts.iter().fold(year, |sum, part| sum * 100 + u128::try_from(*part).unwrap_or(0)) * SECOND
}

/// The id of an entry that has none of its own.
pub(super) fn substitute(generation: u32, offset: u64) -> MessageId {
    format!("X-{generation}-{offset}").parse().expect("digits and dashes are a valid id")
}

/// The reverse of [`substitute`].
pub(super) fn parse_substitute(id: &str) -> Option<(u32, u64)> {
    let (generation, offset) = id.strip_prefix("X-")?.split_once('-')?;
    let parsed = (generation.parse().ok()?, offset.parse().ok()?);
    (substitute(parsed.0, parsed.1).as_str() == id).then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_process_grow_strictly_as_text_and_as_keys() {
        let mut last = next().0;
        for _ in 0..20_000 {
            let id = next().0;
            assert!(key(id.as_str()).unwrap() > key(last.as_str()).unwrap(), "{last} then {id}");
            assert!(id.as_str() > last.as_str());
            last = id;
        }
    }

    #[test]
    fn a_key_has_its_second_and_times_have_their_first_key() {
        let id = key("MSG-20261122-151132-083540026-PID11729-0001").unwrap();
        assert_eq!(second(id), 20_261_122_151_132);
        let time = |text: &str| first_key(text.parse().unwrap());
        assert!(time("2026-11-22T15:11:32.9Z") <= id && time("2026-11-22T15:11:33Z") > id);
    }

    #[test]
    fn keys_are_only_those_of_the_exact_form() {
        assert!(key("MSG-20261122-151132-083540026-PID11729-0001").is_some());
        for other in ["", "A", "X-1-2", "MSG-20261122-151132-083540026-PID11729-000x", "LEGACY-LINE-000000001"] {
            assert_eq!(key(other), None);
        }
        assert_eq!(parse_substitute("X-7-120"), Some((7, 120)));
        assert_eq!(parse_substitute("X-07-120"), None);
    }
}
