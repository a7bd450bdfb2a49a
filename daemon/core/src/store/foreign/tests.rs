//! What marker files and runs of another program come to. Nothing is ever written.

use super::*;
use crate::store::run_info;
use crate::types::RunKey;

fn task() -> TaskKey {
    TaskKey::new("demo".parse().expect("an id"), "task-20260101-000000-demo".parse().expect("an id"))
}

fn run(text: &str) -> RunInfo {
    let key: RunKey = task().run("20261122-1511320000-1-1".parse().expect("an id"));
    run_info::parse(&key, text.as_bytes()).info
}

fn with(files: &[(&str, &str)]) -> Markers {
    let dir = tempfile::tempdir().expect("a folder");
    let root = Root::open(dir.path()).expect("a root");
    std::fs::create_dir_all(root.task_dir(&task())).expect("mkdir");
    for (name, text) in files {
        std::fs::write(root.task_dir(&task()).join(name), text).expect("write");
    }
    let markers = markers(&root, &task());
    for (name, text) in files {
        let kept = std::fs::read_to_string(root.task_dir(&task()).join(name)).expect("kept");
        assert_eq!(kept, *text, "looking changes nothing");
    }
    markers
}

fn state_of(markers: &Markers, runs: &[RunInfo]) -> ForeignState {
    let now = "2026-11-22T15:11:32Z".parse().expect("a time");
    state(markers, runs.iter(), now, |name| name == "task-20260101-000000-ready").0
}

#[test]
fn a_stop_is_permanent_or_counts_for_a_minute_and_garbage_is_none() {
    for (text, expected) in [
        ("permanent\n", ForeignState::Stopped),
        ("2026-11-22T15:11:00Z\n", ForeignState::Stopped),
        ("2026-11-22T15:12:00Z\n", ForeignState::Stopped),
        ("2026-11-22T15:10:31Z\n", ForeignState::Idle),
        ("soon\n", ForeignState::Idle),
        ("", ForeignState::Idle),
    ] {
        assert_eq!(state_of(&with(&[("STOP-REQUESTED", text)]), &[]), expected, "{text:?}");
    }
}

#[test]
fn done_cancelled_and_dependencies_are_shown_in_that_order() {
    let cancelled = ("CANCELLED", "cancelled_at: 2026-01-01T00:00:00Z\nreason: not needed\n");
    let config = ("TASK-CONFIG.yaml", "depends_on:\n    - task-20260101-000000-ready, x\n    - x\n");
    let markers = with(&[cancelled, config, ("DONE", "")]);
    assert_eq!(state_of(&markers, &[]), ForeignState::AllFinished);
    let markers = with(&[cancelled, config]);
    assert_eq!(markers.cancelled.as_deref(), Some("not needed"));
    assert_eq!(markers.depends_on, ["task-20260101-000000-ready", "x"]);
    assert_eq!(state_of(&markers, &[]), ForeignState::Cancelled);
    assert_eq!(state_of(&with(&[config]), &[]), ForeignState::Blocked);
    let ready = ("TASK-CONFIG.yaml", "depends_on: [task-20260101-000000-ready]\n");
    assert_eq!(state_of(&with(&[ready]), &[]), ForeignState::Idle);
    let bad = with(&[("TASK-CONFIG.yaml", "depends_on: {a: b}\n")]);
    assert!(bad.problem.expect("a reason").contains("line 1"));
}

#[test]
fn a_done_folder_is_a_problem_and_not_done() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = Root::open(dir.path()).expect("a root");
    std::fs::create_dir_all(root.done_file(&task())).expect("mkdir");
    let markers = markers(&root, &task());
    assert!(!markers.done);
    assert!(markers.problem.expect("a reason").contains("not a regular file"));
}

#[test]
fn a_run_that_claims_to_run_is_shown_as_what_became_of_it() {
    let none = Liveness::at("/nonexistent");
    let dead = || run("pid: 4000000\npgid: 4000000\nexit_code: -1\nstatus: running\n");
    let mut shown = dead();
    reconcile(&mut shown, true, &none);
    assert_eq!((shown.status, shown.exit_code), (RunStatus::Completed, 0));
    let mut shown = dead();
    reconcile(&mut shown, false, &none);
    assert_eq!((shown.status, shown.exit_code), (RunStatus::Failed, -1));
    let mut failed = run("exit_code: -1\nstatus: failed\n");
    reconcile(&mut failed, true, &none);
    assert_eq!((failed.status, failed.exit_code), (RunStatus::Completed, 0));
    let mut failed = run("exit_code: 2\nstatus: failed\n");
    reconcile(&mut failed, true, &none);
    assert_eq!((failed.status, failed.exit_code), (RunStatus::Failed, 2));
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_that_another_program_still_runs_is_external() {
    let mut info = run(&format!("pid: {}\nexit_code: -1\nstatus: running\n", std::process::id()));
    info.start_time = Timestamp::now();
    reconcile(&mut info, true, &Liveness::default());
    assert_eq!((info.status, info.ownership), (RunStatus::Running, Ownership::External));
    assert_eq!(state_of(&Markers { done: true, ..Markers::default() }, &[info]), ForeignState::Running);
}

#[test]
fn runs_without_done_are_completed_failed_partial_or_unknown() {
    let (good, bad, lost) = (run("status: completed\n"), run("status: failed\n"), run(""));
    for (runs, expected) in [
        (vec![good.clone(), good.clone()], ForeignState::Completed),
        (vec![bad.clone()], ForeignState::Failed),
        (vec![good, bad], ForeignState::PartialFailure),
        (vec![lost], ForeignState::Unknown),
    ] {
        assert_eq!(state_of(&Markers::default(), &runs), expected);
    }
}
