//! Normal events of runs: live, resumed after kills of either side, bounded, and without configured tokens.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::run_event::Event;
use conductor_proto::v1::{EventPosition, LogStream, Run, RunEvent, RunFile, StreamRunEventsRequest, Task};
use conductor_tests::client::run_ref;
use conductor_tests::{Client, Config, DEADLINE, Refusal, Sandbox, in_sandbox, wait_until};
use tonic::{Code, Streaming};

use crate::common::{again, once, start, start_with};

/// A key as a vendor gives it out.
const KEY: &str = "sk-ant-api03-e2e-events-0123456789-never-to-be-seen";

/// A program in the place of Claude Code that does what the test wrote for it.
const CLAUDE: &str = r#"#!/bin/sh
case "$*" in *--version*) echo "2.1.112 (Claude Code)"; exit 0;; esac
cat > /dev/null
. "$HOME/play"
: > "$CONDUCTOR_TASK_FOLDER/DONE"
"#;

/// A configuration with that program as an agent, which plays `play`.
fn config(sandbox: &Sandbox, play: &str) -> Result<Config> {
    let program = sandbox.path().join("claude");
    std::fs::write(&program, CLAUDE)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(sandbox.path().join("home/play"), play)?;
    let agent = format!("{{type: claude, program: {}, token: {KEY}}}", program.display());
    let config = Config::new(sandbox).agent("vendor", &agent);
    std::fs::write(sandbox.config_path(), config.yaml())?;
    std::fs::set_permissions(sandbox.config_path(), std::fs::Permissions::from_mode(0o600))?;
    Ok(config)
}

fn submit(client: &Client) -> Result<Task> {
    let mut submit = once("eventful", &[]);
    submit.spec.agent = "vendor".to_owned();
    submit.prompt = "Do it.".to_owned();
    Ok(client.submit(submit)?)
}

