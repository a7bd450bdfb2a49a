//! A daemon that is killed, frozen or shut out at the worst moment, and what waits for it meanwhile.

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::{EndReason, RunOutcome, TaskPhase};
use conductor_tests::client::{PROJECT, millis, project_bus, task_bus};
use conductor_tests::{Client, Config, DEADLINE, Daemon, Refusal, Sandbox, entries, in_sandbox, tree, wait_until};
use tonic::Code;

use crate::common::{
    LockHolder, again, executions, finish, folder, once, reason, script, start, start_with, touch, wait_file,
};

/// Tasks that start at once.
const AT_ONCE: usize = 20;

/// The folders of all tasks of the project.
fn task_folders(sandbox: &Sandbox) -> Vec<String> {
    let all = tree::list(&sandbox.root().join(PROJECT));
    all.into_keys().filter(|path| path.starts_with("task-") && !path.contains('/')).collect()
}

#[test]
fn a_kill_while_twenty_runs_start_costs_no_run_its_one_outcome() {
    in_sandbox(|sandbox| {
        let config = Config::new(sandbox).set("defaults.max_concurrent_runs", &AT_ONCE.to_string());
        let (mut daemon, client) = start_with(sandbox, &config)?;
        let submit = |number: usize| {
            let mut submit = script("at-once", &["until 2 exit 1", "done"]);
            submit.request_id = format!("at-once-{number}");
            submit
        };
        drop(client);
        // Killed when the first, when half, and when most of them have a run.
        for wanted in [1, AT_ONCE / 2, AT_ONCE - 2] {
            let runs = || -> usize {
                let root = sandbox.root().join(PROJECT);
                task_folders(sandbox).iter().map(|task| tree::runs(&root.join(task)).len()).sum()
            };
            let before = runs();
            std::thread::scope(|scope| -> Result<()> {
                for number in 0..AT_ONCE {
                    let socket = sandbox.socket();
                    scope
                        .spawn(move || Client::lazy(&socket, None).map(|client| client.submit(submit(number)).is_ok()));
                }
                // At once if the earlier rounds did them all already.
                let all_done = || runs() >= AT_ONCE * 2;
                wait_until("some have a run", DEADLINE, || runs() >= before + wanted || all_done())?;
                daemon.kill9()
            })?;
            daemon = again(sandbox)?.0;
        }
        let client = daemon.client()?;
        let mut tasks = BTreeSet::new();
        for number in 0..AT_ONCE {
            tasks.insert(client.submit(submit(number))?.task_id);
        }
        assert_eq!(tasks.len(), AT_ONCE);
        assert_eq!(task_folders(sandbox).len(), AT_ONCE, "a repeated request makes no second task");
        for id in &tasks {
            let task = client.wait_task(id)?;
            ensure!(reason(&task) == EndReason::Done, "{task:#?}");
            for run in client.task_runs(&task)? {
                ensure!(run.outcome() != RunOutcome::Unspecified && run.end_time.is_some(), "{run:#?}");
            }
            let executed = std::fs::read_to_string(folder(sandbox, &task).join("fake-attempts"))?;
            let once: BTreeSet<&str> = executed.lines().collect();
            ensure!(once.len() == executed.lines().count(), "a run was executed twice: {executed}");
            let bus = entries::read(&folder(sandbox, &task).join("TASK-MESSAGE-BUS.md"));
            ensure!(entries::repeated_keys(&bus).is_empty(), "posted twice: {:?}", entries::repeated_keys(&bus));
            let starts = bus.iter().filter(|entry| entry.kind == "RUN_START").count();
            let recorded = tree::runs(&folder(sandbox, &task)).len();
            ensure!(starts <= recorded, "{starts} RUN_START of {recorded} runs");
        }
        // A task has ended before its last word is on the project's bus.
        let path = sandbox.root().join(PROJECT).join("PROJECT-MESSAGE-BUS.md");
        let facts = || entries::read(&path).iter().filter(|entry| entry.kind == "FACT").count();
        wait_until("each task told its end", DEADLINE, || facts() >= AT_ONCE)?;
        let facts = entries::read(&path);
        ensure!(entries::repeated_keys(&facts).is_empty(), "posted twice: {:?}", entries::repeated_keys(&facts));
        assert_eq!(facts.iter().filter(|entry| entry.kind == "FACT").count(), AT_ONCE, "one of each task");
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_frozen_daemon_goes_on_where_it_was_and_its_callers_are_not_stuck() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let steps = ["touch up", "on-attempt 1 wait-file go", "until 3 exit 0", "done"];
        let task = client.submit(script("frozen-over", &steps))?;
        wait_file(sandbox, &task, "up")?;
        let run = client.wait_running(&task.task_id)?;
        daemon.signal(libc::SIGSTOP);
        wait_until("it is frozen", DEADLINE, || {
            conductor_tests::procs::stat(daemon.pid()).is_some_and(|stat| stat.0 == 'T')
        })?;
        let output = sandbox.ctl(&["--timeout", "1s", "task", "show", &task.task_id])?;
        assert_eq!(output.code, 124, "a caller is told, and does not hang: {output:?}");
        touch(sandbox, &task, "go")?;
        let exit = std::path::Path::new(&run.folder).join("shim/exit.json");
        wait_until("the shim records the end without it", DEADLINE, || {
            std::fs::read(&exit).is_ok_and(|text| serde_json::from_slice::<serde_json::Value>(&text).is_ok())
        })?;
        // It has a lock, so a second one can't take over what it only seems to have left.
        let mut second = Daemon::spawn(sandbox, &[])?;
        assert_eq!(second.wait_end(DEADLINE)?.code(), Some(75), "{}", second.log_text());
        daemon.signal(libc::SIGCONT);
        let task = client.wait_task(&task.task_id)?;
        assert_eq!((reason(&task), task.run_count, executions(sandbox, &task)), (EndReason::Done, 3, 3));
        let bus = entries::read(&folder(sandbox, &task).join("TASK-MESSAGE-BUS.md"));
        assert!(entries::repeated_keys(&bus).is_empty());
        sandbox.assert_no_strays()
    });
}

