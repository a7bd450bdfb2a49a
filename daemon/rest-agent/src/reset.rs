//! When there is more: the ways in which servers write a pause or a point in time. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// A reset that is farther away counts as unknown: no allowance is longer than a week, so it is a misread.
const MAX_AHEAD: SignedDuration = SignedDuration::from_hours(8 * 24);
/// Numbers from here on are points in time in seconds (2001), not pauses.
const FIRST_EPOCH_SECOND: f64 = 1e9;
/// Numbers from here on are points in time in milliseconds.
const FIRST_EPOCH_MILLI: f64 = 1e12;

/// When there is more, and where that was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// In the future.
    pub at: Timestamp,
    /// `header` or `json`.
    pub source: &'static str,
}

/// Headers that name a pause, lower-case names.
pub trait Headers {
    /// The value of a header.
    fn get(&self, name: &str) -> Option<&str>;
}

/// Headers by name; an error inside a stream has none.
impl Headers for BTreeMap<&str, &str> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).copied()
    }
}

/// What an answer says of the time when there is more: `Retry-After` first, then its body, then the headers of the
/// allowance that is used up.
#[must_use]
pub fn find(headers: &dyn Headers, body: &[u8], now: Timestamp) -> Option<Reset> {
    let ahead = |at: Timestamp| (at >= now && at.duration_since(now) <= MAX_AHEAD).then_some(at);
    let from = |source| move |at| Reset { at, source };
    let milliseconds = headers.get("retry-after-ms").and_then(|value| value.trim().parse().ok());
    let milliseconds = milliseconds.and_then(|milliseconds: f64| after(now, milliseconds / 1000.0));
    let header = milliseconds.or_else(|| headers.get("retry-after").and_then(|value| point(value, now)));
    header
        .and_then(ahead)
        .map(from("header"))
        .or_else(|| from_body(body, now).and_then(ahead).map(from("json")))
        .or_else(|| from_allowance(headers, now).and_then(ahead).map(from("header")))
}

/// The resets of allowances of which nothing remains; the farthest one counts.
fn from_allowance(headers: &dyn Headers, now: Timestamp) -> Option<Timestamp> {
    let kinds = ["", "-requests", "-tokens"];
    let used_up = kinds.iter().filter(|kind| {
        let remaining = headers.get(&format!("x-ratelimit-remaining{kind}")).map(str::trim);
        remaining == Some("0") || (kind.is_empty() && remaining.is_none())
    });
    used_up.filter_map(|kind| point(headers.get(&format!("x-ratelimit-reset{kind}"))?, now)).max()
}

/// Fields of a body, beside its error or inside it.
fn from_body(body: &[u8], now: Timestamp) -> Option<Timestamp> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let places = [body.pointer("/response/error"), body.get("error"), Some(&body)];
    for place in places.into_iter().flatten() {
        for name in
            ["resets_at", "reset_at", "resets_in_seconds", "reset_in_seconds", "retry_after", "retry_after_seconds"]
        {
            let at = match place.get(name) {
                Some(Value::Number(number)) => number.as_f64().and_then(|number| from_number(number, now)),
                Some(Value::String(text)) => point(text, now),
                _ => None,
            };
            if at.is_some() {
                return at;
            }
        }
    }
    None
}

/// A point in time, written in any of the usual ways.
fn point(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return from_number(number, now);
    }
    if let Ok(time) = httpdate::parse_http_date(text) {
        return Timestamp::try_from(time).ok();
    }
    text.parse::<Timestamp>().ok().or_else(|| after(now, pause(text)?))
}

/// A pause in seconds, or a point in time in seconds or milliseconds.
fn from_number(number: f64, now: Timestamp) -> Option<Timestamp> {
    if !number.is_finite() || number < 0.0 {
        None
    } else if number >= FIRST_EPOCH_MILLI {
        epoch(number / 1000.0)
    } else if number >= FIRST_EPOCH_SECOND {
        epoch(number)
    } else {
        after(now, number)
    }
}

