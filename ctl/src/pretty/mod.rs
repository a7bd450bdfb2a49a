//! Events of a run as a person likes to read them: the answer as it is, one line for each tool, retry and limit.
//!
//! It makes text and writes nothing. What an agent said can't change the terminal: see `text`.

mod input;
mod line;
mod text;

use conductor_proto::v1::run_event::Event;
use conductor_proto::v1::{
    AgentText, AgentThought, CostKind, RunEvent, SessionEnded, SessionStarted, ToolStarted, Usage, UsageReport,
    UsageScope,
};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::output::time;
use crate::output::words::{self, Tone, paint};
use line::Tool;
use text::harmless;

/// Tools that may be running at once; the oldest is shown as unfinished when there are more.
const MAX_OPEN_TOOLS: usize = 64;

/// How it is to look.
#[derive(Clone, Debug)]
pub struct Style {
    /// Columns of the terminal.
    pub width: usize,
    /// Whether colours are wanted.
    pub color: bool,
    /// Whether thoughts are shown.
    pub thoughts: bool,
    /// Where the reader's clock is.
    pub zone: TimeZone,
}

/// What was written last: different things are set apart by an empty line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Nothing,
    Session,
    Text,
    Thought,
    Line,
    End,
}

/// Turns the events of one run into text, in their order.
#[derive(Debug)]
pub struct Renderer {
    style: Style,
    last: Last,
    /// A text whose next piece may go on in the same line.
    is_open: bool,
    /// The stream is one of events; of plain text every line is a text.
    is_structured: bool,
    tools: Vec<Tool>,
    usage: Option<Usage>,
}

