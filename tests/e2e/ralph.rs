//! The loop: attempts until DONE, their limit, crashes, single jobs.

use anyhow::Result;
use conductor_proto::v1::{EndReason, RunFile, RunOutcome, TaskPhase};
use conductor_tests::client::{project_bus, task_bus};
use conductor_tests::{DEADLINE, entries, in_sandbox};

use crate::common::{detail, executions, finish, folder, once, reason, run_once, script, start};

#[test]
fn a_task_takes_three_attempts_until_its_agent_writes_done() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let steps = ["print working", "post PROGRESS one more attempt", "until 3 exit 0", "output the answer", "done"];
        let task = finish(&client, script("three-attempts", &steps))?;
        assert_eq!((reason(&task), task.attempt, task.run_count), (EndReason::Done, 3, 3), "{task:#?}");
        let runs = client.task_runs(&task)?;
        assert!(runs.iter().all(|run| run.outcome() == RunOutcome::Completed && run.exit_code == Some(0)));
        assert_eq!(runs.iter().map(|run| run.attempt).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(runs[1].previous_run_id, runs[0].run_id);
        assert_eq!(executions(sandbox, &task), 3);

        let messages = client.messages(&task_bus(&task))?;
        let count = |kind: &str| messages.iter().filter(|message| message.r#type == kind).count();
        assert_eq!((count("PROGRESS"), count("RUN_START"), count("RUN_STOP")), (3, 3, 3));
        let bus = entries::read(&folder(sandbox, &task).join("TASK-MESSAGE-BUS.md"));
        assert_eq!(bus.len(), messages.len(), "a foreign reader finds the same entries");
        assert!(entries::repeated_ids(&bus).is_empty() && entries::repeated_keys(&bus).is_empty());
        let facts = client.messages(&project_bus(&task.project_id))?;
        assert_eq!(facts.iter().filter(|message| message.r#type == "FACT").count(), 1, "{facts:#?}");
        sandbox.assert_no_strays()
    });
}

#[test]
fn later_attempts_are_told_to_continue_and_read_each_message_once() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let steps = ["touch up", "on-attempt 1 wait-file go", "until 3 exit 1", "done"];
        let task = client.submit(script("continuing", &steps))?;
        crate::common::wait_file(sandbox, &task, "up")?;
        client.post(&task_bus(&task), "USER", "mind the gap")?;
        crate::common::touch(sandbox, &task, "go")?;
        let task = client.wait_task(&task.task_id)?;
        let mut prompts = Vec::new();
        for run in client.task_runs(&task)? {
            let bytes = client.run_file(&run, RunFile::Prompt)?.unwrap_or_default();
            prompts.push(String::from_utf8(bytes)?);
        }
        assert_eq!(prompts.len(), 3);
        let continues = |prompt: &String| prompt.lines().any(|line| line == "Continue working on the following:");
        assert!(!continues(&prompts[0]), "{}", prompts[0]);
        assert!(prompts[1..].iter().all(continues), "{}", prompts[1]);
        let holding = prompts.iter().filter(|prompt| prompt.contains("mind the gap")).count();
        assert_eq!(holding, 1, "the message is in exactly one prompt");
        assert!(prompts[1].contains("mind the gap"));
        Ok(())
    });
}

#[test]
fn a_loop_ends_when_its_attempts_are_used_up() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let mut submit = script("never-done", &["stderr out of ideas", "exit 3"]);
        submit.spec.max_restarts = 3;
        let task = finish(&client, submit)?;
        assert_eq!((reason(&task), executions(sandbox, &task)), (EndReason::MaxRestarts, 3), "{task:#?}");
        let messages = client.messages(&task_bus(&task))?;
        let crash = messages.iter().find(|message| message.r#type == "RUN_CRASH");
        assert!(crash.is_some_and(|message| message.body.contains("out of ideas")), "{messages:#?}");
        assert!(messages.iter().any(|message| message.r#type == "ERROR" && message.body.contains("max restarts")));
        Ok(())
    });
}

#[test]
fn a_crashing_agent_waits_longer_each_time_and_its_signal_is_recorded() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let task = client.submit(script("crashing", &["until 4 crash SEGV", "done"]))?;
        client.wait_task_until(&task.task_id, "in backoff", DEADLINE, |task| task.phase() == TaskPhase::Backoff)?;
        let task = client.wait_task(&task.task_id)?;
        assert_eq!(reason(&task), EndReason::Done);
        let runs = client.task_runs(&task)?;
        assert_eq!(runs.len(), 4);
        assert!(runs[..3].iter().all(|run| run.outcome() == RunOutcome::Signaled && run.signal == libc::SIGSEGV));
        assert!(runs[0].exit_code.is_none(), "a signal is no exit code");
        Ok(())
    });
}

#[test]
fn a_done_folder_needs_attention_and_names_the_way_out() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let task = finish(&client, script("done-folder", &["done-folder"]))?;
        assert_eq!(reason(&task), EndReason::NeedsAttention, "{task:#?}");
        assert!(detail(&task).contains("DONE") && detail(&task).contains("resume"), "{}", detail(&task));
        std::fs::remove_dir(folder(sandbox, &task).join("DONE"))?;
        Ok(())
    });
}

#[test]
fn a_single_job_runs_once_and_its_exit_is_the_end() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let task = finish(&client, once("good-job", &["print fine"]))?;
        assert_eq!((reason(&task), executions(sandbox, &task)), (EndReason::Done, 1));
        let task = finish(&client, once("bad-job", &["exit 7"]))?;
        assert_eq!((reason(&task), executions(sandbox, &task)), (EndReason::MaxRestarts, 1));
        let run = client.last_run(&task)?;
        assert_eq!((run.outcome(), run.exit_code), (RunOutcome::Failed, Some(7)));
        Ok(())
    });
}

#[test]
fn the_output_is_what_the_agent_wrote_else_what_it_printed() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let text = |steps: &[&str]| -> Result<String> {
            let run = run_once(&client, steps)?;
            let bytes = client.run_file(&run, RunFile::Output)?.unwrap_or_default();
            Ok(String::from_utf8(bytes)?.trim_end().to_owned())
        };
        assert_eq!(text(&["print noise", "output the answer"])?, "the answer");
        assert_eq!(text(&["print only this"])?, "only this");
        Ok(())
    });
}
