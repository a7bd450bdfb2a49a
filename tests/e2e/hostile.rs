//! Agents that do what a supervisor fears.

use conductor_proto::v1::{EndReason, LogStream, RunOutcome, StreamRunLogRequest};
use conductor_tests::client::run_ref;
use conductor_tests::{Config, in_sandbox};

use crate::common::{finish, folder, once, reason, run_once, script, start, start_with, wait_file};

/// Most memory that the daemon may ever have had, in a build without optimisation: far below what the agents print.
const LEAN: u64 = 96 << 20;

/// Agents write to files, so whatever they print costs the daemon no memory.
fn assert_lean(daemon: &conductor_tests::Daemon<'_>) {
    let peak = conductor_tests::procs::peak(daemon.pid()).expect("it lives");
    assert!(peak < LEAN, "the daemon is not in the data path, yet it had {peak} bytes");
}

#[test]
fn an_agent_that_closes_its_output_still_has_an_exit_code() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let run = run_once(&client, &["print before", "close-output", "sleep 50", "exit 5"])?;
        assert_eq!((run.outcome(), run.exit_code), (RunOutcome::Failed, Some(5)));
        assert_eq!(client.log(&run, LogStream::Stdout, 0, false)?, b"before\n");
        Ok(())
    });
}

#[test]
fn an_agent_that_prints_a_gigabyte_is_ended_at_its_log_limit() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let mut submit = once("gigabyte", &["print-bytes 1G", "sleep 600000"]);
        submit.spec.log_limit_bytes = 64 << 20;
        let task = finish(&client, submit)?;
        let run = client.last_run(&task)?;
        assert_eq!(run.outcome(), RunOutcome::LogLimit, "{run:#?}");
        assert!(run.stdout_bytes >= 64 << 20, "what it wrote up to its limit is kept: {run:#?}");
        assert_lean(&daemon);
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_gigabyte_below_the_limit_is_kept_to_the_byte() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let run = run_once(&client, &["print-bytes 1G", "print end"])?;
        assert_eq!((run.outcome(), run.stdout_bytes), (RunOutcome::Completed, (1 << 30) + 4));
        let tail = client.log(&run, LogStream::Stdout, 1 << 30, false)?;
        assert_eq!(tail, b"end\n");
        assert_lean(&daemon);
        Ok(())
    });
}

#[test]
fn a_line_of_100_megabytes_is_kept_and_what_follows_it_too() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let run = run_once(&client, &["long-line 100M", "print end"])?;
        assert_eq!(run.stdout_bytes, (100 << 20) + 1 + 4);
        let request = StreamRunLogRequest {
            run: Some(run_ref(&run)),
            stream: LogStream::Stdout.into(),
            tail_lines: 1,
            ..StreamRunLogRequest::default()
        };
        let mut chunks = client.wait(client.runs().stream_run_log(request))?;
        let mut tail = Vec::new();
        while let Some(chunk) = client.next(&mut chunks)? {
            assert!(chunk.data.len() <= 32 << 10);
            tail.extend(chunk.data);
        }
        assert_eq!(tail, b"end\n");
        assert_lean(&daemon);
        Ok(())
    });
}

#[test]
fn what_forks_twice_and_calls_setsid_is_ended_with_its_run_and_named() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let run = run_once(&client, &["escape 600000", "leave 600000", "sleep 100", "print bye"])?;
        assert_eq!(run.outcome(), RunOutcome::Completed, "stragglers don't change the outcome");
        assert_eq!(run.stragglers.len(), 2, "{run:#?}");
        assert!(run.stragglers.iter().all(|straggler| straggler.ended && straggler.name == "sleep"));
        sandbox.assert_no_strays()
    });
}

#[test]
fn an_agent_that_ignores_int_and_term_is_killed_after_the_graces() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let task = client.submit(script("deaf", &["ignore INT TERM HUP QUIT", "touch up", "sleep 600000"]))?;
        wait_file(sandbox, &task, "up")?;
        client.stop(&task.task_id, 200)?;
        let task = client.wait_task(&task.task_id)?;
        assert_eq!(reason(&task), EndReason::Stopped);
        let run = client.last_run(&task)?;
        assert_eq!((run.outcome(), run.signal), (RunOutcome::Stopped, libc::SIGKILL));
        sandbox.assert_no_strays()
    });
}

