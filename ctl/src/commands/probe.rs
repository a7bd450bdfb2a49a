//! `agent probe`: one tiny request, as an ordinary run that begins although the agent's account takes no work.
//!
//! It is a task of a project of its own, seen by everybody while it lives, and deleted afterwards; what it cost stays in
//! the ledger.

use std::time::Duration;

use conductor_proto::reason;
use conductor_proto::v1::{
    Agent, CancelTaskRequest, CreateProjectRequest, DeleteTaskRequest, EndReason, LimitKind, ListRunsRequest,
    Permissions, ReadRunFileRequest, Run, RunFile, RunOutcome, SubmitTaskRequest, Task, TaskMode, TaskSpec,
    WaitTaskRequest,
};
use serde::Serialize;
use tonic::Code;

use super::{Context, agent, interrupted, request_id, start, wait};
use crate::cli::{AgentProbe, Format, PermissionsArg};
use crate::connect::Daemon;
use crate::errors::{Failure, reason_of};
use crate::output::views::RunView;
use crate::output::views::doctor::wrap;
use crate::output::{Resource as _, Screen, Tone, plain, time, words};
use crate::resolve::run_ref;

/// The project of these tasks.
const PROJECT: &str = "agent-probes";
/// How long the agent may take: starting a vendor's program and one short answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much longer the task may take: a slot, the graces of a stop.
const MARGIN: Duration = Duration::from_secs(60);
/// Bytes of an answer that are shown.
const SHOWN: usize = 500;
/// What a network's failure is called, by programs and libraries.
const NETWORK_WORDS: [&str; 14] = [
    "econnrefused",
    "econnreset",
    "enetunreach",
    "ehostunreach",
    "enotfound",
    "etimedout",
    "eai_again",
    "connection refused",
    "connection reset",
    "connection error",
    "fetch failed",
    "network",
    "dns error",
    "error sending request",
];

/// What became of a probe, for programs.
#[derive(Serialize)]
struct ProbeView {
    agent: String,
    ok: bool,
    /// `limit`, `auth`, `overload`, `network`, `timeout`, `start`, `failed`; nothing if it answered.
    failure: Option<&'static str>,
    detail: String,
    answer: Option<String>,
    task: Option<String>,
    run: Option<RunView>,
}

/// A probe that has ended.
struct Ended {
    agent: Agent,
    task: Task,
    run: Option<Run>,
    answer: Option<String>,
}

pub(super) async fn run(context: &Context, args: &AgentProbe) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let known = agent::find(&daemon, &args.agent, false).await?;
    ensure_project(&daemon).await?;
    let patience = context.globals.timeout.unwrap_or(PATIENCE);
    let task = submit(&daemon, args, patience).await?;
    let progress = context.screen.progress(&format!("{} is asked one thing …", plain(&args.agent)));
    let request = WaitTaskRequest { project_id: task.project_id.clone(), task_id: task.task_id.clone() };
    let ended = tokio::select! {
        biased;
        () = interrupted() => Err(Failure::Interrupted),
        ended = tokio::time::timeout(patience + MARGIN, wait::until_ended(daemon.clone(), request)) => ended
            .unwrap_or_else(|_| Err(Failure::TimedOut { action: "the probe has not ended".into(), after: patience + MARGIN })),
    };
    drop(progress);
    let task = match ended {
        Ok(task) => task,
        Err(failure) => {
            cancel(&daemon, &task).await;
            context.screen.aside(&format!("the probe was cancelled; its task: {}/{}", task.project_id, task.task_id));
            return Err(failure);
        }
    };
    let run = last_run(&daemon, &task).await?;
    let answer = match &run {
        Some(run) if run.outcome() == RunOutcome::Completed => answer(&daemon, run).await,
        _ => None,
    };
    if !args.keep {
        delete(context, &daemon, &task).await;
    }
    report(context, args, &Ended { agent: known, task, run, answer })
}

async fn ensure_project(daemon: &Daemon) -> Result<(), Failure> {
    let request = CreateProjectRequest { project_id: PROJECT.into(), ..CreateProjectRequest::default() };
    let call = async |request| daemon.projects().create_project(request).await;
    match daemon.call("make the project of probes", request, call).await {
        Err(Failure::Refused { status, .. })
            if status.code() == Code::AlreadyExists
                && reason_of(&status).as_deref() == Some(reason::ALREADY_EXISTS) =>
        {
            Ok(())
        }
        other => other.map(drop),
    }
}

