//! `logs`: the output of a run, or of all attempts of a task, as events or as bytes.

use std::time::Duration;

use conductor_proto::v1::{ListOrder, ListRunsRequest, LogStream, Run, Task};

use super::follow_task::{self, View, header};
use super::{Context, interrupted, say_detached};
use crate::cli::Logs;
use crate::connect::Daemon;
use crate::errors::Failure;
use crate::follow::{EventReader, LogReader};
use crate::output::live::Live;
use crate::resolve::{self, Found, run_ref};

pub(super) async fn run(context: &Context, args: &Logs) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    match resolve::any(context, &daemon, &args.target, args.project.as_deref()).await? {
        Found::Run(run) => of_run(context, &daemon, &run, args).await,
        Found::Task(task) => of_task(context, &daemon, &task, args).await,
    }
}

/// How often the line of the moment is renewed.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// The form of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Events for people.
    Pretty { thoughts: bool },
    /// Bytes, between header lines; on a terminal they can't change it.
    Bytes,
    /// Bytes and nothing else.
    Raw,
}

impl Form {
    fn of(context: &Context, args: &Logs) -> Self {
        if args.raw {
            Self::Raw
        } else if args.pretty || args.thoughts || context.screen.out_is_terminal && !args.stderr {
            Self::Pretty { thoughts: args.thoughts }
        } else {
            Self::Bytes
        }
    }
}

/// The logs of a run.
pub(super) async fn of_run(context: &Context, daemon: &Daemon, run: &Run, args: &Logs) -> Result<(), Failure> {
    let form = Form::of(context, args);
    let read = async {
        match form {
            Form::Pretty { thoughts } => events(context, daemon, run, args, thoughts).await,
            Form::Bytes | Form::Raw => bytes(context, daemon, run, args).await,
        }
    };
    if !args.follow {
        return read.await;
    }
    tokio::select! {
        biased;
        () = interrupted() => {
            say_detached(context, "run", &run.run_id);
            Err(Failure::Interrupted)
        }
        result = read => result,
    }
}

async fn events(context: &Context, daemon: &Daemon, run: &Run, args: &Logs, thoughts: bool) -> Result<(), Failure> {
    let mut reader = EventReader::new(daemon, run_ref(run), args.tail, args.follow);
    let mut live = Live::new(&context.screen, thoughts, false);
    loop {
        let next = if live.is_shown() {
            let Ok(next) = tokio::time::timeout(TICK, reader.next()).await else {
                live.tick(&context.screen)?;
                continue;
            };
            next
        } else {
            reader.next().await
        };
        match next {
            Ok(Some(events)) => live.show(&context.screen, &events)?,
            Ok(None) => return live.finish(&context.screen),
            Err(failure) => return Err(failure),
        }
    }
}

async fn bytes(context: &Context, daemon: &Daemon, run: &Run, args: &Logs) -> Result<(), Failure> {
    let mut reader = LogReader::new(daemon, run_ref(run), stream(args), args.tail, args.follow);
    let mut last = b'\n';
    while let Some(bytes) = reader.next().await? {
        last = bytes.last().copied().unwrap_or(last);
        write_log(context, &bytes, args.raw, false)?;
    }
    // The shell's prompt gets a line of its own.
    if last != b'\n' && context.screen.out_is_terminal && !args.raw { context.screen.data(b"\n") } else { Ok(()) }
}

async fn of_task(context: &Context, daemon: &Daemon, task: &Task, args: &Logs) -> Result<(), Failure> {
    if args.follow {
        let view = View {
            stream: stream(args),
            tail: args.tail,
            form: Form::of(context, args),
            story: false,
            quiet_data: false,
        };
        Box::pin(follow_task::follow(context, daemon, task, view)).await?;
        return Ok(());
    }
    let mut runs = runs_of(daemon, task).await?;
    if args.tail.is_some() {
        runs.drain(..runs.len().saturating_sub(1));
    }
    if runs.is_empty() {
        context.screen.aside(&format!("no run of this task was started yet: {}", crate::output::plain(&task.why)));
    }
    for run in runs {
        if !args.raw {
            context.screen.note(&header(context, &run));
        }
        match Box::pin(of_run(context, daemon, &run, args)).await {
            Err(failure) if failure.is_not_found() => context.screen.aside("it has no log"),
            result => result?,
        }
    }
    Ok(())
}

/// All runs of a task, oldest first.
pub(super) async fn runs_of(daemon: &Daemon, task: &Task) -> Result<Vec<Run>, Failure> {
    let request = ListRunsRequest {
        project_id: task.project_id.clone(),
        task_id: task.task_id.clone(),
        order: ListOrder::OldestFirst.into(),
        ..ListRunsRequest::default()
    };
    Ok(super::run::pages(daemon, request, 0).await?.0)
}

fn stream(args: &Logs) -> LogStream {
    if args.stderr { LogStream::Stderr } else { LogStream::Stdout }
}

/// Writes a piece of a log. On a terminal what could change it is replaced, unless it is wanted `raw`.
pub(super) fn write_log(context: &Context, bytes: &[u8], raw: bool, to_stderr: bool) -> Result<(), Failure> {
    use std::io::Write as _;
    let screen = &context.screen;
    let terminal = if to_stderr { screen.err_is_terminal } else { screen.out_is_terminal };
    let safe = if raw || !terminal { None } else { Some(harmless(bytes)) };
    let bytes = safe.as_deref().unwrap_or(bytes);
    if to_stderr {
        return std::io::stderr().write_all(bytes).map_err(|error| Failure::io("write the output", error));
    }
    screen.data(bytes)
}

/// A piece of a log without what could change the terminal: colours stay, other control characters are shown as `�`.
fn harmless(bytes: &[u8]) -> Vec<u8> {
    let mut safe = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        if let Some(length) = color_length(rest) {
            safe.extend_from_slice(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        let control = byte < 0x20 && !matches!(byte, b'\n' | b'\t' | b'\r') || byte == 0x7f;
        // C1 controls are U+0080 to U+009F: 0xc2 0x80 to 0xc2 0x9f in UTF-8.
        let c1 = byte == 0xc2 && after.first().is_some_and(|next| (0x80..0xa0).contains(next));
        if control || c1 {
            safe.extend_from_slice("\u{fffd}".as_bytes());
            rest = if c1 { &after[1..] } else { after };
        } else {
            safe.push(byte);
            rest = after;
        }
    }
    safe
}

/// Length of a colour sequence (`ESC [ digits ; … m`) at the beginning of `bytes`.
fn color_length(bytes: &[u8]) -> Option<usize> {
    let parameters = bytes.strip_prefix(b"\x1b[")?;
    let end = parameters.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))?;
    (parameters[end] == b'm').then_some(end + 3)
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn colours_stay_and_other_controls_are_shown() {
        assert_eq!(harmless(b"\x1b[1;31mred\x1b[0m\n\tx"), b"\x1b[1;31mred\x1b[0m\n\tx");
        assert_eq!(harmless(b"a\x1b[2Jb\x07"), "a\u{fffd}[2Jb\u{fffd}".as_bytes());
        assert_eq!(harmless("é\u{9b}31m".as_bytes()), "é\u{fffd}31m".as_bytes());
        assert_eq!(harmless(b"\x1b]0;title\x07"), "\u{fffd}]0;title\u{fffd}".as_bytes());
        assert_eq!(harmless(b"\x1b["), "\u{fffd}[".as_bytes());
    }
}