impl Renderer {
    /// For one run.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Self { style, last: Last::Nothing, is_open: false, is_structured: false, tools: Vec::new(), usage: None }
    }

    /// The terminal has another width now.
    pub fn resize(&mut self, width: usize) {
        self.style.width = width;
    }

    /// What an event adds: whole lines, but for a text of which more may come.
    #[must_use]
    pub fn event(&mut self, event: &RunEvent, now: Timestamp) -> String {
        let mut out = String::new();
        let time = event.time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
        let Some(event) = &event.event else { return out };
        self.is_structured |= !matches!(event, Event::Text(_));
        match event {
            Event::Started(started) => self.started(started, &mut out),
            Event::Text(text) => self.text(text, &mut out),
            Event::Thought(thought) if self.style.thoughts => self.thought(thought, &mut out),
            Event::Thought(_) => {}
            Event::ToolStarted(start) => self.tool_started(start, time, &mut out),
            Event::ToolEnded(end) => {
                let at = self.tools.iter().position(|tool| tool.id == end.tool_id);
                let tool = at.map_or_else(Tool::unknown, |at| self.tools.remove(at));
                self.line(&line::ended(&self.style, &tool, end, time), &mut out);
            }
            Event::Retry(retry) => self.line(&line::retry(&self.style, retry), &mut out),
            Event::Limit(limit) => self.line(&line::limit(&self.style, limit, now), &mut out),
            Event::Usage(report) => self.count(report),
            Event::Ended(ended) => self.ended(ended, &mut out),
        }
        out
    }

    /// What there is to see of the moment, on one line without its end: the tools that run. `None`: nothing runs.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> Option<String> {
        let tool = self.tools.last().filter(|_| !self.is_open)?;
        Some(line::running(&self.style, tool, self.tools.len() - 1, now))
    }

    /// What is left to say when no event will follow.
    #[must_use]
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.give_up_tools(&mut out);
        let used = self.used();
        if !used.is_empty() {
            self.line_of(Last::End, &self.tone(Tone::Quiet, &format!("· {used}")), &mut out);
        }
        self.close(&mut out);
        out
    }

    fn tone(&self, tone: Tone, text: &str) -> String {
        paint(self.style.color, tone, text)
    }

    /// Ends a line that was open.
    fn close(&mut self, out: &mut String) {
        if std::mem::take(&mut self.is_open) {
            out.push('\n');
        }
    }

    fn begin(&mut self, kind: Last, out: &mut String) {
        self.close(out);
        if self.last != kind && self.last != Last::Nothing {
            out.push('\n');
        }
        self.last = kind;
    }

    fn line(&mut self, line: &str, out: &mut String) {
        self.line_of(Last::Line, line, out);
    }

    fn line_of(&mut self, kind: Last, line: &str, out: &mut String) {
        self.begin(kind, out);
        out.push_str(line);
        out.push('\n');
    }

    fn started(&mut self, started: &SessionStarted, out: &mut String) {
        let mut facts = vec![text::one_line(&started.model)];
        if !started.session_id.is_empty() {
            facts.push(format!("session {}", text::one_line(&started.session_id)));
        }
        facts.retain(|fact| !fact.is_empty());
        if !facts.is_empty() {
            let line = text::cut(&facts.join(" · "), self.style.width);
            self.line_of(Last::Session, &self.tone(Tone::Quiet, &line), out);
        }
    }

    fn text(&mut self, said: &AgentText, out: &mut String) {
        let text = harmless(&said.text);
        if said.piece {
            if !(self.is_open && self.last == Last::Text) {
                self.begin(Last::Text, out);
            }
            out.push_str(&text);
            self.is_open = if text.is_empty() { self.is_open } else { !text.ends_with('\n') };
        } else {
            let text = if self.is_structured { text.trim_start_matches('\n') } else { text.as_str() };
            if self.is_structured && text.trim().is_empty() {
                return;
            }
            let follows = self.last == Last::Text;
            self.begin(Last::Text, out);
            // One message after another; lines of plain text just follow each other.
            if follows && self.is_structured {
                out.push('\n');
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
        if said.whole_bytes > 0 {
            self.close(out);
            let more = format!("… {} in all: logs --raw has the rest", time::bytes(said.whole_bytes));
            out.push_str(&self.tone(Tone::Quiet, &more));
            out.push('\n');
        }
    }

    fn thought(&mut self, thought: &AgentThought, out: &mut String) {
        let text = harmless(&thought.text);
        let goes_on = thought.piece && self.is_open && self.last == Last::Thought;
        let text = if goes_on { text.as_str() } else { text.trim_start_matches('\n') };
        if text.trim().is_empty() && !goes_on {
            return;
        }
        if !goes_on {
            self.begin(Last::Thought, out);
        }
        let text = if thought.piece { text } else { text.trim_end() };
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                out.push('\n');
            }
            let mark = if number == 0 && goes_on { "" } else { "┆ " };
            out.push_str(&self.tone(Tone::Quiet, &format!("{mark}{line}")));
        }
        if thought.piece {
            self.is_open = true;
        } else {
            out.push('\n');
        }
    }

    fn tool_started(&mut self, start: &ToolStarted, time: Option<Timestamp>, out: &mut String) {
        self.close(out);
        if self.tools.len() == MAX_OPEN_TOOLS {
            let oldest = self.tools.remove(0);
            self.line(&line::unfinished(&self.style, &oldest), out);
        }
        self.tools.push(Tool::new(start, time));
    }

    fn give_up_tools(&mut self, out: &mut String) {
        for tool in std::mem::take(&mut self.tools) {
            self.line(&line::unfinished(&self.style, &tool), out);
        }
    }

    fn count(&mut self, report: &UsageReport) {
        // Numbers of single models are in the sum too.
        let (Some(new), true) = (&report.usage, report.model.is_empty()) else { return };
        self.usage = Some(match &self.usage {
            Some(before) if report.scope() == UsageScope::Delta => sum(before, new),
            _ => *new,
        });
    }

    /// `12.4k in (10.1k cached) · 240 out · ~$0.02`, once; empty: the vendor did not say.
    fn used(&mut self) -> String {
        let Some(usage) = self.usage.take() else { return String::new() };
        let mut facts = vec![tokens(&usage), words::cost_of(Some(&usage))];
        facts.retain(|fact| !fact.is_empty() && fact != "–");
        facts.join(" · ")
    }

    fn ended(&mut self, ended: &SessionEnded, out: &mut String) {
        self.give_up_tools(out);
        let (sign, tone) = if ended.is_error { ("✗", Tone::Failed) } else { ("✓", Tone::Good) };
        // Claude Code calls the end of a refused turn a success, and an error.
        let word = if ended.is_error && ended.reason == "success" { "failed" } else { &ended.reason };
        let reason = self.tone(tone, &format!("{sign} {}", text::one_line(word)));
        let used = self.used();
        let facts = if used.is_empty() { used } else { self.tone(Tone::Quiet, &format!("  {used}")) };
        self.line_of(Last::End, &format!("{reason}{facts}"), out);
    }
}

/// `12.4k in (10.1k cached) · 240 out`; empty: nothing was used.
fn tokens(usage: &Usage) -> String {
    let all = usage.input_tokens.saturating_add(usage.cache_read_tokens).saturating_add(usage.cache_write_tokens);
    if all == 0 && usage.output_tokens == 0 {
        return String::new();
    }
    let cached = match usage.cache_read_tokens {
        0 => String::new(),
        cached => format!(" ({} cached)", short(cached)),
    };
    format!("{} in{cached} · {} out", short(all), short(usage.output_tokens))
}

/// `999`, `12.4k`, `3.1M`.
fn short(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{:.1}k", count as f64 / 1e3),
        _ => format!("{:.1}M", count as f64 / 1e6),
    }
}

