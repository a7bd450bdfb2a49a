//! Streams under bad readers: one that does not read, one that vanishes, one that comes back too late.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::watch_response::Event;
use conductor_proto::v1::{
    DeleteProjectRequest, FollowMessagesRequest, LogStream, StreamRunLogRequest, WatchRequest, WatchResponse,
};
use conductor_tests::client::{PROJECT, project_bus, run_ref};
use conductor_tests::{Client, DEADLINE, Refusal, Sandbox, in_sandbox, wait_until};
use tonic::{Code, Streaming};

use crate::common::{again, finish, once, run_once, script, start, touch, wait_file};

/// Changes that a daemon keeps for those who resume; more than these make an old revision unknown.
const KEPT_CHANGES: u64 = conductor_core::store::catalog::CHANGE_LOG as u64;

/// Changes that fit into the windows and queues between the daemon and a client, generously.
const ON_THE_WAY: u64 = 2000;

/// Clients that make changes at the same time, so that thousands of durable ones take seconds.
const CHANGERS: usize = 16;

fn watch(client: &Client, request: WatchRequest) -> Result<Streaming<WatchResponse>> {
    Ok(client.wait(client.watch().watch(request))?)
}

/// Takes a watch's next events up to a bookmark; revision and epoch of it.
fn to_bookmark(client: &Client, stream: &mut Streaming<WatchResponse>) -> Result<(u64, u64)> {
    loop {
        let response = client.next(stream)?.context("the stream goes on")?;
        if matches!(response.event, Some(Event::Bookmark(_))) {
            return Ok((response.revision, response.epoch));
        }
    }
}

/// Makes and deletes projects until the revision is `changes` above what it is now.
fn make_changes(sandbox: &Sandbox, client: &Client, changes: u64) -> Result<()> {
    let goal = client.daemon_info()?.revision + changes;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CHANGERS)
            .map(|number| {
                scope.spawn(move || -> Result<()> {
                    let client = Client::lazy(&sandbox.socket(), None)?;
                    let project_id = format!("changing-{number}");
                    // A long path, so that a change is kilobytes: a client's window holds thousands of small ones.
                    let mut folder = sandbox.path().join("tmp").join(&project_id);
                    folder.extend(std::iter::repeat_n("x".repeat(250), 12));
                    std::fs::create_dir_all(&folder)?;
                    for round in 0.. {
                        // The folder is another for each, since a folder has one project.
                        client.create_project(&project_id, &folder)?;
                        let delete =
                            DeleteProjectRequest { project_id: project_id.clone(), ..DeleteProjectRequest::default() };
                        client.wait(client.projects().delete_project(delete))?;
                        if round % 16 == 0 && client.daemon_info()?.revision >= goal {
                            return Ok(());
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })
}

#[test]
fn a_watcher_that_reads_nothing_is_told_so_and_nobody_else_notices() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let lazy = Client::lazy(&sandbox.socket(), None)?;
        let mut unread = watch(&lazy, WatchRequest::default())?;
        let (_, epoch) = to_bookmark(&lazy, &mut unread)?;

        let reading = Client::lazy(&sandbox.socket(), None)?;
        let mut read = watch(&reading, WatchRequest::default())?;
        let (first, _) = to_bookmark(&reading, &mut read)?;
        // More than is kept, and what waits in windows and queues on the way on top of that.
        make_changes(sandbox, &client, KEPT_CHANGES + ON_THE_WAY)?;
        let end = client.daemon_info()?.revision;

        // One that reads along gets every revision, or is told that it is too slow and where to go on: never a hole.
        let mut at = first;
        while at < end {
            match reading.next(&mut read) {
                Ok(Some(response)) => {
                    ensure!(response.revision >= at, "revisions grow");
                    at = response.revision;
                }
                Ok(None) => anyhow::bail!("the stream ended without a word at {at}"),
                Err(error) => {
                    let refusal = Refusal::of(&error.downcast::<tonic::Status>()?);
                    ensure!(refusal.reason == "SLOW_READER", "{refusal:?}");
                    break;
                }
            }
        }

        // The one that did not read: what was on the way, then the error; a resume from there is told to list again.
        let mut last = 0;
        let refusal = loop {
            match lazy.next(&mut unread) {
                Ok(Some(response)) => {
                    let is_bookmark = matches!(response.event, Some(Event::Bookmark(_)));
                    ensure!(!is_bookmark || response.revision < end, "it got them all: too few changes for this test");
                    ensure!(response.revision > last || is_bookmark, "revisions grow, each once");
                    last = response.revision;
                }
                Ok(None) => anyhow::bail!("the stream ended without a word"),
                Err(error) => break Refusal::of(&error.downcast::<tonic::Status>()?),
            }
        };
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::ResourceExhausted, "SLOW_READER"), "{refusal:?}");
        let resume = WatchRequest { after_revision: last, epoch, ..WatchRequest::default() };
        let refused = lazy.wait(lazy.watch().watch(resume)).expect_err("too old by now");
        assert_eq!(Refusal::of(&refused).reason, "REVISION_COMPACTED");
        client.post(&project_bus(PROJECT), "FACT", "unhindered")?;
        let peak = conductor_tests::procs::peak(daemon.pid()).context("it lives")?;
        ensure!(peak < 200 << 20, "what a reader does not take is not piled up: {peak}");
        Ok(())
    });
}

