//! The text of `run-info.yaml`, byte for byte as conductor-loop (Go, yaml.v3) writes its keys.
//!
//! Values of ours that have a structure are written as JSON on one line, which is YAML too: one line per key keeps
//! the file greppable and its reading fast.

use std::fmt::{Display, Write};

use crate::types::{Limits, Ownership, RunInfo, RunStatus};

/// The end of a run that has none: Go's zero time.
pub(super) const NO_TIME: &str = "0001-01-01T00:00:00Z";

struct Text(String);

impl Text {
    fn plain(&mut self, key: &str, value: impl Display) {
        writeln!(self.0, "{key}: {value}").expect("writing to a String does not fail");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.0.push_str(key);
        self.0.push_str(": ");
        push_scalar(&mut self.0, value);
        self.0.push('\n');
    }

    fn set(&mut self, key: &str, value: Option<&str>) {
        // conductor-loop leaves out what is empty.
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.text(key, value);
        }
    }

    fn number(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.plain(key, value);
        }
    }

    fn json(&mut self, key: &str, value: &impl serde::Serialize) {
        self.plain(key, json_for_yaml(value));
    }
}

pub(super) fn run_info(info: &RunInfo) -> String {
    let mut out = Text(String::with_capacity(2048));
    out.plain("version", super::VERSION);
    out.text("run_id", info.run_id.as_str());
    out.set("parent_run_id", info.parent_run_id.as_ref().map(AsRef::as_ref));
    out.set("previous_run_id", info.previous_run_id.as_ref().map(AsRef::as_ref));
    out.text("project_id", info.project_id.as_str());
    out.text("task_id", info.task_id.as_str());
    out.text("agent", &info.agent);
    out.plain("process_ownership", ownership(info.ownership));
    out.plain("pid", info.pid);
    out.plain("pgid", info.pgid);
    out.plain("start_time", info.start_time);
    match info.end_time {
        Some(end) => out.plain("end_time", end),
        None => out.plain("end_time", NO_TIME),
    }
    out.plain("exit_code", info.exit_code);
    out.plain("status", status(info.status));
    out.set("cwd", info.cwd.as_deref());
    out.set("prompt_path", info.prompt_path.as_deref());
    out.set("output_path", info.output_path.as_deref());
    out.set("stdout_path", info.stdout_path.as_deref());
    out.set("stderr_path", info.stderr_path.as_deref());
    out.set("commandline", info.commandline.as_deref());
    out.set("error_summary", info.error_summary.as_deref());
    out.text("agent_version", &info.agent_version);
    ours(&mut out, info);
    out.0
}

fn ours(out: &mut Text, info: &RunInfo) {
    out.set("outcome", info.outcome.map(crate::types::Outcome::name));
    out.number("attempt", (info.attempt > 0).then_some(info.attempt));
    out.number("signal", info.signal);
    out.set("session_id", info.session_id.as_deref());
    out.set("model", info.model.as_deref());
    if let Some(usage) = &info.usage {
        out.json("usage", usage);
    }
    if !info.models.is_empty() {
        out.json("models", &info.models);
    }
    if let Some(usage) = &info.thread_usage {
        out.json("thread_usage", usage);
    }
    if let Some(limit) = &info.limit {
        out.json("limit", limit);
    }
    out.set("account", info.account.as_deref());
    out.set("login", info.login.as_deref());
    out.set("permissions", info.permissions.map(crate::types::Permissions::name));
    if !info.notes.is_empty() {
        out.json("notes", &info.notes);
    }
    out.set("program", info.program.as_deref());
    if info.limits != Limits::default() {
        out.json("limits", &info.limits);
    }
    out.set("tier", info.tier.as_deref());
    if !info.stragglers.is_empty() {
        out.json("stragglers", &info.stragglers);
    }
    out.set("stop_reason", info.stop_reason.as_deref());
    out.number("stdout_bytes", info.stdout_bytes);
    out.number("stderr_bytes", info.stderr_bytes);
    out.number("cpu_ms", info.cpu_ms);
    out.number("max_rss_kib", info.max_rss_kib);
}

fn ownership(value: Ownership) -> &'static str {
    match value {
        Ownership::Managed => "managed",
        Ownership::External => "external",
    }
}

fn status(value: RunStatus) -> &'static str {
    match value {
        RunStatus::Running => "running",
        RunStatus::Completed => "completed",
        RunStatus::Failed => "failed",
        RunStatus::Unknown => "unknown",
    }
}

/// Bare where YAML reads it back as the same text; `"…"` for what it would take for something else (numbers, `true`,
/// nothing) or what needs escapes; `'…'` for the rest. So does yaml.v3, but for text of several lines, which it writes
/// as a block.
fn push_scalar(out: &mut String, text: &str) {
    let printable = text.chars().all(|c| c == ' ' || c.is_alphanumeric() || c.is_ascii_graphic());
    if !printable || reads_as_other(text) {
        out.push_str(&json_for_yaml(&text));
    } else if needs_quotes(text) {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    } else {
        out.push_str(text);
    }
}

/// JSON whose characters YAML reads as they stand: it takes some for line breaks, and refuses others.
fn json_for_yaml(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_string(value).expect("records of numbers and text are JSON");
    let is_special =
        |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    if !json.contains(is_special) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_special(c) {
            write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a String does not fail");
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether some YAML (1.1 or 1.2) takes the bare text for a number, a truth value, a time or nothing.
fn reads_as_other(text: &str) -> bool {
    const WORDS: &[&str] = &["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "<<", "="];
    let lower = text.to_ascii_lowercase();
    if WORDS.contains(&lower.as_str()) {
        return true;
    }
    let body = lower.trim_start_matches(['+', '-']);
    let number_like = body.starts_with(|c: char| c.is_ascii_digit()) || body.starts_with('.');
    // Ids have dashes and versions have more dots than a number; both stay bare.
    number_like
        && (body.replace('_', "").parse::<f64>().is_ok()
            || matches!(body, ".inf" | ".nan")
            || body.starts_with("0x")
            || body.starts_with("0o")
            || body.starts_with("0b")
            || is_time_or_sexagesimal(body))
}

fn is_time_or_sexagesimal(text: &str) -> bool {
    let sexagesimal = text.contains(':') && text.bytes().all(|byte| byte.is_ascii_digit() || b":._".contains(&byte));
    let date = text.len() >= 8
        && text.bytes().take(4).all(|byte| byte.is_ascii_digit())
        && text.as_bytes()[4] == b'-'
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"-:. tz+".contains(&byte));
    sexagesimal || date
}

fn needs_quotes(text: &str) -> bool {
    let mut chars = text.chars();
    let first = chars.next().unwrap_or(' ');
    let second = chars.next();
    let bad_start = "!&*{}[]|>@`\"'%#,= ".contains(first) || ("-?:".contains(first) && second.is_none_or(|c| c == ' '));
    bad_start
        || text.ends_with([' ', ':'])
        || text.contains(": ")
        || text.contains(" #")
        || text.starts_with("---")
        || text.starts_with("...")
}
