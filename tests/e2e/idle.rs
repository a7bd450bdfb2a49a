//! Runs without a sign of life: which signs count, the warning, the end, and what a death of conductord changes.
//!
//! The limits are of seconds: conductord looks ten times within the shorter one.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use conductor_proto::v1::{EndReason, Run, RunOutcome, RunStatus, Task};
use conductor_tests::client::{millis, task_bus};
use conductor_tests::{Client, Config, DEADLINE, Daemon, Sandbox, Submit, in_sandbox, procs, wait_until};

use crate::common::{again, folder, once, reason, script, start, start_with, touch, wait_file};

/// Quiet time until the warning and the end in these tests, in milliseconds.
const WARN: i32 = 1000;
const END: i32 = 2500;
/// Longer than any quiet time that could end a run: who lives so long is not taken for idle.
const LONG: Duration = Duration::from_millis(6000);

fn limited(mut submit: Submit) -> Submit {
    submit.spec.idle_warn = Some(millis(WARN));
    submit.spec.idle_timeout = Some(millis(END));
    submit
}

fn warnings(client: &Client, task: &Task) -> Result<Vec<String>> {
    let messages = client.messages(&task_bus(task))?;
    let ours = messages.into_iter().filter(|message| message.r#type == "WARNING" && message.body.contains("no sign"));
    Ok(ours.map(|message| message.body).collect())
}

fn assert_idle(run: &Run) -> Result<()> {
    ensure!(run.outcome() == RunOutcome::TimedOut, "{run:#?}");
    ensure!(run.error_summary.starts_with("idle: no output") && run.error_summary.contains("since 20"), "{run:#?}");
    ensure!(run.idle_since.is_none(), "it is over: {run:#?}");
    Ok(())
}

/// The run of a job whose agent shows signs of life for [`LONG`] and then says so: it completes.
fn assert_lives(client: &Client, submit: Submit) -> Result<Task> {
    let task = client.submit(limited(submit))?;
    let task = client.wait_task(&task.task_id)?;
    let run = client.last_run(&task)?;
    ensure!(run.outcome() == RunOutcome::Completed, "{run:#?}");
    Ok(task)
}

#[test]
fn a_sleeping_agent_is_warned_of_then_ended_and_its_loop_goes_on() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(limited(script("asleep", &["from 2 done", "from 2 exit 0", "sleep 600000"])))?;
        wait_until("the run shows that it is idle", DEADLINE, || {
            client.wait_running(&task.task_id).is_ok_and(|run| run.idle_since.is_some())
        })?;
        let run = client.wait_running(&task.task_id)?;
        assert_eq!((run.status(), run.idle_timeout), (RunStatus::Running, Some(millis(END))));
        let task = client.wait_task(&task.task_id)?;
        let runs = client.task_runs(&task)?;
        assert_idle(&runs[0])?;
        assert_eq!((reason(&task), runs.len()), (EndReason::Done, 2), "not a stop that somebody asked for");
        let warnings = warnings(&client, &task)?;
        assert_eq!(warnings.len(), 1, "once: {warnings:?}");
        assert!(warnings[0].ends_with("it is ended after 2s") || warnings[0].contains("it is ended after"));
        assert!(daemon.log_text().contains("no sign of life of the run"), "a line in the log");
        let crash = client.messages(&task_bus(&task))?.into_iter().find(|message| message.r#type == "RUN_CRASH");
        assert!(crash.is_some_and(|message| message.body.contains("reason: idle: no output")));
        sandbox.assert_no_strays()
    });
}

#[test]
fn every_sign_of_life_keeps_a_run_alive() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let jobs = [
            (
                "cpu-only",
                "end=$(($(date +%s)+6)); while [ $(date +%s) -lt $end ]; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; done",
            ),
            ("stderr-only", "for i in $(seq 12); do sleep 0.5; echo x >&2; done"),
            ("stdout-only", "for i in $(seq 12); do sleep 0.5; echo x; done"),
            // By its own append, as an agent of conductor-loop does it.
            (
                "bus-only",
                r#"for i in $(seq 12); do sleep 0.5; printf '\n---\nmsg_id: MSG-20260101-000000-00000%04d-PID00001-0001\nts: 2026-01-01T00:00:00Z\ntype: FACT\nproject_id: p\ntask_id: ""\nrun_id: %s\n---\nhere\n' $i "$CONDUCTOR_RUN_ID" >> "$JRUN_MESSAGE_BUS"; done"#,
            ),
        ];
        std::thread::scope(|scope| {
            let jobs = jobs.map(|(name, command)| {
                let client = &client;
                scope.spawn(move || assert_lives(client, once(name, &[&format!("sh {command}")])))
            });
            for job in jobs {
                let task = job.join().expect("no panic")?;
                let (began, ended) = (task.create_time.unwrap_or_default(), task.end.unwrap_or_default());
                let lived = ended.time.unwrap_or_default().seconds - began.seconds;
                ensure!(lived >= 5, "{} lived for {lived} s", task.task_id);
            }
            Ok(())
        })
    });
}

