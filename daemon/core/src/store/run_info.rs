//! `run-info.yaml`, version 1: the record of one run, in the form that conductor-loop reads and writes.
//!
//! Reading never fails as a whole: what can't be understood becomes a record of status `unknown` that says why. Nothing
//! is written back by reading. The keys and their order are those of [`RunInfo`]; ours follow conductor-loop's.

mod emit;
mod fields;

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;

use super::root::run_rel;
use super::yaml::{self, YamlError};
use super::{Root, StoreError};
use crate::types::{Limit, Limits, Outcome, Ownership, RunId, RunInfo, RunKey, RunStatus, Straggler, Usage};

use fields::Fields;

/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// Name of the file in the run's folder.
pub const FILE: &str = "run-info.yaml";
/// Bytes of the file at most: a command line of 128 KiB, four paths and our lists fit many times.
pub const MAX_BYTES: u64 = 1 << 20;

/// A run as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadRun {
    /// The record; of status `unknown`, with the reason as `error_summary`, if there is a `problem`.
    pub info: RunInfo,
    /// Why the file could not be read.
    pub problem: Option<RunProblem>,
}

/// Why a `run-info.yaml` tells nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunProblem {
    /// There is none.
    #[error("run-info.yaml is missing")]
    Missing,
    /// It can't be read.
    #[error("run-info.yaml can't be read: {0}")]
    Unreadable(String),
    /// It is no YAML, or a value is not what it should be.
    #[error("run-info.yaml is damaged: {0}")]
    Damaged(YamlError),
    /// It was written by a later version of this program.
    #[error("run-info.yaml has version {0}, newer than {VERSION}: refused, never rewritten")]
    Newer(u64),
    /// It belongs to another run.
    #[error("run-info.yaml names run {0:?}, which is not its folder")]
    Misplaced(String),
}

/// Reads the record of a run. Never fails: see [`ReadRun::problem`].
#[must_use]
pub fn read(root: &Root, key: &RunKey) -> ReadRun {
    match root.read_file_beneath(run_rel(key).join(FILE), MAX_BYTES) {
        Ok(bytes) => parse(key, &bytes),
        Err(error) if error.is_not_found() => unreadable(key, RunProblem::Missing),
        Err(error) => unreadable(key, RunProblem::Unreadable(error.to_string())),
    }
}

/// Understands the bytes of a `run-info.yaml` that lies in the folder of `key`.
#[must_use]
pub fn parse(key: &RunKey, bytes: &[u8]) -> ReadRun {
    match parse_info(key, bytes) {
        Ok(info) => ReadRun { info, problem: None },
        Err(problem) => unreadable(key, problem),
    }
}

/// Writes the record of a run, durably.
///
/// # Errors
/// [`StoreError::Newer`] if the file there is of a later version (it stays as it is); else a failed write.
pub fn write(root: &Root, info: &RunInfo) -> Result<(), StoreError> {
    let rel = run_rel(&info.key()).join(FILE);
    refuse_newer(root, &rel)?;
    root.write_file(rel, emit(info).as_bytes())
}

/// The text of the file: conductor-loop's keys in its order and style, then ours as far as they are set.
#[must_use]
pub fn emit(info: &RunInfo) -> String {
    emit::run_info(info)
}

/// A record for a run that tells nothing of itself: ids from its path, times from its id.
#[must_use]
pub fn unreadable(key: &RunKey, problem: RunProblem) -> ReadRun {
    let mut info = blank(key);
    info.error_summary = Some(problem.to_string());
    ReadRun { info, problem: Some(problem) }
}

/// The time in a run's id (UTC, to the ten-thousandth of a second).
#[must_use]
pub fn time_of(run: &RunId) -> Timestamp {
    super::ids::run_time(run)
}

fn blank(key: &RunKey) -> RunInfo {
    RunInfo {
        run_id: key.run.clone(),
        parent_run_id: None,
        previous_run_id: None,
        project_id: key.task.project.clone(),
        task_id: key.task.task.clone(),
        agent: String::new(),
        ownership: Ownership::Managed,
        pid: 0,
        pgid: 0,
        start_time: time_of(&key.run),
        end_time: None,
        exit_code: -1,
        status: RunStatus::Unknown,
        cwd: None,
        prompt_path: None,
        output_path: None,
        stdout_path: None,
        stderr_path: None,
        commandline: None,
        error_summary: None,
        agent_version: String::new(),
        outcome: None,
        attempt: 0,
        signal: None,
        session_id: None,
        model: None,
        usage: None,
        models: BTreeMap::new(),
        thread_usage: None,
        limit: None,
        account: None,
        permissions: None,
        notes: Vec::new(),
        login: None,
        program: None,
        limits: Limits::default(),
        tier: None,
        stragglers: Vec::new(),
        stop_reason: None,
        stdout_bytes: None,
        stderr_bytes: None,
        cpu_ms: None,
        max_rss_kib: None,
        idle_since: None,
    }
}

