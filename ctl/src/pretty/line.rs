//! Single lines: tools, retries, limits. All of them fit the width.

use std::time::Duration;

use conductor_proto::v1::{Limit, LimitKind, RequestRetry, ToolEnded, ToolStarted};
use jiff::Timestamp;

use super::Style;
use super::input::{Telling, telling};
use super::text::{columns, cut, cut_front, one_line};
use crate::output::time;
use crate::output::words::{Tone, paint};

/// Widest line: further to the right nobody looks for the result.
const WIDEST: usize = 120;
/// Columns of a tool's input at most.
const WIDEST_INPUT: usize = 80;
/// Columns of a tool's name at most.
const WIDEST_NAME: usize = 32;
/// Columns that short names are filled up to, so that inputs stand below each other.
const NAME: usize = 5;
/// Columns of a duration: `59m 59s`.
const DURATION: usize = 7;
/// Columns of a result: `failed`, `exit 1`.
const RESULT: usize = 6;
/// Fewest columns of a failed tool's words that are worth showing.
const LEAST_WORDS: usize = 12;
/// What vendors call the tool that runs a command.
const SHELLS: [&str; 3] = ["command_execution", "run_shell_command", "run_terminal_command"];

/// A tool that runs.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    pub(super) id: String,
    name: String,
    input: Telling,
    started: Option<Timestamp>,
}

impl Tool {
    pub(super) fn new(start: &ToolStarted, started: Option<Timestamp>) -> Self {
        Self { id: start.tool_id.clone(), name: name(&start.name), input: telling(&start.input), started }
    }

    /// One whose beginning is not known.
    pub(super) fn unknown() -> Self {
        Self { id: String::new(), name: name(""), input: Telling::default(), started: None }
    }
}

/// A tool's name for people: `shell`, `server.tool`, else as the vendor has it.
fn name(name: &str) -> String {
    if SHELLS.contains(&name) {
        return "shell".to_owned();
    }
    let plain = match name.strip_prefix("mcp__") {
        Some(rest) => rest.replacen("__", ".", 1),
        None => name.to_owned(),
    };
    let plain = cut(&one_line(&plain), WIDEST_NAME);
    if plain.is_empty() { "tool".to_owned() } else { plain }
}

/// A tool that ended: `● Bash  cargo test          0.4s  ok`.
pub(super) fn ended(style: &Style, tool: &Tool, end: &ToolEnded, time: Option<Timestamp>) -> String {
    let result = match end.exit_code {
        Some(code) if code != 0 => format!("exit {code}"),
        _ if end.ok => "ok".to_owned(),
        _ => "failed".to_owned(),
    };
    let (mark, tone) = if end.ok { ("●", Tone::Good) } else { ("✗", Tone::Failed) };
    let words = if end.ok { None } else { end.result.as_deref() };
    let duration = tool.started.zip(time).map(|(start, end)| took(between(start, end))).unwrap_or_default();
    draw(style, tool, (mark, tone), words, &duration, &result)
}

/// A tool of whose end nothing was told.
pub(super) fn unfinished(style: &Style, tool: &Tool) -> String {
    draw(style, tool, ("○", Tone::Waiting), None, "", "no end")
}

/// A tool that runs, and how many others do.
pub(super) fn running(style: &Style, tool: &Tool, others: usize, now: Timestamp) -> String {
    // The last column stays free: some terminals go on to the next line when it is written.
    let style = Style { width: style.width.saturating_sub(1), ..style.clone() };
    let duration = tool.started.map(|start| time::duration(whole(between(start, now)))).unwrap_or_default();
    let result = if others > 0 { format!("+{others}") } else { "…".to_owned() };
    draw(&style, tool, ("◌", Tone::Running), None, &duration, &result)
}

/// `0.4s`, `12s`, `2m 14s`.
fn took(time: Duration) -> String {
    if time < Duration::from_secs(10) { format!("{:.1}s", time.as_secs_f64()) } else { time::duration(time) }
}