#[test]
fn without_cgroups_the_table_of_processes_tells_who_works() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start_with(sandbox, &Config::new(sandbox).set("cgroup", "off"))?;
        let asleep = client.submit(limited(once("asleep-walk", &["leave 600000", "sleep 600000"])))?;
        // Below a shell in a session of its own, as agents start their tools.
        let work = "sh setsid sh -c 'end=$(($(date +%s)+6)); while [ $(date +%s) -lt $end ]; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; done' & wait";
        let worked = assert_lives(&client, once("works-walk", &[work]))?;
        assert_eq!(client.last_run(&worked)?.tier, "walk");
        let asleep = client.wait_task(&asleep.task_id)?;
        assert_idle(&client.last_run(&asleep)?)?;
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_message_through_conductord_is_a_sign_of_life() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        // What conductorctl prints goes nowhere.
        let command = "sh for i in $(seq 12); do sleep 0.4; conductorctl bus post --type PROGRESS on >/dev/null; done";
        let task = assert_lives(&client, once("posting", &[command]))?;
        ensure!(warnings(&client, &task)?.is_empty());
        Ok(())
    });
}

/// A Claude Code that announces a pause and then says nothing.
fn pausing(sandbox: &Sandbox, pause_ms: u32) -> Result<Config> {
    use std::os::unix::fs::PermissionsExt as _;
    let program = sandbox.path().join("claude-like");
    let retry = format!(
        r#"{{"type":"system","subtype":"api_retry","attempt":1,"max_retries":10,"retry_delay_ms":{pause_ms},"error_status":529,"error":"overloaded","session_id":"s"}}"#
    );
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo '2.1.0 (Claude Code)'; exit 0; fi\ncat >/dev/null\n\
         echo '{retry}'\nexec sleep 600\n"
    );
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok(Config::new(sandbox).agent("claude", &format!("{{type: claude, program: {}}}", program.display())))
}

#[test]
fn an_announced_pause_is_waited_out_and_not_a_moment_longer_than_the_limit() {
    in_sandbox(|sandbox| {
        let pause = Duration::from_millis(5000);
        let (_daemon, client) = start_with(sandbox, &pausing(sandbox, 5000)?)?;
        let mut submit = limited(once("pausing", &[]));
        submit.spec.agent = "claude".into();
        let task = client.submit(submit)?;
        client.wait_running(&task.task_id)?;
        let begin = Instant::now();
        let task = client.wait_task(&task.task_id)?;
        ensure!(begin.elapsed() >= pause, "ended after {:?}", begin.elapsed());
        assert_idle(&client.last_run(&task)?)
    });
}

#[test]
fn a_pause_of_hours_is_no_idleness() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start_with(sandbox, &pausing(sandbox, 21_600_000)?)?;
        let mut submit = limited(once("pausing-long", &[]));
        submit.spec.agent = "claude".into();
        let task = client.submit(submit)?;
        let run = client.wait_running(&task.task_id)?;
        let begin = Instant::now();
        wait_until("some limits have passed", DEADLINE, || begin.elapsed() > LONG)?;
        ensure!(procs::lives(run.pid) && warnings(&client, &task)?.is_empty());
        client.stop(&task.task_id, 100)?;
        client.wait_task(&task.task_id).map(drop)
    });
}

#[test]
fn an_agent_that_stopped_itself_is_idle() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let task = client.submit(limited(once("stopped-self", &["stop-self"])))?;
        let task = client.wait_task(&task.task_id)?;
        assert_idle(&client.last_run(&task)?)?;
        sandbox.assert_no_strays()
    });
}