#[test]
fn a_watch_resumes_without_a_hole_and_filters_by_project_and_task() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        client.create_project("other", &sandbox.path().join("tmp"))?;
        let old = finish(&client, script("old-one", &["done"]))?;
        let mut stream = watch(&client, WatchRequest::default())?;
        let (revision, epoch) = to_bookmark(&client, &mut stream)?;
        let mut elsewhere = script("elsewhere", &["done"]);
        elsewhere.project = "other".to_owned();
        let elsewhere = finish(&client, elsewhere)?;
        let new = finish(&client, script("new-one", &["done"]))?;
        let end = client.daemon_info()?.revision;

        let collect = |request: WatchRequest| -> Result<Vec<WatchResponse>> {
            let mut stream = watch(&client, request)?;
            let mut events = Vec::new();
            while events.last().is_none_or(|last: &WatchResponse| last.revision < end) {
                events.push(client.next(&mut stream)?.context("the stream goes on")?);
            }
            Ok(events)
        };
        let resume = WatchRequest { after_revision: revision, epoch, ..WatchRequest::default() };
        let all = collect(resume.clone())?;
        let revisions: Vec<u64> = all.iter().map(|event| event.revision).collect();
        let expected: Vec<u64> = (revision + 1..=end).collect();
        assert_eq!(revisions, expected, "every revision once, in order");
        // Resuming in the middle is the rest of the same.
        let middle = revision + (end - revision) / 2;
        let rest = collect(WatchRequest { after_revision: middle, ..resume.clone() })?;
        let skip = usize::try_from(middle - revision)?;
        let kinds = |events: &[WatchResponse]| -> Vec<(u64, String)> {
            events.iter().map(|event| (event.revision, task_of(event))).collect()
        };
        assert_eq!(kinds(&rest), kinds(&all[skip..]));

        let mut filtered = watch(
            &client,
            WatchRequest { project_id: PROJECT.to_owned(), task_id: new.task_id.clone(), ..WatchRequest::default() },
        )?;
        let mut seen = Vec::new();
        while let Some(response) = client.next(&mut filtered)? {
            if matches!(response.event, Some(Event::Bookmark(_))) {
                break;
            }
            seen.push(task_of(&response));
        }
        ensure!(!seen.is_empty() && seen.iter().all(|task| *task == new.task_id), "{seen:?}");
        ensure!(!seen.contains(&old.task_id) && !seen.contains(&elsewhere.task_id), "{seen:?}");
        Ok(())
    });
}

/// The task that an event is about; empty: none.
fn task_of(response: &WatchResponse) -> String {
    match &response.event {
        Some(Event::Task(task)) => task.task_id.clone(),
        Some(Event::Run(run)) => run.task_id.clone(),
        Some(Event::Deleted(deleted)) => deleted.task_id.clone(),
        _ => String::new(),
    }
}

/// Open descriptors of a process.
fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

#[test]
fn clients_that_vanish_in_mid_stream_leave_nothing_behind() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(once("streamed", &["print-bytes 4M", "touch up", "wait-file go", "print end"]))?;
        let run = client.wait_running(&task.task_id)?;
        wait_file(sandbox, &task, "up")?;
        for number in 0..200 {
            client.post(&project_bus(PROJECT), "FACT", &format!("{number} {}", "x".repeat(10_000)))?;
        }
        let vanish = || -> Result<()> {
            let vanishing = Client::lazy(&sandbox.socket(), None)?;
            let mut watch = watch(&vanishing, WatchRequest::default())?;
            vanishing.next(&mut watch)?;
            let follow = FollowMessagesRequest { bus: Some(project_bus(PROJECT)), ..FollowMessagesRequest::default() };
            let mut follow = vanishing.wait(vanishing.bus().follow_messages(follow))?;
            vanishing.next(&mut follow)?;
            let log = StreamRunLogRequest {
                run: Some(run_ref(&run)),
                stream: LogStream::Stdout.into(),
                follow: true,
                ..StreamRunLogRequest::default()
            };
            let mut log = vanishing.wait(vanishing.runs().stream_run_log(log))?;
            vanishing.next(&mut log)?;
            // Its connection is cut with megabytes on the way.
            Ok(())
        };
        // The first of each kind makes the notifiers that all share; they stay.
        vanish()?;
        let before = descriptors(daemon.pid());
        for _ in 0..20 {
            vanish()?;
        }
        // A program that is killed says nothing either.
        for _ in 0..5 {
            let mut child = sandbox.ctl_child(&["logs", "-f", &task.task_id], &[])?;
            let mut first = [0_u8; 100];
            std::io::Read::read_exact(child.stdout.as_mut().context("a pipe")?, &mut first)?;
            child.kill()?;
            child.wait()?;
        }
        wait_until("their descriptors are closed", DEADLINE, || descriptors(daemon.pid()) <= before + 2)
            .with_context(|| format!("{before} before, {} now", descriptors(daemon.pid())))?;
        touch(sandbox, &task, "go")?;
        client.wait_task(&task.task_id)?;
        let log = client.log(&run, LogStream::Stdout, 0, true)?;
        assert_eq!(log.len(), (4 << 20) + 4);
        Ok(())
    });
}

