//! What a person sees of every vendor's recorded streams, at 80 and at 120 columns, from the bytes to the screen.
//!
//! A vendor is one line of [`VENDORS`]: all recorded streams whose names begin so are shown.

use std::fs;
use std::path::{Path, PathBuf};

use conductor_core::agents::stream::{Vendor, parser};
use conductor_core::agents::{Event, EventParser, Masks, Stream};
use conductor_proto::v1::{EventPosition, RunEvent};
use conductorctl::pretty::{Renderer, Style};
use conductord::rpc::Encoder;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Whose streams, and how the names of their recorded streams begin.
const VENDORS: [(Vendor, &str); 6] = [
    (Vendor::Claude, "claude-"),
    (Vendor::Codex, "codex-"),
    (Vendor::Gemini, "gemini-"),
    (Vendor::Grok, "grok-"),
    (Vendor::Claude, "grok-messages-"),
    (Vendor::Rest, "by-hand/rest-"),
];
/// Streams that another vendor's parser reads.
const NOT_OF_GROK: &str = "grok-messages-";
/// A form of output that no agent is asked for.
const NOT_ASKED_FOR: &str = "gemini-json.jsonl";
/// The reader's clock: two hours and ten minutes before the reset that the recorded limits tell.
const NOW: i64 = 1_900_000_000 - 7_800;

fn streams(prefix: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/streams");
    let (folder, prefix) = match prefix.rsplit_once('/') {
        Some((below, prefix)) => (folder.join(below), prefix),
        None => (folder, prefix),
    };
    let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let mut found: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the recorded streams")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| name(path).starts_with(prefix) && name(path).ends_with(".jsonl"))
        .filter(|path| name(path) != NOT_ASKED_FOR)
        .filter(|path| prefix == NOT_OF_GROK || !name(path).starts_with(NOT_OF_GROK))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no recorded stream begins with {prefix}");
    found
}

/// The events of a recorded stream as a client gets them.
fn events(vendor: Vendor, path: &Path) -> Vec<RunEvent> {
    let mut parser: Box<dyn EventParser> = parser(vendor);
    let mut found: Vec<Event> = Vec::new();
    let mut take = |event: Event| found.push(event);
    parser.feed(Stream::Stdout, &fs::read(path).expect("a stream"), &mut take);
    if let Ok(stderr) = fs::read(path.with_extension("stderr.txt")) {
        parser.feed(Stream::Stderr, &stderr, &mut take);
    }
    parser.finish(&mut take);
    let mut encoder = Encoder::new(Masks::default());
    found.into_iter().map(|event| encoder.event(event, EventPosition::default(), None)).collect()
}

fn shown(events: &[RunEvent], width: usize) -> String {
    let zone = TimeZone::fixed(jiff::tz::offset(1));
    let mut renderer = Renderer::new(Style { width, color: false, thoughts: true, zone });
    let now = Timestamp::from_second(NOW).expect("a time");
    let mut text: String = events.iter().map(|event| renderer.event(event, now)).collect();
    text += &renderer.finish();
    text
}

#[test]
fn every_recorded_stream_is_as_reviewed_at_both_widths() {
    for (vendor, prefix) in VENDORS {
        for width in [80, 120] {
            let mut all = String::new();
            for path in streams(prefix) {
                let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
                let text = shown(&events(vendor, &path), width);
                assert!(!text.contains('\u{1b}') && (text.is_empty() || text.ends_with('\n')), "{name}: {text:?}");
                all += &format!("$ conductorctl logs --thoughts {name}\n{text}\n");
            }
            let name = prefix.rsplit('/').next().unwrap_or(prefix).trim_end_matches('-');
            insta::assert_snapshot!(format!("{name}_{width}"), all);
        }
    }
}

/// Resuming leaves out what was sent by the place of its line: that must grow.
#[test]
fn events_of_one_log_come_in_the_order_of_their_lines() {
    for (vendor, prefix) in VENDORS {
        for path in streams(prefix) {
            let mut last = [0, 0];
            for event in events(vendor, &path) {
                let at = &mut last[usize::try_from(event.stream - 1).expect("one of two")];
                assert!(event.offset >= *at, "{} at {}", path.display(), event.offset);
                *at = event.offset;
            }
        }
    }
}