fn refuse_newer(root: &Root, rel: &PathBuf) -> Result<(), StoreError> {
    let Ok(bytes) = root.read_file_beneath(rel, MAX_BYTES) else { return Ok(()) };
    match Fields::read(&bytes).ok().and_then(|fields| fields.version().ok()) {
        Some(version) if version > u64::from(VERSION) => {
            Err(StoreError::Newer { path: rel.clone(), version, supported: VERSION })
        }
        _ => Ok(()),
    }
}

fn parse_info(key: &RunKey, bytes: &[u8]) -> Result<RunInfo, RunProblem> {
    let damaged = RunProblem::Damaged;
    let mut fields = Fields::read(bytes).map_err(damaged)?;
    let version = fields.version().map_err(damaged)?;
    if version > u64::from(VERSION) {
        return Err(RunProblem::Newer(version));
    }
    let named = fields.text("run_id").map_err(damaged)?.filter(|id| !id.is_empty());
    if let Some(id) = named.filter(|id| id != key.run.as_str()) {
        return Err(RunProblem::Misplaced(id.chars().take(80).collect()));
    }
    fill(blank(key), &mut fields).map_err(damaged)
}

/// Takes what the file says. Project and task are those of the path: a folder may have been renamed by hand.
fn fill(mut info: RunInfo, fields: &mut Fields<'_>) -> Result<RunInfo, YamlError> {
    // Another program's ids may have any form; one that is no id of ours is no link that could be followed.
    info.parent_run_id = fields.text("parent_run_id")?.and_then(|id| id.parse().ok());
    info.previous_run_id = fields.text("previous_run_id")?.and_then(|id| id.parse().ok());
    info.agent = fields.text("agent")?.unwrap_or_default();
    info.ownership = match fields.text("process_ownership")?.as_deref() {
        Some("external") => Ownership::External,
        _ => Ownership::Managed,
    };
    info.pid = fields.number("pid")?.unwrap_or(0);
    info.pgid = fields.number("pgid")?.unwrap_or(0);
    if let Some(start) = fields.time("start_time")? {
        info.start_time = start;
    }
    info.end_time = fields.time("end_time")?;
    info.exit_code = fields.number("exit_code")?.unwrap_or(-1);
    info.status = status(fields)?;
    info.cwd = fields.text("cwd")?;
    info.prompt_path = fields.text("prompt_path")?;
    info.output_path = fields.text("output_path")?;
    info.stdout_path = fields.text("stdout_path")?;
    info.stderr_path = fields.text("stderr_path")?;
    info.commandline = fields.text("commandline")?;
    info.error_summary = fields.text("error_summary")?;
    info.agent_version = fields.text("agent_version")?.unwrap_or_default();
    info.outcome = fields.nested::<Outcome>("outcome")?;
    info.attempt = fields.number("attempt")?.unwrap_or(0);
    info.signal = fields.number("signal")?;
    info.session_id = fields.text("session_id")?;
    info.model = fields.text("model")?;
    info.usage = fields.nested::<Usage>("usage")?;
    info.models = fields.nested("models")?.unwrap_or_default();
    info.thread_usage = fields.nested::<Usage>("thread_usage")?;
    info.limit = fields.nested::<Limit>("limit")?;
    info.account = fields.text("account")?;
    info.login = fields.text("login")?;
    info.permissions = fields.nested("permissions")?;
    info.notes = fields.nested("notes")?.unwrap_or_default();
    info.program = fields.text("program")?;
    info.limits = fields.nested::<Limits>("limits")?.unwrap_or_default();
    info.tier = fields.text("tier")?;
    info.stragglers = fields.nested::<Vec<Straggler>>("stragglers")?.unwrap_or_default();
    info.stop_reason = fields.text("stop_reason")?;
    info.stdout_bytes = fields.number("stdout_bytes")?;
    info.stderr_bytes = fields.number("stderr_bytes")?;
    info.cpu_ms = fields.number("cpu_ms")?;
    info.max_rss_kib = fields.number("max_rss_kib")?;
    Ok(info)
}

fn status(fields: &mut Fields<'_>) -> Result<RunStatus, YamlError> {
    match fields.text("status")?.as_deref() {
        Some("running") => Ok(RunStatus::Running),
        Some("completed") => Ok(RunStatus::Completed),
        Some("failed") => Ok(RunStatus::Failed),
        None | Some("" | "unknown") => Ok(RunStatus::Unknown),
        Some(_) => Err(fields.wrong("status", "running, completed, failed or unknown")),
    }
}

#[cfg(test)]
mod tests;
