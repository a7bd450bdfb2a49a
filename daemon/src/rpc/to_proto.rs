//! Domain types to wire types. Free functions; what needs more than the value itself takes it as an argument.

use std::time::Duration;

use conductor_core::agents::{Finding, Level};
use conductor_core::store::catalog::Catalog;
use conductor_core::store::{ProjectRecord, TaskRecord};
use conductor_core::supervisor::{AccountTrouble, AgentInfo, CheckReport, ProcessInfo, Supervisor, UsageRow};
use conductor_core::types::{
    ChildPolicy, CostKind, End, EndReason, ExitPolicy, Limit, LimitKind, LimitSource, Message, Mode, Outcome,
    Ownership, Permissions, Phase, RunInfo, RunKey, RunStatus, Straggler, TaskSpec, Timestamp, Usage,
};
use conductor_proto::v1;
use conductor_shim::protocol::Tier;

/// A point in time.
pub(super) fn time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }.normalized()
}

/// A span of time; more than the wire holds becomes the most that it does.
pub(super) fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

/// A project, with counts from the catalog.
pub(super) fn project(project: &ProjectRecord, catalog: &Catalog) -> v1::Project {
    let (all, live) = catalog.task_counts(&project.id);
    v1::Project {
        project_id: project.id.to_string(),
        root_path: project.root.as_ref().map(|root| root.display().to_string()).unwrap_or_default(),
        create_time: project.created.map(time),
        task_count: count(all),
        live_task_count: count(live),
        revision: project.revision,
    }
}

/// A task, with counts from the catalog and its place in the queue.
pub(super) fn task(task: &TaskRecord, supervisor: &Supervisor) -> v1::Task {
    let catalog = supervisor.catalog();
    let is_queued = task.phase == Some(Phase::Queued);
    let current = task.current_run.as_ref().map(ToString::to_string);
    let previous = task.previous_run.as_ref().map(ToString::to_string);
    v1::Task {
        project_id: task.key.project.to_string(),
        task_id: task.key.task.to_string(),
        spec: task.spec.as_ref().map(spec),
        phase: task_phase(task).into(),
        why: task.why.clone(),
        end: task.end.as_ref().map(end),
        attempt: task.attempts,
        last_run_id: current.clone().or(previous).unwrap_or_default(),
        current_run_id: current.unwrap_or_default(),
        parent: task.parent.as_ref().map(run_ref),
        live_child_count: count(catalog.live_children(&task.key)),
        queue_position: if is_queued { supervisor.queue_position(&task.key) } else { 0 },
        next_attempt_time: task.next_attempt.map(time),
        create_time: Some(time(task.created)),
        update_time: Some(time(task.updated)),
        foreign: task.foreign.is_some(),
        problem: text(task.problem.as_ref()),
        title: task.title.clone(),
        revision: task.revision,
        run_count: count(catalog.run_count(&task.key)),
        usage: None,
        tree_usage: None,
    }
}

fn spec(spec: &TaskSpec) -> v1::TaskSpec {
    v1::TaskSpec {
        agent: spec.agent.clone(),
        mode: match spec.mode {
            Mode::Loop => v1::TaskMode::Loop,
            Mode::Once => v1::TaskMode::Once,
        }
        .into(),
        cwd: spec.cwd.clone(),
        model: text(spec.model.as_ref()),
        extra_args: spec.extra_args.clone(),
        max_restarts: spec.max_restarts,
        restart_delay: Some(duration(spec.restart_delay)),
        child_wait_timeout: Some(duration(spec.child_wait_timeout)),
        on_child_timeout: match spec.on_child_timeout {
            ChildPolicy::Detach => v1::ChildPolicy::Detach,
            ChildPolicy::Stop => v1::ChildPolicy::Stop,
            ChildPolicy::Wait => v1::ChildPolicy::Wait,
        }
        .into(),
        wall_time: spec.wall_time.map(duration),
        log_limit_bytes: spec.log_limit.unwrap_or(0),
        on_exit: match spec.on_exit {
            ExitPolicy::Sweep => v1::ExitPolicy::Sweep,
            ExitPolicy::Report => v1::ExitPolicy::Report,
            ExitPolicy::Keep => v1::ExitPolicy::Keep,
        }
        .into(),
        idle_warn: spec.idle_warn.map(duration),
        idle_timeout: spec.idle_timeout.map(duration),
        permissions: permissions(spec.permissions),
        probe: spec.probe,
    }
}

