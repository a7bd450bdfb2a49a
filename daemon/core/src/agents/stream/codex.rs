//! Codex's `exec --json`: one JSON object per line.
//!
//! Usage is of the whole thread, earlier processes included, and comes with a finished turn alone: a turn that is cut
//! leaves none. There is no cost. The final answer is the last message.

use super::common::{
    Emit, MAX_WORD, Objects, Vocabulary, count, cut, ended, error_words, refuse, remember, said, thought, total, word,
};
use crate::agents::event::{EventKind, Limit, LimitSource, MAX_TEXT, StreamSummary, UsageScope, head};
use crate::agents::json::{Items, Raw, Scalar, Tolerant, objects};
use crate::agents::limits::codex::kind_of;
use crate::types::Usage;

/// Tools under way that are remembered; of one that is not, the start is told with its end.
const MAX_OPEN: usize = 256;

/// A reader of its lines.
pub(super) type Codex = Objects<State>;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Ids of tools that began and did not end.
    open: Vec<String>,
}

objects! {
    /// One line.
    struct Record {
        kind: Scalar<'de> = "type",
        thread: Scalar<'de> = "thread_id",
        item: Tolerant<Item<'de>> = "item",
        usage: Tolerant<Counts<'de>> = "usage",
        message: Scalar<'de> = "message",
        error: Tolerant<Failure<'de>> = "error",
    }

    /// A step of a turn; which keys it has depends on its type.
    struct Item {
        id: Scalar<'de> = "id",
        kind: Scalar<'de> = "type",
        status: Scalar<'de> = "status",
        text: Scalar<'de> = "text",
        command: Raw<'de> = "command",
        output: Scalar<'de> = "aggregated_output",
        exit: Scalar<'de> = "exit_code",
        changes: Raw<'de> = "changes",
        server: Scalar<'de> = "server",
        tool: Scalar<'de> = "tool",
        arguments: Raw<'de> = "arguments",
        prompt: Raw<'de> = "prompt",
        query: Raw<'de> = "query",
        result: Tolerant<ToolResult<'de>> = "result",
        error: Tolerant<Failure<'de>> = "error",
    }

    /// What a tool of an MCP server gave back.
    struct ToolResult {
        content: Items<'de, Part<'de>> = "content",
    }

    struct Part {
        text: Scalar<'de> = "text",
    }

    struct Failure {
        message: Scalar<'de> = "message",
    }

    struct Counts {
        input: Scalar<'de> = "input_tokens",
        cached: Scalar<'de> = "cached_input_tokens",
        cache_write: Scalar<'de> = "cache_write_input_tokens",
        output: Scalar<'de> = "output_tokens",
        reasoning: Scalar<'de> = "reasoning_output_tokens",
    }
}

impl Vocabulary for State {
    type Record<'de> = Record<'de>;

    fn record(&mut self, summary: &mut StreamSummary, record: Record<'_>, emit: Emit<'_>) {
        let item = &record.item.0;
        match record.kind.text().unwrap_or_default() {
            "thread.started" => {
                remember(&mut summary.session, &record.thread);
                emit(EventKind::Started { session: word(&record.thread), model: None });
            }
            // A turn that does not end is no end of the one before.
            "turn.started" => summary.ended = false,
            "item.started" => self.started(item, summary, emit),
            "item.completed" => self.completed(item, summary, emit),
            "turn.completed" => {
                used(&record.usage.0, summary, emit);
                summary.error = None;
                ended(summary, "completed".to_owned(), false, emit);
            }
            "turn.failed" => {
                failed(record.error.0.message.text().unwrap_or_default(), summary, emit);
                ended(summary, "failed".to_owned(), true, emit);
            }
            "error" => {
                let words = record.message.text().unwrap_or_default();
                if words.starts_with("Reconnecting") {
                    emit(retry(words));
                } else {
                    failed(words, summary, emit);
                }
            }
            // `item.updated`: a list of to-dos, mostly.
            _ => summary.unknown += 1,
        }
    }
}

/// `Reconnecting... 2/5 (unexpected status 429 Too Many Requests: …)`
fn retry(words: &str) -> EventKind {
    let status = words.split_once("status ").and_then(|(_, rest)| rest.get(..3)?.parse::<u16>().ok());
    let kind = match status {
        Some(429) => "rate_limit",
        Some(401 | 403) => "authentication_failed",
        Some(500..) => "overloaded",
        None if words.contains("stream disconnected") => "disconnected",
        _ => "unknown",
    };
    EventKind::Retry {
        status: status.filter(|status| (100..1000).contains(status)),
        delay: None,
        kind: kind.to_owned(),
    }
}