async fn submit(daemon: &Daemon, args: &AgentProbe, patience: Duration) -> Result<Task, Failure> {
    let permissions = args.permissions.map_or(Permissions::Unspecified, |permissions| match permissions {
        PermissionsArg::Confined => Permissions::Confined,
        PermissionsArg::Full => Permissions::Full,
    });
    let spec = TaskSpec {
        agent: args.agent.clone(),
        mode: TaskMode::Once.into(),
        cwd: start::text_of(&start::folder(None)?)?,
        model: args.model.clone().unwrap_or_default(),
        wall_time: Some(time::to_wire(patience)),
        permissions: permissions.into(),
        probe: true,
        ..TaskSpec::default()
    };
    let request_id = request_id(None);
    let request = SubmitTaskRequest {
        project_id: PROJECT.into(),
        // A slug of its own: the next probe of this second must not get the id of one that is deleted by then.
        slug: format!("probe-{}", request_id.split('-').next().unwrap_or_default()),
        spec: Some(spec),
        request_id,
        ..SubmitTaskRequest::default()
    };
    let call = async |request| daemon.tasks().submit_task(request).await;
    let answer = daemon.call("start the probe", request, call).await?;
    answer.task.ok_or_else(|| Failure::Vanished("the daemon sent no task".into()))
}

async fn last_run(daemon: &Daemon, task: &Task) -> Result<Option<Run>, Failure> {
    let request = ListRunsRequest {
        project_id: task.project_id.clone(),
        task_id: task.task_id.clone(),
        ..ListRunsRequest::default()
    };
    let (runs, _) = super::run::pages(daemon, request, 1).await?;
    Ok(runs.into_iter().next())
}

