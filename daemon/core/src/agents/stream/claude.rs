//! Claude Code's `stream-json`: one JSON object per line. Grok's `streaming-messages-json` has the same shape.
//!
//! Tokens and cost come from the result's `modelUsage`. Without a result (the process was killed) what its messages said
//! is kept: of each message once, since it stands on a line per block, and without a cost. That is a lower bound, as
//! `output_tokens` is a start value there and a request that was under way is missing.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::de::MapAccess;
use serde_json::value::RawValue;

use super::common::{
    Emit, MAX_WORD, Objects, Vocabulary, add_model, append, count, cut, dollars, ended, error_words, pause, refuse,
    remember, said, status, thought, total, word,
};
use crate::agents::event::{
    EventKind, Limit, LimitKind, LimitSource, MAX_MODELS, MAX_TEXT, StreamSummary, UsageScope, head,
};
use crate::agents::json::{Items, MAX_INNER, Object, Raw, Scalar, Tolerant, objects};
use crate::agents::limits::claude::refused;
use crate::types::{Cost, CostKind, Usage};

/// Ids of messages that are remembered, so that a message on several lines counts once; lines of one message are
/// together but for those of subagents that run at the same time.
const MESSAGES: usize = 64;

/// A reader of its lines.
pub(super) type Claude = Objects<State>;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether the answer is from a result.
    answered: bool,
    /// Ids of the last messages.
    messages: VecDeque<String>,
}

objects! {
    /// One line; which keys it has depends on its type.
    struct Record {
        kind: Scalar<'de> = "type",
        subtype: Scalar<'de> = "subtype",
        session: Scalar<'de> = "session_id",
        model: Scalar<'de> = "model",
        parent_tool: Scalar<'de> = "parent_tool_use_id",
        error: Scalar<'de> = "error",
        error_status: Scalar<'de> = "error_status",
        retry_delay_ms: Scalar<'de> = "retry_delay_ms",
        message: Tolerant<Message<'de>> = "message",
        rate_limit: Tolerant<RateLimit<'de>> = "rate_limit_info",
        is_error: Scalar<'de> = "is_error",
        api_status: Scalar<'de> = "api_error_status",
        result: Scalar<'de> = "result",
        errors: Texts<'de> = "errors",
        total_cost: Scalar<'de> = "total_cost_usd",
        models: Tolerant<Models> = "modelUsage",
    }

    struct Message {
        id: Scalar<'de> = "id",
        model: Scalar<'de> = "model",
        content: Items<'de, Block<'de>> = "content",
        usage: Tolerant<MessageUsage<'de>> = "usage",
    }

    /// A piece of a message: text, thinking, tool_use or tool_result.
    struct Block {
        kind: Scalar<'de> = "type",
        text: Scalar<'de> = "text",
        thinking: Scalar<'de> = "thinking",
        id: Scalar<'de> = "id",
        name: Scalar<'de> = "name",
        input: Raw<'de> = "input",
        tool_use_id: Scalar<'de> = "tool_use_id",
        is_error: Scalar<'de> = "is_error",
        result: Content<'de> = "content",
    }

    struct MessageUsage {
        input: Scalar<'de> = "input_tokens",
        output: Scalar<'de> = "output_tokens",
        cache_read: Scalar<'de> = "cache_read_input_tokens",
        cache_write: Scalar<'de> = "cache_creation_input_tokens",
    }

    struct RateLimit {
        status: Scalar<'de> = "status",
        resets_at: Scalar<'de> = "resetsAt",
    }

    struct ModelUsage {
        input: Scalar<'de> = "inputTokens",
        output: Scalar<'de> = "outputTokens",
        cache_read: Scalar<'de> = "cacheReadInputTokens",
        cache_write: Scalar<'de> = "cacheCreationInputTokens",
        cost: Scalar<'de> = "costUSD",
    }

    struct TextBlock {
        text: Scalar<'de> = "text",
    }
}

/// What a tool gave back: a text, or the texts of its blocks.
#[derive(Debug, Default)]
pub(crate) struct Content<'de>(Items<'de, TextBlock<'de>, MAX_INNER>);

