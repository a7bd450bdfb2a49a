//! The format against real files, against damage and against a reader that only looks at lines.

use std::path::PathBuf;

use proptest::prelude::*;

use super::encode::{Fields, entry, header};
use super::header::Header;
use super::scan::{Scanner, State, Step, Tail};
use super::{body, scalar};

#[derive(Debug, Default, PartialEq)]
struct Read {
    entries: Vec<(Header, String)>,
    lost: u64,
    damaged: u64,
    torn: Option<(usize, bool)>,
}

fn read(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    let mut scanner = Scanner::new(bytes, State::default(), true);
    loop {
        match scanner.step() {
            Step::Entry(entry) => {
                read.damaged += u64::from(entry.damaged);
                read.entries.push((entry.header.clone(), entry.body.to_string()));
            }
            Step::Lost(count) => read.lost += count,
            Step::More => panic!("more than the whole file is asked for"),
            Step::End(tail) => {
                if let Tail::Torn { start, ours } = tail {
                    read.torn = Some((start, ours));
                }
                return read;
            }
        }
    }
}

fn bodies(bytes: &[u8]) -> Vec<String> {
    read(bytes).entries.into_iter().map(|(_, body)| body).collect()
}

fn data(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(folder)
}

fn foreign(id: &str, body: &str) -> String {
    format!("---\nmsg_id: {id}\nts: 2024-01-01T00:00:00Z\ntype: FACT\nproject_id: p\n---\n{body}")
}

fn ours(id: &str, body: &str) -> String {
    let mut out = String::new();
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
        meta: &[("zone".to_owned(), "true".to_owned())].into(),
        key: Some("k 1"),
        body,
    };
    entry(&mut out, &fields);
    out
}

fn file_of(bodies: &[String]) -> String {
    let entries: Vec<String> = bodies.iter().enumerate().map(|(at, body)| ours(&format!("M{at}"), body)).collect();
    entries.join("\n")
}

/// What conductor-loop's reader does: lines, trimmed of `\r` and `\n`, and nothing else. Headers and bodies.
fn line_based(text: &str) -> Vec<(String, String)> {
    let (mut found, mut header, mut body) = (Vec::new(), String::new(), String::new());
    let (mut in_header, mut in_body) = (false, false);
    for line in text.split_inclusive('\n') {
        if line.trim_end_matches(['\r', '\n']) == "---" {
            if in_header {
                (in_header, in_body) = (false, true);
            } else {
                if in_body {
                    found.push((std::mem::take(&mut header), std::mem::take(&mut body)));
                }
                (in_header, in_body) = (true, false);
            }
        } else if in_header {
            header.push_str(line);
        } else if in_body {
            body.push_str(line);
        }
    }
    if in_body {
        found.push((header, body));
    }
    found
}

#[test]
fn every_recorded_file_reads_as_expected() {
    let text = std::fs::read_to_string(data("bus/expected.json")).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&text).unwrap();
    for case in cases.as_array().unwrap() {
        let name = case["file"].as_str().unwrap();
        let read = read(&std::fs::read(data("bus").join(name)).unwrap());
        assert_eq!(read.lost, case["skipped"].as_u64().unwrap(), "{name}");
        let expected = case["messages"].as_array().unwrap();
        assert_eq!(read.entries.len(), expected.len(), "{name}: {read:?}");
        for ((header, body), message) in read.entries.iter().zip(expected) {
            assert_eq!(header.id, message["msg_id"].as_str().unwrap(), "{name}");
            assert_eq!(header.kind, message["type"].as_str().unwrap(), "{name}");
            assert_eq!(header.project, message["project_id"].as_str().unwrap(), "{name}");
            assert_eq!(body, message["body"].as_str().unwrap(), "{name}");
            if let Some(parents) = message["parents"].as_array() {
                assert_eq!(header.parents.len(), parents.len());
                for (parent, expected) in header.parents.iter().zip(parents) {
                    assert_eq!(parent.id, expected["msg_id"].as_str().unwrap());
                    assert_eq!(parent.kind, expected["kind"].as_str().unwrap_or(""));
                    let meta = expected["meta"].as_object().map_or(0, serde_json::Map::len);
                    assert_eq!(parent.meta.len(), meta);
                }
            }
        }
    }
}

#[test]
fn entries_of_real_conductor_loop_files_are_written_again_byte_for_byte() {
    for name in ["project.bus.md", "demo.bus.md", "nodone.bus.md"] {
        let bytes = std::fs::read_to_string(data("conductor-loop-bus").join(name)).unwrap();
        let read = read(bytes.as_bytes());
        assert_eq!((read.lost, read.damaged, read.torn), (0, 0, None), "{name}");
        let mut out = String::new();
        for (head, body) in &read.entries {
            if !out.is_empty() {
                out.push('\n');
            }
            let fields = Fields {
                id: &head.id,
                time: &head.time.unwrap().to_string(),
                kind: &head.kind,
                project: &head.project,
                task: &head.task,
                run: &head.run,
                issue: head.issue.as_deref(),
                parents: &head.parents,
                links: &head.links,
                meta: &head.meta,
                key: None,
                body,
            };
            header(&mut out, &fields, &[]);
            out.push_str(body);
            out.push('\n');
        }
        assert_eq!(out, bytes, "{name}");
    }
}

