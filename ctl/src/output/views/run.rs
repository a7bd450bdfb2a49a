//! Runs.

use conductor_proto::v1::{Limit, Run, RunStatus, Straggler, Usage};
use serde::Serialize;

use super::super::details::{Line, line, or_dash, toned};
use super::super::table::{Cell, Kind, Table};
use super::super::{Resource, Tone, time, words};
use super::{duration, idle_limit, limit, timestamp};

/// A run for programs.
#[derive(Serialize)]
pub(crate) struct RunView {
    project_id: String,
    task_id: String,
    run_id: String,
    parent_run_id: String,
    previous_run_id: String,
    agent: String,
    attempt: u32,
    status: String,
    outcome: Option<String>,
    exit_code: Option<i32>,
    signal: i32,
    pid: i32,
    start_time: Option<String>,
    end_time: Option<String>,
    cwd: String,
    command_line: String,
    error_summary: String,
    agent_version: String,
    program: String,
    session_id: String,
    model: String,
    usage: Option<UsageView>,
    login: String,
    tier: String,
    stragglers: Vec<StragglerView>,
    stop_reason: String,
    stdout_bytes: u64,
    stderr_bytes: u64,
    cpu_time: Option<String>,
    max_rss_bytes: u64,
    folder: String,
    external: bool,
    wall_time: Option<String>,
    log_limit_bytes: u64,
    idle_warn: Option<String>,
    idle_timeout: Option<String>,
    idle_since: Option<String>,
    revision: u64,
    account: String,
    permissions: Option<String>,
    notes: Vec<String>,
    limit: Option<LimitView>,
    models: Vec<ModelView>,
}

#[derive(Serialize)]
pub(crate) struct UsageView {
    input_tokens: u64,
    cache_read_tokens: u64,
    cache_write_tokens: u64,
    output_tokens: u64,
    cost_usd: Option<f64>,
    cost_kind: Option<String>,
    reasoning_tokens: u64,
}

#[derive(Serialize)]
struct LimitView {
    kind: Option<String>,
    reset_time: Option<String>,
    source: Option<String>,
}

#[derive(Serialize)]
struct ModelView {
    model: String,
    usage: Option<UsageView>,
}

#[derive(Serialize)]
struct StragglerView {
    pid: i32,
    name: String,
    ended: bool,
}

pub(crate) fn usage(usage: &Usage) -> UsageView {
    UsageView {
        input_tokens: usage.input_tokens,
        cache_read_tokens: usage.cache_read_tokens,
        cache_write_tokens: usage.cache_write_tokens,
        output_tokens: usage.output_tokens,
        cost_usd: usage.cost_usd,
        cost_kind: words::cost_kind(usage.cost_kind()),
        reasoning_tokens: usage.reasoning_tokens,
    }
}

fn limit_view(limit: &Limit) -> LimitView {
    LimitView {
        kind: words::limit_kind(limit.kind()),
        reset_time: timestamp(limit.reset_time.as_ref()),
        source: words::limit_source(limit.source()),
    }
}

/// `window, resets 17:46` for people.
fn limit_text(limit: &Limit) -> String {
    let kind = words::limit_kind(limit.kind()).unwrap_or_default();
    let reset = limit
        .reset_time
        .as_ref()
        .map_or_else(|| "reset not known".to_owned(), |at| format!("resets {}", time::clock(at)));
    let source = words::limit_source(limit.source()).map(|source| format!(" (from its {source})")).unwrap_or_default();
    format!("{kind}, {reset}{source}")
}

fn straggler(process: &Straggler) -> StragglerView {
    StragglerView { pid: process.pid, name: process.name.clone(), ended: process.ended }
}

impl Resource for Run {
    type View = RunView;
    const EMPTY: &'static str = "no runs; start one: conductorctl start \"what to do\"";