#[test]
fn limits_hold_while_the_daemon_is_away() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let mut slow = once("too-long", &["touch up", "sleep 600000"]);
        slow.spec.wall_time = Some(millis(2000));
        let slow = client.submit(slow)?;
        let mut loud = once("too-much", &["touch up", "wait-file go", "print-bytes 1G", "sleep 600000"]);
        loud.spec.log_limit_bytes = 8 << 20;
        let loud = client.submit(loud)?;
        for task in [&slow, &loud] {
            wait_file(sandbox, task, "up")?;
        }
        daemon.kill9()?;
        touch(sandbox, &loud, "go")?;
        wait_until("both are ended by their shims", DEADLINE, || sandbox.stray_processes().is_empty())?;
        let (_daemon, client) = again(sandbox)?;
        for (task, outcome) in [(&slow, RunOutcome::TimedOut), (&loud, RunOutcome::LogLimit)] {
            let task = client.wait_task(&task.task_id)?;
            let run = client.last_run(&task)?;
            assert_eq!(run.outcome(), outcome, "{run:#?}");
        }
        Ok(())
    });
}

#[test]
fn a_socket_held_by_another_program_is_left_to_it_and_named() {
    in_sandbox(|sandbox| {
        std::fs::write(sandbox.config_path(), Config::new(sandbox).yaml())?;
        let path = sandbox.socket();
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        let holder = UnixListener::bind(&path)?;
        let mut daemon = Daemon::spawn(sandbox, &[])?;
        let status = daemon.wait_end(DEADLINE)?;
        let log = daemon.log_text();
        assert_eq!(status.code(), Some(75), "{log}");
        assert!(log.contains(&path.display().to_string()) && log.contains("in use"), "{log}");
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok(), "the other's socket is as it was");
        drop(holder);
        again(sandbox).context("a socket that nobody listens on is replaced")?;
        // Something that is no socket is nobody's to remove.
        Ok(())
    });
}

#[test]
fn a_file_in_the_place_of_the_socket_is_not_removed() {
    in_sandbox(|sandbox| {
        std::fs::write(sandbox.config_path(), Config::new(sandbox).yaml())?;
        let path = sandbox.socket();
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        std::fs::write(&path, "precious")?;
        let mut daemon = Daemon::spawn(sandbox, &[])?;
        let status = daemon.wait_end(DEADLINE)?;
        assert!(!status.success() && daemon.log_text().contains("not a socket"), "{status} {}", daemon.log_text());
        assert_eq!(std::fs::read_to_string(&path)?, "precious");
        Ok(())
    });
}

