//! The format of `run-info.yaml`: real files, damaged ones and arbitrary ones.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::types::{Cost, CostKind, TaskKey};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/conductor-loop");

fn key() -> RunKey {
    let task = TaskKey::new("demo".parse().expect("an id"), "task-20260101-000000-demo".parse().expect("an id"));
    task.run("20261122-1511320000-11729-1".parse().expect("an id"))
}

/// Every real file, with the key that its path gives.
fn fixtures() -> Vec<(RunKey, String)> {
    let mut found = Vec::new();
    let list = |path: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(path).expect("listable").map(|entry| entry.expect("an entry").path()).collect()
    };
    for task in list(&Path::new(FIXTURES).join("demo")).into_iter().filter(|path| path.is_dir()) {
        for run in list(&task.join("runs")) {
            let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            let task = TaskKey::new("demo".parse().expect("an id"), name(&task).parse().expect("an id"));
            let text = std::fs::read_to_string(run.join(FILE)).expect("readable");
            found.push((task.run(name(&run).parse().expect("an id")), text));
        }
    }
    assert_eq!(found.len(), 5);
    found
}

#[test]
fn real_files_of_conductor_loop_make_the_round_trip_byte_by_byte() {
    for (key, text) in fixtures() {
        let read = parse(&key, text.as_bytes());
        assert_eq!(read.problem, None, "{key}");
        assert_eq!(emit(&read.info), text);
        assert!(matches!(Fields::read(text.as_bytes()), Ok(Fields::Plain(_))), "the fast way serves");
    }
}

#[test]
fn a_running_record_has_minus_one_and_the_zero_time() {
    let mut info = blank(&key());
    info.status = RunStatus::Running;
    let text = emit(&info);
    assert!(text.contains("\nexit_code: -1\n") && text.contains("\nend_time: 0001-01-01T00:00:00Z\n"), "{text}");
    assert!(text.ends_with("agent_version: \"\"\n"), "{text}");
    assert_eq!(parse(&key(), text.as_bytes()).info, info);
}

#[test]
fn missing_ids_come_from_the_path_and_a_missing_status_is_unknown() {
    for text in ["", "version: 1\n", "agent: claude\nstatus: \"\"\n", "# nothing\n"] {
        let read = parse(&key(), text.as_bytes());
        assert_eq!(read.problem, None, "{text:?}");
        assert_eq!((read.info.key(), read.info.status), (key(), RunStatus::Unknown));
    }
}

#[test]
fn what_can_not_be_understood_is_unknown_with_the_reason() {
    for (text, reason) in [
        (&b"version: 2\nshape: new\n"[..], "newer than 1"),
        (b"version: 1\nstatus: [\n", "line"),
        (b"version: 1\npid: many\n", "line 2, column 1: pid: a whole number"),
        (b"status: sleeping\n", "status: running, completed, failed or unknown was expected"),
        (b"pid: 99999999999999999999\n", "whole number"),
        (b"agent: \xff\xfe\n", "not UTF-8"),
        (b"- a\n- b\n", "keys and values"),
        (b"end_time: yesterday\n", "a time"),
        (b"run_id: run-123\nstatus: completed\n", "not its folder"),
        (b"pid: 1\npid: 2\n", "duplicate"),
    ] {
        let read = parse(&key(), text);
        assert_eq!((read.info.key(), read.info.status), (key(), RunStatus::Unknown), "{reason}");
        let shown = read.info.error_summary.expect("a reason");
        assert!(shown.contains(reason), "{shown}");
    }
}

#[test]
fn a_missing_file_is_an_unknown_run_and_a_newer_one_is_never_rewritten() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = Root::open(dir.path()).expect("a root");
    assert_eq!(read(&root, &key()).problem, Some(RunProblem::Missing));
    let folder = root.run_dir(&key());
    std::fs::create_dir_all(&folder).expect("mkdir");
    write(&root, &blank(&key())).expect("written");
    write(&root, &blank(&key())).expect("rewritten");
    std::fs::write(folder.join(FILE), "version: 9\n").expect("write");
    assert!(matches!(write(&root, &blank(&key())), Err(StoreError::Newer { version: 9, .. })));
    assert_eq!(std::fs::read_to_string(folder.join(FILE)).expect("readable"), "version: 9\n");
}

