//! A kill at every named place of start, exit, stop, durable writes and posts; then the invariants.
//!
//! Needs programs built with the feature `failpoints`; without it nothing would be tried, so that a test says so.

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::{EndReason, RunOutcome, Task};
use conductor_shim::failpoint::NAMES;
use conductor_tests::client::{PROJECT, project_bus, task_bus};
use conductor_tests::{Client, Config, DEADLINE, Daemon, Sandbox, entries, in_sandbox, tree, wait_until};

use crate::common::{again, folder, reason, script};

/// What begins the names of points that a task meets on its way to DONE.
const OF_A_TASK: &[&str] = &[
    "daemon.start.",
    "shim.start.",
    "shim.exit.",
    "daemon.exit.",
    "durable.",
    "bus.before_append",
    "bus.after_append",
    "bus.after_sync",
    "daemon.task.",
    "daemon.post.",
];
/// Those that it meets when it is stopped.
const OF_A_STOP: &[&str] = &["daemon.stop.", "shim.stop."];
/// Those that an idle run meets.
const OF_AN_IDLE_END: &[&str] = &["daemon.idle."];
/// Those that a bus meets when it is full.
const OF_A_ROTATION: &[&str] = &["bus.before_rotate", "bus.after_rotate"];

/// Sandboxes at the same time: each of them mostly waits for processes that start and end.
const AT_ONCE: usize = 4;
/// Shims that are killed at a point until it is tried well enough. Each that is started after it is killed too, so that
/// the task can't end while the point is active.
const KILLED_SHIMS: usize = 3;
/// Time of one look at whether a task has ended.
const LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// Tries all of `points`, some at a time.
fn at_once(points: &[&str], attempt: impl Fn(&str) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(points.len()) {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    attempt(point);
                }
            });
        }
    });
}

/// Starts a daemon that is killed at a failpoint, or whose shim is, drives it as far as it goes, and ends it. Fails if
/// the point was not met: then nothing was tried.
fn kill_at(sandbox: &Sandbox, config: &Config, failpoint: &str, drive: impl Fn(&Client) -> Result<()>) -> Result<()> {
    // The first daemon makes root, project and configuration, so that the point is met in the run and not before.
    let daemon = Daemon::start(sandbox, config)?;
    daemon.client()?.create_project(PROJECT, &sandbox.work())?;
    daemon.terminate()?;
    let met = sandbox.path().join("met");
    let mut daemon = Daemon::with_failpoints(sandbox, &format!("{failpoint};log={}", met.display()))?;
    // Every call may fail once the daemon is dead; one that never comes up was killed in its own start.
    if daemon.ready().is_ok() {
        let client = Client::lazy(&sandbox.socket(), None)?;
        let _ = drive(&client);
    }
    if daemon.died_of_kill().is_none() {
        daemon.kill9()?;
    }
    ensure!(!sandbox.read("met").is_empty(), "{failpoint} was never met");
    Ok(())
}

/// What must hold after any kill: the task ends done, each run in one outcome, nothing is left, nothing said twice.
fn assert_whole(sandbox: &Sandbox, client: &Client, task: &Task) -> Result<()> {
    for run in client.task_runs(task)? {
        ensure!(run.outcome() != RunOutcome::Unspecified, "run without outcome: {run:#?}");
        ensure!(run.end_time.is_some(), "run without end: {run:#?}");
    }
    let folder = folder(sandbox, task);
    // The last entries may follow the end.
    let told = |path: &std::path::Path| {
        entries::read(path).iter().any(|entry| entry.key.as_ref().is_some_and(|key| key.starts_with("end:")))
    };
    let (path, project) =
        (folder.join("TASK-MESSAGE-BUS.md"), sandbox.root().join(PROJECT).join("PROJECT-MESSAGE-BUS.md"));
    wait_until("the entries of the end", DEADLINE, || told(&path) && told(&project))?;
    let agree = || client.messages(&task_bus(task)).is_ok_and(|messages| messages.len() == entries::read(&path).len());
    wait_until("a foreign reader reads the same number of entries", DEADLINE, agree)?;
    let bus = entries::read(&path);
    ensure!(entries::repeated_keys(&bus).is_empty(), "posted twice: {:?}", entries::repeated_keys(&bus));
    ensure!(entries::repeated_ids(&bus).is_empty(), "an id twice: {:?}", entries::repeated_ids(&bus));
    let project = entries::read(&project);
    ensure!(entries::repeated_keys(&project).is_empty(), "posted twice: {:?}", entries::repeated_keys(&project));
    // Each run folder that has a start record was executed at most once.
    let executed = std::fs::read_to_string(folder.join("fake-attempts")).unwrap_or_default();
    let mut ids: Vec<&str> = executed.lines().collect();
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == executed.lines().count(), "a run was executed twice: {executed}");
    ensure!(ids.len() <= tree::runs(&folder).len(), "an agent ran that is not recorded: {executed}");
    sandbox.assert_no_strays()
}