/// The phase; of another program's task as far as it corresponds to one.
fn task_phase(task: &TaskRecord) -> v1::TaskPhase {
    match (task.phase, &task.foreign) {
        (Some(own), _) => phase(own),
        (None, Some(_)) if task.end.is_some() => v1::TaskPhase::Finished,
        (None, Some(_)) if task.is_active() => v1::TaskPhase::Running,
        (None, _) => v1::TaskPhase::Unspecified,
    }
}

fn phase(phase: Phase) -> v1::TaskPhase {
    match phase {
        Phase::Queued => v1::TaskPhase::Queued,
        Phase::Starting => v1::TaskPhase::Starting,
        Phase::Running => v1::TaskPhase::Running,
        Phase::Backoff => v1::TaskPhase::Backoff,
        Phase::WaitingLimit => v1::TaskPhase::WaitingLimit,
        Phase::WaitingChildren => v1::TaskPhase::WaitingChildren,
        Phase::Stopping => v1::TaskPhase::Stopping,
        Phase::Finished => v1::TaskPhase::Finished,
    }
}

fn end(end: &End) -> v1::TaskEnd {
    let reason = match end.reason {
        EndReason::Done => v1::EndReason::Done,
        EndReason::MaxRestarts => v1::EndReason::MaxRestarts,
        EndReason::Stopped => v1::EndReason::Stopped,
        EndReason::Cancelled => v1::EndReason::Cancelled,
        EndReason::NeedsAttention => v1::EndReason::NeedsAttention,
    };
    v1::TaskEnd { reason: reason.into(), detail: end.detail.clone(), time: Some(time(end.time)) }
}

/// The name of a run.
pub(super) fn run_ref(run: &RunKey) -> v1::RunRef {
    v1::RunRef {
        project_id: run.task.project.to_string(),
        task_id: run.task.task.to_string(),
        run_id: run.run.to_string(),
    }
}

/// A run. `bytes` are the sizes of its logs where the record does not have them yet; `folder` is its folder.
pub(super) fn run(run: &RunInfo, folder: String, bytes: (u64, u64), revision: u64) -> v1::Run {
    // -1 stands for "none" on disk.
    let exit_code = (run.has_ended() && run.exit_code >= 0).then_some(run.exit_code);
    v1::Run {
        project_id: run.project_id.to_string(),
        task_id: run.task_id.to_string(),
        run_id: run.run_id.to_string(),
        parent_run_id: run.parent_run_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        previous_run_id: run.previous_run_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        agent: run.agent.clone(),
        attempt: run.attempt,
        status: run_status(run.status).into(),
        outcome: run.outcome.map_or(v1::RunOutcome::Unspecified, outcome).into(),
        exit_code,
        signal: run.signal.unwrap_or(0),
        pid: run.pid,
        start_time: Some(time(run.start_time)),
        end_time: run.end_time.map(time),
        cwd: text(run.cwd.as_ref()),
        command_line: text(run.commandline.as_ref()),
        error_summary: text(run.error_summary.as_ref()),
        agent_version: run.agent_version.clone(),
        program: text(run.program.as_ref()),
        session_id: text(run.session_id.as_ref()),
        model: text(run.model.as_ref()),
        usage: run.usage.as_ref().map(usage),
        login: text(run.login.as_ref()),
        tier: text(run.tier.as_ref()),
        stragglers: run.stragglers.iter().map(straggler).collect(),
        stop_reason: text(run.stop_reason.as_ref()),
        stdout_bytes: run.stdout_bytes.unwrap_or(bytes.0),
        stderr_bytes: run.stderr_bytes.unwrap_or(bytes.1),
        cpu_time: run.cpu_ms.map(Duration::from_millis).map(duration),
        max_rss_bytes: run.max_rss_kib.unwrap_or(0).saturating_mul(1024),
        folder,
        external: run.ownership == Ownership::External,
        wall_time: run.limits.wall_time.map(duration),
        log_limit_bytes: run.limits.log_bytes.unwrap_or(0),
        revision,
        idle_warn: run.limits.idle_warn.map(duration),
        idle_timeout: run.limits.idle_timeout.map(duration),
        idle_since: run.idle_since.map(time),
        account: text(run.account.as_ref()),
        permissions: permissions(run.permissions),
        notes: run.notes.clone(),
        limit: run.limit.as_ref().map(limit),
        models: run
            .models
            .iter()
            .map(|(model, used)| v1::ModelUsage { model: model.clone(), usage: Some(usage(used)) })
            .collect(),
    }
}