fn epoch(seconds: f64) -> Option<Timestamp> {
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    Timestamp::from_duration(SignedDuration::try_from(duration).ok()?).ok()
}

fn after(now: Timestamp, seconds: f64) -> Option<Timestamp> {
    let pause = SignedDuration::try_from(Duration::try_from_secs_f64(seconds).ok()?).ok()?;
    now.checked_add(pause).ok()
}

/// Seconds of `1h2m3.5s`, `6m0s`, `120ms`.
fn pause(text: &str) -> Option<f64> {
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|character: char| character.is_ascii_digit()).unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T20:00:00Z".parse().unwrap()
    }

    fn reset(headers: &[(&'static str, &'static str)], body: &str) -> Option<(String, &'static str)> {
        let headers: BTreeMap<&str, &str> = headers.iter().copied().collect();
        find(&headers, body.as_bytes(), now()).map(|reset| (reset.at.to_string(), reset.source))
    }

    #[test]
    fn a_reset_is_read_as_seconds_date_epoch_or_duration() {
        for (name, value, at) in [
            ("retry-after", "90", "2026-11-22T20:01:30Z"),
            ("retry-after", " 0 ", "2026-11-22T20:00:00Z"),
            ("retry-after", "Sun, 22 Nov 2026 21:30:00 GMT", "2026-11-22T21:30:00Z"),
            ("retry-after", "Sunday, 22-Nov-26 21:30:00 GMT", "2026-11-22T21:30:00Z"),
            ("retry-after", "2026-11-23T01:00:00+02:00", "2026-11-22T23:00:00Z"),
            ("retry-after-ms", "1500", "2026-11-22T20:00:01.5Z"),
            ("x-ratelimit-reset", "1795381200", "2026-11-22T21:00:00Z"),
            ("x-ratelimit-reset", "1795381200000", "2026-11-22T21:00:00Z"),
            ("x-ratelimit-reset", "1h6m0s", "2026-11-22T21:06:00Z"),
            ("x-ratelimit-reset", "250ms", "2026-11-22T20:00:00.25Z"),
        ] {
            assert_eq!(reset(&[(name, value)], ""), Some((at.into(), "header")), "{name}: {value}");
        }
    }

    #[test]
    fn bodies_are_read_and_a_retry_after_counts_first() {
        let body = r#"{"error":{"message":"x","resets_at":1795381200}}"#;
        assert_eq!(reset(&[], body), Some(("2026-11-22T21:00:00Z".into(), "json")));
        assert_eq!(reset(&[], r#"{"resets_in_seconds":60}"#), Some(("2026-11-22T20:01:00Z".into(), "json")));
        assert_eq!(reset(&[("retry-after", "5")], body), Some(("2026-11-22T20:00:05Z".into(), "header")));
    }

    #[test]
    fn only_an_allowance_that_is_used_up_counts() {
        let both = [("x-ratelimit-reset-requests", "1s"), ("x-ratelimit-reset-tokens", "6m")];
        assert_eq!(reset(&both, ""), None);
        let tokens = [both[0], both[1], ("x-ratelimit-remaining-requests", "3"), ("x-ratelimit-remaining-tokens", "0")];
        assert_eq!(reset(&tokens, ""), Some(("2026-11-22T20:06:00Z".into(), "header")));
    }

    #[test]
    fn the_past_the_far_future_and_nonsense_are_unknown() {
        for value in [
            "Sun, 22 Nov 2026 19:59:59 GMT",
            "1795377000",
            "-5",
            "soon",
            "",
            "NaN",
            "inf",
            "1e300",
            "999999999",
            "1796500000",
            "5 minutes",
            "1h2",
            "99999999999999999999",
        ] {
            assert_eq!(reset(&[("retry-after", value)], ""), None, "{value:?}");
        }
        assert_eq!(reset(&[], "[]"), None);
        assert_eq!(reset(&[], "<html>"), None);
    }
}
