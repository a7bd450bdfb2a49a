//! Times and durations: for people `2m 14s`, for programs RFC 3339 and `"1.5s"`.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// `2m 14s`, `3h 05m`, `4d 2h`, `800ms`: two units at most.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time.is_zero() => "0s".into(),
        0 => format!("{}ms", time.as_millis().max(1)),
        1..60 => format!("{seconds}s"),
        60..3_600 => pair(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => pair(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

fn pair(big: u64, big_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit} {small}{small_unit}") }
}

/// A duration of the wire; negative ones, which no server sends, are zero.
pub(crate) fn from_wire(time: &prost_types::Duration) -> Duration {
    Duration::try_from(*time).unwrap_or_default()
}

/// A duration for the wire. Arguments are bounded far below what it holds.
pub(crate) fn to_wire(time: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.subsec_nanos()).unwrap_or(0),
    }
}

/// `"1.5s"`, as protobuf's JSON has it.
pub(crate) fn duration_text(time: &prost_types::Duration) -> String {
    let time = from_wire(time);
    let nanos = time.subsec_nanos();
    if nanos == 0 {
        return format!("{}s", time.as_secs());
    }
    let fraction = format!("{nanos:09}");
    format!("{}.{}s", time.as_secs(), fraction.trim_end_matches('0'))
}

/// RFC 3339 in UTC.
pub(crate) fn rfc3339(time: &prost_types::Timestamp) -> Option<String> {
    Some(Timestamp::new(time.seconds, time.nanos).ok()?.to_string())
}

/// `2026-11-22 15:11:32 UTC`, for details.
pub(crate) fn clock(time: &prost_types::Timestamp) -> String {
    Timestamp::new(time.seconds, time.nanos)
        .map_or_else(|_| "–".into(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// `15:11` if that is less than half a day off, else `Nov 23`; UTC.
pub(crate) fn short_clock(time: &prost_types::Timestamp) -> String {
    let Ok(at) = Timestamp::new(time.seconds, time.nanos) else { return "–".into() };
    let off = (at.as_second() - Timestamp::now().as_second()).abs();
    at.strftime(if off < 12 * 3_600 { "%H:%M" } else { "%b %d" }).to_string()
}

/// Whether a time has passed.
pub(crate) fn is_past(time: &prost_types::Timestamp) -> bool {
    Timestamp::new(time.seconds, time.nanos).is_ok_and(|time| time <= Timestamp::now())
}

/// `15:11:32`, for lines of a stream.
pub(crate) fn time_of_day(time: &prost_types::Timestamp) -> String {
    Timestamp::new(time.seconds, time.nanos)
        .map_or_else(|_| "--:--:--".into(), |time| time.strftime("%H:%M:%S").to_string())
}

/// From `start` to `end`, or to now.
pub(crate) fn elapsed(
    start: Option<&prost_types::Timestamp>,
    end: Option<&prost_types::Timestamp>,
) -> Option<Duration> {
    let start = SystemTime::try_from(*start?).ok()?;
    let end = match end {
        Some(end) => SystemTime::try_from(*end).ok()?,
        None => SystemTime::now(),
    };
    Some(end.duration_since(start).unwrap_or_default())
}

/// [`elapsed`] for people; `–` if it is not known.
pub(crate) fn elapsed_text(start: Option<&prost_types::Timestamp>, end: Option<&prost_types::Timestamp>) -> String {
    elapsed(start, end).map_or_else(|| "–".into(), duration)
}

/// `4.2 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 || value.fract() < 0.05 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_a_clock() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (134, "2m 14s"), (3_600, "1h"), (11_100, "3h 5m"), (356_400, "4d 3h")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(duration(Duration::from_millis(800)), "800ms");
    }

    #[test]
    fn wire_durations_are_seconds_with_a_suffix() {
        assert_eq!(duration_text(&to_wire(Duration::from_millis(1_500))), "1.5s");
        assert_eq!(duration_text(&to_wire(Duration::from_secs(300))), "300s");
        assert_eq!(duration_text(&prost_types::Duration { seconds: -3, nanos: 0 }), "0s");
    }

    #[test]
    fn times_out_of_range_are_unknown() {
        assert_eq!(rfc3339(&prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), None);
        assert_eq!(clock(&prost_types::Timestamp { seconds: i64::MIN, nanos: 0 }), "–");
        let known = prost_types::Timestamp { seconds: 1_767_225_600, nanos: 500_000_000 };
        assert_eq!(rfc3339(&known).as_deref(), Some("2026-01-01T00:00:00.5Z"));
    }
}
