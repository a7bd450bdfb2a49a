//! `wait`: until tasks have ended.

use std::time::{Duration, Instant};

use conductor_proto::v1::{Task, WaitChildrenRequest, WaitTaskRequest};
use tokio::task::JoinSet;
use tonic::Request;

use super::follow_task::is_done;
use super::{Context, interrupted};
use crate::cli::{Format, Wait};
use crate::connect::Daemon;
use crate::errors::Failure;
use crate::output::{Resource as _, Tone, plain, time, words};
use crate::resolve;

pub(super) async fn run(context: &Context, args: &Wait) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let wait =
        async { if args.children { children(context, &daemon).await } else { tasks(context, &daemon, args).await } };
    tokio::select! {
        biased;
        () = interrupted() => {
            context.screen.note("\nno longer waiting; the work goes on");
            for task in &args.tasks {
                context.screen.hint(&format!("wait again:  conductorctl wait {task}"));
            }
            Err(Failure::Interrupted)
        }
        result = wait => result,
    }
}

async fn tasks(context: &Context, daemon: &Daemon, args: &Wait) -> Result<(), Failure> {
    let began = Instant::now();
    let mut waits = JoinSet::new();
    for name in &args.tasks {
        let typed = resolve::parse(name, args.project.as_deref())?;
        let request =
            WaitTaskRequest { project_id: context.project_or_own(typed.project), task_id: typed.name.to_owned() };
        waits.spawn(until_ended(daemon.clone(), request));
    }
    let limit = context.globals.timeout;
    let mut ended = Vec::new();
    let progress = context.screen.progress(&waiting(args, 0));
    loop {
        let next = async {
            match limit {
                Some(limit) => tokio::time::timeout_at((began + limit).into(), waits.join_next()).await.ok(),
                None => Some(waits.join_next().await),
            }
        };
        match next.await {
            None => {
                drop(progress);
                finish(context, &ended)?;
                return Err(timed_out(limit, &format!("{} of {} tasks have ended", ended.len(), args.tasks.len())));
            }
            Some(None) => break,
            Some(Some(joined)) => {
                let task = joined.map_err(|error| Failure::io("wait", std::io::Error::other(error)))??;
                line(context, &task)?;
                ended.push(task);
                progress.set(&context.screen, &waiting(args, ended.len()));
            }
        }
    }
    drop(progress);
    finish(context, &ended)?;
    result(&ended)
}

/// What is waited for, once so many have ended.
fn waiting(args: &Wait, ended: usize) -> String {
    match &args.tasks[..] {
        [only] => format!("waiting for {} …", plain(only)),
        all => format!("waiting for {} of {} tasks …", all.len() - ended, all.len()),
    }
}

/// Waits for one task, over restarts of the daemon.
pub(super) async fn until_ended(daemon: Daemon, request: WaitTaskRequest) -> Result<Task, Failure> {
    const ACTION: &str = "wait for the task";
    loop {
        match Box::pin(daemon.tasks().wait_task(Request::new(request.clone()))).await {
            Ok(response) => {
                daemon.outage.over();
                let task = response.into_inner().task;
                return task.ok_or_else(|| Failure::Vanished("the daemon sent no task".into()));
            }
            Err(status) => daemon.outage.lost(ACTION, Some(status)).await?,
        }
    }
}

async fn children(context: &Context, daemon: &Daemon) -> Result<(), Failure> {
    const ACTION: &str = "wait for the children";
    let Some(inside) = &context.inside else {
        return Err(Failure::Usage("--children is for an agent: no CONDUCTOR_RUN_ID says which run waits".into()));
    };
    let began = Instant::now();
    let limit = context.globals.timeout;
    let progress = context.screen.progress("waiting for the children …");
    let answer = loop {
        let left = limit.map(|limit| limit.saturating_sub(began.elapsed()));
        let request = WaitChildrenRequest { run: inside.run_ref(), timeout: left.map(time::to_wire) };
        match Box::pin(daemon.tasks().wait_children(Request::new(request))).await {
            Ok(response) => break response.into_inner(),
            Err(status) => daemon.outage.lost(ACTION, Some(status)).await?,
        }
    };
    drop(progress);
    if answer.children.is_empty() && context.screen.format.is_human() {
        context.screen.aside("this run has no children");
    }
    if context.screen.format.is_human() {
        answer.children.iter().try_for_each(|task| line(context, task))?;
    }
    finish(context, &answer.children)?;
    if answer.timed_out {
        let live = answer.children.iter().filter(|task| task.end.is_none()).count();
        return Err(timed_out(limit, &format!("{live} of {} children live", answer.children.len())));
    }
    result(&answer.children)
}

fn timed_out(limit: Option<Duration>, action: &str) -> Failure {
    Failure::TimedOut { action: action.to_owned(), after: limit.unwrap_or_default() }
}

/// The line of a task that has ended.
fn line(context: &Context, task: &Task) -> Result<(), Failure> {
    let screen = &context.screen;
    match screen.format {
        Format::Json | Format::Yaml => Ok(()),
        Format::Name => screen.line(&task.task_id),
        Format::Table | Format::Wide => {
            let state = screen.paint(words::task_tone(task), &words::task_state(task));
            let detail = task.end.as_ref().map_or(task.why.as_str(), |end| end.detail.as_str());
            let text = format!("{}  {state}  {}", task.task_id, screen.paint(Tone::Quiet, &plain(detail)));
            screen.line(text.trim_end())
        }
    }
}

fn finish(context: &Context, tasks: &[Task]) -> Result<(), Failure> {
    match context.screen.format {
        Format::Json | Format::Yaml => context.screen.value(&tasks.iter().map(Task::view).collect::<Vec<_>>()),
        Format::Table | Format::Wide | Format::Name => Ok(()),
    }
}

fn result(tasks: &[Task]) -> Result<(), Failure> {
    if tasks.iter().all(is_done) { Ok(()) } else { Err(Failure::NotDone) }
}
