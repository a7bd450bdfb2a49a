//! `ps`: what lives now, each task with its run.

use conductor_proto::v1::{ListRunsRequest, ListTasksRequest, Run, RunStatus, Task, TaskPhase};
use serde::Serialize;

use super::{Context, run as runs, task as tasks};
use crate::cli::{Format, Ps};
use crate::errors::Failure;
use crate::output::table::{Cell, Kind, Table};
use crate::output::views::{RunView, TaskView, attempts};
use crate::output::{Resource as _, Tone, time, words};

/// All phases but the last.
const LIVE: [TaskPhase; 7] = [
    TaskPhase::Queued,
    TaskPhase::Starting,
    TaskPhase::Running,
    TaskPhase::Backoff,
    TaskPhase::WaitingLimit,
    TaskPhase::WaitingChildren,
    TaskPhase::Stopping,
];

#[derive(Serialize)]
struct Everything {
    tasks: Vec<TaskView>,
    runs: Vec<RunView>,
}

pub(super) async fn run(context: &Context, args: &Ps) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let project_id = args.project.clone().unwrap_or_default();
    let phases = if args.all { Vec::new() } else { LIVE.iter().map(|phase| i32::from(*phase)).collect() };
    let wanted_tasks = ListTasksRequest { project_id: project_id.clone(), phases, ..ListTasksRequest::default() };
    let wanted_runs =
        ListRunsRequest { project_id, statuses: vec![RunStatus::Running.into()], ..ListRunsRequest::default() };
    let ((tasks, more), (runs, _)) = tokio::try_join!(
        Box::pin(tasks::pages(&daemon, wanted_tasks, args.limit)),
        Box::pin(runs::pages(&daemon, wanted_runs, args.limit)),
    )?;
    match context.screen.format {
        Format::Json | Format::Yaml => context.screen.value(&Everything {
            tasks: tasks.iter().map(Task::view).collect(),
            runs: runs.iter().map(Run::view).collect(),
        })?,
        Format::Name => tasks.iter().try_for_each(|task| context.screen.line(&task.task_id))?,
        Format::Table | Format::Wide if tasks.is_empty() && runs.is_empty() => {
            let more = if args.all { "" } else { "; -a shows what has ended" };
            context.screen.aside(&format!("nothing runs{more}; start a task: conductorctl start \"what to do\""));
        }
        Format::Table | Format::Wide => {
            context.screen.table(table(&tasks, &runs, context.screen.format == Format::Wide))?;
        }
    }
    tasks::say_more(context, more);
    Ok(())
}

/// Rows of tasks; runs whose task is in no row (one that another program runs) get their own.
fn table(tasks: &[Task], runs: &[Run], wide: bool) -> Table {
    let mut columns =
        vec![("PROJECT", Kind::Extra), ("TASK", Kind::Id), ("STATE", Kind::Word), ("ATTEMPT", Kind::Word)];
    columns.extend([("AGENT", Kind::Extra), ("TIME", Kind::Number)]);
    if wide {
        columns.extend([("RUN", Kind::Id), ("PID", Kind::Number), ("MODEL", Kind::Word), ("COST", Kind::Number)]);
        columns.push(("FOLDER", Kind::Text));
    }
    columns.push(("WHY", Kind::Text));
    let mut table = Table::new(&columns);
    for task in tasks {
        let run = runs.iter().find(|run| run.run_id == task.current_run_id && run.task_id == task.task_id);
        table.row(task_row(task, run, wide));
    }
    for run in runs.iter().filter(|run| !tasks.iter().any(|task| task.current_run_id == run.run_id)) {
        table.row(run_row(run, wide));
    }
    table
}

fn task_row(task: &Task, run: Option<&Run>, wide: bool) -> Vec<Cell> {
    let since = run.and_then(|run| run.start_time.as_ref()).or(task.create_time.as_ref());
    let end = task.end.as_ref().and_then(|end| end.time.as_ref());
    let mut row = vec![
        Cell::toned(&task.project_id, Tone::Quiet),
        task.task_id.as_str().into(),
        Cell::toned(words::task_state(task), words::task_tone(task)),
        attempts(task).into(),
        task.spec.as_ref().map_or("", |spec| spec.agent.as_str()).into(),
        time::elapsed_text(since, end).into(),
    ];
    if wide {
        row.extend(run_cells(run));
        row.push(task.spec.as_ref().map_or("", |spec| spec.cwd.as_str()).into());
    }
    let idle = run.and_then(idle_text).filter(|_| task.problem.is_empty());
    row.push(match idle {
        Some(idle) => Cell::toned(idle, Tone::Waiting),
        None => Cell::toned(if task.problem.is_empty() { &task.why } else { &task.problem }, Tone::Quiet),
    });
    row
}

fn run_row(run: &Run, wide: bool) -> Vec<Cell> {
    let attempt = if run.attempt == 0 { String::new() } else { run.attempt.to_string() };
    let mut row = vec![
        Cell::toned(&run.project_id, Tone::Quiet),
        run.task_id.as_str().into(),
        Cell::toned(words::run_state(run), words::run_tone(run)),
        attempt.into(),
        run.agent.as_str().into(),
        time::elapsed_text(run.start_time.as_ref(), run.end_time.as_ref()).into(),
    ];
    if wide {
        row.extend(run_cells(Some(run)));
        row.push(run.cwd.as_str().into());
    }
    row.push(Cell::toned(if run.external { "run by another program" } else { "" }, Tone::Quiet));
    row
}

/// That the task's run has shown no sign of life for long.
fn idle_text(run: &Run) -> Option<String> {
    let since = run.idle_since.as_ref()?;
    Some(format!("idle for {}: no output, message or CPU time", time::elapsed_text(Some(since), None)))
}

fn run_cells(run: Option<&Run>) -> [Cell; 4] {
    let Some(run) = run else { return ["", "", "", ""].map(Cell::from) };
    let pid = if run.pid == 0 { String::new() } else { run.pid.to_string() };
    [run.run_id.as_str().into(), pid.into(), run.model.as_str().into(), words::cost(run).into()]
}