fn run_status(status: RunStatus) -> v1::RunStatus {
    match status {
        RunStatus::Running => v1::RunStatus::Running,
        RunStatus::Completed => v1::RunStatus::Completed,
        RunStatus::Failed => v1::RunStatus::Failed,
        RunStatus::Unknown => v1::RunStatus::Unknown,
    }
}

fn outcome(outcome: Outcome) -> v1::RunOutcome {
    match outcome {
        Outcome::Completed => v1::RunOutcome::Completed,
        Outcome::Failed => v1::RunOutcome::Failed,
        Outcome::Signaled => v1::RunOutcome::Signaled,
        Outcome::Oom => v1::RunOutcome::Oom,
        Outcome::TimedOut => v1::RunOutcome::TimedOut,
        Outcome::LogLimit => v1::RunOutcome::LogLimit,
        Outcome::Stopped => v1::RunOutcome::Stopped,
        Outcome::UsageLimited => v1::RunOutcome::UsageLimited,
        Outcome::AuthFailed => v1::RunOutcome::AuthFailed,
        Outcome::SpawnFailed => v1::RunOutcome::SpawnFailed,
        Outcome::Lost => v1::RunOutcome::Lost,
    }
}

pub(super) fn usage(usage: &Usage) -> v1::Usage {
    let kind = usage.cost.map_or(v1::CostKind::Unspecified, |cost| match cost.kind {
        CostKind::Exact => v1::CostKind::Exact,
        CostKind::Estimated => v1::CostKind::Estimated,
        CostKind::Partial => v1::CostKind::Partial,
    });
    v1::Usage {
        input_tokens: usage.input,
        cache_read_tokens: usage.cache_read,
        cache_write_tokens: usage.cache_write,
        output_tokens: usage.output,
        reasoning_tokens: usage.reasoning,
        cost_usd: usage.cost.map(|cost| cost.usd),
        cost_kind: kind.into(),
    }
}

/// A group of runs.
pub(super) fn usage_row(row: UsageRow) -> v1::UsageRow {
    v1::UsageRow {
        usage: Some(usage(&row.usage)),
        key: row.key,
        runs: row.runs,
        runs_without_usage: row.without_usage,
        runs_without_cost: row.without_cost,
    }
}

fn permissions(permissions: Option<Permissions>) -> i32 {
    let known = permissions.map_or(v1::Permissions::Unspecified, |permissions| match permissions {
        Permissions::Confined => v1::Permissions::Confined,
        Permissions::Full => v1::Permissions::Full,
    });
    known.into()
}

pub(super) fn limit(limit: &Limit) -> v1::Limit {
    v1::Limit {
        kind: limit_kind(limit.kind).into(),
        reset_time: limit.resets_at.map(time),
        source: limit_source(limit.source).into(),
    }
}

fn limit_kind(kind: LimitKind) -> v1::LimitKind {
    match kind {
        LimitKind::Window => v1::LimitKind::Window,
        LimitKind::Daily => v1::LimitKind::Daily,
        LimitKind::Spend => v1::LimitKind::Spend,
        LimitKind::Credits => v1::LimitKind::Credits,
        LimitKind::Overload => v1::LimitKind::Overload,
        LimitKind::Auth => v1::LimitKind::Auth,
    }
}

