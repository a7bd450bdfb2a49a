//! The bus through its API, with many writers, foreign writers, and kills.

use std::collections::BTreeSet;
use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::{FollowMessagesRequest, MessageParent, PostMessageRequest, ReadMessagesRequest};
use conductor_tests::client::{PROJECT, project_bus};
use conductor_tests::{Client, Config, DEADLINE, Sandbox, entries, in_sandbox, wait_until};
use tonic::Code;

use crate::common::{again, start, start_with};

/// Writers and messages of each, as the issue asks.
const WRITERS: usize = 10;
const EACH: usize = 100;

/// A foreign writer: a plain script that appends whole entries under flock.
const FOREIGN: &str = r#"
for n in $(seq 1 "$2"); do
  flock "$1" sh -c 'printf "\n---\nmsg_id: FOREIGN-%s-%s\nts: 2026-01-01T00:00:00Z\ntype: FACT\nproject_id: demo\ntask_id: \"\"\nrun_id: \"\"\n---\nforeign %s\n" "$2" "$1" "$1" >> "$0"' "$1" "$n" "$$"
done
"#;

fn bus_path(sandbox: &Sandbox) -> std::path::PathBuf {
    sandbox.root().join(PROJECT).join("PROJECT-MESSAGE-BUS.md")
}

/// Every id in the order of the file, to which a follower, a reader and a foreign reader agree.
fn assert_one_order(sandbox: &Sandbox, client: &Client, expected: usize) -> Result<Vec<String>> {
    let read: Vec<String> = client.messages(&project_bus(PROJECT))?.into_iter().map(|message| message.msg_id).collect();
    let file: Vec<String> = entries::read(&bus_path(sandbox)).into_iter().map(|entry| entry.id).collect();
    ensure!(read == file, "the API and the file differ in order");
    ensure!(read.iter().collect::<BTreeSet<_>>().len() == read.len(), "an id occurs twice");
    ensure!(read.len() == expected, "{} of {expected} messages", read.len());
    let follow = FollowMessagesRequest { bus: Some(project_bus(PROJECT)), ..FollowMessagesRequest::default() };
    let mut stream = client.wait(client.bus().follow_messages(follow))?;
    for id in &read {
        let message = client.next(&mut stream)?.and_then(|item| item.message).context("the follower gets it")?;
        ensure!(message.msg_id == *id, "the follower has another order");
    }
    Ok(read)
}

#[test]
fn ten_processes_lose_no_message_and_all_readers_have_one_order() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        client.post(&project_bus(PROJECT), "INFO", "the first")?;
        // Processes of the command line, each posting in a loop of its own.
        let script = format!(
            "for n in $(seq 1 {EACH}); do conductorctl bus post --project {PROJECT} --type FACT \"$1 $n\" >/dev/null || exit 1; done"
        );
        let all = 1 + WRITERS * EACH + EACH;
        // Two that read while it is written: a stream, and the command line.
        let mut tail = sandbox.command("conductorctl");
        let tail = tail.args(["bus", "tail", "--project", PROJECT, "--follow", "-n", "1000", "-o", "name"]);
        let mut tail = tail.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let tailed = std::io::BufReader::new(tail.stdout.take().context("a pipe")?);
        let tailed =
            std::thread::spawn(move || -> Vec<String> { tailed.lines().map_while(Result::ok).take(all).collect() });
        let socket = sandbox.socket();
        let streamed = std::thread::spawn(move || -> Result<Vec<String>> {
            let client = Client::lazy(&socket, None)?;
            let follow = FollowMessagesRequest { bus: Some(project_bus(PROJECT)), ..FollowMessagesRequest::default() };
            let mut stream = client.wait(client.bus().follow_messages(follow))?;
            let mut next = || client.next(&mut stream)?.and_then(|item| item.message).context("a message");
            (0..all).map(|_| next().map(|message| message.msg_id)).collect()
        });
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let mut command = sandbox.command("sh");
            writers.push(command.args(["-c", &script, "sh", &number.to_string()]).stdin(Stdio::null()).spawn()?);
        }
        let foreign =
            sandbox.command("sh").args(["-c", FOREIGN, "sh"]).arg(bus_path(sandbox)).arg(EACH.to_string()).spawn()?;
        for mut writer in writers.into_iter().chain([foreign]) {
            ensure!(writer.wait()?.success(), "a writer failed");
        }
        wait_until("all are read", DEADLINE, || {
            client.messages(&project_bus(PROJECT)).is_ok_and(|all| all.len() == 1 + WRITERS * EACH + EACH)
        })?;
        let order = assert_one_order(sandbox, &client, all)?;
        let streamed = streamed.join().map_err(|_| anyhow::anyhow!("the stream's reader panicked"))??;
        ensure!(streamed == order, "who streamed meanwhile has another order");
        let tailed = tailed.join().map_err(|_| anyhow::anyhow!("the tail's reader panicked"))?;
        tail.kill()?;
        tail.wait()?;
        ensure!(tailed == order, "who tailed meanwhile has another order: {} of {all}", tailed.len());
        Ok(())
    });
}