impl<'de> serde::Deserialize<'de> for Content<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Items::deserialize(from).map(Self)
    }
}

impl Content<'_> {
    fn text(&self) -> Option<String> {
        match &self.0 {
            Items::Text(text) => Some(cut(text, MAX_TEXT)),
            Items::Objects(blocks) => {
                let mut joined: Option<String> = None;
                for text in blocks.iter().filter_map(|block| block.text.text()) {
                    let joined = joined.get_or_insert_default();
                    if !joined.is_empty() {
                        joined.push('\n');
                    }
                    joined.push_str(&cut(text, MAX_TEXT.saturating_sub(joined.len())));
                }
                joined
            }
        }
    }
}

/// `modelUsage`: what each model used, and the sum. A model that stands twice counts twice, which no real stream has.
#[derive(Debug, Default)]
pub(crate) struct Models {
    seen: bool,
    pub(super) used: Usage,
    by_model: BTreeMap<String, Usage>,
}

impl Models {
    pub(super) fn into_models(self) -> BTreeMap<String, Usage> {
        self.by_model
    }
}

impl<'de> Object<'de> for Models {
    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let Tolerant(model) = map.next_value::<Tolerant<ModelUsage<'de>>>()?;
        let mut one = Usage {
            input: count(&model.input),
            output: count(&model.output),
            cache_read: count(&model.cache_read),
            cache_write: count(&model.cache_write),
            reasoning: 0,
            cost: None,
        };
        self.used.add(&one);
        one.cost = dollars(&model.cost, one.tokens()).map(|usd| Cost { usd, kind: CostKind::Estimated });
        if self.by_model.len() < MAX_MODELS {
            self.by_model.insert(cut(name, MAX_WORD), one);
        }
        self.seen = true;
        Ok(())
    }
}

/// The first texts of an array.
#[derive(Debug, Default)]
pub(crate) struct Texts<'de>(Vec<Cow<'de, str>>);

impl<'de> serde::Deserialize<'de> for Texts<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(from)?;
        let values: Vec<Scalar<'de>> = serde_json::from_str(raw.get()).unwrap_or_default();
        Ok(Self(values.into_iter().filter_map(Scalar::into_text).take(8).collect()))
    }
}

impl Vocabulary for State {
    type Record<'de> = Record<'de>;

    fn record(&mut self, summary: &mut StreamSummary, record: Record<'_>, emit: Emit<'_>) {
        remember(&mut summary.session, &record.session);
        match (record.kind.text().unwrap_or_default(), record.subtype.text()) {
            ("system", Some("init")) => {
                remember(&mut summary.model, &record.model);
                emit(EventKind::Started { session: word(&record.session), model: word(&record.model) });
            }
            ("system", Some("api_retry")) => emit(EventKind::Retry {
                status: status(&record.error_status),
                delay: record.retry_delay_ms.number().and_then(pause),
                kind: word(&record.error).unwrap_or_else(|| "unknown".to_owned()),
            }),
            ("rate_limit_event", _) => rate_limit(&record.rate_limit.0, summary, emit),
            ("assistant", _) => self.assistant(&record, summary, emit),
            ("user", _) => tool_results(&record, emit),
            ("result", _) => self.result(record, summary, emit),
            _ => summary.unknown += 1,
        }
    }
}

fn rate_limit(info: &RateLimit<'_>, summary: &mut StreamSummary, emit: Emit<'_>) {
    // `allowed` and `allowed_warning` refuse nothing.
    if info.status.text() != Some("rejected") {
        summary.unknown += 1;
        return;
    }
    let resets_at = info.resets_at.count().and_then(|seconds| Timestamp::from_second(seconds as i64).ok());
    refuse(summary, Limit { kind: LimitKind::Window, resets_at, source: LimitSource::Json }, emit);
}

