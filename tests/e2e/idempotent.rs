//! Acting verbs that are repeated with the same request id: they act once, also over a kill of the daemon.

use conductor_proto::v1::{
    CancelTaskRequest, CreateProjectRequest, DeleteTaskRequest, EndReason, PostMessageRequest, ResumeTaskRequest,
    SayToTaskRequest, StopTaskRequest, Task,
};
use conductor_tests::client::{PROJECT, millis, project_bus, task_bus};
use conductor_tests::{Client, Refusal, in_sandbox};
use tonic::{Code, Status};

use crate::common::{again, executions, finish, reason, script, start, touch, wait_file};

fn post(client: &Client, id: &str, body: &str) -> Result<String, Status> {
    let request = PostMessageRequest {
        bus: Some(project_bus(PROJECT)),
        r#type: "FACT".to_owned(),
        body: body.to_owned(),
        request_id: id.to_owned(),
        ..PostMessageRequest::default()
    };
    Ok(client.wait(client.bus().post_message(request))?.msg_id)
}

fn say(client: &Client, task: &Task, id: &str, text: &str) -> Result<String, Status> {
    let request = SayToTaskRequest {
        task_id: task.task_id.clone(),
        text: text.to_owned(),
        request_id: id.to_owned(),
        ..SayToTaskRequest::default()
    };
    Ok(client.wait(client.tasks().say_to_task(request))?.msg_id)
}

fn stop(client: &Client, task: &Task, id: &str) -> Result<(), Status> {
    let request = StopTaskRequest {
        task_id: task.task_id.clone(),
        int_grace: Some(millis(200)),
        term_grace: Some(millis(200)),
        request_id: id.to_owned(),
        ..StopTaskRequest::default()
    };
    client.wait(client.tasks().stop_task(request)).map(|_| ())
}

fn resume(client: &Client, task: &Task, id: &str, message: &str) -> Result<(), Status> {
    let request = ResumeTaskRequest {
        task_id: task.task_id.clone(),
        message: message.to_owned(),
        request_id: id.to_owned(),
        ..ResumeTaskRequest::default()
    };
    client.wait(client.tasks().resume_task(request)).map(|_| ())
}

fn assert_reused(status: &Status) {
    let refusal = Refusal::of(status);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"), "{status:?}");
}

#[test]
fn a_repeated_post_is_one_message_also_after_a_kill() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let first = post(&client, "p-1", "once")?;
        assert_eq!(post(&client, "p-1", "once")?, first);
        assert_reused(&post(&client, "p-1", "twice").expect_err("other content"));
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        assert_eq!(post(&client, "p-1", "once")?, first, "the answer is the same after the kill");
        assert_reused(&post(&client, "p-1", "twice").expect_err("other content after the kill"));
        let count = client.messages(&project_bus(PROJECT))?.iter().filter(|message| message.body == "once").count();
        assert_eq!(count, 1);
        Ok(())
    });
}

#[test]
fn a_repeated_say_is_one_message_also_after_a_kill() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(script("told-once", &["touch up", "wait-file go", "done"]))?;
        wait_file(sandbox, &task, "up")?;
        let first = say(&client, &task, "s-1", "mind the gap")?;
        assert_eq!(say(&client, &task, "s-1", "mind the gap")?, first);
        assert_reused(&say(&client, &task, "s-1", "something else").expect_err("other content"));
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        assert_eq!(say(&client, &task, "s-1", "mind the gap")?, first, "the answer is the same after the kill");
        let said = client.messages(&task_bus(&task))?;
        assert_eq!(said.iter().filter(|message| message.body == "mind the gap").count(), 1, "{said:#?}");
        touch(sandbox, &task, "go")?;
        client.wait_task(&task.task_id)?;
        Ok(())
    });
}

#[test]
fn a_repeated_stop_ends_nothing_that_was_resumed_since() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(script("stopped-once", &["touch up", "wait-file go", "done"]))?;
        wait_file(sandbox, &task, "up")?;
        stop(&client, &task, "st-1")?;
        assert_eq!(reason(&client.wait_task(&task.task_id)?), EndReason::Stopped);
        resume(&client, &task, "re-1", "on with it")?;
        client.wait_running(&task.task_id)?;
        // What a client repeats whose connection broke must not hit the task's later life.
        stop(&client, &task, "st-1")?;
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        stop(&client, &task, "st-1")?;
        touch(sandbox, &task, "go")?;
        let ended = client.wait_task(&task.task_id)?;
        assert_eq!(reason(&ended), EndReason::Done, "{ended:#?}");
        Ok(())
    });
}

#[test]
fn a_repeated_resume_starts_one_run_also_after_a_kill() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = finish(&client, script("resumed-once", &["done"]))?;
        resume(&client, &task, "r-1", "once more")?;
        resume(&client, &task, "r-1", "once more")?;
        let ended = client.wait_task_until(&task.task_id, "ended again", conductor_tests::DEADLINE, |task| {
            task.run_count == 2 && task.end.is_some()
        })?;
        resume(&client, &ended, "r-1", "once more")?;
        assert_reused(&resume(&client, &ended, "r-1", "something else").expect_err("other content"));
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        resume(&client, &ended, "r-1", "once more")?;
        let task = client.wait_task(&task.task_id)?;
        assert_eq!((task.run_count, executions(sandbox, &task)), (2, 2), "{task:#?}");
        Ok(())
    });
}

#[test]
fn repeated_cancels_and_projects_answer_as_the_first_did() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(script("cancelled-once", &["touch up", "sleep 600000"]))?;
        wait_file(sandbox, &task, "up")?;
        let cancel = CancelTaskRequest {
            task_id: task.task_id.clone(),
            request_id: "c-1".to_owned(),
            ..CancelTaskRequest::default()
        };
        client.wait(client.tasks().cancel_task(cancel.clone()))?;
        assert_eq!(reason(&client.wait_task(&task.task_id)?), EndReason::Cancelled);
        client.wait(client.tasks().cancel_task(cancel.clone()))?;
        let create = |path: &str| CreateProjectRequest {
            project_id: "another".to_owned(),
            root_path: sandbox.path().join(path).display().to_string(),
            request_id: "cp-1".to_owned(),
        };
        client.wait(client.projects().create_project(create("work")))?;
        client.wait(client.projects().create_project(create("work")))?;
        let other = client.wait(client.projects().create_project(create("tmp"))).expect_err("other content");
        assert_eq!(other.code(), Code::AlreadyExists, "{other:?}");
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        client.wait(client.tasks().cancel_task(cancel))?;
        client.wait(client.projects().create_project(create("work")))?;
        Ok(())
    });
}

#[test]
fn a_repeated_delete_answers_as_the_first_did_also_after_a_kill() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = finish(&client, script("deleted-once", &["done"]))?;
        let delete = DeleteTaskRequest {
            project_id: task.project_id.clone(),
            task_id: task.task_id.clone(),
            request_id: "d-1".to_owned(),
        };
        client.wait(client.tasks().delete_task(delete.clone()))?;
        client.wait(client.tasks().delete_task(delete.clone()))?;
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        client.wait(client.tasks().delete_task(delete))?;
        Ok(())
    });
}