/// Keeps what is said of an error; it is the turn's last word unless the turn is completed.
fn failed(words: &str, summary: &mut StreamSummary, emit: Emit<'_>) {
    if let Some(words) = error_words(words) {
        if let Some(kind) = kind_of(&words) {
            refuse(summary, Limit { kind, resets_at: None, source: LimitSource::Text }, emit);
        }
        summary.error = Some(words);
    }
}

fn used(counts: &Counts<'_>, summary: &mut StreamSummary, emit: Emit<'_>) {
    if counts.input == Scalar::None && counts.output == Scalar::None {
        return;
    }
    let (cache_read, cache_write) = (count(&counts.cached), count(&counts.cache_write));
    let usage = Usage {
        // Both kinds of cached tokens are part of it.
        input: count(&counts.input).saturating_sub(cache_read).saturating_sub(cache_write),
        cache_read,
        cache_write,
        output: count(&counts.output),
        reasoning: count(&counts.reasoning),
        cost: None,
    };
    total(summary, UsageScope::Thread, usage, emit);
}

impl State {
    fn started(&mut self, item: &Item<'_>, summary: &mut StreamSummary, emit: Emit<'_>) {
        let Some((name, input)) = tool(item) else {
            summary.unknown += 1;
            return;
        };
        let id = word(&item.id).unwrap_or_default();
        if self.open.len() < MAX_OPEN {
            self.open.push(id.clone());
        }
        emit(EventKind::ToolStart { id, name, input });
    }

    fn completed(&mut self, item: &Item<'_>, summary: &mut StreamSummary, emit: Emit<'_>) {
        match item.kind.text().unwrap_or_default() {
            "agent_message" => {
                let text = item.text.text().unwrap_or_default();
                emit(said(text, false));
                if !text.trim().is_empty() {
                    summary.answer = Some(text.to_owned());
                }
            }
            "reasoning" => emit(thought(item.text.text().unwrap_or_default(), false)),
            _ => match tool(item) {
                Some((name, input)) => self.tool_end(item, name, input, emit),
                // A list of to-dos, and errors that stop nothing.
                None => summary.unknown += 1,
            },
        }
    }

    fn tool_end(&mut self, item: &Item<'_>, name: String, input: String, emit: Emit<'_>) {
        let id = word(&item.id).unwrap_or_default();
        match self.open.iter().rposition(|open| *open == id) {
            Some(at) => {
                self.open.swap_remove(at);
            }
            // Some kinds are told only when they are over.
            None => emit(EventKind::ToolStart { id: id.clone(), name, input }),
        }
        let exit = item.exit.number().map(|code| code as i32);
        let failed = matches!(item.status.text(), Some("failed" | "declined")) || exit.is_some_and(|code| code != 0);
        let result = item.output.text().or(item.error.0.message.text()).map(|text| cut(text, MAX_TEXT));
        let result = result.or_else(|| match &item.result.0.content {
            Items::Text(text) => Some(cut(text, MAX_TEXT)),
            Items::Objects(parts) => {
                let mut texts = parts.iter().filter_map(|part| part.text.text());
                let mut joined = cut(texts.next()?, MAX_TEXT);
                for text in texts {
                    joined.push('\n');
                    joined.push_str(head(text, MAX_TEXT.saturating_sub(joined.len())));
                }
                Some(joined)
            }
        });
        emit(EventKind::ToolEnd { id, ok: !failed, exit, result });
    }
}

/// Name and input of a step that is a tool.
fn tool(item: &Item<'_>) -> Option<(String, String)> {
    let kind = item.kind.text().unwrap_or_default();
    let only = |key: &str, value: Raw<'_>| {
        let value = if value.0.is_empty() { "null" } else { value.0 };
        let mut input = format!("{{\"{key}\":{}", head(value, MAX_TEXT - 32));
        input.push('}');
        input
    };
    let tool = item.tool.text().map(|tool| head(tool, MAX_WORD));
    Some(match kind {
        "command_execution" => (kind.to_owned(), only("command", item.command)),
        "file_change" => (kind.to_owned(), only("changes", item.changes)),
        "web_search" => (kind.to_owned(), only("query", item.query)),
        "mcp_tool_call" => {
            let server = item.server.text().map(|server| head(server, MAX_WORD));
            (format!("{}.{}", server.unwrap_or("mcp"), tool.unwrap_or(kind)), cut(item.arguments.0, MAX_TEXT))
        }
        "collab_tool_call" => (tool.unwrap_or(kind).to_owned(), only("prompt", item.prompt)),
        _ => return None,
    })
}
