//! What an agent is told: a preamble (who and where it is, how to talk, start children, answer and finish), for a next
//! attempt what happened since, then the task's prompt. Text only: it reads and writes no file.

use std::fmt::Write;

use super::{MAX_PROMPT, RunRequest};
use crate::agents::event::head;
use crate::agents::outcome::one_line;
use crate::config::{Size, Time};
use crate::types::{Message, Mode, Timestamp};

/// Bytes of the block of messages at most (§6), notes included.
pub const MAX_MESSAGES: usize = 16 << 10;
/// What is kept of it for the note that names messages left out.
const NOTE_ROOM: usize = 3 << 10;
/// Messages left out that are named; ids have at most 200 bytes.
const NAMED: usize = 10;
/// Less than this of a long message helps nobody.
const MIN_PART: usize = 256;

/// The smallest real request: what trying an agent out runs, as an ordinary single run.
pub const PROBE: &str = "Reply with OK and nothing else. Use no tools.";

/// A prompt that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// Over [`MAX_PROMPT`].
    #[error("the prompt has {0} bytes; at most {MAX_PROMPT} (16 MiB) are taken: put the rest into files and name them")]
    TooLong(u64),
    /// Nothing but white space.
    #[error("the prompt is empty")]
    Empty,
}

/// Checks a task's prompt when it is submitted.
///
/// # Errors
/// [`PromptError`].
pub fn check(prompt: &str) -> Result<(), PromptError> {
    if prompt.len() as u64 > MAX_PROMPT {
        return Err(PromptError::TooLong(prompt.len() as u64));
    }
    if prompt.trim().is_empty() { Err(PromptError::Empty) } else { Ok(()) }
}

/// What a prompt is made of, besides the run.
#[derive(Clone, Debug)]
pub struct PromptInput<'a> {
    /// Loop or single run.
    pub mode: Mode,
    /// The time; its date is told.
    pub now: Timestamp,
    /// The task's prompt.
    pub prompt: &'a str,
    /// What happened before; `None` for a first attempt.
    pub previous: Option<Previous<'a>>,
}

/// What happened since the last attempt began.
#[derive(Clone, Debug)]
pub struct Previous<'a> {
    /// How it ended, one sentence.
    pub ended: &'a str,
    /// Messages of type USER and ANSWER that no earlier prompt carried, oldest first.
    pub messages: &'a [Message],
    /// How many there are, if `messages` is only the beginning of them; else their count.
    pub total: usize,
}

/// A command that the preamble shows.
struct Example {
    words: &'static [&'static str],
    does: &'static str,
}

const BUS: [Example; 4] = [
    Example {
        words: &["conductorctl", "bus", "post", "--type", "PROGRESS", "what is done"],
        does: "tell what you did",
    },
    Example {
        words: &["conductorctl", "bus", "post", "--type", "QUESTION", "what you need to know"],
        does: "ask; an answer comes by the bus",
    },
    Example {
        words: &["conductorctl", "bus", "post", "--type", "ANSWER", "--reply-to", MESSAGE_ID, "the answer"],
        does: "answer a message",
    },
    Example { words: &["conductorctl", "bus", "read", "--after", MESSAGE_ID], does: "read what came after a message" },
];

const CHILDREN: [Example; 4] = [
    Example {
        words: &["conductorctl", "start", "--detach", "what the child is to do"],
        does: "start a child; prints its task",
    },
    Example {
        words: &["conductorctl", "wait", "--children", "--timeout", "30m"],
        does: "wait until all children have ended",
    },
    Example { words: &["conductorctl", "output", TASK_ID], does: "a child's answer" },
    Example { words: &["conductorctl", "ps"], does: "what is running" },
];

/// The command of the note on messages that did not fit.
const READ_ALL: &[&str] = &["conductorctl", "bus", "read"];
const READ_AFTER: &[&str] = &["conductorctl", "bus", "read", "--after"];

const MESSAGE_ID: &str = "MSG-20260101-000000-000000000-PID00001-0001";
const TASK_ID: &str = "task-20260101-000000-example";

/// Every command that a prompt may show, for a test that parses them with the real command line.
#[must_use]
pub fn commands() -> Vec<Vec<String>> {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut all: Vec<Vec<String>> = BUS.iter().chain(&CHILDREN).map(|example| owned(example.words)).collect();
    all.push(owned(READ_ALL));
    all.push(owned(&[READ_AFTER, &[MESSAGE_ID]].concat()));
    all
}

