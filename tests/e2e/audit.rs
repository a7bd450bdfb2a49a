//! `audit.jsonl`: who asked for which change, from where, and with what result.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::{
    CancelTaskRequest, DeleteProjectRequest, DeleteTaskRequest, EnsureProjectRequest, PostMessageRequest,
    PostMessagesRequest, ReloadConfigRequest, SayToTaskRequest, StopDaemonRequest, StopRunRequest,
};
use conductor_tests::client::{PROJECT, millis, project_bus, run_ref};
use conductor_tests::{DEADLINE, Sandbox, in_sandbox, wait_until};
use serde_json::Value;

use crate::common::{folder, script, start, touch, wait_file};

fn lines(sandbox: &Sandbox) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(sandbox.root().join(".conductor/audit.jsonl"))?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

#[test]
fn every_verb_that_changes_something_leaves_a_line_that_says_who_and_what() {
    in_sandbox(|sandbox| {
        let (mut daemon, client) = start(sandbox)?;
        client.wait(
            client
                .projects()
                .ensure_project(EnsureProjectRequest { root_path: sandbox.path().join("tmp").display().to_string() }),
        )?;
        client.create_project("short-lived", &sandbox.path().join("config"))?;
        client.wait(client.projects().delete_project(DeleteProjectRequest {
            project_id: "short-lived".to_owned(),
            ..DeleteProjectRequest::default()
        }))?;
        let task = client.submit(script("audited", &["touch up", "wait-file go", "done"]))?;
        wait_file(sandbox, &task, "up")?;
        client.wait(client.tasks().say_to_task(SayToTaskRequest {
            task_id: task.task_id.clone(),
            text: "a secret-looking text".to_owned(),
            ..SayToTaskRequest::default()
        }))?;
        let run = client.wait_running(&task.task_id)?;
        client.wait(client.runs().stop_run(StopRunRequest {
            run: Some(run_ref(&run)),
            int_grace: Some(millis(100)),
            term_grace: Some(millis(100)),
            ..StopRunRequest::default()
        }))?;
        client.stop(&task.task_id, 100)?;
        client.wait_task(&task.task_id)?;
        touch(sandbox, &task, "go")?;
        client.resume(&task.task_id, "")?;
        client
            .wait(
                client
                    .tasks()
                    .cancel_task(CancelTaskRequest { task_id: task.task_id.clone(), ..CancelTaskRequest::default() }),
            )
            // It may be done already, which is on the record too.
            .ok();
        client.wait_task(&task.task_id)?;
        client.wait(client.tasks().delete_task(DeleteTaskRequest {
            project_id: task.project_id.clone(),
            task_id: task.task_id.clone(),
            request_id: "delete-it".to_owned(),
        }))?;
        let message = PostMessageRequest {
            bus: Some(project_bus(PROJECT)),
            r#type: "FACT".to_owned(),
            body: "another secret-looking text".to_owned(),
            ..PostMessageRequest::default()
        };
        client.wait(client.bus().post_message(message.clone()))?;
        let three = (0..3).map(move |_| PostMessagesRequest { message: Some(message.clone()) });
        let mut posted = client.wait(client.bus().post_messages(tokio_stream::iter(three.collect::<Vec<_>>())))?;
        while client.next(&mut posted)?.is_some() {}
        client.wait(client.daemon().reload_config(ReloadConfigRequest {}))?;
        client.wait(client.daemon().stop_daemon(StopDaemonRequest { stop_runs: true }))?;
        daemon.wait_end(DEADLINE)?;

        let lines = lines(sandbox)?;
        let verbs: BTreeSet<&str> = lines.iter().filter_map(|line| line["verb"].as_str()).collect();
        let expected = [
            "CreateProject",
            "EnsureProject",
            "DeleteProject",
            "SubmitTask",
            "SayToTask",
            "StopRun",
            "StopTask",
            "ResumeTask",
            "CancelTask",
            "DeleteTask",
            "PostMessage",
            "PostMessages",
            "ReloadConfig",
            "StopDaemon",
        ];
        for verb in expected {
            ensure!(verbs.contains(verb), "no line of {verb}: {verbs:?}");
        }
        let me = std::process::id();
        for line in &lines {
            ensure!(line["pid"].as_u64() == Some(u64::from(me)), "the caller's process: {line}");
            ensure!(line["uid"].is_u64() && line["who"].as_str().is_some_and(|who| !who.is_empty()), "{line}");
            ensure!(line["time"].is_string() && line["resource"].is_string() && line["result"].is_string(), "{line}");
        }
        let of = |verb: &str| lines.iter().find(|line| line["verb"] == verb).expect("asserted above");
        assert_eq!(of("DeleteTask")["request_id"], "delete-it");
        assert_eq!(of("PostMessages")["count"], 3);
        assert!(of("SubmitTask")["resource"].as_str().is_some_and(|name| name.contains(&task.task_id)));
        let text = format!("{lines:?}");
        ensure!(!text.contains("secret-looking") && !text.contains("@fake"), "lines hold no texts: {text}");
        Ok(())
    });
}

