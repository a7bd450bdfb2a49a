//! Server-sent events, and times as services write them.

use serde_json::Value;

use super::scenario::now;

/// An event whose name is its `type`.
pub(super) fn named(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
}

/// An event without a name.
pub(super) fn plain(event: &Value) -> String {
    format!("data: {event}\n\n")
}

/// Seconds until a time of the epoch; at least one.
pub(super) fn seconds_until(time: u64) -> u64 {
    time.saturating_sub(now()).max(1)
}

/// `2030-03-17 at 17:46`, in UTC.
pub(super) fn date_and_time(time: u64) -> String {
    let stamp = jiff::Timestamp::from_second(i64::try_from(time).unwrap_or(i64::MAX)).unwrap_or(jiff::Timestamp::MAX);
    stamp.strftime("%Y-%m-%d at %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_is_written_in_utc() {
        assert_eq!(super::date_and_time(1_900_000_000), "2030-03-17 at 17:46");
    }
}
