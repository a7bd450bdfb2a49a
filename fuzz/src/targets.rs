//! What is fuzzed, and what must hold for any bytes. Also compiled into the test that replays the seeds, so nothing here
//! knows a fuzzer.

use conductor_core::agents::event::Stream;
use conductor_core::agents::stream::{Vendor, parser};
use conductor_core::agents::{Event, StreamSummary};
use conductor_core::bus;
use conductor_core::ralph::LoopState;
use conductor_core::store::{run_info, task_file};
use conductor_core::types::{RunKey, TaskKey};
use conductor_shim::protocol::{Exit, Reaped, Spec, Start, Stop};
use conductord::socket::authority::Repair;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A target: panics if what must hold does not.
pub type Target = fn(&[u8]);

/// All targets, by the names of their files in `src/bin/` and their folders in `seeds/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("agent_claude", |bytes| agent_stream(Vendor::Claude, bytes)),
    ("agent_codex", |bytes| agent_stream(Vendor::Codex, bytes)),
    ("agent_gemini", |bytes| agent_stream(Vendor::Gemini, bytes)),
    ("agent_grok", |bytes| agent_stream(Vendor::Grok, bytes)),
    ("agent_rest", |bytes| agent_stream(Vendor::Rest, bytes)),
    ("authority", authority),
    ("bus_scan", bus::fuzzing::check),
    ("run_info", run_info_yaml),
    ("shim_protocol", shim_protocol),
    ("task_yaml", task_yaml),
];

/// Runs one target.
///
/// # Panics
/// What must hold does not, or there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("the target is in TARGETS");
    target(bytes);
}

/// The repair of `:authority`: the length stays, the pieces don't matter, and what is repaired needs no repair.
fn authority(bytes: &[u8]) {
    let repaired = repair_in_pieces(bytes, bytes.len().max(1));
    assert_eq!(repaired.len(), bytes.len(), "the length of nothing changes");
    for size in [1, 2, 3, 7] {
        assert_eq!(repair_in_pieces(bytes, size), repaired, "in pieces of {size}");
    }
    assert_eq!(repair_in_pieces(&repaired, bytes.len().max(1)), repaired, "a second repair changes nothing");
}

fn repair_in_pieces(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut repair = Repair::default();
    let (mut out, mut piece) = (Vec::with_capacity(bytes.len()), Vec::new());
    for part in bytes.chunks(size) {
        piece.extend_from_slice(part);
        let ready = repair.run(&mut piece);
        assert!(ready <= piece.len() && ready + 1 >= piece.len(), "at most one byte is held back");
        out.extend(piece.drain(..ready));
    }
    out.extend(piece);
    out
}

/// `run-info.yaml`: what was understood is written so that it is understood again, and the same.
fn run_info_yaml(bytes: &[u8]) {
    let key = key_of(bytes);
    let first = run_info::parse(&key, bytes);
    assert_eq!(first.info.key(), key, "a record is that of its folder");
    if first.problem.is_none() {
        let text = run_info::emit(&first.info);
        let second = run_info::parse(&key, text.as_bytes());
        assert_eq!(second.problem, None, "{text}");
        assert_eq!(second.info, first.info, "{text}");
    }
}

/// A run's key as the bytes name it, so that they are not refused as those of another run.
fn key_of(bytes: &[u8]) -> RunKey {
    let text = String::from_utf8_lossy(bytes);
    let named = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().trim_matches('"').to_owned()).unwrap_or_default()
    };
    let project = named("project_id:").parse().unwrap_or_else(|_| "p".parse().expect("valid"));
    let task = named("task_id:").parse().unwrap_or_else(|_| "task-20260101-000000-any".parse().expect("valid"));
    let run = named("run_id:").parse().unwrap_or_else(|_| "20260101-0000000000-1-1".parse().expect("valid"));
    TaskKey::new(project, task).run(run)
}

/// `task.yaml`: as `run-info.yaml`.
fn task_yaml(bytes: &[u8]) {
    let key = key_of(bytes).task;
    let Ok(first) = task_file::parse::<LoopState>(&key, bytes) else { return };
    assert_eq!(first.key(), key, "a record is that of its folder");
    let text = task_file::emit(&first).expect("what was read can be written");
    let second = task_file::parse::<LoopState>(&key, text.as_bytes());
    assert_eq!(second.as_ref().ok(), Some(&first), "{second:?}\n{text}");
}

/// The files between conductord and a shim: what was understood comes back the same.
fn shim_protocol(bytes: &[u8]) {
    fn check<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        let Ok(first) = serde_json::from_slice::<T>(bytes) else { return };
        let text = serde_json::to_vec(&first).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<T>(&text).ok().as_ref(), Some(&first));
    }
    check::<Spec>(bytes);
    check::<Start>(bytes);
    check::<Stop>(bytes);
    check::<Reaped>(bytes);
    check::<Exit>(bytes);
}

/// A stream of an agent's program: the pieces in which it comes don't matter, and nothing of it is fatal.
fn agent_stream(vendor: Vendor, bytes: &[u8]) {
    let read = |stream: Stream, size: usize| -> (Vec<Event>, StreamSummary) {
        let (mut parser, mut events) = (parser(vendor), Vec::new());
        for piece in bytes.chunks(size) {
            parser.feed(stream, piece, &mut |event| events.push(event));
        }
        parser.finish(&mut |event| events.push(event));
        (events, parser.summary().clone())
    };
    for stream in [Stream::Stdout, Stream::Stderr] {
        let whole = read(stream, bytes.len().max(1));
        for size in [1, 5, 64] {
            assert_eq!(read(stream, size), whole, "in pieces of {size}");
        }
    }
}
