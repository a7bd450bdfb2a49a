//! Stop, cancel, resume, delete, say, and the queue.

use conductor_proto::v1::{
    CancelTaskRequest, DeleteTaskRequest, EndReason, RunFile, RunOutcome, SayToTaskRequest, TaskPhase,
};
use conductor_tests::{Config, DEADLINE, in_sandbox, wait_until};
use tonic::Code;

use crate::common::{again, executions, finish, folder, reason, script, start, start_with, touch, wait_file};

#[test]
fn a_stop_empties_the_whole_tree_and_a_resume_goes_on() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let steps = ["from 2 done", "from 2 exit 0", "hold-output 600000", "escape 600000", "touch up", "sleep 600000"];
        let task = client.submit(script("stoppable", &steps))?;
        wait_file(sandbox, &task, "up")?;
        client.stop(&task.task_id, 500)?;
        let task = client.wait_task(&task.task_id)?;
        assert_eq!(reason(&task), EndReason::Stopped, "{task:#?}");
        let run = client.last_run(&task)?;
        assert_eq!(run.outcome(), RunOutcome::Stopped, "{run:#?}");
        assert!(run.stop_reason.contains("a test asked for it"), "{:?}", run.stop_reason);
        sandbox.assert_no_strays()?;

        client.resume(&task.task_id, "go on now")?;
        let task = client.wait_task(&task.task_id)?;
        assert_eq!(reason(&task), EndReason::Done);
        let prompt = client.run_file(&client.last_run(&task)?, RunFile::Prompt)?.unwrap_or_default();
        assert!(String::from_utf8(prompt)?.contains("go on now"));
        Ok(())
    });
}

#[test]
fn a_second_stop_skips_the_graces() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let task = client.submit(script("stubborn", &["ignore INT TERM HUP", "touch up", "sleep 600000"]))?;
        wait_file(sandbox, &task, "up")?;
        client.stop(&task.task_id, 600_000)?;
        client.wait_task_until(&task.task_id, "stopping", DEADLINE, |task| task.phase() == TaskPhase::Stopping)?;
        client.stop(&task.task_id, 600_000)?;
        assert_eq!(reason(&client.wait_task(&task.task_id)?), EndReason::Stopped);
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_stop_holds_over_a_restart_of_the_daemon() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(script("stays-stopped", &["touch up", "sleep 600000"]))?;
        wait_file(sandbox, &task, "up")?;
        client.stop(&task.task_id, 200)?;
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        let task = client.wait_task(&task.task_id)?;
        assert_eq!((reason(&task), executions(sandbox, &task)), (EndReason::Stopped, 1));
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_cancelled_task_can_not_be_resumed_and_can_be_deleted() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let task = client.submit(script("cancelled", &["touch up", "trap INT 0", "sleep 600000"]))?;
        wait_file(sandbox, &task, "up")?;
        let delete = DeleteTaskRequest {
            project_id: task.project_id.clone(),
            task_id: task.task_id.clone(),
            request_id: String::new(),
        };
        let refused = client.wait(client.tasks().delete_task(delete.clone())).expect_err("it lives");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        let cancel = CancelTaskRequest { task_id: task.task_id.clone(), ..CancelTaskRequest::default() };
        client.wait(client.tasks().cancel_task(cancel))?;
        assert_eq!(reason(&client.wait_task(&task.task_id)?), EndReason::Cancelled);
        let refused = client.resume(&task.task_id, "").expect_err("cancel is final");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        client.wait(client.tasks().delete_task(delete))?;
        assert!(!folder(sandbox, &task).exists());
        assert_eq!(client.task(&task.task_id).expect_err("gone").code(), Code::NotFound);
        Ok(())
    });
}

#[test]
fn resuming_a_finished_task_believes_no_stale_done() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let task = finish(&client, script("again", &["done"]))?;
        client.resume(&task.task_id, "")?;
        wait_until("it ran again", DEADLINE, || executions(sandbox, &task) == 2)?;
        let task = client.wait_task(&task.task_id)?;
        assert_eq!((reason(&task), task.run_count), (EndReason::Done, 2));
        Ok(())
    });
}

#[test]
fn say_now_ends_the_turn_and_the_next_attempt_reads_the_text() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let steps = ["from 2 done", "from 2 exit 0", "trap INT 0", "touch up", "sleep 600000"];
        let task = client.submit(script("listening", &steps))?;
        wait_file(sandbox, &task, "up")?;
        let say = SayToTaskRequest {
            task_id: task.task_id.clone(),
            text: "look at the tests".to_owned(),
            now: true,
            ..SayToTaskRequest::default()
        };
        client.wait(client.tasks().say_to_task(say))?;
        let task = client.wait_task(&task.task_id)?;
        assert_eq!(reason(&task), EndReason::Done);
        let prompt = client.run_file(&client.last_run(&task)?, RunFile::Prompt)?.unwrap_or_default();
        assert!(String::from_utf8(prompt)?.contains("look at the tests"));
        Ok(())
    });
}

#[test]
fn the_queue_is_in_order_shows_positions_and_survives_a_kill() {
    in_sandbox(|sandbox| {
        let config = Config::new(sandbox).set("defaults.max_concurrent_runs", "1");
        let (daemon, client) = start_with(sandbox, &config)?;
        let first = client
            .submit(script("first-one", &["wait-file go", "sh date +%s%N > $CONDUCTOR_TASK_FOLDER/when", "done"]))?;
        client.wait_running(&first.task_id)?;
        let steps = ["sh date +%s%N > $CONDUCTOR_TASK_FOLDER/when", "done"];
        let mut queued = Vec::new();
        for slug in ["second-one", "third-one", "fourth-one"] {
            queued.push(client.submit(script(slug, &steps))?);
        }
        let positions = |client: &conductor_tests::Client| -> anyhow::Result<Vec<u32>> {
            queued.iter().map(|task| Ok(client.task(&task.task_id)?.queue_position)).collect()
        };
        assert_eq!(positions(&client)?, [1, 2, 3]);
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        assert_eq!(positions(&client)?, [1, 2, 3], "after the kill");
        touch(sandbox, &first, "go")?;
        let mut times = Vec::new();
        for task in std::iter::once(&first).chain(&queued) {
            let task = client.wait_task(&task.task_id)?;
            assert_eq!((reason(&task), executions(sandbox, &task)), (EndReason::Done, 1));
            times.push(std::fs::read_to_string(folder(sandbox, &task).join("when"))?.trim().parse::<u128>()?);
        }
        assert!(times.is_sorted(), "{times:?}");
        Ok(())
    });
}