    fn view(&self) -> RunView {
        RunView {
            project_id: self.project_id.clone(),
            task_id: self.task_id.clone(),
            run_id: self.run_id.clone(),
            parent_run_id: self.parent_run_id.clone(),
            previous_run_id: self.previous_run_id.clone(),
            agent: self.agent.clone(),
            attempt: self.attempt,
            status: words::status(self.status()),
            outcome: words::outcome(self.outcome()),
            exit_code: self.exit_code,
            signal: self.signal,
            pid: self.pid,
            start_time: timestamp(self.start_time.as_ref()),
            end_time: timestamp(self.end_time.as_ref()),
            cwd: self.cwd.clone(),
            command_line: self.command_line.clone(),
            error_summary: self.error_summary.clone(),
            agent_version: self.agent_version.clone(),
            program: self.program.clone(),
            session_id: self.session_id.clone(),
            model: self.model.clone(),
            usage: self.usage.as_ref().map(usage),
            login: self.login.clone(),
            tier: self.tier.clone(),
            stragglers: self.stragglers.iter().map(straggler).collect(),
            stop_reason: self.stop_reason.clone(),
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
            cpu_time: duration(self.cpu_time.as_ref()),
            max_rss_bytes: self.max_rss_bytes,
            folder: self.folder.clone(),
            external: self.external,
            wall_time: duration(self.wall_time.as_ref()),
            log_limit_bytes: self.log_limit_bytes,
            idle_warn: duration(self.idle_warn.as_ref()),
            idle_timeout: duration(self.idle_timeout.as_ref()),
            idle_since: timestamp(self.idle_since.as_ref()),
            revision: self.revision,
            account: self.account.clone(),
            permissions: words::permissions(self.permissions()),
            notes: self.notes.clone(),
            limit: self.limit.as_ref().map(limit_view),
            models: self
                .models
                .iter()
                .map(|one| ModelView { model: one.model.clone(), usage: one.usage.as_ref().map(usage) })
                .collect(),
        }
    }

    fn name(&self) -> String {
        self.run_id.clone()
    }

    fn table(runs: &[Self], wide: bool) -> Table {
        let mut columns = vec![("RUN", Kind::Word), ("TASK", Kind::Id), ("N", Kind::Number), ("STATE", Kind::Word)];
        columns.extend([("AGENT", Kind::Extra), ("TIME", Kind::Number), ("COST", Kind::Extra)]);
        if wide {
            columns.extend([
                ("PROJECT", Kind::Word),
                ("PID", Kind::Number),
                ("MODEL", Kind::Word),
                ("TIER", Kind::Word),
            ]);
            columns.extend([("OUTPUT", Kind::Number), ("PARENT", Kind::Id)]);
        }
        columns.push(("NOTE", Kind::Text));
        let mut table = Table::new(&columns);
        for run in runs {
            let attempt = if run.attempt == 0 { String::new() } else { run.attempt.to_string() };
            let mut row = vec![
                run.run_id.as_str().into(),
                run.task_id.as_str().into(),
                attempt.into(),
                Cell::toned(words::run_state(run), words::run_tone(run)),
                run.agent.as_str().into(),
                time::elapsed_text(run.start_time.as_ref(), known_end(run)).into(),
                words::cost(run).into(),
            ];
            if wide {
                row.push(run.project_id.as_str().into());
                row.push(if run.pid == 0 { String::new() } else { run.pid.to_string() }.into());
                row.push(run.model.as_str().into());
                row.push(run.tier.as_str().into());
                row.push(time::bytes(run.stdout_bytes).into());
                row.push(run.parent_run_id.as_str().into());
            }
            row.push(Cell::toned(note(run), Tone::Quiet));
            table.row(row);
        }
        table
    }

