//! `start`, `logs -f`, `wait`, `bus tail -f`: following, detaching, and a daemon that dies meanwhile.

mod support;

use conductor_proto::v1::{EndReason, Run, RunStatus, Task, TaskPhase};
use support::{Fake, Live, RUN, RUN2, TASK, agent, ended, run, task};

fn ready() -> Fake {
    let fake = Fake::start();
    fake.with(|world| world.agents = vec![agent("claude", true), agent("codex", false)]);
    fake
}

/// Lets the submitted task run its first attempt.
fn first_attempt(fake: &Fake) {
    fake.with(|world| {
        world.put_run(run(RUN, 1, RunStatus::Running));
        world.put_task(Task { current_run_id: RUN.into(), ..task(TaskPhase::Running) });
        world.log(RUN, "working\n", false);
    });
}

fn finish(fake: &Fake, reason: EndReason) {
    fake.with(|world| {
        world.log(RUN, "finished\n", true);
        world.post("DECISION", "keep the old API");
        world.put_run(run(RUN, 1, RunStatus::Completed));
        world.put_task(ended(reason));
    });
}

#[test]
fn start_prints_the_id_first_follows_and_passes_the_result_on() {
    let fake = ready();
    let mut live = Live::spawn(fake.ctl(&["start", "fix", "the failing test"]));
    live.sees(TASK);
    first_attempt(&fake);
    live.sees("working");
    finish(&fake, EndReason::Done);
    assert_eq!(live.ends(), 0, "{}", live.err());
    assert_eq!(live.out(), format!("{TASK}\nworking\nfinished\n"));
    let err = live.err();
    for text in [
        "/usr/bin/claude 2.1.0",
        "login dev@example.com",
        "at most 100 attempts",
        "── attempt 1",
        "completed",
        "keep the old API",
        "✓ done  after 2m 14s",
    ] {
        assert!(err.contains(text), "no {text:?} in {err}");
    }
    let submit =
        fake.with(|world| world.calls.iter().find(|(name, _)| name == "SubmitTask").cloned()).expect("a call").1;
    assert!(submit.contains("prompt: \"fix the failing test\"") && submit.contains("agent: \"claude\""), "{submit}");
    assert!(!submit.contains("request_id: \"\""), "{submit}");
}

#[test]
fn a_task_that_is_not_done_makes_start_exit_1() {
    let fake = ready();
    let mut live = Live::spawn(fake.ctl(&["start", "fix it"]));
    live.sees(TASK);
    first_attempt(&fake);
    finish(&fake, EndReason::MaxRestarts);
    assert_eq!(live.ends(), 1);
    assert!(live.err().contains("✗ max_restarts"), "{}", live.err());
    assert!(!live.err().contains("error:"), "{}", live.err());
}

#[test]
fn ctrl_c_detaches_and_says_how_to_come_back_and_stops_nothing() {
    let fake = ready();
    let mut live = Live::spawn(fake.ctl(&["start", "fix it"]));
    live.sees(TASK);
    first_attempt(&fake);
    live.sees("working");
    live.interrupt();
    assert_eq!(live.ends(), 130);
    assert!(live.err().contains(&format!("conductorctl logs -f {TASK}")), "{}", live.err());
    assert!(live.err().contains(&format!("conductorctl stop {TASK}")), "{}", live.err());
    assert!(fake.with(|world| world.calls.iter().all(|(name, _)| !name.starts_with("Stop"))));
}

#[test]
fn a_follower_survives_a_restart_of_the_daemon_and_loses_no_byte() {
    let mut fake = ready();
    fake.with(|world| world.put_task(task(TaskPhase::Running)));
    first_attempt(&fake);
    let mut live = Live::spawn(fake.ctl(&["logs", "-f", TASK]));
    live.sees("working");
    fake.kill();
    live.sees("the daemon is gone");
    fake.with(|world| {
        world.epoch += 1;
        world.revision = 1;
        world.log(RUN, "while away\n", true);
        world.put_run(run(RUN, 1, RunStatus::Failed));
        world.put_run(run(RUN2, 2, RunStatus::Running));
        world.put_task(Task { attempt: 2, ..task(TaskPhase::Running) });
        world.log(RUN2, "second\n", false);
    });
    fake.serve();
    live.sees("second");
    fake.with(|world| {
        world.log(RUN2, "end\n", true);
        world.put_run(run(RUN2, 2, RunStatus::Completed));
        world.put_task(ended(EndReason::Done));
    });
    assert_eq!(live.ends(), 0, "{}", live.err());
    assert_eq!(live.out(), "working\nwhile away\nsecond\nend\n");
    assert_eq!(live.err().matches("the daemon is gone").count(), 1, "{}", live.err());
    assert!(live.err().contains("the daemon is back"), "{}", live.err());
}

#[test]
fn a_follower_gives_up_after_a_bounded_time() {
    let mut fake = ready();
    first_attempt(&fake);
    let mut live = Live::spawn(fake.ctl(&["logs", "-f", RUN, "--reconnect", "300ms"]));
    live.sees("working");
    fake.kill();
    assert_eq!(live.ends(), 5, "{}", live.err());
    assert!(live.err().contains("conductorctl daemon start"), "{}", live.err());
}