#[test]
fn our_entry_has_exactly_these_bytes() {
    let text = ours("A", "one\n ---\ntwo");
    let stored = "one\n  ---\ntwo";
    let crc = crc32c::crc32c(format!("A\n{stored}").as_bytes());
    assert_eq!(
        text,
        format!(
            "---\nmsg_id: A\nts: 2026-11-22T15:11:32.5Z\ntype: FACT\nproject_id: p\ntask_id: \"\"\nrun_id: \"\"\nmeta:\n    \
             x-crc32c: \"{crc:08x}\"\n    x-esc: \"1\"\n    x-key: \"k 1\"\n    x-len: \"{}\"\n    zone: \"true\"\n---\n{stored}\n",
            stored.len()
        )
    );
}

#[test]
fn the_vectors_of_the_predecessor_hold() {
    let two = |first: &str, second: &str| format!("{}\n{}", foreign("A", first), foreign("B", second));
    // 8b: a torn foreign entry that another program joined to its own is never shown as whole without being closed.
    assert_eq!(bodies(two("one\n", "partial").as_bytes()), ["one"]);
    // 8c: a torn header costs itself alone, whether joined or not.
    let torn = format!("{}\n---\nmsg_id: B\nty", foreign("A", "one\n"));
    assert_eq!(bodies(torn.as_bytes()), ["one"]);
    let joined = read(format!("{torn}\n{}", foreign("C", "c\n")).as_bytes());
    assert_eq!(joined.entries.iter().map(|(head, _)| head.id.as_str()).collect::<Vec<_>>(), ["A", "C"]);
    assert_eq!(joined.lost, 1);
    // 10: a bare `---` in a foreign body ends it, as in the reference; the next entry survives.
    let cut = read(two("before\n---\nafter\n", "b\n").as_bytes());
    assert_eq!(cut.entries.iter().map(|(_, body)| body.as_str()).collect::<Vec<_>>(), ["before", "b"]);
    assert_eq!(cut.lost, 1);
    // 15b, 15c
    let bare = "---\ntype: FACT\nproject_id: p\n---\n ---\n--- \n----\n";
    let bare = read(bare.as_bytes());
    assert_eq!(bare.entries[0].1, " ---\n--- \n----");
    assert_eq!((bare.entries[0].0.id.as_str(), bare.entries[0].0.time), ("", None));
    // 6
    let old = "# title\nFACT: first\n[bad ts] x\nplain words\n[2026-01-02 03:04:05] DECISION: go\n\
               [2026-01-02T03:04:05Z] note w/o type\n[2026-01-02 03:04:05] plain text\nlower: x\nERROR:\n";
    let old = read(old.as_bytes());
    let seen: Vec<_> = old.entries.iter().map(|(h, b)| (h.id.as_str(), h.kind.as_str(), b.as_str())).collect();
    assert_eq!(
        seen,
        [
            ("LEGACY-LINE-000000005", "DECISION", "go"),
            ("LEGACY-LINE-000000006", "INFO", "note w/o type"),
            ("LEGACY-LINE-000000007", "INFO", "plain text"),
        ]
    );
}

#[test]
fn scalars_look_as_those_of_go() {
    let cases = [
        ("", "\"\""),
        ("plain text", "plain text"),
        ("/a/b:c", "/a/b:c"),
        ("true", "\"true\""),
        ("no", "\"no\""),
        ("1", "\"1\""),
        ("1.5e3", "\"1.5e3\""),
        ("0x1f", "\"0x1f\""),
        ("12:30", "\"12:30\""),
        ("2026-11-22", "\"2026-11-22\""),
        ("2026-11-22T15:11:32.1Z", "\"2026-11-22T15:11:32.1Z\""),
        ("20261122-1511320000-11729-1", "20261122-1511320000-11729-1"),
        ("99280385335e5a665f", "99280385335e5a665f"),
        ("a: b", "'a: b'"),
        ("it's: x", "'it''s: x'"),
        ("- x", "'- x'"),
        (" lead", "' lead'"),
        ("#x", "'#x'"),
        ("a #x", "'a #x'"),
        ("tab\there", "\"tab\\there\""),
        ("\u{1f600}", "\"\\U0001F600\""),
        ("grün", "grün"),
        ("two\nlines", "|-\n    two\n    lines"),
        ("ends\n", "\"ends\\n\""),
    ];
    for (text, expected) in cases {
        let mut out = String::new();
        scalar::emit(&mut out, text, 4);
        assert_eq!(out, expected, "{text:?}");
    }
}

/// Text made of what formats stumble over.
fn nasty() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("---"),
        Just(" ---"),
        Just("  ---\r"),
        Just("---\r"),
        Just("\n"),
        Just("\n\n"),
        Just("\r\n"),
        Just("\n---\n"),
        Just(" "),
        Just("---\nmsg_id: FORGED\nts: 2024-01-01T00:00:00Z\ntype: FACT\nproject_id: evil\n---\nforged\n"),
        Just("key: value"),
        Just("grün \u{1f600}\u{2028}"),
        Just("text"),
        Just("\t"),
        Just("x-len: \"3\""),
        Just("\0"),
        Just("-")
    ];
    prop_oneof![proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat()), any::<String>(),]
}

