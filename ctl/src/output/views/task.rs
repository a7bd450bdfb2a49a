//! Tasks.

use conductor_proto::v1::{RunRef, Task, TaskEnd, TaskPhase, TaskSpec};
use serde::Serialize;

use super::super::details::{Line, line, or_dash, toned};
use super::super::table::{Cell, Kind, Table};
use super::super::{Resource, Tone, time, words};
use super::usage::{RowView, row_view};
use super::{duration, idle_limit, limit, timestamp};

/// A task for programs.
#[derive(Serialize)]
pub(crate) struct TaskView {
    project_id: String,
    task_id: String,
    spec: Option<SpecView>,
    phase: String,
    why: String,
    end: Option<EndView>,
    attempt: u32,
    current_run_id: String,
    last_run_id: String,
    parent: Option<RefView>,
    live_child_count: u32,
    queue_position: u32,
    next_attempt_time: Option<String>,
    create_time: Option<String>,
    update_time: Option<String>,
    foreign: bool,
    problem: String,
    title: String,
    revision: u64,
    run_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<RowView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tree_usage: Option<RowView>,
}

#[derive(Serialize)]
struct SpecView {
    agent: String,
    mode: String,
    cwd: String,
    model: String,
    extra_args: Vec<String>,
    max_restarts: u32,
    restart_delay: Option<String>,
    child_wait_timeout: Option<String>,
    on_child_timeout: String,
    wall_time: Option<String>,
    log_limit_bytes: u64,
    on_exit: String,
    permissions: Option<String>,
    probe: bool,
    idle_warn: Option<String>,
    idle_timeout: Option<String>,
}

#[derive(Serialize)]
struct EndView {
    reason: Option<String>,
    detail: String,
    time: Option<String>,
}

#[derive(Serialize)]
struct RefView {
    project_id: String,
    task_id: String,
    run_id: String,
}

fn spec(spec: &TaskSpec) -> SpecView {
    SpecView {
        agent: spec.agent.clone(),
        mode: words::mode(spec.mode()),
        cwd: spec.cwd.clone(),
        model: spec.model.clone(),
        extra_args: spec.extra_args.clone(),
        max_restarts: spec.max_restarts,
        restart_delay: duration(spec.restart_delay.as_ref()),
        child_wait_timeout: duration(spec.child_wait_timeout.as_ref()),
        on_child_timeout: words::child_policy(spec.on_child_timeout()),
        wall_time: duration(spec.wall_time.as_ref()),
        log_limit_bytes: spec.log_limit_bytes,
        on_exit: words::exit_policy(spec.on_exit()),
        permissions: words::permissions(spec.permissions()),
        probe: spec.probe,
        idle_warn: duration(spec.idle_warn.as_ref()),
        idle_timeout: duration(spec.idle_timeout.as_ref()),
    }
}

fn end(end: &TaskEnd) -> EndView {
    EndView { reason: words::end_reason(end.reason()), detail: end.detail.clone(), time: timestamp(end.time.as_ref()) }
}

fn run_ref(run: &RunRef) -> RefView {
    RefView { project_id: run.project_id.clone(), task_id: run.task_id.clone(), run_id: run.run_id.clone() }
}

impl Resource for Task {
    type View = TaskView;
    const EMPTY: &'static str = "no tasks; submit one: conductorctl start \"what to do\"";

    fn view(&self) -> TaskView {
        TaskView {
            project_id: self.project_id.clone(),
            task_id: self.task_id.clone(),
            spec: self.spec.as_ref().map(spec),
            phase: words::phase(self.phase()),
            why: self.why.clone(),
            end: self.end.as_ref().map(end),
            attempt: self.attempt,
            current_run_id: self.current_run_id.clone(),
            last_run_id: self.last_run_id.clone(),
            parent: self.parent.as_ref().map(run_ref),
            live_child_count: self.live_child_count,
            queue_position: self.queue_position,
            next_attempt_time: timestamp(self.next_attempt_time.as_ref()),
            create_time: timestamp(self.create_time.as_ref()),
            update_time: timestamp(self.update_time.as_ref()),
            foreign: self.foreign,
            problem: self.problem.clone(),
            title: self.title.clone(),
            revision: self.revision,
            run_count: self.run_count,
            usage: self.usage.as_ref().map(row_view),
            tree_usage: self.tree_usage.as_ref().map(row_view),
        }
    }

    fn name(&self) -> String {
        self.task_id.clone()
    }