#[test]
fn an_adopted_run_is_watched_anew() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(limited(once("adopted", &["touch up", "sleep 600000"])))?;
        let run = client.wait_running(&task.task_id)?;
        wait_file(sandbox, &task, "up")?;
        daemon.kill9()?;
        let begin = Instant::now();
        let (_daemon, client) = again(sandbox)?;
        let task = client.wait_task(&task.task_id)?;
        let ended = client.last_run(&task)?;
        assert_eq!(ended.run_id, run.run_id);
        assert_idle(&ended)?;
        ensure!(begin.elapsed() >= Duration::from_millis(2500), "the clock began anew: {:?}", begin.elapsed());
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_parent_that_waits_for_its_children_is_not_idle() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        // The child has no limit of its own.
        let steps = ["child waiting wait-file go | done", "sh conductorctl wait --children >/dev/null", "done"];
        let parent = client.submit(limited(script("parent", &steps)))?;
        let run = client.wait_running(&parent.task_id)?;
        let mut child = None;
        wait_until("the child is there", DEADLINE, || {
            let request = conductor_proto::v1::ListTasksRequest { page_size: 10, ..Default::default() };
            let tasks = client.wait(client.tasks().list_tasks(request)).map(|found| found.tasks).unwrap_or_default();
            child = tasks.into_iter().find(|task| task.parent.is_some());
            child.is_some()
        })?;
        let begin = Instant::now();
        wait_until("some limits have passed", DEADLINE, || begin.elapsed() > LONG)?;
        ensure!(procs::lives(run.pid) && warnings(&client, &parent)?.is_empty());
        touch(sandbox, &child.expect("it was found"), "go")?;
        let parent = client.wait_task(&parent.task_id)?;
        assert_eq!((reason(&parent), parent.run_count), (EndReason::Done, 1));
        Ok(())
    });
}

#[test]
fn limits_come_from_the_configuration_and_a_task_may_switch_them_off() {
    in_sandbox(|sandbox| {
        let config = Config::new(sandbox).set("defaults.idle_warn", "off").set("defaults.idle_timeout", "1s");
        let (_daemon, client) = start_with(sandbox, &config)?;
        let task = client.submit(once("configured", &["sleep 600000"]))?;
        let mut without = once("without", &["wait-file go"]);
        without.spec.idle_timeout = Some(millis(0));
        let without = client.submit(without)?;
        let spec = without.spec.clone().unwrap_or_default();
        assert_eq!((spec.idle_warn, spec.idle_timeout), (None, None), "off is shown as none");
        let task = client.wait_task(&task.task_id)?;
        assert_idle(&client.last_run(&task)?)?;
        assert!(warnings(&client, &task)?.is_empty(), "none was asked for");
        touch(sandbox, &without, "go")?;
        let without = client.wait_task(&without.task_id)?;
        assert_eq!(client.last_run(&without)?.outcome(), RunOutcome::Completed);
        Ok(())
    });
}

#[test]
fn a_stop_that_was_asked_for_first_keeps_its_cause_and_an_idle_end_that_is_hurried_its_own() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start_with(sandbox, &Config::new(sandbox).set("stop.int_grace", "60s"))?;
        let steps = ["ignore INT TERM", "touch up", "sleep 600000"];
        let asked = client.submit(limited(once("asked", &steps)))?;
        wait_file(sandbox, &asked, "up")?;
        client.stop(&asked.task_id, 5000)?;
        let idle = client.submit(limited(script("hurried", &steps)))?;
        let run = client.wait_running(&idle.task_id)?;
        let order = std::path::Path::new(&run.folder).join("shim/stop.json");
        wait_until("its end is ordered", DEADLINE, || order.exists())?;
        client.stop(&idle.task_id, 0)?;
        let asked = client.wait_task(&asked.task_id)?;
        assert_eq!(client.last_run(&asked)?.outcome(), RunOutcome::Stopped);
        let idle = client.wait_task(&idle.task_id)?;
        assert_eq!(reason(&idle), EndReason::Stopped, "the task itself was stopped");
        assert_idle(&client.last_run(&idle)?)
    });
}

/// Kills the daemon at a point of the idle end; the next one must bring it to the same end, once.
pub(crate) fn through_an_idle_end(point: &str) {
    in_sandbox(|sandbox| {
        Daemon::start(sandbox, &Config::new(sandbox))?.terminate()?;
        let mut daemon = Daemon::with_failpoints(sandbox, &format!("{point}=kill"))?;
        daemon.ready()?;
        let client = daemon.client()?;
        client.create_project(conductor_tests::client::PROJECT, &sandbox.work())?;
        let task = client.submit(limited(script("idle-cut", &["from 2 done", "from 2 exit 0", "sleep 600000"])))?;
        wait_until("the daemon is killed", DEADLINE, || daemon.died_of_kill().is_some())?;
        let (_daemon, client) = again(sandbox)?;
        let task = client.wait_task(&task.task_id)?;
        let runs = client.task_runs(&task)?;
        assert_idle(&runs[0])?;
        ensure!((reason(&task), runs.len()) == (EndReason::Done, 2), "{point}: {task:#?}");
        let bus = conductor_tests::entries::read(&folder(sandbox, &task).join("TASK-MESSAGE-BUS.md"));
        let twice = conductor_tests::entries::repeated_keys(&bus);
        ensure!(twice.is_empty(), "{point}: posted twice: {twice:?}");
        sandbox.assert_no_strays()
    });
}
