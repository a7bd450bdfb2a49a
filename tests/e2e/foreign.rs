//! A tree of conductor-loop: shown, and not touched until it is adopted.

use std::path::{Path, PathBuf};

use anyhow::Result;
use conductor_proto::v1::{EndReason, ListTasksRequest, ResumeTaskRequest, TaskSpec};
use conductor_tests::client::{PROJECT, task_bus};
use conductor_tests::{Client, Config, Daemon, Sandbox, in_sandbox, tree};
use tonic::Code;

use crate::common::reason;

const FINISHED: &str = "task-20260101-000000-demo";
const UNFINISHED: &str = "task-20260101-000000-nodone";

/// A real tree, written by conductor-loop.
fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/conductor-loop")
}

fn open(sandbox: &Sandbox) -> Result<(Daemon<'_>, Client)> {
    tree::copy(&fixture(), &sandbox.root())?;
    let daemon = Daemon::start(sandbox, &Config::new(sandbox))?;
    let client = daemon.client()?;
    Ok((daemon, client))
}

fn foreign_hashes(sandbox: &Sandbox) -> std::collections::BTreeMap<String, u64> {
    tree::hashes(&sandbox.root().join(PROJECT))
}

#[test]
fn a_foreign_tree_is_shown_and_not_a_byte_of_it_changes() {
    in_sandbox(|sandbox| {
        let (daemon, client) = open(sandbox)?;
        let before = tree::hashes(&fixture().join(PROJECT));
        let request = ListTasksRequest { project_id: PROJECT.to_owned(), ..ListTasksRequest::default() };
        let tasks = client.wait(client.tasks().list_tasks(request))?.tasks;
        assert_eq!(tasks.len(), 2);
        assert!(tasks.iter().all(|task| task.foreign));
        let finished = client.task(FINISHED)?;
        assert_eq!(reason(&finished), EndReason::Done, "its DONE is believed: {finished:#?}");
        let unfinished = client.task(UNFINISHED)?;
        assert_eq!(client.task_runs(&unfinished)?.len(), 4);
        assert!(!client.messages(&task_bus(&unfinished))?.is_empty());
        for run in client.task_runs(&unfinished)? {
            client.log(&run, conductor_proto::v1::LogStream::Stdout, 0, false)?;
        }
        assert!(sandbox.stray_processes().is_empty(), "nothing was spawned");
        daemon.kill9()?;
        let (_daemon, _client) = crate::common::again(sandbox)?;
        assert!(sandbox.stray_processes().is_empty(), "nothing was spawned at the second start");
        assert_eq!(foreign_hashes(sandbox), before, "the tree is as it was");
        Ok(())
    });
}

#[test]
fn a_foreign_task_is_not_stopped_or_deleted_and_resume_adopts_it() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = open(sandbox)?;
        let refused = client.stop(UNFINISHED, 100).expect_err("it is foreign");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        let spec = TaskSpec {
            agent: "fake".to_owned(),
            cwd: sandbox.work().display().to_string(),
            max_restarts: 2,
            ..TaskSpec::default()
        };
        let resume = ResumeTaskRequest {
            task_id: UNFINISHED.to_owned(),
            message: "@fake done".to_owned(),
            adopt_spec: Some(spec),
            ..ResumeTaskRequest::default()
        };
        client.wait(client.tasks().resume_task(resume))?;
        let task = client.wait_task(UNFINISHED)?;
        assert!(!task.foreign, "{task:#?}");
        assert!(client.task_runs(&task)?.len() > 4, "it ran");
        let before = tree::hashes(&fixture().join(PROJECT));
        let after = foreign_hashes(sandbox);
        // What was there before the adoption is kept; the buses grew.
        for (path, hash) in before.iter().filter(|(path, _)| !path.ends_with("BUS.md")) {
            assert_eq!(after.get(path), Some(hash), "{path}");
        }
        sandbox.assert_no_strays()
    });
}
