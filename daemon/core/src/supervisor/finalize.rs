//! The end of a run: from what the shim recorded and the agent printed to the durable record. Idempotent.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use conductor_shim::failpoint;
use conductor_shim::protocol::{Cause, Exit, Tier};

use super::shared::Shared;
use crate::agents::{Adapter, EndCause, ExitFacts, Stream, StreamSummary, output};
use crate::config::{AgentKind, Prices};
use crate::ralph::{Interruption, LastRun, RunEnd};
use crate::runner::{Cut, RunFinish, read_stop};
use crate::store::{self, StoreError};
use crate::types::{Outcome, RunInfo, RunStatus, Straggler, Timestamp, Usage, UsageScope};

/// Lines of standard error that an entry on the bus carries (as in conductor-loop).
const TAIL_LINES: usize = 50;
/// Bytes that they may have together, so that one line of 100 MB makes no message of 100 MB.
const TAIL_BYTES: u64 = 16 << 10;
/// Bytes of standard output that are parsed at the end; beyond, an agent's stream is no conversation any more.
const MAX_PARSED: u64 = 1 << 30;
/// One read of a log.
const READ: usize = 256 << 10;

/// Writes the end into `run-info.yaml` and makes `output.md`; returns what the loop needs to know. Blocks.
///
/// # Errors
/// The record can't be written (disk full); nothing is lost, since `exit.json` stays: call it again.
pub(super) fn finalize(shared: &Shared, info: &RunInfo, finish: &RunFinish) -> Result<(RunInfo, RunEnd), StoreError> {
    let folder = shared.run_dir(&info.key());
    point("daemon.exit.before_consume", &folder)?;
    let adapter = shared.agents().get(&info.agent).cloned();
    // What a plain command prints is no conversation, and may be gigabytes.
    let speaks = adapter.as_deref().filter(|adapter| adapter.kind() != AgentKind::Command);
    let summary = speaks.map(|adapter| parse(adapter, info)).unwrap_or_default();
    let tail = stderr_tail(adapter.as_deref(), info);
    let facts = facts(finish, idle_stop(&folder, finish), &tail);
    let judged = match (&adapter, finish) {
        (_, RunFinish::NeverStarted | RunFinish::Lost(_)) | (None, _) => facts.classify(),
        (Some(adapter), RunFinish::Exited(_)) => adapter.classify(&facts, &summary),
    };
    let mut record = info.clone();
    if record.pid == 0
        && let Ok(Some(start)) = crate::runner::read_start(&folder)
    {
        record.pid = start.agent.pid;
        record.pgid = start.pgid;
    }
    apply_exit(&mut record, finish);
    record.outcome = Some(judged.outcome);
    record.status = match judged.outcome {
        Outcome::Completed => RunStatus::Completed,
        Outcome::Lost => RunStatus::Unknown,
        _ => RunStatus::Failed,
    };
    record.error_summary = judged.summary;
    record.idle_since = None;
    record.session_id = summary.session.clone().or(record.session_id);
    record.model = summary.model.clone().or(record.model);
    record.limit = judged.limit;
    account_for(shared, &mut record, &summary);
    if let Some(adapter) = &adapter {
        estimate(&shared.config().prices, adapter.kind(), &mut record, summary.usage_scope);
    }
    if !matches!(finish, RunFinish::NeverStarted) {
        let answer = adapter.as_deref().and_then(|adapter| adapter.final_answer(&summary));
        let stdout = record.stdout_path.clone().unwrap_or_default();
        if let Err(error) = output::settle(&folder, Path::new(&stdout), answer.as_deref()) {
            tracing::warn!(run = %record.run_id, %error, "output.md could not be made");
        }
    }
    store::run_info::write(&shared.root, &record)?;
    point("daemon.exit.after_run_info", &folder)?;
    shared.accounts.note(&record);
    let exited = matches!(finish, RunFinish::Exited(_));
    let lost = exited && adapter.as_ref().is_some_and(|adapter| adapter.session_lost(&facts, &summary));
    let mut end = run_end(&record, finish, &summary, tail);
    if lost && end.interruption.is_none() {
        end.interruption = Some(Interruption::SessionLost);
        end.session = None;
    }
    Ok((record, end))
}