/// A task of two attempts. Where each of its shims is killed it may take many more: so many as no slow machine uses up.
fn through_it() -> conductor_tests::Submit {
    let mut submit = script("through-it", &["post FACT here", "until 2 exit 1", "done"]);
    submit.spec.max_restarts = 1000;
    submit
}

/// Kills at `point` while a task takes two attempts; then it must end done.
fn through_a_task(point: &str) {
    through_a_task_at(point, 1);
}

/// The same at the `count`-th time that the point is reached.
fn through_a_task_at(point: &str, count: u32) {
    in_sandbox(|sandbox| {
        kill_at(sandbox, &Config::new(sandbox), &format!("{point}=kill:{count}"), |client| {
            let mut submit = through_it();
            submit.request_id = "the-one-task".to_owned();
            let task = client.submit(submit)?;
            let ended = || client.wait_task_for(&task.task_id, LOOK).is_ok() || client.daemon_info().is_err();
            let killed = || sandbox.read("met").lines().count() >= KILLED_SHIMS;
            wait_until("it ends, or enough was killed", DEADLINE / 3, || killed() || ended())
        })?;
        let (_daemon, client) = again(sandbox)?;
        // The same request once more: it made the task before the kill, or makes it now.
        let mut submit = through_it();
        submit.request_id = "the-one-task".to_owned();
        let task = client.submit(submit)?;
        let task = client.wait_task(&task.task_id)?;
        ensure!(reason(&task) == EndReason::Done, "{point}: {task:#?}");
        let tasks = tree::list(&sandbox.root().join(PROJECT));
        let count = tasks.keys().filter(|path| path.starts_with("task-") && !path.contains('/')).count();
        ensure!(count == 1, "one request made {count} tasks");
        assert_whole(sandbox, &client, &task).with_context(|| point.to_owned())
    });
}

/// Kills at `point` while a task is stopped; then the stop must hold.
fn through_a_stop(point: &str) {
    in_sandbox(|sandbox| {
        kill_at(sandbox, &Config::new(sandbox), &format!("{point}=kill"), |client| {
            let steps = ["ignore INT TERM", "hold-output 600000", "touch up", "sleep 600000"];
            let task = client.submit(script("stopped-it", &steps))?;
            crate::common::wait_file(sandbox, &task, "up")?;
            client.stop(&task.task_id, 300)?;
            client.wait_task_for(&task.task_id, DEADLINE / 3)?;
            Ok(())
        })?;
        let (_daemon, client) = again(sandbox)?;
        let id = tree::list(&sandbox.root().join(PROJECT))
            .into_keys()
            .find(|path| path.starts_with("task-") && !path.contains('/'))
            .context("the task is there")?;
        // Where the kill came before the stop was durable, the caller got no answer and asks again.
        // A stop of what is stopped may be refused; that it is stopped is asserted below.
        let _ = client.stop(&id, 300);
        let task = client.wait_task(&id)?;
        ensure!(reason(&task) == EndReason::Stopped, "{point}: {task:#?}");
        assert_whole(sandbox, &client, &task).with_context(|| point.to_owned())
    });
}

fn named(prefixes: &[&str]) -> Vec<&'static str> {
    NAMES.iter().copied().filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))).collect()
}

#[test]
fn the_programs_are_built_with_failpoints() {
    in_sandbox(|sandbox| {
        let mut daemon = Daemon::start(sandbox, &Config::new(sandbox)).and_then(|daemon| {
            daemon.terminate()?;
            Daemon::with_failpoints(sandbox, "durable.before_write=kill")
        })?;
        let _ = daemon.ready();
        let client = Client::lazy(&sandbox.socket(), None);
        if let Ok(client) = client {
            let _ = client.create_project("any", &sandbox.work());
        }
        ensure!(daemon.died_of_kill() == Some(true), "no failpoint: build with --features conductor-tests/failpoints");
        Ok(())
    });
}

#[test]
fn a_kill_at_any_point_of_a_start_in_the_daemon_leaves_everything_whole() {
    at_once(&named(&["daemon.start."]), through_a_task);
}

#[test]
fn a_kill_at_any_point_of_a_start_in_the_shim_leaves_everything_whole() {
    at_once(&named(&["shim.start."]), through_a_task);
}

#[test]
fn a_kill_at_any_point_of_an_exit_in_the_shim_leaves_everything_whole() {
    at_once(&named(&["shim.exit."]), through_a_task);
}

#[test]
fn a_kill_at_any_point_of_an_exit_in_the_daemon_leaves_everything_whole() {
    at_once(&named(&["daemon.exit."]), through_a_task);
}

#[test]
fn a_kill_at_any_point_of_a_stop_leaves_everything_whole() {
    at_once(&named(&["daemon.stop.", "shim.stop."]), through_a_stop);
}