#[test]
fn what_an_agent_does_is_recorded_with_its_run_and_refusals_too() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        client.create_project("other", &sandbox.path().join("tmp"))?;
        let steps = ["post FACT mine", "sh conductorctl bus post --project other no > /dev/null 2>&1; true", "done"];
        let task = client.submit(script("recorded", &steps))?;
        let task = client.wait_task(&task.task_id)?;
        let run = client.last_run(&task)?;
        assert!(folder(sandbox, &task).join("DONE").exists());
        let of_run = || -> Vec<Value> {
            let of_run = |line: &Value| line["run"].as_str().is_some_and(|id| id.contains(&run.run_id));
            lines(sandbox).unwrap_or_default().into_iter().filter(of_run).collect()
        };
        wait_until("both are written", DEADLINE, || of_run().len() >= 2)?;
        let results: Vec<String> =
            of_run().iter().map(|line| line["result"].as_str().unwrap_or_default().to_owned()).collect();
        assert_eq!(results, ["ok", "DENIED"], "{:#?}", of_run());
        Ok(())
    });
}

#[test]
fn what_is_refused_in_a_stream_has_a_line_of_its_own() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let message = |kind: &str, project: &str| PostMessagesRequest {
            message: Some(PostMessageRequest {
                bus: Some(project_bus(project)),
                r#type: kind.to_owned(),
                body: "a text".to_owned(),
                ..PostMessageRequest::default()
            }),
        };
        let post = |messages: Vec<PostMessagesRequest>| -> Result<usize> {
            let mut posted = client.wait(client.bus().post_messages(tokio_stream::iter(messages)))?;
            Ok(std::iter::from_fn(|| client.next(&mut posted).ok().flatten()).count())
        };
        let kept = post(vec![message("FACT", PROJECT), message("FACT", PROJECT), message("", PROJECT)])?;
        ensure!(kept == 2, "{kept} of 2 answered");
        ensure!(post(vec![message("FACT", PROJECT), message("FACT", "elsewhere")])? == 1, "one answered");
        ensure!(post(vec![message("", PROJECT)])? == 0, "none answered");
        let found = || -> Vec<(String, u64)> {
            let found = lines(sandbox).unwrap_or_default().into_iter().filter(|line| line["verb"] == "PostMessages");
            let result = |line: &Value| line["result"].as_str().unwrap_or_default().to_owned();
            found.map(|line| (result(&line), line["count"].as_u64().unwrap_or_default())).collect()
        };
        wait_until("all are written", DEADLINE, || found().len() >= 5)?;
        let mut counts = found();
        counts.sort();
        let ok = counts.iter().filter(|(result, _)| result == "ok").map(|(_, count)| *count).collect::<Vec<_>>();
        assert_eq!(ok, [1, 2], "{counts:?}");
        let refused = counts.iter().filter(|(result, count)| result != "ok" && *count == 1).count();
        assert_eq!((refused, counts.len()), (3, 5), "{counts:?}");
        Ok(())
    });
}