#[test]
fn a_held_bus_lock_hinders_neither_the_stop_of_its_task_nor_other_tasks() {
    in_sandbox(|sandbox| {
        let config = Config::new(sandbox).set("bus.lock_timeout", "500ms");
        let (_daemon, client) = start_with(sandbox, &config)?;
        let task = client.submit(script("locked-bus", &["touch up", "hold-output 600000", "sleep 600000"]))?;
        wait_file(sandbox, &task, "up")?;
        client.wait_running(&task.task_id)?;
        let holder = LockHolder::of(&folder(sandbox, &task).join("TASK-MESSAGE-BUS.md"))?;

        let refused = client.post(&task_bus(&task), "FACT", "no way in").expect_err("the lock is held");
        let refusal = Refusal::of(&refused);
        assert_eq!((refusal.code, refusal.reason.as_str(), refusal.retry), (Code::Unavailable, "BUS_LOCKED", true));
        let bystander = finish(&client, script("bystander", &["until 2 exit 0", "done"]))?;
        assert_eq!(reason(&bystander), EndReason::Done, "other buses and tasks go on");

        let asked = Instant::now();
        client.stop(&task.task_id, 200)?;
        wait_until("the tree is empty", DEADLINE, || {
            sandbox.stray_processes().iter().all(|process| process.run_id.is_none())
        })?;
        ensure!(asked.elapsed() < Duration::from_secs(10), "the stop waited for the lock: {:?}", asked.elapsed());
        let another = finish(&client, script("another", &["done"]))?;
        assert_eq!(reason(&another), EndReason::Done, "and they still go on");
        holder.release()?;
        let task = client.wait_task(&task.task_id)?;
        assert_eq!(reason(&task), EndReason::Stopped, "{task:#?}");
        // What could not be posted meanwhile comes late, once.
        let path = folder(sandbox, &task).join("TASK-MESSAGE-BUS.md");
        wait_until("the end is on the bus", DEADLINE, || {
            entries::read(&path).iter().any(|entry| entry.kind == "RUN_STOP")
        })?;
        assert!(entries::repeated_keys(&entries::read(&path)).is_empty());
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_task_whose_bus_is_locked_at_its_start_begins_once_it_is_free() {
    in_sandbox(|sandbox| {
        let config = Config::new(sandbox).set("bus.lock_timeout", "300ms");
        let (daemon, client) = start_with(sandbox, &config)?;
        let task = finish(&client, script("once-more", &["done"]))?;
        let holder = LockHolder::of(&folder(sandbox, &task).join("TASK-MESSAGE-BUS.md"))?;
        // Accepted or refused for now: but nothing hangs, and it is not lost.
        let accepted = client.resume(&task.task_id, "").is_ok();
        client.daemon_info()?;
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        let bystander = finish(&client, script("bystander", &["done"]))?;
        assert_eq!(reason(&bystander), EndReason::Done, "a locked bus does not hold up the recovery");
        holder.release()?;
        if accepted {
            wait_until("it ran again", DEADLINE, || executions(sandbox, &task) == 2)?;
        } else {
            client.resume(&task.task_id, "")?;
        }
        let task = client.wait_task_until(&task.task_id, "ended again", DEADLINE, |task| {
            task.run_count == 2 && task.phase() == TaskPhase::Finished
        })?;
        assert_eq!((reason(&task), executions(sandbox, &task)), (EndReason::Done, 2));
        Ok(())
    });
}

#[test]
fn killing_writers_in_a_loop_costs_no_message_whose_id_they_got() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        client.post(&project_bus(PROJECT), "INFO", "the first")?;
        let script =
            format!("while :; do conductorctl bus post --project {PROJECT} --type FACT \"from $1\" || exit 1; done");
        let mut answered = BTreeSet::new();
        for round in 0..6 {
            let path = sandbox.path().join(format!("tmp/ids-{round}"));
            let mut writers = Vec::new();
            for number in 0..4 {
                let out = std::fs::File::options().create(true).append(true).open(&path)?;
                let mut command = sandbox.command("sh");
                command.args(["-c", &script, "sh", &number.to_string()]).stdin(Stdio::null()).stdout(out);
                writers.push(command.spawn()?);
            }
            let got = || std::fs::read_to_string(&path).unwrap_or_default().lines().count();
            let waited = wait_until("they write", DEADLINE, || got() >= 8);
            // The clients themselves, in the middle of whatever they do; then the loops around them.
            for _ in 0..3 {
                for process in sandbox.processes().into_iter().filter(|process| process.name == "conductorctl") {
                    conductor_tests::procs::signal(&process, libc::SIGKILL);
                }
            }
            for mut writer in writers {
                writer.kill()?;
                writer.wait()?;
            }
            waited?;
            answered.extend(std::fs::read_to_string(&path)?.lines().map(str::to_owned));
        }
        wait_until("no writer is left", DEADLINE, || {
            sandbox.processes().iter().all(|process| process.name != "conductorctl")
        })?;
        let all: Vec<String> =
            client.messages(&project_bus(PROJECT))?.into_iter().map(|message| message.msg_id).collect();
        let there: BTreeSet<&String> = all.iter().collect();
        let lost: Vec<&String> = answered.iter().filter(|id| id.starts_with("MSG-") && !there.contains(id)).collect();
        ensure!(answered.len() >= 40, "only {} answers", answered.len());
        ensure!(lost.is_empty() && there.len() == all.len(), "lost {lost:?}");
        Ok(())
    });
}