/// Tokens and cost of this run alone. A vendor that counts a whole thread is charged with what came on top of the latest
/// earlier run of that thread.
fn account_for(shared: &Shared, record: &mut RunInfo, summary: &StreamSummary) {
    let Some(seen) = summary.usage.clone() else { return };
    record.models = summary.models.clone();
    if summary.usage_scope != UsageScope::Thread {
        record.usage = Some(seen);
        return;
    }
    let earlier = record.session_id.as_ref().and_then(|session| {
        let runs = shared.catalog.runs_of(&record.key().task);
        let same = |run: &&std::sync::Arc<RunInfo>| {
            run.run_id != record.run_id && run.agent == record.agent && run.session_id.as_ref() == Some(session)
        };
        runs.iter().rev().filter(same).find_map(|run| run.thread_usage.clone())
    });
    record.usage = Some(earlier.map_or_else(|| seen.clone(), |earlier| seen.since(&earlier)));
    record.thread_usage = Some(seen);
}

/// What the configured prices say, where the vendor reported no cost. They stay in the record: other prices later change
/// nothing of what was.
fn estimate(prices: &Prices, kind: AgentKind, record: &mut RunInfo, scope: UsageScope) {
    for (model, used) in record.models.iter_mut().filter(|(_, used)| used.cost.is_none()) {
        used.cost = prices.cost(kind, Some(model), used);
    }
    let Some(used) = record.usage.as_mut().filter(|used| used.cost.is_none()) else { return };
    let mut sum = Usage::default();
    record.models.values().for_each(|model| sum.add(model));
    // What is told of the models may be of a whole thread, or of some of them only.
    let is_whole = scope != UsageScope::Thread && sum.tokens() == used.tokens();
    used.cost = match sum.cost.filter(|_| is_whole) {
        Some(cost) => Some(cost),
        None => prices.cost(kind, record.model.as_deref(), used),
    };
}

fn point(name: &'static str, folder: &Path) -> Result<(), StoreError> {
    failpoint::hit(name).map_err(|source| StoreError::Io { doing: "write", path: folder.to_owned(), source })
}

/// What the loop needs of a run whose end is in its record already: recovery found it so.
pub(super) fn recorded_end(shared: &Shared, info: &RunInfo) -> RunEnd {
    shared.accounts.note(info);
    let outcome = info.outcome.unwrap_or(Outcome::Lost);
    let interruption = match outcome {
        Outcome::Stopped => Some(Interruption::Asked),
        Outcome::Lost => shared.runner.cut_by(&shared.run_dir(&info.key())).map(|cut| match cut {
            Cut::NeverStarted => Interruption::NeverStarted,
            Cut::Restart => Interruption::Reboot,
        }),
        _ => None,
    };
    RunEnd {
        last: last_run(info, outcome),
        session: info.session_id.clone(),
        progressed: outcome == Outcome::Completed,
        interruption,
        limit: info.limit.clone(),
        account: info.account.clone(),
        stderr_tail: stderr_tail(shared.agents().get(&info.agent).map(|adapter| &**adapter), info),
    }
}

fn run_end(record: &RunInfo, finish: &RunFinish, summary: &StreamSummary, stderr_tail: String) -> RunEnd {
    let outcome = record.outcome.unwrap_or(Outcome::Lost);
    let interruption = match finish {
        RunFinish::NeverStarted => Some(Interruption::NeverStarted),
        RunFinish::Lost(reason) if reason == REBOOT => Some(Interruption::Reboot),
        RunFinish::Exited(_) if outcome == Outcome::Stopped => Some(Interruption::Asked),
        _ => None,
    };
    RunEnd {
        last: last_run(record, outcome),
        session: record.session_id.clone(),
        progressed: outcome == Outcome::Completed || summary.answer.is_some(),
        interruption,
        limit: record.limit.clone(),
        account: record.account.clone(),
        stderr_tail,
    }
}

/// The reason of a run that a restart of machine or container took.
pub(super) const REBOOT: &str = "the machine or its container restarted";

fn last_run(info: &RunInfo, outcome: Outcome) -> LastRun {
    LastRun {
        run: info.run_id.clone(),
        outcome,
        exit_code: (info.exit_code >= 0).then_some(info.exit_code),
        signal: info.signal,
        summary: info.error_summary.clone(),
    }
}

