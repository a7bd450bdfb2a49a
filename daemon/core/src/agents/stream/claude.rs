//! Claude Code's `stream-json`: one JSON object per line. Grok's `streaming-messages-json` has the same shape.
//!
//! Tokens and cost come from the result's `modelUsage` alone: an assistant line carries a start value, may repeat a
//! message id, and leaves subagents out.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::MapAccess;
use serde_json::value::RawValue;

use crate::agents::event::{
    Event, EventKind, Limit, LimitKind, LimitSource, MAX_ANSWER, MAX_MODELS, MAX_TEXT, Stream, StreamSummary,
    UsageScope, head,
};
use crate::agents::json::{Items, Object, Scalar, Tolerant, object};
use crate::agents::lines::Line;
use crate::agents::parser::{Reader, text_event};
use crate::types::{Cost, CostKind, Usage};

/// Longest pause that a retry is believed to make; the real program was seen to announce 6 h.
const MAX_DELAY: Duration = Duration::from_secs(8 * 86_400);
/// Characters of an id, a name or a word that are kept.
const MAX_WORD: usize = 256;

/// Reads lines of standard output; standard error is for people.
#[derive(Debug, Default)]
pub(crate) struct State {
    summary: StreamSummary,
    /// What the main agent said so far, the last [`MAX_ANSWER`] bytes: the answer of a stream without a result.
    said: String,
    /// Whether `summary.answer` is from a result.
    answered: bool,
}

impl Reader for State {
    fn line(&mut self, stream: Stream, offset: u64, line: &Line<'_>, sink: &mut dyn FnMut(Event)) {
        if stream == Stream::Stdout {
            self.stdout_line(offset, line, sink);
        }
    }

    fn summary(&self) -> &StreamSummary {
        &self.summary
    }
}

/// One line; which keys it has depends on its type.
#[derive(Default)]
struct Record {
    kind: Scalar,
    subtype: Scalar,
    session: Scalar,
    model: Scalar,
    parent_tool: Scalar,
    error: Scalar,
    error_status: Scalar,
    retry_delay_ms: Scalar,
    message: Tolerant<Message>,
    rate_limit: Tolerant<RateLimit>,
    is_error: Scalar,
    api_status: Scalar,
    result: Scalar,
    errors: Vec<String>,
    total_cost: Scalar,
    models: Tolerant<Models>,
}