#[test]
fn other_styles_of_yaml_are_read_too() {
    let text = "---\n# by hand\nagent: 'it''s'\nexit_code:   7\ncommandline: >-\n  one\n  two\nusage:\n  input: 1\n  \
                cache_read: 2\n  cache_write: 3\n  output: 4\nstatus: failed\r\n";
    let info = parse(&key(), text.as_bytes()).info;
    assert_eq!((info.agent.as_str(), info.exit_code, info.status), ("it's", 7, RunStatus::Failed));
    assert_eq!(info.commandline.as_deref(), Some("one two"));
    assert_eq!(info.usage.map(|usage| usage.output), Some(4));
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{1,12}",
        "[-?:,{}#&*!|>'\"%@` a1.]{1,6}",
        prop::sample::select(vec![
            "true",
            "No",
            "1.10",
            "-1",
            "0x1f",
            "1e3",
            "~",
            "null",
            "2026-01-01",
            "12:30:45",
            "2.1.49 (Claude Code)",
            ".5",
            "a: b",
            "a #b",
            "---",
            "- x",
            "été",
            "a\nb\n",
            "\u{feff}x",
            "a\u{85}b",
            " x ",
            "1_000",
            "=",
            "<<",
        ])
        .prop_map(str::to_owned),
    ]
    .prop_filter("absent when empty", |text| !text.is_empty())
}

prop_compose! {
    fn any_info()(
        texts in prop::collection::vec(prop::option::of(any_text()), 14),
        agent in any::<String>(),
        version in any::<String>(),
        numbers in prop::collection::vec(prop::option::of(any::<u64>()), 4),
        code in any::<i32>(),
        nanos in 0_i64..=4_000_000_000_000_000_000,
        ended in any::<bool>(),
        full in any::<bool>(),
    ) -> RunInfo {
        let mut info = blank(&key());
        let mut texts = texts.into_iter();
        let mut text = || texts.next().flatten();
        info.cwd = text();
        info.prompt_path = text();
        info.output_path = text();
        info.stdout_path = text();
        info.stderr_path = text();
        info.commandline = text();
        info.error_summary = text();
        info.session_id = text();
        info.model = text();
        info.login = text();
        info.program = text();
        info.tier = text();
        info.stop_reason = text();
        info.agent = agent;
        info.agent_version = version;
        info.exit_code = code;
        info.pid = code;
        info.start_time = Timestamp::from_nanosecond(i128::from(nanos)).expect("in range");
        info.end_time = ended.then_some(info.start_time);
        info.stdout_bytes = numbers[0];
        info.stderr_bytes = numbers[1];
        info.cpu_ms = numbers[2];
        info.max_rss_kib = numbers[3];
        if full {
            info.outcome = Some(Outcome::UsageLimited);
            info.attempt = 3;
            info.signal = Some(9);
            info.previous_run_id = Some(key().run);
            info.limits = Limits {
                wall_time: Some(std::time::Duration::from_millis(1500)),
                log_bytes: Some(1),
                idle_warn: Some(std::time::Duration::from_millis(2500)),
                idle_timeout: None,
            };
            info.stragglers = vec![Straggler { pid: 7, name: text().unwrap_or_default(), ended: true }];
            let cost = Some(Cost { usd: 0.25, kind: CostKind::Partial });
            info.usage = Some(Usage { input: 1, cache_read: 2, cache_write: 3, output: 4, reasoning: 0, cost });
        }
        info
    }
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_back_the_same_by_both_readers(info in any_info()) {
        let text = emit(&info);
        let read = parse(&key(), text.as_bytes());
        prop_assert_eq!(read.problem, None, "{}", text);
        prop_assert_eq!(&read.info, &info, "{}", text);
        // A comment in front forces the YAML parser.
        let read = parse(&key(), format!("# slow\n{text}").as_bytes());
        prop_assert_eq!(read.problem, None, "{}", text);
        prop_assert_eq!(&read.info, &info, "{}", text);
    }

    #[test]
    fn both_readers_agree_on_plain_lines(value in "[ -~]{0,20}") {
        let text = format!("agent: {value}\n");
        let Ok(Fields::Plain(_)) = Fields::read(text.as_bytes()) else { return Ok(()) };
        let fast = parse(&key(), text.as_bytes());
        let slow = parse(&key(), format!("# slow\n{text}").as_bytes());
        if fast.problem.is_none() && slow.problem.is_none() {
            let plain_number = value.parse::<f64>().is_ok() || value.starts_with(['0', '+', '-', '.']);
            // A number is text as it stands for the fast way (as for Go), and a number's text for the other.
            let (fast, slow) = (fast.info.agent, slow.info.agent);
            prop_assert!(plain_number || fast == slow, "{:?} {:?}", fast, slow);
        } else {
            prop_assert!(fast.problem.is_some() || value.is_empty(), "{:?} {:?}", value, slow.problem);
        }
    }

    #[test]
    fn no_bytes_make_reading_fail(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let read = parse(&key(), &bytes);
        prop_assert_eq!(read.info.key(), key());
    }

    #[test]
    fn a_real_file_cut_or_damaged_anywhere_is_still_a_record(at in 0_usize..900, bit in 0_u8..8, cut in any::<bool>()) {
        let (key, text) = fixtures().swap_remove(0);
        let mut bytes = text.into_bytes();
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
        let read = parse(&key, &bytes);
        prop_assert_eq!(read.info.key(), key);
        prop_assert_eq!(read.problem.is_some(), read.info.error_summary.is_some());
    }
}