fn whole(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

fn between(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or_default()
}

fn draw(
    style: &Style,
    tool: &Tool,
    (mark, tone): (&str, Tone),
    words: Option<&str>,
    duration: &str,
    result: &str,
) -> String {
    let right = format!(" {duration:>DURATION$}  ");
    let right_width = columns(&right) + columns(result).max(RESULT);
    let room = style.width.min(WIDEST).saturating_sub(right_width);
    let name = cut(&tool.name, room.saturating_sub(2));
    let gap = columns(&name).max(NAME) + 2 - columns(&name);
    let room = room.saturating_sub(2 + columns(&name) + gap);
    let words = words.map(one_line).filter(|words| !words.is_empty());
    // Why it failed is worth a third of the room, if it needs so much.
    let kept = words.as_ref().map_or(0, |words| (columns(words) + 3).min(room / 3));
    let most = (room - kept).min(WIDEST_INPUT);
    let mut input = if tool.input.is_path { cut_front(&tool.input.text, most) } else { cut(&tool.input.text, most) };
    let mut used = columns(&input);
    let between = if used > 0 { " – " } else { "" };
    let left = room.saturating_sub(used + columns(between));
    if let Some(words) = words.filter(|words| left >= LEAST_WORDS.min(columns(words))) {
        let words = format!("{between}{}", cut(&words, left));
        used += columns(&words);
        input += &paint(style.color, Tone::Quiet, &words);
    }
    let mark = paint(style.color, tone, mark);
    let name = paint(style.color, Tone::Strong, &name);
    let right = paint(style.color, Tone::Quiet, &right);
    let result = paint(style.color, tone, result);
    format!("{mark} {name}{:gap$}{input}{:fill$}{right}{result}", "", "", fill = room.saturating_sub(used))
}

/// A request that is made again.
pub(super) fn retry(style: &Style, retry: &RequestRetry) -> String {
    let kind = if retry.kind == "unknown" { "no answer" } else { &retry.kind };
    let mut text = format!("↻ {}", one_line(kind));
    if retry.status > 0 {
        text += &format!(" (HTTP {})", retry.status);
    }
    text += " · again";
    if let Some(delay) = &retry.delay {
        text += &format!(" in {}", took(time::from_wire(delay)));
    }
    paint(style.color, Tone::Waiting, &cut(&text, style.width.min(WIDEST)))
}

/// A refusal of work, and when there is more.
pub(super) fn limit(style: &Style, limit: &Limit, now: Timestamp) -> String {
    let what = match limit.kind() {
        LimitKind::Window => "usage limit",
        LimitKind::Daily => "limit of the day",
        LimitKind::Spend => "limit of spending",
        LimitKind::Credits => "out of credits",
        LimitKind::Overload => "service overloaded",
        LimitKind::Auth => "login not accepted",
        LimitKind::Unspecified => "refused",
    };
    let reset = limit.reset_time.and_then(|reset| Timestamp::new(reset.seconds, reset.nanos).ok());
    let mut text = format!("⊘ {what}");
    if let Some(reset) = reset {
        text += &format!(" · resets {}", clock(style, reset, now));
        if reset > now {
            text += &format!(", in {}", time::duration(whole(between(now, reset))));
        }
    }
    let tone = if limit.kind() == LimitKind::Auth { Tone::Failed } else { Tone::Waiting };
    paint(style.color, tone, &cut(&text, style.width.min(WIDEST)))
}

/// A time on the reader's clock, with as much of its date as is needed.
fn clock(style: &Style, time: Timestamp, now: Timestamp) -> String {
    let (then, today) = (time.to_zoned(style.zone.clone()), now.to_zoned(style.zone.clone()));
    let is_near = between(now, time).max(between(time, now)) < Duration::from_secs(6 * 86_400);
    let form = match is_near {
        _ if then.date() == today.date() => "%H:%M",
        true => "%a %H:%M",
        false => "%-d %b %Y %H:%M",
    };
    then.strftime(form).to_string()
}