#[test]
fn an_agent_that_stopped_itself_can_be_stopped() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let task = client.submit(script("frozen", &["touch up", "stop-self", "sleep 600000"]))?;
        wait_file(sandbox, &task, "up")?;
        client.stop(&task.task_id, 200)?;
        assert_eq!(reason(&client.wait_task(&task.task_id)?), EndReason::Stopped);
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_grandchild_that_holds_the_output_delays_no_end() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let run = run_once(&client, &["hold-output 600000", "print bye", "exit 6"])?;
        assert_eq!((run.outcome(), run.exit_code), (RunOutcome::Failed, Some(6)));
        let log = client.log(&run, LogStream::Stdout, 0, true)?;
        assert_eq!(log, b"bye\n", "a follower of the ended run gets its end");
        sandbox.assert_no_strays()
    });
}

#[test]
fn an_agent_that_cleared_its_environment_is_ended_with_all_it_started() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let steps = ["clear-env", "escape 600000", "ignore INT TERM", "touch up", "sleep 600000"];
        let task = client.submit(script("nameless", &steps))?;
        wait_file(sandbox, &task, "up")?;
        client.stop(&task.task_id, 200)?;
        assert_eq!(reason(&client.wait_task(&task.task_id)?), EndReason::Stopped);
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_storm_of_forks_is_swept() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let run = run_once(&client, &["fork-storm 50", "print bye"])?;
        assert_eq!(run.outcome(), RunOutcome::Completed);
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_task_folder_removed_under_its_agent_harms_nothing_else() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let task = client.submit(script("sawed-off", &["sleep 100", "remove-task-folder", "exit 0"]))?;
        conductor_tests::wait_until("the folder is gone", conductor_tests::DEADLINE, || {
            !folder(sandbox, &task).join("TASK.md").exists()
        })?;
        let other = finish(&client, script("bystander", &["done"]))?;
        assert_eq!(reason(&other), EndReason::Done);
        sandbox.assert_no_strays()?;
        // Shown as what it is, or gone: but never as done.
        if let Ok(task) = client.task(&task.task_id) {
            assert_ne!(reason(&task), EndReason::Done, "{task:#?}");
        }
        Ok(())
    });
}

#[test]
fn a_program_that_is_missing_or_not_executable_needs_attention_at_once() {
    in_sandbox(|sandbox| {
        let plain = sandbox.path().join("plain");
        std::fs::write(&plain, "text")?;
        let config = Config::new(sandbox)
            .agent("missing", "{type: command, program: /nonexistent/agent}")
            .agent("plain", &format!("{{type: command, program: {}}}", plain.display()));
        let (_daemon, client) = start_with(sandbox, &config)?;
        for (agent, named) in [("missing", "/nonexistent/agent"), ("plain", "plain")] {
            let mut submit = script("unstartable", &["done"]);
            submit.spec.agent = agent.to_owned();
            match client.submit(submit) {
                // Refused at once, or accepted and shown so: both name the program.
                Err(status) => assert!(status.message().contains(named), "{status:?}"),
                Ok(task) => {
                    let task = client.wait_task(&task.task_id)?;
                    assert_eq!(reason(&task), EndReason::NeedsAttention, "{task:#?}");
                    assert!(crate::common::detail(&task).contains(named), "{task:#?}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_wall_time_ends_the_run_and_the_loop_goes_on() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let mut submit = script("slow-one", &["from 2 done", "from 2 exit 0", "sleep 600000"]);
        submit.spec.wall_time = Some(conductor_tests::client::millis(1000));
        let task = finish(&client, submit)?;
        let runs = client.task_runs(&task)?;
        assert_eq!(runs[0].outcome(), RunOutcome::TimedOut, "{:#?}", runs[0]);
        assert_eq!(reason(&task), EndReason::Done);
        Ok(())
    });
}