    fn table(tasks: &[Self], wide: bool) -> Table {
        let mut columns =
            vec![("PROJECT", Kind::Extra), ("TASK", Kind::Id), ("STATE", Kind::Word), ("ATTEMPT", Kind::Word)];
        columns.extend([("AGENT", Kind::Extra), ("AGE", Kind::Number)]);
        if wide {
            columns.extend([
                ("RUNS", Kind::Number),
                ("CHILDREN", Kind::Number),
                ("RUN", Kind::Id),
                ("PARENT", Kind::Id),
            ]);
            columns.push(("FOLDER", Kind::Text));
        }
        columns.push((if wide { "WHY" } else { "TITLE" }, Kind::Text));
        let mut table = Table::new(&columns);
        for task in tasks {
            let spec = task.spec.as_ref();
            let mut row = vec![
                Cell::toned(&task.project_id, Tone::Quiet),
                task.task_id.as_str().into(),
                Cell::toned(words::task_state(task), words::task_tone(task)),
                attempts(task).into(),
                spec.map_or("", |spec| spec.agent.as_str()).into(),
                time::elapsed_text(task.create_time.as_ref(), None).into(),
            ];
            if wide {
                row.push(task.run_count.to_string().into());
                row.push(task.live_child_count.to_string().into());
                row.push(
                    if task.current_run_id.is_empty() { &task.last_run_id } else { &task.current_run_id }
                        .as_str()
                        .into(),
                );
                row.push(task.parent.as_ref().map_or("", |parent| parent.run_id.as_str()).into());
                row.push(spec.map_or("", |spec| spec.cwd.as_str()).into());
            }
            let text = if wide { &task.why } else { &task.title };
            row.push(Cell::toned(if task.problem.is_empty() { text } else { &task.problem }, Tone::Quiet));
            table.row(row);
        }
        table
    }

    fn details(&self) -> Vec<Line> {
        let mut lines = vec![
            toned("task", &self.task_id, Tone::Strong),
            line("project", &self.project_id),
            toned("state", words::task_state(self), words::task_tone(self)),
            or_dash("why", &self.why),
        ];
        if let Some(end) = self.end.as_ref().filter(|end| !end.detail.is_empty()) {
            lines.push(line("end", &end.detail));
        }
        if !self.problem.is_empty() {
            lines.push(toned("problem", &self.problem, Tone::Failed));
        }
        if self.foreign {
            lines.push(toned("foreign", "kept by another program; `task resume` adopts it", Tone::Waiting));
        }
        lines.extend([
            or_dash("title", &self.title),
            or_dash("attempt", attempts(self)),
            line("runs", self.run_count.to_string()),
        ]);
        let used = self.usage.as_ref().map(words::used).unwrap_or_default();
        let below = self.tree_usage.as_ref().map(words::used).unwrap_or_default();
        lines.push(or_dash("used", used.clone()));
        if below != used {
            lines.push(or_dash("with children", below));
        }
        if self.phase() == TaskPhase::Queued && self.queue_position > 0 {
            lines.push(line("queue position", self.queue_position.to_string()));
        }
        if let Some(next) = &self.next_attempt_time {
            lines.push(line("next attempt", time::clock(next)));
        }
        lines.push(or_dash("current run", &self.current_run_id));
        lines.push(or_dash("last run", &self.last_run_id));
        lines.push(or_dash(
            "parent",
            self.parent.as_ref().map_or(String::new(), |run| format!("{}/{}", run.task_id, run.run_id)),
        ));
        lines.push(line("live children", self.live_child_count.to_string()));
        lines.push(or_dash("created", self.create_time.as_ref().map_or(String::new(), time::clock)));
        lines.push(or_dash("changed", self.update_time.as_ref().map_or(String::new(), time::clock)));
        if let Some(spec) = &self.spec {
            lines.extend(spec_lines(spec));
        }
        lines
    }
}

fn spec_lines(spec: &TaskSpec) -> Vec<Line> {
    let mut lines = vec![
        or_dash("agent", &spec.agent),
        line("model", if spec.model.is_empty() { "the agent's default" } else { &spec.model }),
        line("mode", words::mode(spec.mode())),
        or_dash("folder", &spec.cwd),
        line("wall time", limit(spec.wall_time.as_ref())),
        line("permissions", words::permissions(spec.permissions()).unwrap_or_else(|| "as the agent's".to_owned())),
        line("idle limit", idle_limit(spec.idle_warn.as_ref(), spec.idle_timeout.as_ref())),
        line("log limit", if spec.log_limit_bytes == 0 { "none".into() } else { time::bytes(spec.log_limit_bytes) }),
        line("restart delay", limit(spec.restart_delay.as_ref())),
        line(
            "child wait",
            format!(
                "{}, then {}",
                limit(spec.child_wait_timeout.as_ref()),
                words::child_policy(spec.on_child_timeout())
            ),
        ),
        line("on exit", words::exit_policy(spec.on_exit())),
    ];
    if !spec.extra_args.is_empty() {
        lines.push(line("arguments", spec.extra_args.join(" ")));
    }
    lines
}

/// `2/100`, `1` for a single run, nothing where no limit is known.
pub(crate) fn attempts(task: &Task) -> String {
    match &task.spec {
        Some(spec) if spec.mode() != conductor_proto::v1::TaskMode::Once && spec.max_restarts > 0 => {
            format!("{}/{}", task.attempt, spec.max_restarts)
        }
        Some(_) => task.attempt.to_string(),
        None if task.attempt > 0 => task.attempt.to_string(),
        None => String::new(),
    }
}
