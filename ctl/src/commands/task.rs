//! `task …`

use conductor_proto::v1::{
    DeleteTaskRequest, GetTaskPromptRequest, ListOrder, ListTasksRequest, ResumeTaskRequest, RunRef, Task, TaskPhase,
    TaskSpec,
};

use super::{Context, PAGE, request_id, start, stop, wait};
use crate::cli::{Format, PhaseArg, SpecArgs, TaskCommand, TaskDelete, TaskList, TaskName, TaskResume, TaskShow};
use crate::connect::Daemon;
use crate::errors::Failure;
use crate::output::{Tone, plain, words};
use crate::resolve;

pub(super) async fn run(context: &Context, command: TaskCommand) -> Result<(), Failure> {
    match command {
        TaskCommand::Submit(args) => Box::pin(start::submit_only(context, &args)).await,
        TaskCommand::List(args) => list(context, &args).await,
        TaskCommand::Show(args) => show(context, &args).await,
        TaskCommand::Why(args) => why(context, &args).await,
        TaskCommand::Wait(args) => Box::pin(wait::run(context, &args)).await,
        TaskCommand::Stop(args) => {
            let (daemon, task) = find(context, &args.name).await?;
            Box::pin(stop::stop_task(context, &daemon, &task, &args.graces, args.keep_children)).await
        }
        TaskCommand::Cancel(args) => {
            let (daemon, task) = find(context, &args.name).await?;
            Box::pin(stop::cancel_task(context, &daemon, &task, &args)).await
        }
        TaskCommand::Resume(args) => resume(context, &args).await,
        TaskCommand::Delete(args) => delete(context, &args).await,
    }
}

async fn find(context: &Context, name: &TaskName) -> Result<(Daemon, Task), Failure> {
    let daemon = context.daemon().await?;
    let task = resolve::task(context, &daemon, &name.task, name.project.as_deref()).await?;
    Ok((daemon, task))
}

async fn list(context: &Context, args: &TaskList) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let parent = match &args.parent {
        Some(name) => {
            let task = resolve::task(context, &daemon, name, args.project.as_deref()).await?;
            Some(RunRef { project_id: task.project_id, task_id: task.task_id, run_id: String::new() })
        }
        None => None,
    };
    let request = ListTasksRequest {
        project_id: args.project.clone().unwrap_or_default(),
        phases: args.phase.iter().map(|phase| i32::from(wire_phase(*phase))).collect(),
        parent,
        agent: args.agent.clone().unwrap_or_default(),
        order: order(args.reverse).into(),
        ..ListTasksRequest::default()
    };
    let (tasks, more) = pages(&daemon, request, args.limit).await?;
    context.screen.list(&tasks)?;
    say_more(context, more);
    Ok(())
}

fn wire_phase(phase: PhaseArg) -> TaskPhase {
    match phase {
        PhaseArg::Queued => TaskPhase::Queued,
        PhaseArg::Starting => TaskPhase::Starting,
        PhaseArg::Running => TaskPhase::Running,
        PhaseArg::Backoff => TaskPhase::Backoff,
        PhaseArg::WaitingLimit => TaskPhase::WaitingLimit,
        PhaseArg::WaitingChildren => TaskPhase::WaitingChildren,
        PhaseArg::Stopping => TaskPhase::Stopping,
        PhaseArg::Finished => TaskPhase::Finished,
    }
}

pub(super) fn order(reverse: bool) -> ListOrder {
    if reverse { ListOrder::OldestFirst } else { ListOrder::NewestFirst }
}

/// At most `limit` tasks (0: all), and whether there are more.
pub(super) async fn pages(
    daemon: &Daemon,
    mut request: ListTasksRequest,
    limit: u32,
) -> Result<(Vec<Task>, bool), Failure> {
    let mut all: Vec<Task> = Vec::new();
    loop {
        request.page_size = page_size(limit, all.len());
        let call = async |request| daemon.tasks().list_tasks(request).await;
        let page = daemon.call("list the tasks", request.clone(), call).await?;
        all.extend(page.tasks);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || full(limit, all.len()) {
            return Ok((all, !request.page_token.is_empty()));
        }
    }
}