    fn details(&self) -> Vec<Line> {
        let dash = |label, time: &Option<prost_types::Timestamp>| {
            or_dash(label, time.as_ref().map_or(String::new(), time::clock))
        };
        let mut lines = vec![
            toned("run", &self.run_id, Tone::Strong),
            line("task", &self.task_id),
            line("project", &self.project_id),
            or_dash("attempt", if self.attempt == 0 { String::new() } else { self.attempt.to_string() }),
            toned("state", words::run_state(self), words::run_tone(self)),
        ];
        for (label, value) in [("exit", words::exit_text(self)), ("stopped by", self.stop_reason.clone())] {
            if !value.is_empty() {
                lines.push(line(label, value));
            }
        }
        if !self.error_summary.is_empty() {
            lines.push(toned("error", &self.error_summary, Tone::Failed));
        }
        if let Some(since) = &self.idle_since {
            lines.push(toned("idle since", time::clock(since), Tone::Waiting));
        }
        if self.external {
            lines.push(toned("external", "owned by another program; it can't be stopped here", Tone::Waiting));
        }
        lines.extend([
            dash("started", &self.start_time),
            dash("ended", &self.end_time),
            line("time", time::elapsed_text(self.start_time.as_ref(), known_end(self))),
            or_dash("agent", &self.agent),
            or_dash("version", &self.agent_version),
            or_dash("program", &self.program),
            or_dash("login", &self.login),
            or_dash("model", &self.model),
            or_dash("session", &self.session_id),
            or_dash("account", &self.account),
            or_dash("permissions", words::permissions(self.permissions()).unwrap_or_default()),
            or_dash("limit", self.limit.as_ref().map(limit_text).unwrap_or_default()),
            or_dash("usage", self.usage.as_ref().map(words::tokens).unwrap_or_default()),
            or_dash("cost", words::cost(self)),
            or_dash("pid", if self.pid == 0 { String::new() } else { self.pid.to_string() }),
            or_dash("tier", &self.tier),
            or_dash("left over", stragglers(self)),
            line("wall time", limit(self.wall_time.as_ref())),
            line("idle limit", idle_limit(self.idle_warn.as_ref(), self.idle_timeout.as_ref())),
            line(
                "log limit",
                if self.log_limit_bytes == 0 { "none".into() } else { time::bytes(self.log_limit_bytes) },
            ),
            line(
                "output",
                format!("{} on stdout, {} on stderr", time::bytes(self.stdout_bytes), time::bytes(self.stderr_bytes)),
            ),
            or_dash(
                "cpu time",
                self.cpu_time.as_ref().map_or(String::new(), |cpu| time::duration(time::from_wire(cpu))),
            ),
            or_dash("memory", if self.max_rss_bytes == 0 { String::new() } else { time::bytes(self.max_rss_bytes) }),
            or_dash("folder", &self.cwd),
            or_dash("kept in", &self.folder),
            or_dash("command", &self.command_line),
            or_dash("parent run", &self.parent_run_id),
            or_dash("previous run", &self.previous_run_id),
        ]);
        lines.extend(self.notes.iter().map(|note| line("note", note)));
        lines
    }
}

/// The end, or the start for a run that has ended we don't know when: no clock that runs on.
fn known_end(run: &Run) -> Option<&prost_types::Timestamp> {
    match (&run.end_time, run.status()) {
        (Some(end), _) => Some(end),
        (None, RunStatus::Running) => None,
        (None, _) => run.start_time.as_ref(),
    }
}

fn note(run: &Run) -> String {
    if let (Some(_), RunStatus::Running) = (&run.idle_since, run.status()) {
        return format!("idle for {}", time::elapsed_text(run.idle_since.as_ref(), None));
    }
    let ending = words::ending(run);
    if ending == "exit 0" { String::new() } else { ending }
}

fn stragglers(run: &Run) -> String {
    let one = |process: &Straggler| {
        format!("{} ({}){}", process.name, process.pid, if process.ended { "" } else { " still lives" })
    };
    run.stragglers.iter().map(one).collect::<Vec<_>>().join(", ")
}