fn limit_source(source: LimitSource) -> v1::LimitSource {
    match source {
        LimitSource::Json => v1::LimitSource::Json,
        LimitSource::Stderr => v1::LimitSource::Stderr,
        LimitSource::Text => v1::LimitSource::Text,
    }
}

fn trouble(trouble: AccountTrouble) -> v1::AccountTrouble {
    v1::AccountTrouble {
        kind: limit_kind(trouble.kind).into(),
        since: Some(time(trouble.since)),
        until: trouble.until.map(time),
        until_known: trouble.known,
        source: trouble.source.map_or(v1::LimitSource::Unspecified, limit_source).into(),
        agent: trouble.agent,
        run: trouble.run,
        message: trouble.message,
    }
}

fn straggler(straggler: &Straggler) -> v1::Straggler {
    v1::Straggler { pid: straggler.pid, name: straggler.name.clone(), ended: straggler.ended }
}

/// A process of a run.
pub(super) fn process(process: &ProcessInfo) -> v1::Process {
    v1::Process {
        pid: process.pid,
        parent_pid: process.ppid,
        process_group: process.pgid,
        session: process.sid,
        name: process.name.clone(),
        state: process.state.to_string(),
        rss_bytes: process.rss_bytes,
        cpu_time: Some(duration(process.cpu)),
    }
}

/// A message of a bus.
pub(super) fn message(message: Message) -> v1::BusMessage {
    v1::BusMessage {
        msg_id: message.id.into(),
        time: message.time.map(time),
        r#type: message.kind,
        project_id: message.project,
        task_id: message.task,
        run_id: message.run,
        issue_id: message.issue.unwrap_or_default(),
        parents: message
            .parents
            .into_iter()
            .map(|parent| v1::MessageParent {
                msg_id: parent.id,
                kind: parent.kind,
                meta: parent.meta.into_iter().collect(),
            })
            .collect(),
        links: message
            .links
            .into_iter()
            .map(|link| v1::MessageLink { url: link.url, label: link.label, kind: link.kind })
            .collect(),
        meta: message.meta.into_iter().collect(),
        body: message.body,
    }
}

/// An agent.
pub(super) fn agent(agent: AgentInfo) -> v1::Agent {
    v1::Agent {
        name: agent.name,
        r#type: agent.kind,
        installed: agent.installed,
        program: agent.program.unwrap_or_default(),
        version: agent.version.unwrap_or_default(),
        login: agent.login,
        is_default: agent.is_default,
        problem: agent.problem.unwrap_or_default(),
        model: agent.model.unwrap_or_default(),
        account: agent.account,
        trouble: agent.trouble.map(trouble),
        permissions: permissions(agent.permissions),
        permissions_problem: agent.permissions_problem.unwrap_or_default(),
    }
}

/// What a check found.
pub(super) fn check(report: CheckReport) -> v1::CheckAgentsResponse {
    let findings = |all: Vec<Finding>| all.into_iter().map(finding).collect();
    v1::CheckAgentsResponse {
        machine: findings(report.machine),
        agents: report
            .agents
            .into_iter()
            .map(|checked| v1::AgentCheck { agent: Some(agent(checked.info)), findings: findings(checked.findings) })
            .collect(),
        shell: report
            .shell
            .into_iter()
            .map(|(subject, text)| v1::Finding {
                level: v1::FindingLevel::Notice.into(),
                subject,
                text,
                fix: String::new(),
            })
            .collect(),
    }
}

fn finding(found: Finding) -> v1::Finding {
    v1::Finding {
        level: match found.level {
            Level::Good => v1::FindingLevel::Good,
            Level::Notice => v1::FindingLevel::Notice,
            Level::Problem => v1::FindingLevel::Problem,
        }
        .into(),
        subject: found.subject.to_owned(),
        text: found.text,
        fix: found.fix.unwrap_or_default(),
    }
}

/// The name of a tier.
pub(super) fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Cgroup => "cgroup",
        Tier::Walk => "walk",
    }
}