/// A stream of Claude Code: a session, `tools` uses of a tool, an answer and the end.
fn stream(tools: usize, answer: &str) -> String {
    let mut lines = vec![r#"{"type":"system","subtype":"init","session_id":"s1","model":"m1"}"#.to_owned()];
    for n in 0..tools {
        lines.push(format!(
            r#"{{"type":"assistant","message":{{"model":"m1","content":[{{"type":"text","text":"step {n}"}},{{"type":"tool_use","id":"t{n}","name":"Bash","input":{{"command":"echo {n}"}}}}]}},"session_id":"s1"}}"#
        ));
        lines.push(format!(
            r#"{{"type":"user","message":{{"content":[{{"tool_use_id":"t{n}","type":"tool_result","content":"{n}","is_error":false}}]}},"session_id":"s1"}}"#
        ));
    }
    let answer = serde_json::Value::from(answer).to_string();
    lines.push(format!(
        r#"{{"type":"assistant","message":{{"model":"m1","content":[{{"type":"text","text":{answer}}}]}},"session_id":"s1"}}"#
    ));
    lines.push(format!(
        r#"{{"type":"result","subtype":"success","is_error":false,"result":{answer},"session_id":"s1","total_cost_usd":0.5,"modelUsage":{{"m1":{{"inputTokens":10,"outputTokens":5,"costUSD":0.5}}}}}}"#
    ));
    lines.join("\n") + "\n"
}

fn open(client: &Client, run: &Run, after: Option<EventPosition>, follow: bool) -> Result<Streaming<Answer>> {
    let request = StreamRunEventsRequest { run: Some(run_ref(run)), after, tail: 0, follow };
    Ok(client.wait(client.runs().stream_run_events(request))?)
}

type Answer = conductor_proto::v1::StreamRunEventsResponse;

/// All events after a place to the end of the stream, which must say that it is the run's.
fn all(client: &Client, run: &Run, after: Option<EventPosition>, tail: u32) -> Result<Vec<RunEvent>> {
    let request = StreamRunEventsRequest { run: Some(run_ref(run)), after, tail, follow: true };
    let mut stream = client.wait(client.runs().stream_run_events(request))?;
    let (mut events, mut end) = (Vec::new(), false);
    while let Some(answer) = client.next(&mut stream)? {
        ensure!(!end, "nothing follows the end");
        end = answer.end;
        events.extend(answer.events);
    }
    ensure!(end, "the end is told");
    Ok(events)
}

/// Without the time, which only a live reader gets.
fn timeless(events: &[RunEvent]) -> Vec<RunEvent> {
    events.iter().map(|event| RunEvent { time: None, ..event.clone() }).collect()
}

#[test]
fn events_are_followed_live_and_resumed_after_kills_without_loss_or_doubling() {
    in_sandbox(|sandbox| {
        let play = r#"while read -r line; do printf '%s\n' "$line"; sleep 0.03; done < "$HOME/stream""#;
        let config = config(sandbox, play)?;
        std::fs::write(sandbox.path().join("home/stream"), stream(60, "all done"))?;
        let (daemon, client) = start_with(sandbox, &config)?;
        let task = submit(&client)?;
        let run = client.wait_running(&task.task_id)?;
        let mut shown = sandbox.ctl_child(&["logs", "-f", "--pretty", &task.task_id], &[("COLUMNS", "80")])?;

        let mut events: Vec<RunEvent> = Vec::new();
        let place = |events: &[RunEvent]| events.last().and_then(|event| event.next);
        // This reader vanishes every few answers and goes on where it was, also within a line.
        let mut client = client;
        let mut daemon = Some(daemon);
        let mut kept = None;
        for round in 0..8 {
            let mut stream = open(&client, &run, place(&events), true)?;
            for _ in 0..4 {
                let answer = client.next(&mut stream)?.context("it goes on")?;
                events.extend(answer.events);
            }
            if round % 2 == 1 {
                // What is left of an answer is dropped: of two events of a line only the first was seen.
                events.truncate(events.len() - 1);
            }
            if round == 3 {
                daemon.take().context("it lives")?.kill9()?;
                let (new, again) = again(sandbox)?;
                (kept, client) = (Some(new), again);
            }
        }
        let rest = all(&client, &run, place(&events), 0)?;
        ensure!(rest.iter().any(|event| event.time.is_some()), "what is read live has its time");
        events.extend(rest);
        client.wait_task(&task.task_id)?;
        let whole = all(&client, &run, None, 0)?;
        assert_eq!(timeless(&events), whole, "the same as from the start, each once");
        let tools = whole.iter().filter(|event| matches!(event.event, Some(Event::ToolEnded(_)))).count();
        assert_eq!(tools, 60);
        assert!(matches!(&whole[0].event, Some(Event::Started(started)) if started.session_id == "s1"));
        assert!(matches!(&whole[whole.len() - 1].event, Some(Event::Ended(ended)) if !ended.is_error));
        assert_eq!(all(&client, &run, None, 3)?, whole[whole.len() - 3..]);
        assert_eq!(all(&client, &run, place(&whole), 0)?, []);
        let beyond = EventPosition { stdout_offset: 1 << 40, ..EventPosition::default() };
        let request = StreamRunEventsRequest { run: Some(run_ref(&run)), after: Some(beyond), ..Default::default() };
        let refused = client.wait(client.runs().stream_run_events(request)).expect_err("no such place");
        assert_eq!((refused.code(), Refusal::of(&refused).reason.as_str()), (Code::OutOfRange, "BEYOND_END"));

        let mut status = None;
        wait_until("logs -f ends with its task", DEADLINE, || {
            status = shown.try_wait().ok().flatten();
            status.is_some()
        })?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut shown.stdout.take().context("a pipe")?, &mut text)?;
        for n in 0..60 {
            let line = format!("● Bash   echo {n} ");
            ensure!(text.matches(&line).count() == 1, "{line:?} is not there once:\n{text}");
        }
        ensure!(text.ends_with("all done\n\n✓ success  10 in · 5 out · ~$0.50\n"), "{text}");
        drop(kept);
        Ok(())
    });
}

