//! A way in for the fuzz target of the bus: what must hold for any bytes. Compiled only with the feature `fuzzing`.

use super::MAX_BODY;
use super::encode::{self, Fields};
use super::header::Header;
use super::scan::{Scanner, State, Step, Tail};

/// Bytes of the first window of a scan in parts: small, so that most entries are cut.
const WINDOW: usize = 64;

/// One step of a scan, with offsets of the file.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a handful of them live at once")]
enum Found {
    Entry { start: usize, end: usize, header: Header, body: String, damaged: bool, provisional: bool },
    Torn { start: usize, ours: bool },
}

/// Reads the bytes as a file, at once and in parts, and as a body that is posted.
///
/// # Panics
/// Something that must hold does not.
pub fn check(bytes: &[u8]) {
    let (whole, lost) = scan(bytes, bytes.len().max(1));
    let (parts, lost_in_parts) = scan(bytes, WINDOW);
    assert_eq!(whole, parts, "a scan in parts finds what a scan of the whole finds");
    assert_eq!(lost, lost_in_parts, "and loses as many records");
    if let Some(body) = std::str::from_utf8(bytes).ok().filter(|body| body.len() <= MAX_BODY) {
        check_round_trip(body);
    }
}

fn scan(bytes: &[u8], first_window: usize) -> (Vec<Found>, u64) {
    let (mut found, mut lost) = (Vec::new(), 0);
    let (mut base, mut state, mut window) = (0, State::default(), first_window);
    loop {
        let end = bytes.len().min(base + window);
        let mut scanner = Scanner::new(&bytes[base..end], state, end == bytes.len());
        loop {
            let before = (scanner.pos, scanner.state);
            let step = scanner.step();
            assert!(scanner.pos >= before.0, "a scan goes forward");
            match step {
                Step::Entry(entry) => {
                    assert!(before.0 <= entry.start && entry.start < entry.end && entry.end == scanner.pos);
                    found.push(Found::Entry {
                        start: base + entry.start,
                        end: base + entry.end,
                        header: entry.header,
                        body: entry.body.into_owned(),
                        damaged: entry.damaged,
                        provisional: entry.provisional,
                    });
                }
                Step::Lost(count) => {
                    assert_ne!(before, (scanner.pos, scanner.state), "a scan that loses something moves");
                    lost += count;
                }
                Step::More => break,
                Step::End(Tail::Clean) => return (found, lost),
                Step::End(Tail::Torn { start, ours }) => {
                    found.push(Found::Torn { start: base + start, ours });
                    return (found, lost);
                }
            }
        }
        assert!(end < bytes.len(), "more than the whole file is asked for");
        window = if scanner.pos == 0 { window * 2 } else { first_window };
        (base, state) = (base + scanner.pos, scanner.state);
    }
}

/// What we write is read back byte for byte, also between two other entries.
fn check_round_trip(body: &str) {
    let mut file = String::new();
    for (id, body) in [("MSG-1", "before"), ("MSG-2", body), ("MSG-3", "after")] {
        let fields = Fields {
            id,
            time: "2026-11-22T15:11:32.5Z",
            kind: "FACT",
            project: "p",
            task: "",
            run: "",
            issue: None,
            parents: &[],
            links: &[],
            meta: &[("note".to_owned(), body.chars().take(100).collect())].into(),
            key: None,
            body,
        };
        encode::entry(&mut file, &fields);
    }
    let (found, lost) = scan(file.as_bytes(), file.len());
    assert_eq!((found.len(), lost), (3, 0), "{file:?}");
    let read = found.iter().find_map(|found| match found {
        Found::Entry { header, body, damaged: false, .. } if header.id == "MSG-2" => Some(body.as_str()),
        _ => None,
    });
    assert_eq!(read, Some(body), "a body comes back as it was");
}