proptest! {
    #[test]
    fn bodies_come_back_byte_for_byte_and_entries_stay_apart(bodies in proptest::collection::vec(nasty(), 1..6)) {
        let text = file_of(&bodies);
        let read = read(text.as_bytes());
        prop_assert_eq!((read.lost, read.damaged, read.torn), (0, 0, None));
        let seen: Vec<_> = read.entries.iter().map(|(_, body)| body.clone()).collect();
        prop_assert_eq!(seen, bodies);
        prop_assert!(read.entries.iter().all(|(head, _)| head.key.as_deref() == Some("k 1") && head.meta.len() == 1));
    }

    #[test]
    fn no_body_fools_a_reader_that_only_looks_at_lines(bodies in proptest::collection::vec(nasty(), 1..6)) {
        let seen = line_based(&file_of(&bodies));
        prop_assert_eq!(seen.len(), bodies.len());
        for (at, ((head, stored), body)) in seen.iter().zip(&bodies).enumerate() {
            let begin = format!("msg_id: M{at}\n");
            prop_assert!(head.starts_with(&begin), "{}", head);
            let (expected, _) = body::escape(body);
            let terminated = format!("{expected}\n");
            prop_assert!(stored.starts_with(&terminated));
        }
    }

    #[test]
    fn a_file_cut_anywhere_loses_only_its_last_entry(
        bodies in proptest::collection::vec(nasty(), 1..5), at in any::<prop::sample::Index>()
    ) {
        let text = file_of(&bodies);
        let cut = at.index(text.len() + 1);
        let whole = (0..bodies.len()).filter(|n| file_of(&bodies[..=*n]).len() <= cut).count();
        let read = read(&text.as_bytes()[..cut]);
        let seen: Vec<_> = read.entries.iter().map(|(_, body)| body.clone()).collect();
        prop_assert_eq!(&seen[..], &bodies[..whole]);
        prop_assert_eq!(read.damaged, 0);
        // What is cut is reported as torn, unless it is but the newline that separates entries.
        let clean = if whole == 0 { 0 } else { file_of(&bodies[..whole]).len() };
        match read.torn {
            Some((start, _)) => prop_assert_eq!(start, clean),
            None => prop_assert!(cut <= clean + 1),
        }
    }

    #[test]
    fn a_flipped_bit_costs_at_most_its_own_entry(
        bodies in proptest::collection::vec(nasty(), 3..5), at in any::<prop::sample::Index>(), bit in 0..8_u32
    ) {
        let text = file_of(&bodies);
        let mut bytes = text.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let hit = (0..bodies.len()).position(|n| file_of(&bodies[..=n]).len() > at).unwrap();
        let read = read(&bytes);
        for (n, body) in bodies.iter().enumerate().filter(|(n, _)| *n != hit) {
            let found = read.entries.iter().any(|(head, seen)| head.id == format!("M{n}") && seen == body);
            let last_torn = n > hit && read.torn.is_some();
            prop_assert!(found, "entry {n} is lost though bit {bit} of byte {at} is in entry {hit} (torn: {last_torn})");
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read(&bytes);
    }

    #[test]
    fn scalars_are_read_back_by_a_yaml_library_as_they_were(text in nasty(), key in "[a-z0-9:# -]{1,12}") {
        let mut out = String::from("meta:\n    ");
        scalar::emit(&mut out, &key, 8);
        out.push_str(": ");
        scalar::emit(&mut out, &text, 8);
        out.push_str("\nlast: x\n");
        let value: serde_yaml::Value = serde_yaml::from_str(&out).map_err(|e| TestCaseError::fail(format!("{e}: {out}")))?;
        prop_assert_eq!(value["meta"][key.as_str()].as_str(), Some(text.as_str()), "{}", out);
        prop_assert!(!out.lines().any(|line| line == "---"));
    }

    #[test]
    fn a_scan_in_parts_finds_what_a_scan_of_the_whole_finds(
        bodies in proptest::collection::vec(nasty(), 1..5), cut in any::<prop::sample::Index>()
    ) {
        let text = file_of(&bodies);
        let cut = cut.index(text.len() + 1);
        let mut first = Scanner::new(&text.as_bytes()[..cut], State::default(), false);
        let mut seen = Vec::new();
        while let step @ (Step::Entry(_) | Step::Lost(_)) = first.step() {
            if let Step::Entry(entry) = step { seen.push(entry.body.to_string()) }
        }
        let mut rest = Scanner::new(&text.as_bytes()[first.pos..], first.state, true);
        while let step @ (Step::Entry(_) | Step::Lost(_)) = rest.step() {
            if let Step::Entry(entry) = step { seen.push(entry.body.to_string()) }
        }
        prop_assert_eq!(seen, bodies);
    }
}
