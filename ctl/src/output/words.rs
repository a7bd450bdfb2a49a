//! The words of the wire's enums, and the colour that goes with each state. A state is always its word too.

use conductor_proto::v1::{
    ChildPolicy, CostKind, EndReason, ExitPolicy, LimitKind, LimitSource, Permissions, Run, RunOutcome, RunStatus,
    Task, TaskMode, TaskPhase, Usage, UsageRow,
};

/// How a text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Strong,
    Quiet,
    Running,
    Good,
    Waiting,
    Failed,
}

/// Paints `text`, if colours are `wanted`.
pub(crate) fn paint(wanted: bool, tone: Tone, text: &str) -> String {
    let code = match tone {
        _ if !wanted => return text.to_owned(),
        Tone::Plain => return text.to_owned(),
        Tone::Strong => "1",
        Tone::Quiet => "2",
        Tone::Running => "34",
        Tone::Good => "32",
        Tone::Waiting => "33",
        Tone::Failed => "31",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// The lower-case word of an enum value without the enum's prefix; `None` for unspecified.
fn word(name: &str, prefix: &str) -> Option<String> {
    let word = name.strip_prefix(prefix)?.to_ascii_lowercase();
    (word != "unspecified").then_some(word)
}

pub(crate) fn phase(phase: TaskPhase) -> String {
    word(phase.as_str_name(), "TASK_PHASE_").unwrap_or_else(|| "unknown".into())
}

pub(crate) fn end_reason(reason: EndReason) -> Option<String> {
    word(reason.as_str_name(), "END_REASON_")
}

pub(crate) fn outcome(outcome: RunOutcome) -> Option<String> {
    word(outcome.as_str_name(), "RUN_OUTCOME_")
}

pub(crate) fn status(status: RunStatus) -> String {
    word(status.as_str_name(), "RUN_STATUS_").unwrap_or_else(|| "unknown".into())
}

pub(crate) fn cost_kind(kind: CostKind) -> Option<String> {
    word(kind.as_str_name(), "COST_KIND_")
}

pub(crate) fn limit_kind(kind: LimitKind) -> Option<String> {
    word(kind.as_str_name(), "LIMIT_KIND_")
}

pub(crate) fn limit_source(source: LimitSource) -> Option<String> {
    word(source.as_str_name(), "LIMIT_SOURCE_")
}

pub(crate) fn permissions(permissions: Permissions) -> Option<String> {
    word(permissions.as_str_name(), "PERMISSIONS_")
}

pub(crate) fn mode(mode: TaskMode) -> String {
    word(mode.as_str_name(), "TASK_MODE_").unwrap_or_else(|| "loop".into())
}

pub(crate) fn child_policy(policy: ChildPolicy) -> String {
    word(policy.as_str_name(), "CHILD_POLICY_").unwrap_or_else(|| "detach".into())
}

pub(crate) fn exit_policy(policy: ExitPolicy) -> String {
    word(policy.as_str_name(), "EXIT_POLICY_").unwrap_or_else(|| "sweep".into())
}

/// The word for a task's state: its phase, or once it has ended, why.
pub(crate) fn task_state(task: &Task) -> String {
    let ended = task.end.as_ref().and_then(|end| end_reason(end.reason()));
    match task.phase() {
        TaskPhase::Finished => ended.unwrap_or_else(|| "finished".into()),
        other => phase(other),
    }
}

/// The colour of a task's state.
pub(crate) fn task_tone(task: &Task) -> Tone {
    match task.phase() {
        TaskPhase::Unspecified => Tone::Quiet,
        TaskPhase::Starting | TaskPhase::Running => Tone::Running,
        TaskPhase::Queued
        | TaskPhase::Backoff
        | TaskPhase::WaitingLimit
        | TaskPhase::WaitingChildren
        | TaskPhase::Stopping => Tone::Waiting,
        TaskPhase::Finished => match task.end.as_ref().map_or(EndReason::Unspecified, |end| end.reason()) {
            EndReason::Done => Tone::Good,
            EndReason::MaxRestarts | EndReason::NeedsAttention => Tone::Failed,
            EndReason::Stopped | EndReason::Cancelled | EndReason::Unspecified => Tone::Quiet,
        },
    }
}

/// The word for a run's state: its outcome, or while it has none, its status.
pub(crate) fn run_state(run: &Run) -> String {
    outcome(run.outcome()).unwrap_or_else(|| status(run.status()))
}

/// The colour of a run's state.
pub(crate) fn run_tone(run: &Run) -> Tone {
    match (run.outcome(), run.status()) {
        (RunOutcome::Unspecified, RunStatus::Running) => Tone::Running,
        (RunOutcome::Completed, _) | (RunOutcome::Unspecified, RunStatus::Completed) => Tone::Good,
        (RunOutcome::Stopped | RunOutcome::Lost, _) => Tone::Quiet,
        (RunOutcome::UsageLimited, _) => Tone::Waiting,
        (RunOutcome::Unspecified, RunStatus::Unspecified | RunStatus::Unknown) => Tone::Quiet,
        _ => Tone::Failed,
    }
}

/// `exit 1`, `signal 9`, or nothing.
pub(crate) fn exit_text(run: &Run) -> String {
    match (run.exit_code, run.signal) {
        (_, signal) if signal != 0 => format!("signal {signal}"),
        (Some(code), _) => format!("exit {code}"),
        _ => String::new(),
    }
}

/// How a run ended, in words: its exit, and the reason where that says more.
pub(crate) fn ending(run: &Run) -> String {
    let (exit, reason) = (exit_text(run), run.error_summary.as_str());
    // Most reasons name the exit themselves.
    let named = reason.starts_with("exit code") || reason.starts_with("ended by");
    match (exit.as_str(), reason) {
        ("", reason) => reason.to_owned(),
        (exit, "") => exit.to_owned(),
        (_, reason) if named => reason.to_owned(),
        (exit, reason) => format!("{exit}: {reason}"),
    }
}

/// `200 in, 25 out, cache 60 read, 0 written`.
pub(crate) fn tokens(usage: &Usage) -> String {
    let mut text = format!(
        "{} in, {} out, cache {} read, {} written",
        usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens
    );
    if usage.reasoning_tokens > 0 {
        text += &format!(" ({} of the output was reasoning)", usage.reasoning_tokens);
    }
    text
}

/// What a group of runs used, in one sentence.
pub(crate) fn used(row: &UsageRow) -> String {
    let Some(usage) = row.usage.as_ref().filter(|_| row.runs > 0) else { return String::new() };
    let mut text = if row.runs > row.runs_without_usage {
        format!("{}; {}", cost_of(row.usage.as_ref()), tokens(usage))
    } else {
        "–".to_owned()
    };
    if row.runs_without_usage > 0 {
        text += &format!("; nothing is known of {} of {} runs", row.runs_without_usage, row.runs);
    }
    text
}

/// `$0.42`; `–` if it is not known.
pub(crate) fn cost(run: &Run) -> String {
    cost_of(run.usage.as_ref())
}

/// The same for any use.
pub(crate) fn cost_of(usage: Option<&Usage>) -> String {
    let Some((usage, dollars)) = usage.and_then(|usage| Some((usage, usage.cost_usd?))) else {
        return "–".into();
    };
    let amount =
        if dollars != 0.0 && dollars.abs() < 0.01 { format!("${dollars:.4}") } else { format!("${dollars:.2}") };
    match usage.cost_kind() {
        CostKind::Partial => format!("≥ {amount}"),
        CostKind::Estimated => format!("~{amount}"),
        CostKind::Exact | CostKind::Unspecified => amount,
    }
}
