//! `run …`

use conductor_proto::v1::{ListRunProcessesRequest, ListRunsRequest, Run, RunFile, RunStatus};

use super::task::{full, order, page_size, say_more};
use super::{Context, logs, output, stop, tree};
use crate::cli::{Logs, RunCommand, RunLimit, RunShow};
use crate::connect::Daemon;
use crate::errors::Failure;
use crate::resolve::{self, run_ref};

pub(super) async fn run(context: &Context, command: RunCommand) -> Result<(), Failure> {
    match command {
        RunCommand::List(args) => list(context, &args).await,
        RunCommand::Show(args) => show(context, &args).await,
        RunCommand::Logs(args) => logs_of(context, &args).await,
        RunCommand::Stop(args) => {
            let daemon = context.daemon().await?;
            let run = resolve::run(context, &daemon, &args.name.run, args.name.project.as_deref()).await?;
            Box::pin(stop::stop_run(context, &daemon, &run, &args.graces)).await
        }
        RunCommand::Tree(args) => Box::pin(tree::run(context, &args)).await,
    }
}

/// `run logs` takes a task too, as `logs` does.
async fn logs_of(context: &Context, args: &Logs) -> Result<(), Failure> {
    Box::pin(logs::run(context, args)).await
}

async fn list(context: &Context, args: &RunLimit) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let mut request = ListRunsRequest {
        project_id: args.project.clone().unwrap_or_default(),
        statuses: if args.live { vec![RunStatus::Running.into()] } else { Vec::new() },
        agent: args.agent.clone().unwrap_or_default(),
        order: order(args.reverse).into(),
        ..ListRunsRequest::default()
    };
    if let Some(name) = &args.task {
        let task = resolve::task(context, &daemon, name, args.project.as_deref()).await?;
        request.project_id = task.project_id;
        request.task_id = task.task_id;
    }
    let (runs, more) = pages(&daemon, request, args.limit).await?;
    context.screen.list(&runs)?;
    say_more(context, more);
    Ok(())
}

/// At most `limit` runs (0: all), and whether there are more.
pub(super) async fn pages(
    daemon: &Daemon,
    mut request: ListRunsRequest,
    limit: u32,
) -> Result<(Vec<Run>, bool), Failure> {
    let mut all: Vec<Run> = Vec::new();
    loop {
        request.page_size = page_size(limit, all.len());
        let call = async |request| daemon.runs().list_runs(request).await;
        let page = daemon.call("list the runs", request.clone(), call).await?;
        all.extend(page.runs);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || full(limit, all.len()) {
            return Ok((all, !request.page_token.is_empty()));
        }
    }
}

async fn show(context: &Context, args: &RunShow) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let run = resolve::run(context, &daemon, &args.name.run, args.name.project.as_deref()).await?;
    if args.prompt {
        return output::copy(context, &daemon, &run, RunFile::Prompt).await;
    }
    if !args.processes {
        return context.screen.show(&run);
    }
    let request = ListRunProcessesRequest { run: Some(run_ref(&run)) };
    let call = async |request| daemon.runs().list_run_processes(request).await;
    context.screen.list(&daemon.call("list the processes", request, call).await?.processes)
}