/// What the agent said, its beginning; `None`: nothing.
async fn answer(daemon: &Daemon, run: &Run) -> Option<String> {
    let request = ReadRunFileRequest { run: Some(run_ref(run)), file: RunFile::Output.into() };
    let call = async |request| daemon.runs().read_run_file(request).await;
    let mut pieces = daemon.call("read the answer", request, call).await.ok()?;
    let mut bytes = Vec::new();
    while let Ok(Some(piece)) = pieces.message().await {
        bytes.extend(piece.data);
        if bytes.len() > SHOWN {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The task may end by itself meanwhile: then there is nothing to cancel.
async fn cancel(daemon: &Daemon, task: &Task) {
    let request = CancelTaskRequest {
        project_id: task.project_id.clone(),
        task_id: task.task_id.clone(),
        reason: "the probe was given up".into(),
        ..CancelTaskRequest::default()
    };
    let call = async |request| daemon.tasks().cancel_task(request).await;
    drop(daemon.call("cancel the probe", request, call).await);
}

async fn delete(context: &Context, daemon: &Daemon, task: &Task) {
    let request = DeleteTaskRequest {
        project_id: task.project_id.clone(),
        task_id: task.task_id.clone(),
        request_id: request_id(None),
    };
    let call = async |request| daemon.tasks().delete_task(request).await;
    if daemon.call("delete the probe", request, call).await.is_err() {
        context.screen.aside(&format!("its task is left: {}/{}", task.project_id, task.task_id));
    }
}

/// Why there is no answer: a word for programs, and a sentence.
fn failure(ended: &Ended) -> Option<(&'static str, String)> {
    let detail = ended.task.end.as_ref().map(|end| end.detail.clone()).unwrap_or_default();
    // What it says of resuming the task is not for a probe.
    let detail = detail.split("; then `conductorctl").next().unwrap_or_default().to_owned();
    let Some(run) = &ended.run else { return Some(("start", detail)) };
    let said = if run.error_summary.is_empty() { words::ending(run) } else { run.error_summary.clone() };
    let done = ended.task.end.as_ref().is_some_and(|end| end.reason() == EndReason::Done);
    if run.outcome() == RunOutcome::Completed && done {
        return None;
    }
    let limit = run.limit.as_ref();
    Some(match (run.outcome(), limit.map(|limit| limit.kind())) {
        (RunOutcome::AuthFailed, _) => ("auth", format!("the login was refused: {said}")),
        (RunOutcome::UsageLimited, kind) => {
            let kind = kind.and_then(words::limit_kind).unwrap_or_else(|| "usage".to_owned());
            let until = limit
                .and_then(|limit| limit.reset_time.as_ref())
                .map_or_else(|| "its end is not known".to_owned(), |at| format!("until {}", time::clock(at)));
            ("limit", format!("{kind} limit, {until}: {said}"))
        }
        // For a loop it is the same as an overload; for a person it is not.
        (RunOutcome::Failed, None | Some(LimitKind::Overload)) if is_network(&said) => {
            ("network", format!("the service can't be reached: {said}"))
        }
        (_, Some(LimitKind::Overload)) => ("overload", format!("the service is overloaded or out of order: {said}")),
        (RunOutcome::TimedOut, _) => ("timeout", format!("no answer in time: {said}")),
        (RunOutcome::SpawnFailed, _) => ("start", said),
        _ => ("failed", said),
    })
}

fn is_network(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    NETWORK_WORDS.iter().any(|word| text.contains(word))
}

/// What to do about a failure.
fn advice(kind: &str, agent: &str) -> String {
    match kind {
        "limit" => "its tasks wait and go on by themselves then".to_owned(),
        "auth" => format!("log in again, or put the key right; see conductorctl doctor {agent}"),
        "network" => "check the network, and proxies that agents see: conductorctl doctor".to_owned(),
        "overload" => "try again later".to_owned(),
        "timeout" => "allow it more with --timeout 5m, or look at its log with --keep".to_owned(),
        _ => format!("see conductorctl doctor {agent}, and its log with --keep"),
    }
}

fn report(context: &Context, args: &AgentProbe, ended: &Ended) -> Result<(), Failure> {
    let failed = failure(ended);
    let screen = &context.screen;
    match screen.format {
        Format::Json | Format::Yaml => screen.value(&ProbeView {
            agent: args.agent.clone(),
            ok: failed.is_none(),
            failure: failed.as_ref().map(|(kind, _)| *kind),
            detail: failed.as_ref().map(|(_, text)| text.clone()).unwrap_or_default(),
            answer: ended.answer.clone(),
            task: args.keep.then(|| format!("{}/{}", ended.task.project_id, ended.task.task_id)),
            run: ended.run.as_ref().map(Run::view),
        })?,
        Format::Name => screen.line(if failed.is_none() { "ok" } else { "failed" })?,
        Format::Table | Format::Wide => people(context, args, ended, failed.as_ref())?,
    }
    if failed.is_none() { Ok(()) } else { Err(Failure::NotDone) }
}

fn people(
    context: &Context,
    args: &AgentProbe,
    ended: &Ended,
    failed: Option<&(&'static str, String)>,
) -> Result<(), Failure> {
    let screen = &context.screen;
    let took = ended.run.as_ref().map_or_else(String::new, |run| {
        format!(" after {}", time::elapsed_text(run.start_time.as_ref(), run.end_time.as_ref()))
    });
    let name = screen.paint(Tone::Strong, &plain(&args.agent));
    match failed {
        None => {
            let answer = ended.answer.as_deref().map_or_else(|| "nothing".to_owned(), plain);
            screen.line(&format!("{} {name} answered{took}: {answer}", screen.paint(Tone::Good, "✓")))?;
        }
        Some((kind, text)) => {
            screen.line(&format!(
                "{} {name} did not answer{took}: {}",
                screen.paint(Tone::Failed, "✗"),
                plain(text)
            ))?;
            screen.line(&format!("  → {}", plain(&advice(kind, &args.agent))))?;
        }
    }
    let mut facts: Vec<(&str, String)> = Vec::new();
    if let Some(run) = &ended.run {
        facts.push(("program", format!("{} {}", ended.agent.program, run.agent_version)));
        facts.push(("login", run.login.clone()));
        facts.push(("account", run.account.clone()));
        facts.push(("model", run.model.clone()));
        facts.push(("permissions", words::permissions(run.permissions()).unwrap_or_default()));
        facts.push(("cost", run.usage.as_ref().map(|used| cost(run, used)).unwrap_or_default()));
        facts.push(("note", run.notes.join("; ")));
    }
    if args.keep {
        facts.push(("task", format!("{}/{}", ended.task.project_id, ended.task.task_id)));
    }
    facts.retain(|(_, text)| !text.trim().is_empty());
    let width = facts.iter().map(|(label, _)| label.len()).max().unwrap_or(0) + 2;
    facts.iter().try_for_each(|(label, text)| {
        let label = screen.paint(Tone::Quiet, &format!("{label:width$}"));
        screen.line(&format!("  {label}{}", hanging(screen, text, width + 2)))
    })
}

/// A text of several lines, of which all but the first begin `left` columns in.
fn hanging(screen: &Screen, text: &str, left: usize) -> String {
    let room = usize::from(screen.width).saturating_sub(left);
    wrap(&plain(text), room).join(&format!("\n{:left$}", ""))
}

fn cost(run: &Run, used: &conductor_proto::v1::Usage) -> String {
    let dollars = words::cost(run);
    if used.cost_usd.is_some() { format!("{dollars}; {}", words::tokens(used)) } else { words::tokens(used) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_down_is_told_from_a_program_that_fails() {
        for text in ["API Error: Connection error.", "getaddrinfo ENOTFOUND api.x.ai", "error sending request for url"]
        {
            assert!(is_network(text), "{text}");
        }
        assert!(!is_network("exit code 1: SyntaxError: unexpected token"));
    }
}