/// Why the run was idle, if that is why it was stopped. The shim knows only of a stop.
fn idle_stop(folder: &Path, finish: &RunFinish) -> Option<String> {
    let RunFinish::Exited(exit) = finish else { return None };
    if !matches!(exit.cause, Cause::Stop { .. }) {
        return None;
    }
    read_stop(folder).ok().flatten().filter(|stop| stop.idle).map(|stop| stop.why)
}

fn facts(finish: &RunFinish, idle: Option<String>, stderr_tail: &str) -> ExitFacts {
    let base = ExitFacts {
        code: None,
        signal: None,
        cause: EndCause::Natural,
        oom_kills: 0,
        stderr_tail: stderr_tail.to_owned(),
        ended: Timestamp::now(),
    };
    match finish {
        RunFinish::NeverStarted => {
            let reason = "conductord ended before the agent was executed".to_owned();
            ExitFacts { cause: EndCause::Unknown(reason), ..base }
        }
        RunFinish::Lost(reason) => ExitFacts { cause: EndCause::Unknown(reason.clone()), ..base },
        RunFinish::Exited(exit) => ExitFacts {
            code: exit.code,
            signal: exit.signal,
            cause: match &exit.cause {
                Cause::Natural => EndCause::Natural,
                Cause::Stop { .. } => idle.map_or(EndCause::Stop, EndCause::Idle),
                Cause::WallTime => EndCause::WallTime,
                Cause::LogLimit => EndCause::LogLimit,
                Cause::SpawnFailed { step, errno } => EndCause::SpawnFailed { step: step.clone(), errno: *errno },
            },
            oom_kills: exit.oom_kills.unwrap_or(0),
            ended: exit.time.parse().unwrap_or(base.ended),
            ..base
        },
    }
}

fn apply_exit(record: &mut RunInfo, finish: &RunFinish) {
    let RunFinish::Exited(exit) = finish else {
        record.end_time = Some(Timestamp::now());
        record.exit_code = -1;
        return;
    };
    let exit: &Exit = exit;
    record.end_time = Some(exit.time.parse().unwrap_or_else(|_| Timestamp::now()));
    record.exit_code = exit.code.unwrap_or(-1);
    record.signal = exit.signal;
    record.tier = Some(tier_name(exit.tier).to_owned());
    record.stragglers = exit
        .stragglers
        .iter()
        .map(|left| Straggler { pid: left.pid, name: left.name.clone(), ended: left.ended })
        .collect();
    if let Cause::Stop { who, why } = &exit.cause {
        record.stop_reason = Some(if why.is_empty() { who.clone() } else { format!("{who}: {why}") });
    }
    record.stdout_bytes = Some(exit.stdout_bytes);
    record.stderr_bytes = Some(exit.stderr_bytes);
    record.cpu_ms = Some(exit.user_ms + exit.system_ms);
    record.max_rss_kib = Some(exit.max_rss_kib);
}

/// The name of a tier on disk and on the wire.
pub(super) fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Cgroup => "cgroup",
        Tier::Walk => "walk",
    }
}

fn parse(adapter: &dyn Adapter, info: &RunInfo) -> StreamSummary {
    let mut parser = adapter.events();
    let Some(mut file) = info.stdout_path.as_ref().and_then(|path| open_log(path).ok()) else {
        return parser.summary().clone();
    };
    let mut buffer = vec![0; READ];
    let mut done: u64 = 0;
    while done < MAX_PARSED {
        match file.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                done += count as u64;
                parser.feed(Stream::Stdout, &buffer[..count], &mut |_| {});
            }
        }
    }
    parser.finish(&mut |_| {});
    parser.summary().clone()
}

/// Opens a log for reading. The agent may have put a pipe or a link in its place: neither is waited for or followed.
pub(super) fn open_log(path: impl AsRef<Path>) -> std::io::Result<File> {
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::ErrorKind::InvalidInput.into()) }
}