#[test]
fn a_kill_at_any_point_of_the_end_of_an_idle_run_leads_to_the_same_end() {
    named(OF_AN_IDLE_END).into_iter().for_each(crate::idle::through_an_idle_end);
}

#[test]
fn a_kill_in_any_durable_write_leaves_everything_whole() {
    at_once(&named(&["durable."]), |name| {
        // Early, and somewhere in the middle of the task's life.
        for count in [1, 4, 9] {
            through_a_task_at(name, count);
        }
    });
}

#[test]
fn a_kill_around_any_post_or_task_file_leaves_everything_whole() {
    at_once(
        &named(&["bus.before_append", "bus.after_append", "bus.after_sync", "daemon.task.", "daemon.post."]),
        through_a_task,
    );
}

#[test]
fn a_kill_around_a_rotation_of_a_bus_costs_no_message() {
    for point in named(OF_A_ROTATION) {
        in_sandbox(|sandbox| {
            let config = Config::new(sandbox).set("bus.rotate_size", "1MiB");
            let answered = std::cell::RefCell::new(Vec::new());
            kill_at(sandbox, &config, &format!("{point}=kill"), |client| {
                for number in 0..200 {
                    let id = client.post(&project_bus(PROJECT), "FACT", &format!("{number} {}", "x".repeat(20_000)))?;
                    answered.borrow_mut().push(id);
                }
                Ok(())
            })?;
            let (_daemon, client) = again(sandbox)?;
            client.post(&project_bus(PROJECT), "FACT", "afterwards")?;
            let all: Vec<String> =
                client.messages(&project_bus(PROJECT))?.into_iter().map(|message| message.msg_id).collect();
            let answered = answered.into_inner();
            ensure!(answered.len() > 20, "{point}: only {} answers", answered.len());
            // A message that was cut off by the kill may be there or not; the answered ones are, in their order.
            let kept: Vec<&String> = all.iter().filter(|id| answered.contains(id)).collect();
            ensure!(kept == answered.iter().collect::<Vec<_>>(), "{point}: {} of {}", kept.len(), answered.len());
            ensure!(all.len() <= answered.len() + 2, "{point}: {} of {}", all.len(), answered.len());
            Ok(())
        });
    }
}

#[test]
fn every_failpoint_is_tried_and_is_in_the_code() {
    let tried = named(&[OF_A_TASK, OF_A_STOP, OF_AN_IDLE_END, OF_A_ROTATION].concat());
    let missing: Vec<_> = NAMES.iter().filter(|name| !tried.contains(name)).collect();
    assert!(missing.is_empty(), "nothing tries {missing:?}");
    let daemon = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon");
    let sources =
        tree::list(&daemon).into_keys().filter(|path| path.ends_with(".rs") && !path.ends_with("failpoint.rs"));
    let code: String = sources.map(|path| std::fs::read_to_string(daemon.join(path)).unwrap_or_default()).collect();
    let unused: Vec<_> = NAMES.iter().filter(|name| !code.contains(&format!("\"{name}\""))).collect();
    assert!(unused.is_empty(), "no code has {unused:?}");
}

#[test]
fn a_full_disk_at_a_start_is_told_and_needs_no_restart_of_the_daemon() {
    in_sandbox(|sandbox| {
        let daemon = Daemon::start(sandbox, &Config::new(sandbox))?;
        daemon.client()?.create_project(PROJECT, &sandbox.work())?;
        daemon.terminate()?;
        let mut daemon = Daemon::with_failpoints(sandbox, "daemon.start.before_spec=err:ENOSPC")?;
        daemon.ready()?;
        let client = daemon.client()?;
        // Refused at once, or shown with its reason: never silently nothing.
        match client.submit(script("no-space", &["done"])) {
            Err(status) => ensure!(status.code() == tonic::Code::ResourceExhausted, "{status:?}"),
            Ok(task) => {
                let told = |task: &Task| format!("{task:?}").to_lowercase().contains("no space");
                client.wait_task_until(&task.task_id, "told that there is no space", DEADLINE, told)?;
                client.stop(&task.task_id, 100)?;
                client.wait_task(&task.task_id)?;
            }
        }
        client.post(&project_bus(PROJECT), "FACT", "it goes on")?;
        ensure!(daemon.died_of_kill().is_none(), "it lives");
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_daemon_that_can_write_nothing_refuses_to_start_and_says_why() {
    in_sandbox(|sandbox| {
        Daemon::start(sandbox, &Config::new(sandbox))?.terminate()?;
        let mut daemon = Daemon::with_failpoints(sandbox, "durable.after_write=err:ENOSPC")?;
        let status = daemon.wait_end(DEADLINE)?;
        ensure!(!status.success(), "{status}");
        ensure!(daemon.log_text().contains("No space left"), "{}", daemon.log_text());
        again(sandbox).map(drop)
    });
}
