//! Replaces what differs between two recordings: ports, paths, ids and times.

use std::collections::HashMap;
use std::path::Path;

/// Keys whose numbers are durations or times.
const CLOCKS: &[&str] = &[
    "duration_ms",
    "duration_api_ms",
    "retry_delay_ms",
    "ttft_ms",
    "ttft_stream_ms",
    "time_to_request_ms",
    "durationMs",
    "totalLatencyMs",
];

/// Length of a UUID as text.
const UUID: usize = 36;

/// The text of a stream without what differs.
pub(crate) fn scrub(text: &str, root: &Path, url: &str) -> String {
    let root = root.display().to_string();
    let mut text = text.replace(url, "http://127.0.0.1:9999");
    for (name, shown) in [("home", "/home/agent"), ("work", "/work"), ("tmp", "/tmp")] {
        let path = format!("{root}/{name}");
        // As it is, as Grok and as Claude Code name folders after it.
        for slash in ["/", "%2F", "-"] {
            text = text.replace(&path.replace('/', slash), &shown.replace('/', slash));
        }
    }
    text = modules(&text);
    text = ids(&text);
    for clock in CLOCKS {
        text = number(&text, &format!("\"{clock}\":"));
    }
    text = times(&text);
    seconds(&text, "retry in ").pipe(|text| seconds(&text, "retry after ")).pipe(|text| seconds(&text, "again in "))
}

/// A chain of replacements reads from left to right.
trait Pipe: Sized {
    fn pipe<T>(self, then: impl FnOnce(Self) -> T) -> T {
        then(self)
    }
}

impl Pipe for String {}

/// The folder where the vendors' programs are installed.
fn modules(text: &str) -> String {
    let Some(folder) = std::env::var_os("CONDUCTOR_VENDORS_DIR") else { return text.to_owned() };
    let folder = Path::new(&folder).parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    text.replace(&folder, "/PATH/node_modules")
}

/// Each UUID becomes the number of its first appearance.
fn ids(text: &str) -> String {
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('-') {
        // The first dash of a UUID is its ninth character.
        let begin = start.wrapping_sub(8);
        let candidate = (start >= 8).then(|| rest.get(begin..begin + UUID)).flatten().filter(|text| is_uuid(text));
        if let Some(id) = candidate {
            let next = known.len() + 1;
            let number = *known.entry(id).or_insert(next);
            out.push_str(&rest[..begin]);
            out.push_str(&format!("00000000-0000-4000-8000-{number:012}"));
            rest = &rest[begin + UUID..];
        } else {
            out.push_str(&rest[..=start]);
            rest = &rest[start + 1..];
        }
    }
    out + rest
}

fn is_uuid(text: &str) -> bool {
    text.char_indices().all(|(index, letter)| match index {
        8 | 13 | 18 | 23 => letter == '-',
        _ => letter.is_ascii_digit() || ('a'..='f').contains(&letter),
    })
}

/// The number after a key becomes 100.
fn number(text: &str, key: &str) -> String {
    replace_after(text, key, "100", |letter| letter.is_ascii_digit() || letter == '.')
}

/// Seconds after a word become 100000000: they count down to 2030.
fn seconds(text: &str, word: &str) -> String {
    replace_after(text, word, "100000000", |letter| letter.is_ascii_digit())
}

fn replace_after(text: &str, key: &str, with: &str, of: impl Fn(char) -> bool) -> String {
    let mut parts = text.split(key);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(&of);
        out.push_str(key);
        out.push_str(if rest.len() < part.len() { with } else { "" });
        out.push_str(rest);
    }
    out
}

/// Times of this day (`2026-11-22T20:02:45.160Z`, and with dashes as in names of files) become the first of 2026.
fn times(text: &str) -> String {
    const SHAPE: &str = "2026-01-01T00:00:00";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("T") {
        let time = (start >= 10).then(|| rest.get(start - 10..start + 9)).flatten().filter(|text| is_time(text));
        if time.is_some() {
            out.push_str(&rest[..start - 10]);
            out.push_str(SHAPE);
            let after = &rest[start + 9..];
            let fraction =
                after.strip_prefix(['.', '-']).map(|digits| digits.trim_start_matches(|d: char| d.is_ascii_digit()));
            rest = match fraction {
                Some(left) if left.starts_with('Z') => {
                    out.push_str(".000");
                    left
                }
                _ => after,
            };
        } else {
            out.push_str(&rest[..=start]);
            rest = &rest[start + 1..];
        }
    }
    out + rest
}

fn is_time(text: &str) -> bool {
    text.char_indices().all(|(index, letter)| match index {
        4 | 7 => letter == '-',
        10 => letter == 'T',
        13 | 16 => letter == ':' || letter == '-',
        _ => letter.is_ascii_digit(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_paths_ports_and_times_are_replaced_and_all_else_stays() {
        let text = "{\"session_id\":\"5b0e8a52-6c4b-4d5e-9f1a-0c1d2e3f4a5b\",\"cwd\":\"/tmp/x/work\",\"duration_ms\":12.5,\
                    \"again\":\"5b0e8a52-6c4b-4d5e-9f1a-0c1d2e3f4a5b a-b\",\"timestamp\":\"2026-11-22T20:02:45.160Z\",\
                    \"url\":\"http://127.0.0.1:1234/limit\",\"file\":\"/tmp/x/home/%2Ftmp%2Fx%2Fwork/-tmp-x-work\"} retry in 123s";
        let expected = "{\"session_id\":\"00000000-0000-4000-8000-000000000001\",\"cwd\":\"/work\",\"duration_ms\":100,\
                        \"again\":\"00000000-0000-4000-8000-000000000001 a-b\",\"timestamp\":\"2026-01-01T00:00:00.000Z\",\
                        \"url\":\"http://127.0.0.1:9999/limit\",\"file\":\"/home/agent/%2Fwork/-work\"} retry in 100000000s";
        assert_eq!(scrub(text, Path::new("/tmp/x"), "http://127.0.0.1:1234"), expected);
    }
}
