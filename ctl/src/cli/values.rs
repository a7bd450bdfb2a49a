//! Durations (`90s`, `1h30m`, `500ms`) and sizes (`512MiB`) as arguments.

use std::time::Duration;

/// Longest duration that is accepted: 10 years, far below what the wire types hold.
const MAX_SECONDS: f64 = 10.0 * 366.0 * 86_400.0;

/// Parses `500ms`, `90s`, `1.5h`, `1h30m` or `0`.
///
/// # Errors
/// A sentence for the person who typed it.
pub fn duration(text: &str) -> Result<Duration, String> {
    const HELP: &str = "expected a time with a unit, such as 500ms, 90s, 5m, 1h30m or 2d";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut seconds = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(HELP.into());
    }
    while !rest.is_empty() {
        let (number, unit, next) = split(rest).ok_or(HELP)?;
        seconds += number
            * match unit {
                "ms" => 0.001,
                "s" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                _ => return Err(HELP.into()),
            };
        rest = next;
    }
    if seconds > MAX_SECONDS {
        return Err("at most 10 years".into());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Parses a point in time: `2026-11-22`, `2026-11-22T15:00:00Z`, or `7d` for so long ago.
///
/// # Errors
/// A sentence for the person who typed it.
pub fn moment(text: &str) -> Result<jiff::Timestamp, String> {
    const HELP: &str =
        "expected a day such as 2026-11-22, a time such as 2026-11-22T15:00:00Z, or how long ago, such as 7d";
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time);
    }
    if let Ok(day) = text.parse::<jiff::civil::Date>() {
        return day.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(|error| error.to_string());
    }
    let ago = duration(text).map_err(|_| HELP)?;
    jiff::Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}

/// Parses what [`duration`] does, or `off`, which is zero.
///
/// # Errors
/// A sentence for the person who typed it.
pub(super) fn duration_or_off(text: &str) -> Result<Duration, String> {
    if text == "off" { Ok(Duration::ZERO) } else { duration(text).map_err(|error| format!("{error}, or off")) }
}

/// Parses `0`, `4096`, `64KiB`, `512MiB`, `2GiB`, `10MB`.
///
/// # Errors
/// A sentence for the person who typed it.
pub fn bytes(text: &str) -> Result<u64, String> {
    const HELP: &str = "expected a size such as 4096, 64KiB, 512MiB or 2GiB";
    if let Ok(plain) = text.trim().parse() {
        return Ok(plain);
    }
    let (number, unit, rest) = split(text.trim()).ok_or(HELP)?;
    let factor: f64 = match unit.to_ascii_lowercase().as_str() {
        "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1_048_576.0,
        "g" | "gib" => 1_073_741_824.0,
        "tib" => 1_099_511_627_776.0,
        _ => return Err(HELP.into()),
    };
    let value = number * factor;
    // 2^53: above it a float no longer counts bytes exactly.
    if !rest.is_empty() || value > 9_007_199_254_740_992.0 {
        return Err(HELP.into());
    }
    Ok(value as u64)
}

/// A number, its unit and what follows.
fn split(text: &str) -> Option<(f64, &str, &str)> {
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number: f64 = text[..unit].parse().ok()?;
    let rest = &text[unit..];
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    Some((number, &rest[..end], &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration_or_off("off"), Ok(Duration::ZERO));
        assert_eq!(duration_or_off("10m"), Ok(Duration::from_secs(600)));
        assert!(duration_or_off("never").is_err_and(|error| error.ends_with("or off")));
        for bad in ["", "5", "s", "-1s", "1s2", "1y", "99999d", "1.2.3s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_may_have_units() {
        assert_eq!(bytes("4096"), Ok(4_096));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("1.5GiB"), Ok(3 << 29));
        for bad in ["", "MiB", "-1", "1PB", "9999999TiB", "1MiB2"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