impl State {
    fn assistant(&mut self, record: &Record<'_>, summary: &mut StreamSummary, emit: Emit<'_>) {
        let message = &record.message.0;
        // Such a message is the program's own text on an error of the service, not an answer.
        summary.api_error = word(&record.error);
        let synthetic = summary.api_error.is_some() || message.model.text() == Some("<synthetic>");
        let answers = !synthetic && record.parent_tool == Scalar::None;
        if answers {
            remember(&mut summary.model, &message.model);
        }
        if !synthetic {
            self.count(message, summary);
        }
        match &message.content {
            Items::Text(text) => self.text(text, answers, summary, emit),
            Items::Objects(blocks) => blocks.iter().for_each(|block| match block.kind.text() {
                Some("text") => self.text(block.text.text().unwrap_or_default(), answers, summary, emit),
                Some("thinking") => emit(thought(block.thinking.text().unwrap_or_default(), false)),
                Some("tool_use") => emit(EventKind::ToolStart {
                    id: word(&block.id).unwrap_or_default(),
                    name: word(&block.name).unwrap_or_default(),
                    input: cut(block.input.0, MAX_TEXT),
                }),
                _ => {}
            }),
        }
    }

    /// Counts a message that was not yet counted. A result replaces it all.
    fn count(&mut self, message: &Message<'_>, summary: &mut StreamSummary) {
        let Some(id) = message.id.text().filter(|id| !id.is_empty()) else { return };
        let id = head(id, MAX_WORD);
        if self.messages.iter().rev().any(|known| known == id) {
            return;
        }
        // The oldest one's memory serves again.
        let mut slot =
            if self.messages.len() < MESSAGES { None } else { self.messages.pop_front() }.unwrap_or_default();
        slot.clear();
        slot.push_str(id);
        self.messages.push_back(slot);
        let MessageUsage { input, output, cache_read, cache_write } = &message.usage.0;
        let usage = Usage {
            input: count(input),
            output: count(output),
            cache_read: count(cache_read),
            cache_write: count(cache_write),
            reasoning: 0,
            cost: None,
        };
        if usage.tokens() > 0 {
            summary.usage.get_or_insert_default().add(&usage);
            add_model(summary, message.model.text().unwrap_or_default(), &usage);
        }
    }

    fn text(&self, text: &str, answers: bool, summary: &mut StreamSummary, emit: Emit<'_>) {
        emit(said(text, false));
        if answers && !self.answered && !text.is_empty() {
            append(&mut summary.answer, "\n", text);
        }
    }

    fn result(&mut self, record: Record<'_>, summary: &mut StreamSummary, emit: Emit<'_>) {
        let is_error = record.is_error.is_true();
        summary.api_status = status(&record.api_status);
        let text = record.result.into_text().filter(|text| !text.trim().is_empty());
        if is_error {
            summary.error = error_words(&text.unwrap_or_else(|| record.errors.0.join("; ").into()));
        } else {
            summary.error = None;
            summary.api_error = None;
            if let Some(text) = text {
                summary.answer = Some(text.into_owned());
                self.answered = true;
            }
        }
        let Tolerant(models) = record.models;
        if models.seen {
            let cost = dollars(&record.total_cost, models.used.tokens());
            let cost = cost.map(|usd| Cost { usd, kind: CostKind::Estimated });
            summary.models = models.by_model;
            total(summary, UsageScope::Process, Usage { cost, ..models.used }, emit);
        }
        if let Some((kind, source)) = is_error.then(|| refused(summary)).flatten() {
            refuse(summary, Limit { kind, resets_at: None, source }, emit);
        }
        let reason = word(&record.subtype).unwrap_or_else(|| "unknown".to_owned());
        ended(summary, reason, is_error, emit);
    }
}

fn tool_results(record: &Record<'_>, emit: Emit<'_>) {
    let Items::Objects(blocks) = &record.message.0.content else { return };
    for block in blocks.iter().filter(|block| block.kind.text() == Some("tool_result")) {
        let id = word(&block.tool_use_id).unwrap_or_default();
        emit(EventKind::ToolEnd { id, ok: !block.is_error.is_true(), exit: None, result: block.result.text() });
    }
}