fn sum(a: &Usage, b: &Usage) -> Usage {
    let cost_usd = match (a.cost_usd, b.cost_usd) {
        (Some(a), Some(b)) => Some(a + b),
        (one, other) => one.or(other),
    };
    let is_partial = a.cost_usd.is_some() != b.cost_usd.is_some();
    Usage {
        input_tokens: a.input_tokens.saturating_add(b.input_tokens),
        cache_read_tokens: a.cache_read_tokens.saturating_add(b.cache_read_tokens),
        cache_write_tokens: a.cache_write_tokens.saturating_add(b.cache_write_tokens),
        output_tokens: a.output_tokens.saturating_add(b.output_tokens),
        reasoning_tokens: a.reasoning_tokens.saturating_add(b.reasoning_tokens),
        cost_usd,
        cost_kind: if is_partial { CostKind::Partial.into() } else { a.cost_kind.max(b.cost_kind) },
    }
}

#[cfg(test)]
mod tests {
    use conductor_proto::v1::{ToolEnded, run_event};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + seconds).expect("a time")
    }

    fn event(event: run_event::Event, seconds: Option<i64>) -> RunEvent {
        let time = seconds.map(|s| prost_types::Timestamp { seconds: at(s).as_second(), nanos: 0 });
        RunEvent { time, event: Some(event), ..RunEvent::default() }
    }

    fn start(id: &str, input: &str) -> run_event::Event {
        Event::ToolStarted(ToolStarted { tool_id: id.into(), name: "Bash".into(), input: input.into() })
    }

    fn end(id: &str, result: &str) -> run_event::Event {
        let ok = result.is_empty();
        Event::ToolEnded(ToolEnded { tool_id: id.into(), ok, exit_code: None, result: Some(result.into()) })
    }

    fn piece(text: &str) -> run_event::Event {
        Event::Text(AgentText { text: text.into(), piece: true, whole_bytes: 0 })
    }

    fn renderer(width: usize) -> Renderer {
        Renderer::new(Style { width, color: false, thoughts: true, zone: TimeZone::UTC })
    }

    fn all(width: usize, events: Vec<run_event::Event>) -> String {
        let mut renderer = renderer(width);
        let mut out: String = events.into_iter().map(|kind| renderer.event(&event(kind, None), at(0))).collect();
        out += &renderer.finish();
        out
    }

    #[test]
    fn every_line_fits_the_width_whatever_a_tool_is_called_and_given() {
        for width in [40, 80, 120, 200] {
            for input in ["日本語のコマンド".repeat(40), "x".repeat(500), "\u{1b}[2J\u{7}".into(), String::new()]
            {
                let input = serde_json::json!({ "command": input }).to_string();
                let out = all(width, vec![start("1", &input), end("1", "went wrong \u{1b}[31m badly\nand more")]);
                for line in out.lines() {
                    assert!(text::columns(line) <= width.min(120), "{width}: {line}");
                    assert!(!line.chars().any(char::is_control), "{line:?}");
                }
                assert_eq!(out.lines().count(), 1, "{out}");
            }
        }
    }

    #[test]
    fn a_running_tool_is_shown_with_its_time_and_then_as_one_line() {
        let mut renderer = renderer(80);
        assert_eq!(renderer.event(&event(start("1", r#"{"command":"cargo test"}"#), Some(0)), at(0)), "");
        let status = renderer.status(at(75)).expect("it runs");
        assert!(status.starts_with("◌ Bash   cargo test") && status.contains("1m 15s"), "{status}");
        let line = renderer.event(&event(end("1", ""), Some(76)), at(76));
        assert!(line.contains("1m 16s  ok"), "{line}");
        assert_eq!(renderer.status(at(77)), None);
    }

    #[test]
    fn pieces_of_a_text_are_one_text_and_its_line_ends_before_anything_else() {
        let out = all(80, vec![piece("one "), piece("line"), piece("\nand more"), start("1", ""), end("1", "")]);
        assert!(out.starts_with("one line\nand more\n\n● Bash"), "{out}");
        assert_eq!(all(80, vec![piece("a")]), "a\n");
    }

    #[test]
    fn lines_of_plain_text_follow_each_other_and_messages_are_set_apart() {
        let line = |text: &str| Event::Text(AgentText { text: text.into(), ..AgentText::default() });
        assert_eq!(all(80, vec![line("a"), line(""), line("b")]), "a\n\nb\n");
        let ended = Event::Ended(SessionEnded { reason: "success".into(), is_error: false });
        let began = Event::Started(SessionStarted { model: "m".into(), session_id: String::new() });
        assert_eq!(all(80, vec![began, line("a\n"), line("b"), ended]), "m\n\na\n\nb\n\n✓ success\n");
    }

    #[test]
    fn a_tool_without_an_end_and_an_end_without_a_tool_are_said() {
        let out = all(60, vec![end("7", ""), start("1", r#"{"file_path":"/a/b"}"#)]);
        assert!(out.contains("● tool") && out.contains("○ Bash   /a/b") && out.contains("no end"), "{out}");
    }
}