#[test]
fn a_million_events_and_a_huge_line_cost_bounded_memory() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(once("many", &["sh seq 1000000", "long-line 20M", "sh echo; echo last"]))?;
        client.wait_task(&task.task_id)?;
        let run = client.last_run(&client.task(&task.task_id)?)?;
        // One that reads nothing for now holds back nobody but itself.
        let lazy = Client::lazy(&sandbox.socket(), None)?;
        let mut unread = open(&lazy, &run, None, true)?;
        let mut stream = open(&client, &run, None, true)?;
        let (mut count, mut total, mut last, mut huge) = (0_u64, 0, None, None);
        while let Some(answer) = client.next(&mut stream)? {
            ensure!(answer.events.len() <= 256, "an answer of {}", answer.events.len());
            total += answer.events.len();
            for event in answer.events {
                let Some(Event::Text(text)) = &event.event else { anyhow::bail!("no text: {event:?}") };
                if text.whole_bytes > 0 {
                    huge = Some((text.text.len(), text.whole_bytes));
                } else if count < 1_000_000 {
                    count += 1;
                    ensure!(text.text == count.to_string(), "event {count} is {:?}", text.text);
                }
                last = Some(event);
            }
        }
        assert_eq!(count, 1_000_000);
        assert_eq!(huge, Some((64 << 10, 20 << 20)));
        let last = last.context("an event")?;
        assert_eq!(all(&client, &run, None, 1)?, std::slice::from_ref(&last));
        assert_eq!(all(&client, &run, last.next, 0)?, []);
        let mut late = 0;
        while let Some(answer) = lazy.next(&mut unread)? {
            late += answer.events.len();
        }
        assert_eq!(late, total, "it gets them all when it reads");
        let peak = conductor_tests::procs::peak(daemon.pid()).context("it lives")?;
        ensure!(peak < 200 << 20, "events are not piled up in memory: {peak}");
        Ok(())
    });
}

#[test]
fn a_configured_key_is_in_no_view_of_what_its_agent_printed() {
    in_sandbox(|sandbox| {
        let answer = format!("the key is {KEY}, \"quoted\" {KEY}");
        let play = r#"cat "$HOME/stream"; printf 'stderr %s' "$ANTHROPIC_API_KEY" >&2"#;
        let config = config(sandbox, play)?;
        let text = stream(1, &answer).replace("echo 0", &format!("curl -H {KEY} x"));
        std::fs::write(sandbox.path().join("home/stream"), &text)?;
        let (daemon, client) = start_with(sandbox, &config)?;
        let task = submit(&client)?;
        let task = client.wait_task(&task.task_id)?;
        let run = client.last_run(&task)?;

        let raw = std::fs::read(std::path::Path::new(&run.folder).join("agent-stdout.txt"))?;
        ensure!(raw == text.as_bytes(), "the raw file stays as it was printed");
        let hidden = text.replace(KEY, &"*".repeat(KEY.len()));
        assert_eq!(String::from_utf8(client.log(&run, LogStream::Stdout, 0, true)?)?, hidden);
        let key_at = text.find(KEY).context("it is there")?;
        let from = u64::try_from(key_at + 20)?;
        assert_eq!(String::from_utf8(client.log(&run, LogStream::Stdout, from, false)?)?, hidden[key_at + 20..]);
        let stderr = String::from_utf8(client.log(&run, LogStream::Stderr, 0, true)?)?;
        assert_eq!(stderr, format!("stderr {}", "*".repeat(KEY.len())));
        let events = all(&client, &run, None, 0)?;
        let said = format!("{events:?}");
        ensure!(said.contains("the key is ***") && !said.contains("0123456789"), "{said}");
        let output = client.run_file(&run, RunFile::Output)?.context("there is an answer")?;
        ensure!(!String::from_utf8_lossy(&output).contains("0123456789"), "output.md shows it");
        for arguments in [&["logs", "--pretty"][..], &["logs", "--raw"], &["logs"], &["logs", "--stderr"], &["output"]]
        {
            let shown = sandbox.ctl(&[arguments, &[&task.task_id]].concat())?;
            ensure!(shown.code == 0 && !format!("{shown:?}").contains("0123456789"), "{arguments:?}: {shown:?}");
        }

        // An agent that is configured no more has plain text, and so has its key.
        daemon.kill9()?;
        std::fs::write(sandbox.config_path(), Config::new(sandbox).yaml())?;
        let (_daemon, client) = again(sandbox)?;
        let events = all(&client, &run, None, 0)?;
        ensure!(events.iter().all(|event| matches!(event.event, Some(Event::Text(_)))), "{events:?}");
        assert_eq!(events.len(), text.lines().count());
        Ok(())
    });
}