#[test]
fn a_log_follower_that_reads_nothing_delays_no_agent_and_no_other_follower() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(once("verbose", &["touch up", "wait-file go", "print-bytes 64M", "print end"]))?;
        let run = client.wait_running(&task.task_id)?;
        wait_file(sandbox, &task, "up")?;
        let lazy = Client::lazy(&sandbox.socket(), None)?;
        let request = StreamRunLogRequest {
            run: Some(run_ref(&run)),
            stream: LogStream::Stdout.into(),
            follow: true,
            ..StreamRunLogRequest::default()
        };
        let mut unread = lazy.wait(lazy.runs().stream_run_log(request))?;
        touch(sandbox, &task, "go")?;
        client.wait_task(&task.task_id)?;
        let log = client.log(&run, LogStream::Stdout, 0, true)?;
        assert_eq!(log.len(), (64 << 20) + 4);
        // The one that did not read gets it all when it reads: it is a file.
        let mut bytes = 0;
        while let Some(chunk) = lazy.next(&mut unread)? {
            ensure!(chunk.data.is_empty() || chunk.offset == bytes, "a hole at {bytes}");
            ensure!(chunk.data.len() <= 32 << 10, "a chunk of {}", chunk.data.len());
            bytes += chunk.data.len() as u64;
        }
        assert_eq!(bytes, (64 << 20) + 4);
        let peak = conductor_tests::procs::peak(daemon.pid()).context("it lives")?;
        ensure!(peak < 200 << 20, "logs are not piled up in memory: {peak}");
        Ok(())
    });
}

#[test]
fn a_bus_follower_that_reads_nothing_blocks_no_writer_and_loses_nothing() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let first = client.post(&project_bus(PROJECT), "FACT", "first")?;
        let lazy = Client::lazy(&sandbox.socket(), None)?;
        let follow =
            FollowMessagesRequest { bus: Some(project_bus(PROJECT)), after: first, ..FollowMessagesRequest::default() };
        let mut unread = lazy.wait(lazy.bus().follow_messages(follow.clone()))?;
        let body = "x".repeat(32 << 10);
        let posted: Vec<String> =
            (0..1500).map(|_| client.post(&project_bus(PROJECT), "FACT", &body)).collect::<Result<_, _>>()?;
        // All in order, or an end that says so, from where the cursor goes on.
        let mut at = 0;
        let mut resumed = 0;
        while at < posted.len() {
            match lazy.next(&mut unread) {
                Ok(Some(item)) => {
                    let id = item.message.context("a message")?.msg_id;
                    ensure!(id == posted[at], "message {at} is another");
                    at += 1;
                }
                Ok(None) => anyhow::bail!("the stream ended without a word at {at}"),
                Err(error) => {
                    let refusal = Refusal::of(&error.downcast::<tonic::Status>()?);
                    ensure!(refusal.reason == "SLOW_READER", "{refusal:?}");
                    resumed += 1;
                    ensure!(resumed < 5, "it never catches up");
                    let mut next = follow.clone();
                    next.after = at.checked_sub(1).map_or(follow.after.clone(), |last| posted[last].clone());
                    unread = lazy.wait(lazy.bus().follow_messages(next))?;
                }
            }
        }
        let peak = conductor_tests::procs::peak(daemon.pid()).context("it lives")?;
        ensure!(peak < 200 << 20, "messages are not piled up in memory: {peak}");
        Ok(())
    });
}