#[test]
fn no_answered_message_is_lost_when_the_daemon_is_killed_again_and_again() {
    in_sandbox(|sandbox| {
        let (mut daemon, client) = start(sandbox)?;
        drop(client);
        let mut answered = Vec::new();
        for round in 0..4 {
            let socket = sandbox.socket();
            let writer = std::thread::spawn(move || -> Vec<String> {
                let Ok(client) = Client::lazy(&socket, None) else { return Vec::new() };
                let post = |n| client.post(&project_bus(PROJECT), "FACT", &format!("{round} {n}"));
                (0..).map_while(|n| post(n).ok()).collect()
            });
            let before = entries::read(&bus_path(sandbox)).len();
            wait_until("it writes", DEADLINE, || entries::read(&bus_path(sandbox)).len() > before + 20)?;
            daemon.kill9()?;
            answered.extend(writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?);
            daemon = again(sandbox)?.0;
        }
        let all: Vec<String> =
            daemon.client()?.messages(&project_bus(PROJECT))?.into_iter().map(|message| message.msg_id).collect();
        let there: BTreeSet<&String> = all.iter().collect();
        let lost: Vec<&String> = answered.iter().filter(|id| !there.contains(id)).collect();
        ensure!(lost.is_empty() && there.len() == all.len(), "{} answered, lost {lost:?}", answered.len());
        Ok(())
    });
}

#[test]
fn a_program_that_holds_the_lock_and_stops_costs_its_own_bus_only() {
    in_sandbox(|sandbox| {
        let config = Config::new(sandbox).set("bus.lock_timeout", "500ms");
        let (_daemon, client) = start_with(sandbox, &config)?;
        client.create_project("other", &sandbox.path().join("tmp"))?;
        client.post(&project_bus(PROJECT), "INFO", "first")?;
        let mut command = Command::new("flock");
        let mut holder = command.arg(bus_path(sandbox)).args(["sh", "-c", "echo held; kill -STOP $$"]);
        holder = holder.stdout(Stdio::piped());
        let mut holder = holder.spawn()?;
        let mut line = [0_u8; 5];
        std::io::Read::read_exact(&mut holder.stdout.take().context("a pipe")?, &mut line)?;
        let refused = client.post(&project_bus(PROJECT), "INFO", "second").expect_err("the lock is held");
        let refusal = conductor_tests::Refusal::of(&refused);
        assert_eq!((refusal.code, refusal.reason.as_str(), refusal.retry), (Code::Unavailable, "BUS_LOCKED", true));
        client.post(&project_bus("other"), "INFO", "unhindered")?;
        // The shell that stopped itself is flock's child: it is found by its open file.
        for process in conductor_tests::procs::of_folder(sandbox.path()) {
            if process.name == "sh" || process.name == "flock" {
                conductor_tests::procs::signal(&process, libc::SIGKILL);
            }
        }
        holder.wait()?;
        wait_until("the bus is free", DEADLINE, || client.post(&project_bus(PROJECT), "INFO", "third").is_ok())?;
        Ok(())
    });
}

#[test]
fn bodies_round_trip_whatever_they_look_like() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let bodies = [
            "",
            "---",
            "---\nmsg_id: MSG-20260101-000000-000000001-PID00001-0001\ntype: FACT\n---\nforged",
            " ---\n  --- \r\n---\r\n",
            "no newline",
            "newline\n",
            "\n\n\n",
            "\u{feff}tab\tquote\" # : {}[]",
            "дела 🐘",
        ];
        for body in bodies {
            client.post(&project_bus(PROJECT), "FACT", body)?;
        }
        let read: Vec<String> =
            client.messages(&project_bus(PROJECT))?.into_iter().map(|message| message.body).collect();
        assert_eq!(read, bodies);
        Ok(())
    });
}

#[test]
fn replies_name_their_parents_and_cursors_read_only_what_is_new() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let question = client.post(&project_bus(PROJECT), "QUESTION", "why?")?;
        let parent = MessageParent { msg_id: question.clone(), kind: "reply".to_owned(), ..MessageParent::default() };
        let answer = PostMessageRequest {
            bus: Some(project_bus(PROJECT)),
            r#type: "ANSWER".to_owned(),
            body: "because".to_owned(),
            parents: vec![parent.clone()],
            meta: [("confidence".to_owned(), "high".to_owned())].into(),
            ..PostMessageRequest::default()
        };
        client.wait(client.bus().post_message(answer))?;
        let read = |after: &str| ReadMessagesRequest {
            bus: Some(project_bus(PROJECT)),
            after: after.to_owned(),
            ..ReadMessagesRequest::default()
        };
        let page = client.wait(client.bus().read_messages(read(&question)))?;
        assert_eq!(page.messages.len(), 1);
        assert_eq!(page.messages[0].parents, [parent]);
        assert_eq!(page.messages[0].meta.get("confidence").map(String::as_str), Some("high"));
        assert_eq!(page.messages[0].meta.len(), 1, "keys of the file format are not shown");
        let unknown = read("MSG-20260101-000000-000000001-PID00001-0001");
        let refused = client.wait(client.bus().read_messages(unknown)).expect_err("an unknown cursor");
        assert_eq!(conductor_tests::Refusal::of(&refused).reason, "UNKNOWN_CURSOR");
        Ok(())
    });
}

#[test]
fn a_torn_tail_of_another_program_is_never_joined_to_the_next_entry() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        client.post(&project_bus(PROJECT), "INFO", "first")?;
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new().append(true).open(bus_path(sandbox))?;
        file.write_all(b"\n---\nmsg_id: TORN-1\ntype: FACT\nproject_id: demo\n---\nhalf a li")?;
        wait_until("a post is accepted", Duration::from_secs(60), || {
            client.post(&project_bus(PROJECT), "INFO", "after the tear").is_ok()
        })?;
        let all = client.messages(&project_bus(PROJECT))?;
        let last = all.last().context("messages")?;
        assert_eq!(last.body, "after the tear");
        let joined = all.iter().any(|message| message.body.contains("half a li") && message.body.contains("---"));
        assert!(!joined, "{all:#?}");
        Ok(())
    });
}