#[test]
fn a_bus_follower_resumes_by_message_id() {
    let mut fake = ready();
    fake.with(|world| {
        world.put_task(task(TaskPhase::Running));
        world.post("FACT", "first");
    });
    let live = Live::spawn(fake.ctl(&["bus", "tail", "-f", "--task", TASK]));
    live.sees("first");
    fake.kill();
    fake.with(|world| world.post("FACT", "second"));
    fake.serve();
    live.sees("second");
    assert_eq!(live.out().matches("first").count(), 1, "{}", live.out());
}

#[test]
fn wait_goes_on_over_a_restart_and_passes_the_result_on() {
    let mut fake = ready();
    fake.with(|world| world.put_task(task(TaskPhase::Running)));
    let mut live = Live::spawn(fake.ctl(&["wait", TASK]));
    support::until("the call", || fake.with(|world| world.calls.iter().any(|(name, _)| name == "WaitTask")));
    fake.kill();
    live.sees("the daemon is gone");
    fake.with(|world| world.put_task(ended(EndReason::Done)));
    fake.serve();
    assert_eq!(live.ends(), 0, "{}", live.err());
    assert!(live.out().contains(&format!("{TASK}  done")), "{}", live.out());
}

#[test]
fn a_wait_that_takes_too_long_exits_124() {
    let fake = ready();
    fake.with(|world| world.put_task(task(TaskPhase::Running)));
    let output = fake.run(&["wait", TASK, "--timeout", "100ms"]);
    assert_eq!(output.status.code(), Some(124), "{}", support::err(&output));
}

#[test]
fn logs_of_a_task_come_in_the_order_of_its_attempts() {
    let fake = ready();
    fake.with(|world| {
        world.put_task(ended(EndReason::Done));
        world.put_run(run(RUN2, 2, RunStatus::Completed));
        world.put_run(run(RUN, 1, RunStatus::Failed));
        world.log(RUN, "one", true);
        world.log(RUN2, "two a\ntwo b\n", true);
    });
    let output = fake.run(&["logs", TASK]);
    assert_eq!(support::out(&output), "onetwo a\ntwo b\n", "bytes in a pipe stay as they are");
    assert_eq!(support::err(&output).matches("── attempt").count(), 2);
    let tail = fake.run(&["logs", TASK, "--tail", "1", "--raw"]);
    assert_eq!((support::out(&tail).as_str(), support::err(&tail).as_str()), ("two b\n", ""));
    let followed = fake.run(&["logs", "-f", TASK, "--raw"]);
    assert_eq!(support::out(&followed), "onetwo a\ntwo b\n");
}

#[test]
fn start_once_with_json_prints_the_ended_task() {
    let fake = ready();
    let mut live = Live::spawn(fake.ctl(&["start", "--once", "fix it", "-o", "json"]));
    live.sees(TASK);
    fake.with(|world| world.put_run(Run { attempt: 1, ..run(RUN, 1, RunStatus::Running) }));
    finish(&fake, EndReason::Done);
    assert_eq!(live.ends(), 0, "{}", live.err());
    let value: serde_json::Value = serde_json::from_str(&live.out()).expect("JSON");
    assert_eq!(value["end"]["reason"], "done");
}

/// Two attempts, a pause between them and a crash on the bus, as a person reads it.
#[test]
fn the_story_of_a_task_reads_in_its_order() {
    let fake = ready();
    let mut live = Live::spawn(fake.ctl(&["start", "fix it"]));
    live.sees("queued");
    first_attempt(&fake);
    live.sees("working");
    fake.with(|world| {
        world.log(RUN, "no final line end", true);
        world.put_run(run(RUN, 1, RunStatus::Failed));
        let why = "the next attempt starts in 1s".into();
        world.put_task(Task { why, ..task(TaskPhase::Backoff) });
    });
    live.sees("backoff");
    fake.with(|world| {
        world.post("RUN_CRASH", "exit 1\nrun_dir: /r\n\n## stderr (last 50 lines)\n1\n2\n3\n4\n5\n6\n7\n8")
    });
    live.sees("more lines");
    fake.with(|world| {
        world.put_run(run(RUN2, 2, RunStatus::Running));
        world.put_task(Task { attempt: 2, ..task(TaskPhase::Running) });
        world.log(RUN2, "second\n", true);
    });
    live.sees("second");
    // Bus and watch are streams of their own: only what is waited for has an order between them.
    fake.with(|world| world.put_run(run(RUN2, 2, RunStatus::Completed)));
    live.sees("completed");
    fake.with(|world| {
        world.post("DECISION", "keep the old API");
        world.put_task(Task { attempt: 2, ..ended(EndReason::NeedsAttention) });
    });
    assert_eq!(live.ends(), 1);
    let folder = fake.folder.path().canonicalize().expect("a folder");
    insta::assert_snapshot!("start_story", live.err().replace(folder.to_str().expect("text"), "[folder]"));
    insta::assert_snapshot!("start_output", live.out());
}