/// How many to ask for when `have` of `limit` (0: no limit) are there.
pub(super) fn page_size(limit: u32, have: usize) -> u32 {
    let have = u32::try_from(have).unwrap_or(u32::MAX);
    if limit == 0 { PAGE } else { limit.saturating_sub(have).clamp(1, PAGE) }
}

/// Whether `limit` (0: no limit) is reached.
pub(super) fn full(limit: u32, have: usize) -> bool {
    limit > 0 && have >= limit as usize
}

/// Says that a list was cut.
pub(super) fn say_more(context: &Context, more: bool) {
    if more {
        context.screen.aside("there are more: --limit 0 shows all");
    }
}

async fn show(context: &Context, args: &TaskShow) -> Result<(), Failure> {
    let (daemon, task) = find(context, &args.name).await?;
    if !args.prompt {
        return context.screen.show(&task);
    }
    let request = GetTaskPromptRequest { project_id: task.project_id, task_id: task.task_id };
    let call = async |request| daemon.tasks().get_task_prompt(request).await;
    let prompt = daemon.call("read the prompt", request, call).await?.prompt;
    super::logs::write_log(context, prompt.as_bytes(), false, false)?;
    if prompt.ends_with('\n') || !context.screen.out_is_terminal { Ok(()) } else { context.screen.data(b"\n") }
}

async fn why(context: &Context, args: &TaskName) -> Result<(), Failure> {
    let (_, task) = find(context, args).await?;
    if !context.screen.format.is_human() {
        return context.screen.show(&task);
    }
    let state = context.screen.paint(words::task_tone(&task), &words::task_state(&task));
    let text =
        [&task.problem, &task.why].into_iter().find(|text| !text.is_empty()).map_or("no reason is known", |text| text);
    context.screen.line(&format!("{state}: {}", plain(text)))
}

async fn resume(context: &Context, args: &TaskResume) -> Result<(), Failure> {
    let (daemon, task) = find(context, &args.name).await?;
    let folder = args.cwd.as_deref().map(|folder| start::folder(Some(folder))).transpose()?;
    let cwd = folder.as_deref().map(start::text_of).transpose()?.unwrap_or_default();
    let request = ResumeTaskRequest {
        project_id: task.project_id,
        task_id: task.task_id,
        message: args.message.clone(),
        adopt_spec: adopt(&args.adopt, cwd),
        request_id: request_id(None),
    };
    let call = async |request| daemon.tasks().resume_task(request).await;
    let task = daemon.call("resume the task", request, call).await?.task;
    let task = task.ok_or_else(|| Failure::Vanished("the daemon sent no task".into()))?;
    match context.screen.format {
        Format::Table | Format::Wide => {
            let state = context.screen.paint(words::task_tone(&task), &words::task_state(&task));
            context.screen.line(&format!("{}  {state}", task.task_id))?;
            if context.screen.err_is_terminal {
                context.screen.aside(&format!("follow it: conductorctl logs -f {}", task.task_id));
            }
            Ok(())
        }
        _ => context.screen.show(&task),
    }
}

/// The spec of a task to adopt; `None` if no option says anything about it.
fn adopt(args: &SpecArgs, cwd: String) -> Option<TaskSpec> {
    let spec = start::spec_of(args, args.agent.clone().unwrap_or_default(), cwd);
    let nothing = TaskSpec { mode: spec.mode, ..TaskSpec::default() };
    (args.once || spec != nothing).then_some(spec)
}

async fn delete(context: &Context, args: &TaskDelete) -> Result<(), Failure> {
    let (daemon, task) = find(context, &args.name).await?;
    if !args.yes {
        context.confirm(&format!(
            "Delete {}/{} with its {} runs and its bus?",
            task.project_id, task.task_id, task.run_count
        ))?;
    }
    let request = DeleteTaskRequest {
        project_id: task.project_id.clone(),
        task_id: task.task_id.clone(),
        request_id: request_id(None),
    };
    let call = async |request| daemon.tasks().delete_task(request).await;
    let progress = context.screen.progress(&format!("deleting {}/{} …", task.project_id, task.task_id));
    daemon.call("delete the task", request, call).await?;
    drop(progress);
    if context.screen.format == Format::Name {
        return context.screen.line(&task.task_id);
    }
    context
        .screen
        .note(&context.screen.paint_err(Tone::Quiet, &format!("deleted {}/{}", task.project_id, task.task_id)));
    Ok(())
}