/// The last lines of standard error, bounded, without the agent's key.
fn stderr_tail(adapter: Option<&dyn Adapter>, info: &RunInfo) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = open_log(info.stderr_path.as_deref().unwrap_or_default())?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    adapter.map_or_else(|| tail.clone(), |adapter| adapter.masked(&tail))
}

/// The end of a run whose folder is gone: only what is in memory.
pub(super) fn unrecorded(info: &RunInfo, error: &StoreError) -> (RunInfo, RunEnd) {
    let mut record = info.clone();
    record.end_time = Some(Timestamp::now());
    record.outcome = Some(Outcome::Lost);
    record.status = RunStatus::Unknown;
    record.error_summary = Some(format!("its folder was removed: {error}"));
    let finish = RunFinish::Lost(record.error_summary.clone().unwrap_or_default());
    let end = run_end(&record, &finish, &StreamSummary::default(), String::new());
    (record, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Cost, CostKind, TaskKey};

    fn prices() -> Prices {
        let text = "codex: {'gpt-5*': {input: 2, output: 10}, gpt-mini: {input: 1, output: 1}}";
        serde_yaml::from_str(text).expect("prices")
    }

    fn used(input: u64, cost: Option<f64>) -> Usage {
        let cost = cost.map(|usd| Cost { usd, kind: CostKind::Exact });
        Usage { input, cost, ..Usage::default() }
    }

    fn record(model: &str, usage: Usage, models: &[(&str, Usage)]) -> RunInfo {
        let task = "task-20260101-000000-demo".parse().expect("task");
        let key =
            TaskKey::new("p".parse().expect("project"), task).run("20260101-0000000000-1-1".parse().expect("run"));
        let mut info = store::run_info::unreadable(&key, store::run_info::RunProblem::Missing).info;
        info.model = Some(model.to_owned());
        info.usage = Some(usage);
        info.models = models.iter().map(|(model, usage)| ((*model).to_owned(), usage.clone())).collect();
        info
    }

    fn estimated(mut record: RunInfo, scope: UsageScope) -> (Option<(f64, CostKind)>, Vec<Option<f64>>) {
        estimate(&prices(), AgentKind::Codex, &mut record, scope);
        let total = record.usage.and_then(|used| used.cost).map(|cost| (cost.usd, cost.kind));
        (total, record.models.values().map(|used| used.cost.map(|cost| cost.usd)).collect())
    }

    #[test]
    fn a_run_without_a_cost_gets_that_of_the_prices_and_it_is_an_estimate() {
        let (total, _) = estimated(record("gpt-5.1", used(1_000_000, None), &[]), UsageScope::Thread);
        assert_eq!(total, Some((2.0, CostKind::Estimated)));
        let (total, _) = estimated(record("unheard-of", used(1_000_000, None), &[]), UsageScope::Thread);
        assert_eq!(total, None, "an unknown price is no price of zero");
    }

    #[test]
    fn what_the_vendor_says_of_the_cost_stays() {
        let (total, _) = estimated(record("gpt-5.1", used(1_000_000, Some(0.5)), &[]), UsageScope::Process);
        assert_eq!(total, Some((0.5, CostKind::Exact)));
    }

    #[test]
    fn models_have_prices_of_their_own_and_one_without_makes_the_sum_partial() {
        let models = [("gpt-5.1", used(1_000_000, None)), ("gpt-mini", used(2_000_000, None))];
        let (total, each) = estimated(record("gpt-5.1", used(3_000_000, None), &models), UsageScope::Process);
        assert_eq!((total, each), (Some((4.0, CostKind::Estimated)), vec![Some(2.0), Some(2.0)]));
        let models = [("gpt-5.1", used(1_000_000, None)), ("other", used(2_000_000, None))];
        let (total, each) = estimated(record("gpt-5.1", used(3_000_000, None), &models), UsageScope::Process);
        assert_eq!((total, each), (Some((2.0, CostKind::Partial)), vec![Some(2.0), None]));
    }

    #[test]
    fn models_of_a_whole_thread_do_not_price_one_run_of_it() {
        let models = [("gpt-5.1", used(5_000_000, None))];
        let (total, _) = estimated(record("gpt-5.1", used(1_000_000, None), &models), UsageScope::Thread);
        assert_eq!(total, Some((2.0, CostKind::Estimated)));
    }
}
