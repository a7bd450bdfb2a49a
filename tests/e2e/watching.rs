//! Watching: a snapshot, then every change; resuming; logs by offset.

use anyhow::Result;
use conductor_proto::v1::watch_response::Event;
use conductor_proto::v1::{LogStream, StreamRunLogRequest, TaskPhase, WatchRequest, WatchResponse};
use conductor_tests::client::run_ref;
use conductor_tests::{Client, Refusal, in_sandbox};
use tonic::{Code, Streaming};

use crate::common::{again, finish, once, run_once, script, start, touch, wait_file};

fn watch(client: &Client, after_revision: u64, epoch: u64) -> Result<Streaming<WatchResponse>> {
    let request = WatchRequest { after_revision, epoch, ..WatchRequest::default() };
    Ok(client.wait(client.watch().watch(request))?)
}

/// Reads up to the end of the snapshot; returns the events of it and the bookmark.
fn snapshot(client: &Client, stream: &mut Streaming<WatchResponse>) -> Result<(Vec<Event>, u64, u64)> {
    let mut events = Vec::new();
    while let Some(response) = client.next(stream)? {
        match response.event {
            Some(Event::Bookmark(bookmark)) if bookmark.snapshot_end => {
                return Ok((events, response.revision, response.epoch));
            }
            Some(event) => events.push(event),
            None => {}
        }
    }
    anyhow::bail!("the stream ended within its snapshot")
}

#[test]
fn a_watch_begins_with_a_snapshot_and_goes_on_in_growing_revisions() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let old = finish(&client, script("old-one", &["done"]))?;
        let mut stream = watch(&client, 0, 0)?;
        let (events, revision, epoch) = snapshot(&client, &mut stream)?;
        assert!(events.iter().any(|event| matches!(event, Event::Task(task) if task.task_id == old.task_id)));
        assert!(events.iter().any(|event| matches!(event, Event::Run(_))));

        let new = client.submit(script("new-one", &["done"]))?;
        let (mut last, mut phases) = (revision, Vec::new());
        while let Some(response) = client.next(&mut stream)? {
            assert!(response.revision >= last, "revisions grow");
            last = response.revision;
            if let Some(Event::Task(task)) = response.event
                && task.task_id == new.task_id
            {
                phases.push(task.phase());
                if task.phase() == TaskPhase::Finished {
                    break;
                }
            }
        }
        assert!(phases.contains(&TaskPhase::Running), "{phases:?}");

        let mut resumed = watch(&client, revision, epoch)?;
        let mut seen = false;
        while let Some(response) = client.next(&mut resumed)? {
            assert!(response.revision >= revision, "only what is new");
            match response.event {
                Some(Event::Task(task)) => {
                    // The last entries of an ended task may be posted, and so noted, a moment after its end.
                    assert!(task.revision > revision, "what was seen does not come again: {task:#?}");
                    if task.task_id == new.task_id && task.phase() == TaskPhase::Finished {
                        seen = true;
                        break;
                    }
                }
                _ => continue,
            }
        }
        assert!(seen);
        Ok(())
    });
}

#[test]
fn a_revision_of_another_epoch_is_out_of_range() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let info = client.daemon_info()?;
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        assert_eq!(client.daemon_info()?.epoch, info.epoch + 1);
        let request =
            WatchRequest { after_revision: info.revision.max(1), epoch: info.epoch, ..WatchRequest::default() };
        let refused = match client.wait(client.watch().watch(request)) {
            Err(status) => status,
            Ok(mut stream) => match client.next(&mut stream) {
                Err(error) => error.downcast::<tonic::Status>()?,
                Ok(item) => anyhow::bail!("accepted: {item:?}"),
            },
        };
        let refusal = Refusal::of(&refused);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::OutOfRange, "REVISION_COMPACTED"));
        Ok(())
    });
}

#[test]
fn logs_are_bytes_by_offset_and_followers_get_every_one() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let steps = ["print 0123456789", "touch up", "wait-file go", "print-bytes 300K", "print end"];
        let task = client.submit(once("chatty", &steps))?;
        let run = client.wait_running(&task.task_id)?;
        wait_file(sandbox, &task, "up")?;
        assert_eq!(client.log(&run, LogStream::Stdout, 3, false)?, b"3456789\n");
        let (socket, live) = (sandbox.socket(), run.clone());
        let follower = std::thread::spawn(move || -> Result<Vec<u8>> {
            Client::lazy(&socket, None)?.log(&live, LogStream::Stdout, 0, true)
        });
        touch(sandbox, &task, "go")?;
        client.wait_task(&task.task_id)?;
        let followed = follower.join().map_err(|_| anyhow::anyhow!("the follower panicked"))??;
        let file = std::fs::read(std::path::Path::new(&run.folder).join("agent-stdout.txt"))?;
        assert_eq!(followed.len(), 11 + (300 << 10) + 4);
        assert!(followed == file, "byte for byte");
        let request = StreamRunLogRequest {
            run: Some(run_ref(&run)),
            stream: LogStream::Stdout.into(),
            offset: file.len() as u64 + 1,
            ..StreamRunLogRequest::default()
        };
        let refused = match client.wait(client.runs().stream_run_log(request)) {
            Err(status) => status,
            Ok(mut stream) => client.next(&mut stream).expect_err("beyond the end").downcast::<tonic::Status>()?,
        };
        assert_eq!(refused.code(), Code::OutOfRange);
        Ok(())
    });
}

#[test]
fn lists_are_paged_and_a_token_of_another_list_is_refused() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        for _ in 0..7 {
            run_once(&client, &["print x"])?;
        }
        let mut request = conductor_proto::v1::ListRunsRequest { page_size: 3, ..Default::default() };
        let mut sizes = Vec::new();
        let mut ids = std::collections::BTreeSet::new();
        let mut token = String::new();
        loop {
            let page = client.wait(client.runs().list_runs(request.clone()))?;
            sizes.push(page.runs.len());
            ids.extend(page.runs.into_iter().map(|run| run.run_id));
            if page.next_page_token.is_empty() {
                break;
            }
            token.clone_from(&page.next_page_token);
            request.page_token = page.next_page_token;
        }
        assert_eq!((sizes, ids.len()), (vec![3, 3, 1], 7));
        let other = conductor_proto::v1::ListTasksRequest { page_token: token, ..Default::default() };
        let refused = client.wait(client.tasks().list_tasks(other)).expect_err("of another list");
        assert_eq!(Refusal::of(&refused).reason, "BAD_PAGE_TOKEN");
        Ok(())
    });
}