#[test]
fn a_bus_follower_resumes_by_message_over_a_kill_of_the_daemon() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let ids: Vec<String> =
            (0..50).map(|n| client.post(&project_bus(PROJECT), "FACT", &n.to_string())).collect::<Result<_, _>>()?;
        let follow = |after: &str| FollowMessagesRequest {
            bus: Some(project_bus(PROJECT)),
            after: after.to_owned(),
            ..FollowMessagesRequest::default()
        };
        let mut stream = client.wait(client.bus().follow_messages(follow("")))?;
        for id in &ids[..20] {
            let message = client.next(&mut stream)?.and_then(|item| item.message).context("a message")?;
            assert_eq!(message.msg_id, *id);
        }
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        let mut stream = client.wait(client.bus().follow_messages(follow(&ids[19])))?;
        for id in &ids[20..] {
            let message = client.next(&mut stream)?.and_then(|item| item.message).context("a message")?;
            assert_eq!(message.msg_id, *id);
        }
        let late = client.post(&project_bus(PROJECT), "FACT", "late")?;
        let message = client.next(&mut stream)?.and_then(|item| item.message).context("a message")?;
        assert_eq!(message.msg_id, late);
        Ok(())
    });
}

#[test]
fn logs_are_read_from_any_offset_and_from_the_end_by_lines() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let run = run_once(&client, &["print one", "print two", "print three", "stderr apart"])?;
        let read = |offset: u64, tail_lines: u32| -> Result<(u64, Vec<u8>), Refusal> {
            let request = StreamRunLogRequest {
                run: Some(run_ref(&run)),
                stream: LogStream::Stdout.into(),
                offset,
                tail_lines,
                ..StreamRunLogRequest::default()
            };
            let mut stream =
                client.wait(client.runs().stream_run_log(request)).map_err(|status| Refusal::of(&status))?;
            let (mut start, mut bytes) = (None, Vec::new());
            while let Some(chunk) = client.next(&mut stream).expect("the stream goes well") {
                start.get_or_insert(chunk.offset);
                bytes.extend(chunk.data);
            }
            Ok((start.unwrap_or_default(), bytes))
        };
        assert_eq!(read(0, 0), Ok((0, b"one\ntwo\nthree\n".to_vec())));
        assert_eq!(read(4, 0), Ok((4, b"two\nthree\n".to_vec())));
        assert_eq!(read(14, 0), Ok((14, Vec::new())), "the end itself is no error");
        assert_eq!(read(0, 2), Ok((4, b"two\nthree\n".to_vec())));
        assert_eq!(read(0, 99), Ok((0, b"one\ntwo\nthree\n".to_vec())));
        let beyond = read(15, 0).expect_err("beyond the end");
        assert_eq!((beyond.code, beyond.reason.as_str()), (Code::OutOfRange, "BEYOND_END"));
        assert_eq!(client.log(&run, LogStream::Stderr, 0, false)?, b"apart\n");
        Ok(())
    });
}

#[test]
fn a_connection_of_more_streams_than_allowed_starves_only_itself() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let greedy = Client::lazy(&sandbox.socket(), None)?;
        let mut streams = Vec::new();
        for _ in 0..200 {
            streams.push(watch(&greedy, WatchRequest::default())?);
        }
        let task = finish(&client, once("beside-them", &["print fine"]))?;
        ensure!(task.end.is_some());
        // Those that wait for a place go on when one is free.
        drop(streams);
        wait_until("it is served again", Duration::from_secs(10), || greedy.daemon_info().is_ok())?;
        Ok(())
    });
}

#[test]
fn a_log_waits_in_its_file_for_a_reader_that_does_not_read_and_nobody_else_notices() {
    in_sandbox(|sandbox| {
        const BYTES: usize = 64 << 20;
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(once("long-log", &["touch up", "wait-file go", "print-bytes 64M"]))?;
        let run = client.wait_running(&task.task_id)?;
        wait_file(sandbox, &task, "up")?;
        let follow = StreamRunLogRequest {
            run: Some(run_ref(&run)),
            stream: LogStream::Stdout.into(),
            follow: true,
            ..StreamRunLogRequest::default()
        };
        let lazy = Client::lazy(&sandbox.socket(), None)?;
        let mut unread = lazy.wait(lazy.runs().stream_run_log(follow))?;
        touch(sandbox, &task, "go")?;
        client.wait_task(&task.task_id)?;
        ensure!(client.log(&run, LogStream::Stdout, 0, true)?.len() >= BYTES, "another reader gets all of it");
        let peak = conductor_tests::procs::peak(daemon.pid()).context("it lives")?;
        ensure!(peak < 60 << 20, "what a reader does not take is not piled up: {peak}");
        // It may come back at any time and misses nothing.
        let mut at = 0;
        loop {
            let answer = lazy.next(&mut unread)?.context("the stream goes on")?;
            ensure!(answer.offset == at, "{} after {at}", answer.offset);
            at += answer.data.len() as u64;
            if answer.end {
                break;
            }
        }
        ensure!(at >= BYTES as u64, "{at}");
        Ok(())
    });
}