impl Object for Record {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => self.kind = map.next_value()?,
            "subtype" => self.subtype = map.next_value()?,
            "session_id" => self.session = map.next_value()?,
            "model" => self.model = map.next_value()?,
            "parent_tool_use_id" => self.parent_tool = map.next_value()?,
            "error" => self.error = map.next_value()?,
            "error_status" => self.error_status = map.next_value()?,
            "retry_delay_ms" => self.retry_delay_ms = map.next_value()?,
            "message" => self.message = map.next_value()?,
            "rate_limit_info" => self.rate_limit = map.next_value()?,
            "is_error" => self.is_error = map.next_value()?,
            "api_error_status" => self.api_status = map.next_value()?,
            "result" => self.result = map.next_value()?,
            "errors" => self.errors = map.next_value::<Texts>()?.0,
            "total_cost_usd" => self.total_cost = map.next_value()?,
            "modelUsage" => self.models = map.next_value()?,
            _ => {
                map.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Message {
    model: Scalar,
    content: Items<Block>,
}

impl Object for Message {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "model" => self.model = map.next_value()?,
            "content" => self.content = map.next_value()?,
            _ => {
                map.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// A piece of a message: text, thinking, tool_use or tool_result.
#[derive(Default)]
struct Block {
    kind: Scalar,
    text: Scalar,
    thinking: Scalar,
    id: Scalar,
    name: Scalar,
    input: String,
    tool_use_id: Scalar,
    is_error: Scalar,
    result: Scalar,
}

impl Object for Block {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => self.kind = map.next_value()?,
            "text" => self.text = map.next_value()?,
            "thinking" => self.thinking = map.next_value()?,
            "id" => self.id = map.next_value()?,
            "name" => self.name = map.next_value()?,
            "input" => self.input = cut(map.next_value::<Box<RawValue>>()?.get(), MAX_TEXT),
            "tool_use_id" => self.tool_use_id = map.next_value()?,
            "is_error" => self.is_error = map.next_value()?,
            "content" => self.result = map.next_value()?,
            _ => {
                map.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct RateLimit {
    status: Scalar,
    resets_at: Scalar,
}

impl Object for RateLimit {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "status" => self.status = map.next_value()?,
            "resetsAt" => self.resets_at = map.next_value()?,
            _ => {
                map.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// `modelUsage`: what each model used, and the sum. A model that stands twice counts twice, which no real stream has.
#[derive(Default)]
struct Models {
    seen: bool,
    used: Usage,
    by_model: BTreeMap<String, Usage>,
}

impl Object for Models {
    fn field<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let Tolerant(model) = map.next_value::<Tolerant<ModelUsage>>()?;
        let count = |value: &Scalar| value.count().unwrap_or(0);
        let cost = model.cost.number().filter(|usd| *usd >= 0.0);
        let one = Usage {
            input: count(&model.input),
            output: count(&model.output),
            cache_read: count(&model.cache_read),
            cache_write: count(&model.cache_write),
            reasoning: 0,
            cost: cost.map(|usd| Cost { usd, kind: CostKind::Estimated }),
        };
        self.used.add(&Usage { cost: None, ..one.clone() });
        if self.by_model.len() < MAX_MODELS {
            self.by_model.insert(cut(name, MAX_WORD), one);
        }
        self.seen = true;
        Ok(())
    }
}

#[derive(Default)]
struct ModelUsage {
    input: Scalar,
    output: Scalar,
    cache_read: Scalar,
    cache_write: Scalar,
    cost: Scalar,
}

impl Object for ModelUsage {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "inputTokens" => self.input = map.next_value()?,
            "outputTokens" => self.output = map.next_value()?,
            "cacheReadInputTokens" => self.cache_read = map.next_value()?,
            "cacheCreationInputTokens" => self.cache_write = map.next_value()?,
            "costUSD" => self.cost = map.next_value()?,
            _ => {
                map.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The first texts of an array.
struct Texts(Vec<String>);

impl<'de> serde::Deserialize<'de> for Texts {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(from)?;
        let values: Vec<Scalar> = serde_json::from_str(raw.get()).unwrap_or_default();
        Ok(Self(values.into_iter().filter_map(Scalar::into_text).take(8).collect()))
    }
}

fn cut(text: &str, limit: usize) -> String {
    head(text, limit).to_owned()
}

fn word(value: &Scalar) -> Option<String> {
    value.text().filter(|text| !text.is_empty()).map(|text| cut(text, MAX_WORD))
}

impl State {
    fn stdout_line(&mut self, offset: u64, line: &Line<'_>, sink: &mut dyn FnMut(Event)) {
        let stream = Stream::Stdout;
        self.summary.lines += 1;
        let Line::Whole(bytes) = line else { return sink(text_event(stream, offset, line)) };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        match object::<Record>(&String::from_utf8_lossy(bytes)) {
            Some(record) => self.record(record, &mut |kind| sink(Event { stream, offset, kind })),
            None => sink(text_event(stream, offset, line)),
        }
    }

    fn record(&mut self, record: Record, emit: &mut dyn FnMut(EventKind)) {
        if let Some(session) = word(&record.session) {
            self.summary.session = Some(session);
        }
        match (record.kind.text().unwrap_or_default(), record.subtype.text()) {
            ("system", Some("init")) => self.started(&record, emit),
            ("system", Some("api_retry")) => {
                emit(EventKind::Retry {
                    status: status(&record.error_status),
                    delay: record.retry_delay_ms.number().filter(|ms| *ms >= 0.0).map(|ms| {
                        Duration::try_from_secs_f64(ms / 1000.0).map_or(MAX_DELAY, |delay| delay.min(MAX_DELAY))
                    }),
                    kind: word(&record.error).unwrap_or_else(|| "unknown".to_owned()),
                })
            }
            ("rate_limit_event", _) => self.rate_limit(&record.rate_limit.0, emit),
            ("assistant", _) => self.assistant(record, emit),
            ("user", _) => tool_results(record, emit),
            ("result", _) => self.result(record, emit),
            _ => self.summary.unknown += 1,
        }
    }

    fn started(&mut self, record: &Record, emit: &mut dyn FnMut(EventKind)) {
        self.summary.model = word(&record.model).or(self.summary.model.take());
        emit(EventKind::Started { session: word(&record.session), model: word(&record.model) });
    }

    fn rate_limit(&mut self, info: &RateLimit, emit: &mut dyn FnMut(EventKind)) {
        // `allowed` and `allowed_warning` refuse nothing.
        if info.status.text() != Some("rejected") {
            self.summary.unknown += 1;
            return;
        }
        let resets_at = info.resets_at.count().and_then(|seconds| Timestamp::from_second(seconds as i64).ok());
        self.limit(Limit { kind: LimitKind::Window, resets_at, source: LimitSource::Json }, emit);
    }

    fn limit(&mut self, limit: Limit, emit: &mut dyn FnMut(EventKind)) {
        self.summary.limit = Some(limit.clone());
        emit(EventKind::Limit(limit));
    }

    fn assistant(&mut self, record: Record, emit: &mut dyn FnMut(EventKind)) {
        let Tolerant(message) = record.message;
        // Such a message is the program's own text on an error of the service, not an answer.
        let error = word(&record.error);
        let answers =
            error.is_none() && record.parent_tool == Scalar::None && message.model.text() != Some("<synthetic>");
        if answers {
            self.summary.model = word(&message.model).or(self.summary.model.take());
        }
        self.summary.api_error = error;
        match message.content {
            Items::Text(text) => self.said(&text, answers, emit),
            Items::Objects(blocks) => blocks.into_iter().for_each(|block| self.block(block, answers, emit)),
        }
    }

    fn block(&mut self, block: Block, answers: bool, emit: &mut dyn FnMut(EventKind)) {
        match block.kind.text() {
            Some("text") => self.said(block.text.text().unwrap_or_default(), answers, emit),
            Some("thinking") => {
                emit(EventKind::Thought { text: cut(block.thinking.text().unwrap_or_default(), MAX_TEXT) });
            }
            Some("tool_use") => emit(EventKind::ToolStart {
                id: word(&block.id).unwrap_or_default(),
                name: word(&block.name).unwrap_or_default(),
                input: block.input,
            }),
            _ => {}
        }
    }

    fn said(&mut self, text: &str, answers: bool, emit: &mut dyn FnMut(EventKind)) {
        let shown = head(text, MAX_TEXT);
        let whole = (shown.len() < text.len()).then_some(text.len() as u64);
        emit(EventKind::Text { text: shown.to_owned(), whole });
        if !answers || text.is_empty() {
            return;
        }
        if !self.said.is_empty() {
            self.said.push('\n');
        }
        self.said.push_str(text);
        if self.said.len() > MAX_ANSWER {
            let mut from = self.said.len() - MAX_ANSWER;
            while !self.said.is_char_boundary(from) {
                from += 1;
            }
            self.said.drain(..from);
        }
        if !self.answered {
            self.summary.answer = Some(self.said.clone());
        }
    }

    fn result(&mut self, record: Record, emit: &mut dyn FnMut(EventKind)) {
        let summary = &mut self.summary;
        let is_error = record.is_error.is_true();
        let reason = word(&record.subtype).unwrap_or_else(|| "unknown".to_owned());
        summary.ended = true;
        summary.is_error = is_error;
        summary.reason = Some(reason.clone());
        summary.api_status = status(&record.api_status);
        let text = record.result.into_text().filter(|text| !text.trim().is_empty());
        if is_error {
            let words = text.unwrap_or_else(|| record.errors.join("; "));
            summary.error = (!words.is_empty()).then(|| cut(&words, MAX_TEXT));
        } else {
            summary.error = None;
            summary.api_error = None;
            if let Some(text) = text {
                summary.answer = Some(text);
                self.answered = true;
            }
        }
        let cost = record.total_cost.number().filter(|usd| *usd >= 0.0);
        let Tolerant(models) = record.models;
        if models.seen {
            let cost = cost.map(|usd| Cost { usd, kind: CostKind::Estimated });
            let usage = Usage { cost, ..models.used };
            summary.usage = Some(usage.clone());
            summary.usage_scope = UsageScope::Process;
            summary.models = models.by_model;
            emit(EventKind::Usage { scope: UsageScope::Process, model: None, usage });
        }
        let refused = match summary.api_status {
            Some(429) if is_error => Some(LimitKind::Window),
            Some(401 | 403) if is_error => Some(LimitKind::Auth),
            _ => None,
        };
        // A refusal that was told with its reset is not told again without.
        if let Some(kind) = refused.filter(|kind| summary.limit.as_ref().is_none_or(|limit| limit.kind != *kind)) {
            self.limit(Limit { kind, resets_at: None, source: LimitSource::Json }, emit);
        }
        emit(EventKind::Ended { reason, is_error });
    }
}

fn tool_results(record: Record, emit: &mut dyn FnMut(EventKind)) {
    let Items::Objects(blocks) = record.message.0.content else { return };
    for block in blocks.into_iter().filter(|block| block.kind.text() == Some("tool_result")) {
        let id = word(&block.tool_use_id).unwrap_or_default();
        let ok = !block.is_error.is_true();
        let result = block.result.into_text().map(|text| cut(&text, MAX_TEXT));
        emit(EventKind::ToolEnd { id, ok, exit: None, result });
    }
}

/// An HTTP status.
fn status(value: &Scalar) -> Option<u16> {
    value.count().filter(|code| (100..1000).contains(code)).and_then(|code| u16::try_from(code).ok())
}
