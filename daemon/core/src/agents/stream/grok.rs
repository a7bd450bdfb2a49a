//! Grok's `--output-format streaming-json`: one JSON object per line.
//!
//! That form is used rather than `streaming-messages-json` (which has Claude Code's shape and can be read with the parser
//! of that) because it tells more: texts as they come, reasoning tokens, exit codes of commands, and an unknown cost by
//! its absence, where the other says 0.0. It does not tell the session before its end: a run that has to be resumable
//! after a kill must be given its session id.
//!
//! A process that is killed leaves the sum of the `usage` lines, each of one request.

use super::claude::Models;
use super::common::{
    Emit, Objects, Vocabulary, append, count, cut, dollars, ended, error_words, refuse, remember, said, thought, total,
    word,
};
use crate::agents::event::{EventKind, Limit, LimitSource, MAX_TEXT, StreamSummary, UsageScope};
use crate::agents::json::{Items, Raw, Scalar, Tolerant, objects};
use crate::agents::limits::grok::kind_of;
use crate::types::{Cost, CostKind, Usage};

/// What one US dollar is in `total_cost_usd_ticks`.
const TICKS: f64 = 1e10;

/// A reader of its lines.
pub(super) type Grok = Objects<State>;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether the next text begins a new answer.
    anew: bool,
    /// Whether it ran out of turns.
    out_of_turns: bool,
}

objects! {
    /// One line; which keys it has depends on its type.
    struct Record {
        kind: Scalar<'de> = "type",
        data: Scalar<'de> = "data",
        tool_id: Scalar<'de> = "toolCallId",
        tool_name: Scalar<'de> = "toolName",
        title: Scalar<'de> = "title",
        input: Raw<'de> = "rawInput",
        status: Scalar<'de> = "status",
        content: Items<'de, Content<'de>> = "content",
        output: Tolerant<Output<'de>> = "rawOutput",
        usage: Tolerant<Counts<'de>> = "usage",
        message: Scalar<'de> = "message",
        stop_reason: Scalar<'de> = "stopReason",
        session: Scalar<'de> = "sessionId",
        models: Tolerant<Models> = "modelUsage",
        cost: Scalar<'de> = "total_cost_usd",
        ticks: Scalar<'de> = "total_cost_usd_ticks",
        cost_is_partial: Scalar<'de> = "cost_is_partial",
        usage_is_incomplete: Scalar<'de> = "usage_is_incomplete",
    }

    struct Content {
        content: Tolerant<Inner<'de>> = "content",
    }

    struct Inner {
        text: Scalar<'de> = "text",
    }

    struct Output {
        exit: Scalar<'de> = "exit_code",
        for_prompt: Scalar<'de> = "output_for_prompt",
    }

    struct Counts {
        input: Scalar<'de> = "input_tokens",
        output: Scalar<'de> = "output_tokens",
        cache_read: Scalar<'de> = "cache_read_input_tokens",
        cache_write: Scalar<'de> = "cache_creation_input_tokens",
        reasoning: Scalar<'de> = "reasoning_tokens",
    }
}

impl Counts<'_> {
    fn usage(&self) -> Option<Usage> {
        let known = [&self.input, &self.output, &self.cache_read].iter().any(|value| value.count().is_some());
        known.then(|| Usage {
            input: count(&self.input),
            output: count(&self.output),
            cache_read: count(&self.cache_read),
            cache_write: count(&self.cache_write),
            reasoning: count(&self.reasoning),
            cost: None,
        })
    }
}

impl Vocabulary for State {
    type Record<'de> = Record<'de>;

    fn record(&mut self, summary: &mut StreamSummary, record: Record<'_>, emit: Emit<'_>) {
        match record.kind.text().unwrap_or_default() {
            "text" => {
                let text = record.data.text().unwrap_or_default();
                emit(said(text, true));
                if std::mem::take(&mut self.anew) {
                    summary.answer = None;
                }
                append(&mut summary.answer, "", text);
            }
            "thought" => emit(thought(record.data.text().unwrap_or_default(), true)),
            "tool_call" => {
                self.anew = true;
                emit(EventKind::ToolStart {
                    id: word(&record.tool_id).unwrap_or_default(),
                    name: word(&record.tool_name).or_else(|| word(&record.title)).unwrap_or_default(),
                    input: cut(record.input.0, MAX_TEXT),
                });
            }
            "tool_call_update" => tool_update(&record, summary, emit),
            "usage" => match record.usage.0.usage() {
                Some(usage) => {
                    summary.usage.get_or_insert_default().add(&usage);
                    summary.usage_scope = UsageScope::Process;
                    emit(EventKind::Usage { scope: UsageScope::Delta, model: None, usage });
                }
                None => summary.unknown += 1,
            },
            "max_turns_reached" => self.out_of_turns = true,
            "error" => {
                let words = error_words(record.message.text().unwrap_or_default());
                if let Some(kind) = words.as_deref().and_then(kind_of) {
                    refuse(summary, Limit { kind, resets_at: None, source: LimitSource::Text }, emit);
                }
                summary.error = words;
                ended(summary, "error".to_owned(), true, emit);
            }
            "end" => self.end(record, summary, emit),
            // `available_commands`, several times.
            _ => summary.unknown += 1,
        }
    }
}

fn tool_update(record: &Record<'_>, summary: &mut StreamSummary, emit: Emit<'_>) {
    let status = record.status.text().unwrap_or_default();
    if !matches!(status, "completed" | "failed") {
        summary.unknown += 1;
        return;
    }
    let Output { exit, for_prompt } = &record.output.0;
    let exit = exit.number().map(|code| code as i32);
    let shown = for_prompt.text().or_else(|| match &record.content {
        Items::Text(text) => Some(text),
        Items::Objects(parts) => parts.iter().find_map(|part| part.content.0.text.text()),
    });
    emit(EventKind::ToolEnd {
        id: word(&record.tool_id).unwrap_or_default(),
        ok: status == "completed" && exit.is_none_or(|code| code == 0),
        exit,
        result: shown.map(|text| cut(text, MAX_TEXT)),
    });
}

impl State {
    fn end(&mut self, record: Record<'_>, summary: &mut StreamSummary, emit: Emit<'_>) {
        remember(&mut summary.session, &record.session);
        let Tolerant(models) = record.models;
        let usage = record.usage.0.usage().or_else(|| (models.used.tokens() > 0).then(|| models.used.clone()));
        if let Some(mut usage) = usage {
            let ticks = dollars(&record.ticks, usage.tokens()).map(|ticks| ticks / TICKS);
            let partial = record.cost_is_partial.is_true() || record.usage_is_incomplete.is_true();
            let kind = if partial { CostKind::Partial } else { CostKind::Estimated };
            usage.cost = ticks.or_else(|| dollars(&record.cost, usage.tokens())).map(|usd| Cost { usd, kind });
            total(summary, UsageScope::Process, usage, emit);
        }
        let by_model = models.into_models();
        if let Some((name, _)) = by_model.iter().max_by_key(|(_, usage)| usage.output) {
            summary.model = Some(name.clone());
        }
        summary.models = by_model;
        let stop = word(&record.stop_reason).unwrap_or_else(|| "unknown".to_owned());
        let is_error = self.out_of_turns || stop != "end_turn";
        if !is_error {
            summary.error = None;
        }
        let reason = if self.out_of_turns { "max_turns_reached".to_owned() } else { stop };
        ended(summary, reason, is_error, emit);
    }
}