/// The whole text of `prompt.md`.
#[must_use]
pub fn build(run: &RunRequest, input: &PromptInput<'_>) -> String {
    let mut text = String::with_capacity(input.prompt.len() + MAX_MESSAGES);
    preamble(&mut text, run, input);
    text.push_str("\n---\n\n");
    if let Some(previous) = &input.previous {
        text.push_str("Continue working on the following:\n\n");
        let _ = writeln!(text, "[The last attempt ended: {}]\n", one_line(previous.ended));
        messages(&mut text, previous);
        text.push_str("[The task:]\n\n");
    }
    text.push_str(input.prompt);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

// Writing to a String can't fail, so the results of `writeln!` below are dropped.

fn preamble(text: &mut String, run: &RunRequest, input: &PromptInput<'_>) {
    let (task, key) = (&run.key.task, &run.key);
    text.push_str(
        "# Where you are\n\nYou run unattended under Conductor: nobody sees a question that is not on the bus.\n\n",
    );
    let today = input.now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let _ = writeln!(text, "- today: {today} (UTC)");
    let _ = writeln!(text, "- project: {}", task.project);
    let _ = writeln!(text, "- task: {}", task.task);
    let _ = writeln!(text, "- run: {}", key.run);
    if let Some(parent) = &run.parent {
        let _ = writeln!(text, "- started by: run {} of task {}", parent.run, parent.task.task);
    }
    if input.mode == Mode::Loop {
        let _ = writeln!(text, "- attempt: {} of at most {}", run.attempt, run.max_attempts);
    }
    let _ = writeln!(text, "- limits: {}", limits(run));
    let _ = writeln!(text, "- working folder: {}", run.cwd.display());
    let _ = writeln!(text, "- task folder: {}", run.task_folder.display());
    let _ = writeln!(text, "- run folder: {}", run.run_folder.display());
    text.push_str("\n## Answer and end\n\n");
    let _ = writeln!(text, "Write your final answer, in Markdown, to {}/output.md.", run.run_folder.display());
    match input.mode {
        Mode::Loop => {
            let _ = writeln!(
                text,
                "When the whole task is finished, and only then, create the file {0}/DONE (a regular file; it may be \
                 empty).\nEnd without it, and you are started again to go on; what is in the folders stays.",
                run.task_folder.display()
            );
        }
        Mode::Once => text.push_str("This is a single run: it is finished when you end.\n"),
    }
    text.push_str("\n## Message bus\n\nPeople and other agents read it. Types: FACT, PROGRESS, DECISION, ERROR, QUESTION, ANSWER, INFO.\n\n");
    examples(text, &BUS);
    text.push_str("\n## Children\n\nWork that others can do beside you can be given to child agents.\n\n");
    examples(text, &CHILDREN);
}

fn limits(run: &RunRequest) -> String {
    let text = |time: std::time::Duration| Time::millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let time = run.limits.wall_time.map(|time| format!("{} of wall time for this run", text(time)));
    let idle =
        run.limits.idle_timeout.map(|time| format!("{} without any output, message or use of the CPU", text(time)));
    let log = run.limits.log_bytes.map(|bytes| format!("{} of output on each stream", Size::bytes(bytes)));
    let all: Vec<String> = time.into_iter().chain(idle).chain(log).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn examples(text: &mut String, examples: &[Example]) {
    for example in examples {
        let _ = writeln!(text, "    {}   # {}", shown(example.words), example.does);
    }
}

/// A command as agents will type it; the texts of examples have no character that a shell would touch in them.
fn shown(words: &[&str]) -> String {
    let quoted = words.iter().map(|word| if word.contains(' ') { format!("\"{word}\"") } else { (*word).to_owned() });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The messages that fit, in order, and a note that names the others.
fn messages(text: &mut String, previous: &Previous<'_>) {
    let total = previous.total.max(previous.messages.len());
    if total == 0 {
        return;
    }
    let start = text.len();
    let room = |text: &String| (MAX_MESSAGES - NOTE_ROOM).saturating_sub(text.len() - start);
    let _ = writeln!(text, "[Messages since then: {total}]\n");
    let (mut whole, mut part) = (0, false);
    for message in previous.messages {
        let heading = heading(message);
        // The heading, the body, and two line ends.
        if heading.len() + message.body.len() + 4 <= room(text) {
            let _ = write!(text, "{heading}\n{}\n\n", message.body);
            whole += 1;
            continue;
        }
        let left = room(text).saturating_sub(heading.len() + 100);
        if left >= MIN_PART {
            let body = head(&message.body, left);
            let _ =
                write!(text, "{heading}\n{body}\n[cut: the first {} of {} bytes]\n\n", body.len(), message.body.len());
            part = true;
        }
        break;
    }
    if whole < total {
        left_out(text, previous.messages, whole, total, part);
    }
}

fn heading(message: &Message) -> String {
    let time = message.time.map(|time| format!(" {time:.0}")).unwrap_or_default();
    format!("[{}{time} {}]", one_line(&message.kind), message.id)
}

fn left_out(text: &mut String, messages: &[Message], whole: usize, total: usize, part: bool) {
    let command = match whole.checked_sub(1).and_then(|last| messages.get(last)) {
        Some(last) => shown(&[READ_AFTER, &[last.id.as_str()]].concat()),
        None => shown(READ_ALL),
    };
    let named: Vec<&str> = messages.iter().skip(whole).take(NAMED).map(|message| message.id.as_str()).collect();
    let more = total - whole - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let how = if part { "the first of them only in part" } else { "none of them shown" };
    let _ = writeln!(
        text,
        "[Not all of them fit here. Left out, {how}: {}{more}. Read them with: {command}]\n",
        named.join(", ")
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::agents::tests::request;
    use crate::types::Limits;

    fn message(number: usize, body: String) -> Message {
        Message {
            id: format!("MSG-20260101-000000-000000000-PID00001-{number:04}").parse().unwrap(),
            time: Some("2026-01-01T00:00:00.5Z".parse().unwrap()),
            kind: "USER".into(),
            project: "p".into(),
            task: String::new(),
            run: String::new(),
            issue: None,
            parents: vec![],
            links: vec![],
            meta: BTreeMap::new(),
            body,
        }
    }

    fn input<'a>(prompt: &'a str, previous: Option<Previous<'a>>) -> PromptInput<'a> {
        PromptInput { mode: Mode::Loop, now: "2026-11-22T23:59:00Z".parse().unwrap(), prompt, previous }
    }

    #[test]
    fn a_first_prompt_is_the_preamble_and_the_task() {
        let mut run = request(Path::new("/root"));
        run.limits = Limits {
            wall_time: Some(Duration::from_secs(5400)),
            log_bytes: Some(2 << 30),
            idle_timeout: Some(Duration::from_secs(1800)),
            ..Limits::default()
        };
        insta::assert_snapshot!(build(&run, &input("Fix the bug.\n---\nNow.", None)));
    }

    #[test]
    fn a_next_prompt_says_how_the_last_attempt_ended_and_carries_the_messages() {
        let messages = [message(1, "use tabs".into()), message(2, "two\nlines".into())];
        let previous = Previous { ended: "exit code 3:\nboom", messages: &messages, total: 2 };
        let text = build(&request(Path::new("/root")), &input("Fix it.", Some(previous)));
        let (_, told) = text.split_once("\n---\n\n").unwrap();
        insta::assert_snapshot!(told);
    }

    #[test]
    fn a_single_run_hears_nothing_of_done() {
        let text = build(&request(Path::new("/root")), &PromptInput { mode: Mode::Once, ..input("x", None) });
        assert!(!text.contains("DONE") && !text.contains("attempt"), "{text}");
    }

    #[test]
    fn every_command_in_a_prompt_is_in_the_table() {
        let messages: Vec<Message> = (0..3).map(|number| message(number, "x".repeat(9000))).collect();
        let previous = Previous { ended: "x", messages: &messages, total: 3 };
        let text = build(&request(Path::new("/root")), &input("x", Some(previous)));
        let known: Vec<String> =
            commands().iter().map(|words| shown(&words.iter().map(String::as_str).collect::<Vec<_>>())).collect();
        let mut seen = 0;
        for line in text.lines().filter_map(|line| line.find("conductorctl").map(|at| &line[at..])) {
            let command = line.split("   #").next().unwrap().trim_end_matches(']');
            let pattern = command.replace("PID00001-0000", "PID00001-0001");
            assert!(known.contains(&pattern), "{command}");
            seen += 1;
        }
        assert_eq!(seen, BUS.len() + CHILDREN.len() + 1);
    }

    #[test]
    fn messages_that_do_not_fit_are_named_with_the_command_that_reads_them() {
        let messages: Vec<Message> = (0..30).map(|number| message(number, "x".repeat(5000))).collect();
        let previous = Previous { ended: "x", messages: &messages, total: 40 };
        let mut text = String::new();
        super::messages(&mut text, &previous);
        assert!(text.len() <= MAX_MESSAGES, "{}", text.len());
        assert!(text.contains("[cut: the first "), "{text}");
        assert!(text.contains("-0011 and 28 more. Read them with: conductorctl bus read --after "), "{text}");
    }

    #[test]
    fn prompts_are_refused_when_empty_or_over_16_mib() {
        assert_eq!(check(" \n"), Err(PromptError::Empty));
        assert_eq!(check(&"x".repeat(16 << 20)), Ok(()));
        let error = check(&"x".repeat((16 << 20) + 1)).unwrap_err().to_string();
        assert!(error.contains("16777217") && error.contains("16 MiB"), "{error}");
    }

    proptest! {
        #[test]
        fn the_block_of_messages_is_bounded_and_shows_each_once(
            bodies in proptest::collection::vec("\\PC{0,40}|x{0,20000}", 0..20), more in 0usize..5,
        ) {
            let messages: Vec<Message> = bodies.into_iter().enumerate().map(|(n, body)| message(n, body)).collect();
            let previous = Previous { ended: "x", messages: &messages, total: messages.len() + more };
            let mut text = String::new();
            super::messages(&mut text, &previous);
            prop_assert!(text.len() <= MAX_MESSAGES);
            for message in &messages {
                let heading = format!("Z {}]\n", message.id);
                prop_assert!(text.matches(&heading).count() <= 1);
            }
        }
    }
}
