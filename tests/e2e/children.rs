//! Parents and the tasks that their agents start.

use anyhow::Result;
use conductor_proto::v1::{ChildPolicy, EndReason, ListTasksRequest, Task, TaskPhase};
use conductor_tests::client::{PROJECT, millis, task_bus};
use conductor_tests::{Client, DEADLINE, in_sandbox};

use crate::common::{reason, script, start, touch};

fn children(client: &Client, parent: &Task) -> Result<Vec<Task>> {
    let request = ListTasksRequest { project_id: PROJECT.to_owned(), page_size: 100, ..ListTasksRequest::default() };
    let all = client.wait(client.tasks().list_tasks(request))?.tasks;
    let of_parent = |task: &Task| task.parent.as_ref().is_some_and(|run| run.task_id == parent.task_id);
    Ok(all.into_iter().filter(of_parent).collect())
}

#[test]
fn an_early_done_is_held_open_until_three_children_have_ended() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let steps = [
            "child one wait-file go | print first | done",
            "child two wait-file go | print second | done",
            "child three wait-file go | print third | done",
            "done",
        ];
        let parent = client.submit(script("parent", &steps))?;
        let held = client.wait_task_until(&parent.task_id, "held open", DEADLINE, |task| {
            task.phase() == TaskPhase::WaitingChildren
        })?;
        assert_eq!(held.live_child_count, 3, "{held:#?}");
        for child in children(&client, &parent)? {
            touch(sandbox, &child, "go")?;
        }
        let parent = client.wait_task(&parent.task_id)?;
        assert_eq!((reason(&parent), parent.run_count), (EndReason::Done, 1), "DONE restarts nothing");
        let ended = children(&client, &parent)?;
        assert_eq!(ended.len(), 3);
        assert!(ended.iter().all(|child| reason(child) == EndReason::Done));
        let facts = client.messages(&task_bus(&parent))?;
        assert_eq!(facts.iter().filter(|message| message.r#type == "FACT").count(), 3, "one of each child: {facts:#?}");
        sandbox.assert_no_strays()
    });
}

#[test]
fn when_the_wait_for_children_is_over_the_policy_decides() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let begin = |slug: &str, policy: ChildPolicy| -> Result<Task> {
            let mut submit = script(slug, &["child slow-child wait-file go | done", "done"]);
            submit.spec.child_wait_timeout = Some(millis(300));
            submit.spec.on_child_timeout = policy.into();
            Ok(client.submit(submit)?)
        };
        let detached = begin("detaching", ChildPolicy::Detach)?;
        assert_eq!(reason(&client.wait_task(&detached.task_id)?), EndReason::Done);
        let child = &children(&client, &detached)?[0];
        assert!(child.end.is_none(), "it goes on: {child:#?}");
        touch(sandbox, child, "go")?;
        assert_eq!(reason(&client.wait_task(&child.task_id)?), EndReason::Done);

        let stopping = begin("stopping", ChildPolicy::Stop)?;
        assert_eq!(reason(&client.wait_task(&stopping.task_id)?), EndReason::Done);
        assert_eq!(reason(&children(&client, &stopping)?[0]), EndReason::Stopped);

        let waiting = begin("waiting", ChildPolicy::Wait)?;
        client.wait_task_until(&waiting.task_id, "held open", DEADLINE, |task| {
            task.phase() == TaskPhase::WaitingChildren
        })?;
        touch(sandbox, &children(&client, &waiting)?[0], "go")?;
        assert_eq!(reason(&client.wait_task(&waiting.task_id)?), EndReason::Done);
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_parent_that_awaits_its_children_lends_them_its_only_slot() {
    in_sandbox(|sandbox| {
        let config = conductor_tests::Config::new(sandbox).set("defaults.max_concurrent_runs", "1");
        let (_daemon, client) = crate::common::start_with(sandbox, &config)?;
        let steps = ["child only-child print here | done", "ctl wait --children", "print all ended", "done"];
        let parent = client.submit(script("lender", &steps))?;
        let parent = client.wait_task(&parent.task_id)?;
        assert_eq!((reason(&parent), parent.run_count), (EndReason::Done, 1), "{parent:#?}");
        Ok(())
    });
}

#[test]
fn stopping_a_parent_stops_its_children_too() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let parent = client.submit(script("family", &["child kid-one sleep 600000", "touch up", "sleep 600000"]))?;
        crate::common::wait_file(sandbox, &parent, "up")?;
        let child = children(&client, &parent)?.remove(0);
        client.wait_running(&child.task_id)?;
        client.stop(&parent.task_id, 200)?;
        assert_eq!(reason(&client.wait_task(&parent.task_id)?), EndReason::Stopped);
        assert_eq!(reason(&client.wait_task(&child.task_id)?), EndReason::Stopped);
        sandbox.assert_no_strays()
    });
}
