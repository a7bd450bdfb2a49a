//! The daemon.

use conductor_proto::v1::{GetDaemonInfoResponse, RecoverySummary};
use serde::Serialize;

use super::super::details::{Line, line, or_dash, toned};
use super::super::table::{Kind, Table};
use super::super::{Resource, Tone, time};
use super::timestamp;

/// The daemon for programs.
#[derive(Serialize)]
pub(crate) struct DaemonView {
    version: String,
    pid: i32,
    start_time: Option<String>,
    epoch: u64,
    revision: u64,
    root: String,
    socket: String,
    config_path: String,
    tier: String,
    tier_reason: String,
    live_runs: u32,
    max_concurrent_runs: u32,
    queued_tasks: u32,
    recovery: Option<RecoveryView>,
    problems: Vec<String>,
    config_problem: String,
}

#[derive(Serialize)]
struct RecoveryView {
    adopted: u32,
    ended: u32,
    rescued: u32,
    lost: u32,
    duration_ms: u64,
}

fn recovery(recovery: &RecoverySummary) -> RecoveryView {
    RecoveryView {
        adopted: recovery.adopted,
        ended: recovery.ended,
        rescued: recovery.rescued,
        lost: recovery.lost,
        duration_ms: recovery.duration_ms,
    }
}

impl Resource for GetDaemonInfoResponse {
    type View = DaemonView;
    const EMPTY: &'static str = "no daemon";

    fn view(&self) -> DaemonView {
        DaemonView {
            version: self.version.clone(),
            pid: self.pid,
            start_time: timestamp(self.start_time.as_ref()),
            epoch: self.epoch,
            revision: self.revision,
            root: self.root.clone(),
            socket: self.socket.clone(),
            config_path: self.config_path.clone(),
            tier: self.tier.clone(),
            tier_reason: self.tier_reason.clone(),
            live_runs: self.live_runs,
            max_concurrent_runs: self.max_concurrent_runs,
            queued_tasks: self.queued_tasks,
            recovery: self.recovery.as_ref().map(recovery),
            problems: self.problems.clone(),
            config_problem: self.config_problem.clone(),
        }
    }

    fn name(&self) -> String {
        self.socket.clone()
    }

    fn table(daemons: &[Self], _wide: bool) -> Table {
        let mut table = Table::new(&[("VERSION", Kind::Word), ("PID", Kind::Number), ("SOCKET", Kind::Text)]);
        for daemon in daemons {
            table.row(vec![
                daemon.version.as_str().into(),
                daemon.pid.to_string().into(),
                daemon.socket.as_str().into(),
            ]);
        }
        table
    }

    fn details(&self) -> Vec<Line> {
        let mut lines = vec![
            toned("version", &self.version, Tone::Strong),
            line("pid", self.pid.to_string()),
            line("socket", &self.socket),
            line("data", &self.root),
            line("configuration", if self.config_path.is_empty() { "defaults only" } else { &self.config_path }),
            line(
                "up",
                format!("{}, start {} on this data", time::elapsed_text(self.start_time.as_ref(), None), self.epoch),
            ),
            line("runs", format!("{} of {} at once", self.live_runs, self.max_concurrent_runs)),
            line("queued tasks", self.queued_tasks.to_string()),
            or_dash("tier", with_reason(&self.tier, &self.tier_reason)),
            or_dash("recovery", self.recovery.as_ref().map_or(String::new(), recovery_text)),
            line("revision", self.revision.to_string()),
        ];
        if !self.config_problem.is_empty() {
            lines.push(toned("config problem", &self.config_problem, Tone::Failed));
        }
        if !self.problems.is_empty() {
            lines.push(toned("problems", self.problems.join("\n"), Tone::Waiting));
        }
        lines
    }
}

fn with_reason(word: &str, reason: &str) -> String {
    if reason.is_empty() { word.to_owned() } else { format!("{word} ({reason})") }
}

fn recovery_text(found: &RecoverySummary) -> String {
    format!(
        "{} runs went on, {} had ended, {} rescued, {} lost; took {}",
        found.adopted,
        found.ended,
        found.rescued,
        found.lost,
        time::duration(std::time::Duration::from_millis(found.duration_ms))
    )
}
