//! `stop`: ends a task or a run, and returns when it has ended.

use conductor_proto::v1::{
    CancelTaskRequest, Run, RunStatus, StopRunRequest, StopTaskRequest, Task, TaskPhase, WaitTaskRequest,
};

use super::{Context, interrupted, request_id};
use crate::cli::{Stop, StopGraces, TaskCancel};
use crate::connect::Daemon;
use crate::errors::Failure;
use crate::follow::{Change, Watcher};
use crate::output::{Progress, time, words};
use crate::resolve::{self, Found, run_ref};

pub(super) async fn run(context: &Context, args: &Stop) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    match resolve::any(context, &daemon, &args.target, args.project.as_deref()).await? {
        Found::Run(run) if args.keep_children => {
            Err(Failure::Usage(format!("--keep-children is for tasks; {} is a run", run.run_id)))
        }
        Found::Run(run) => stop_run(context, &daemon, &run, &args.graces).await,
        Found::Task(task) => stop_task(context, &daemon, &task, &args.graces, args.keep_children).await,
    }
}

type Graces = (Option<prost_types::Duration>, Option<prost_types::Duration>);

fn graces(args: &StopGraces) -> Graces {
    if args.kill {
        let none = Some(prost_types::Duration::default());
        return (none, none);
    }
    (args.int_grace.map(time::to_wire), args.term_grace.map(time::to_wire))
}

/// Stops a task.
pub(super) async fn stop_task(
    context: &Context,
    daemon: &Daemon,
    task: &Task,
    args: &StopGraces,
    keep_children: bool,
) -> Result<(), Failure> {
    let (int_grace, term_grace) = graces(args);
    let request = StopTaskRequest {
        project_id: task.project_id.clone(),
        task_id: task.task_id.clone(),
        reason: args.reason.clone(),
        int_grace,
        term_grace,
        keep_children,
        request_id: request_id(None),
    };
    let call = async |request| daemon.tasks().stop_task(request).await;
    let answer = daemon.call("stop the task", request, call).await?.task;
    after_task(context, daemon, answer, args.no_wait).await
}

/// Cancels a task.
pub(super) async fn cancel_task(
    context: &Context,
    daemon: &Daemon,
    task: &Task,
    args: &TaskCancel,
) -> Result<(), Failure> {
    let request = CancelTaskRequest {
        project_id: task.project_id.clone(),
        task_id: task.task_id.clone(),
        reason: args.reason.clone(),
        keep_children: args.keep_children,
        request_id: request_id(None),
    };
    let call = async |request| daemon.tasks().cancel_task(request).await;
    let answer = daemon.call("cancel the task", request, call).await?.task;
    after_task(context, daemon, answer, args.no_wait).await
}

async fn after_task(context: &Context, daemon: &Daemon, answer: Option<Task>, no_wait: bool) -> Result<(), Failure> {
    let mut task = answer.ok_or_else(|| Failure::Vanished("the daemon sent no task".into()))?;
    if !no_wait && task.phase() != TaskPhase::Finished {
        let _progress = stopping(context, &task.task_id);
        let request = WaitTaskRequest { project_id: task.project_id.clone(), task_id: task.task_id.clone() };
        task = until(context, super::wait::until_ended(daemon.clone(), request)).await?;
    }
    if !context.screen.format.is_human() {
        return context.screen.show(&task);
    }
    let state = context.screen.paint(words::task_tone(&task), &words::task_state(&task));
    context.screen.line(&format!("{}  {state}", task.task_id))
}

/// Stops a run.
pub(super) async fn stop_run(context: &Context, daemon: &Daemon, run: &Run, args: &StopGraces) -> Result<(), Failure> {
    let (int_grace, term_grace) = graces(args);
    let request = StopRunRequest {
        run: Some(run_ref(run)),
        reason: args.reason.clone(),
        int_grace,
        term_grace,
        request_id: request_id(None),
    };
    let call = async |request| daemon.runs().stop_run(request).await;
    let answer = daemon.call("stop the run", request, call).await?.run;
    let mut run = answer.ok_or_else(|| Failure::Vanished("the daemon sent no run".into()))?;
    if !args.no_wait && run.status() == RunStatus::Running {
        let _progress = stopping(context, &run.run_id);
        run = until(context, run_ended(daemon, &run)).await?;
    }
    if !context.screen.format.is_human() {
        return context.screen.show(&run);
    }
    let state = context.screen.paint(words::run_tone(&run), &words::run_state(&run));
    let left = run.stragglers.iter().filter(|process| !process.ended).count();
    context.screen.line(&format!("{}  {state}", run.run_id))?;
    if left > 0 {
        context.screen.aside(&format!("{left} processes could not be ended: conductorctl run show {}", run.run_id));
    }
    Ok(())
}

async fn run_ended(daemon: &Daemon, run: &Run) -> Result<Run, Failure> {
    let mut watcher = Watcher::new(daemon, &run.project_id, &run.task_id, false);
    loop {
        match watcher.next().await? {
            Change::Run(now) if now.run_id == run.run_id && now.status() != RunStatus::Running => return Ok(*now),
            Change::Deleted(gone) if gone.run_id.is_empty() || gone.run_id == run.run_id => {
                return Err(Failure::Vanished(format!("the run {} was deleted", run.run_id)));
            }
            _ => {}
        }
    }
}

fn stopping(context: &Context, name: &str) -> Progress {
    context.screen.progress(&format!("stopping {name} … (again with --kill: without graces)"))
}

async fn until<T>(context: &Context, ended: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let limit = context.globals.timeout.unwrap_or(std::time::Duration::MAX);
    tokio::select! {
        biased;
        () = interrupted() => {
            context.screen.note("\nno longer waiting; it is being stopped");
            Err(Failure::Interrupted)
        }
        result = tokio::time::timeout(limit, ended) => {
            result.map_err(|_| Failure::TimedOut { action: "it is still being stopped".into(), after: limit })?
        }
    }
}
