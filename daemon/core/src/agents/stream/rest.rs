//! The stream of `conductor-rest-agent`, version 1, as that program documents it.

use jiff::Timestamp;

use super::common::{
    Emit, Objects, Vocabulary, add_model, append, count, cut, ended, error_words, pause, refuse, remember, said,
    status, thought, total, word,
};
use crate::agents::event::{EventKind, Limit, LimitKind, LimitSource, MAX_TEXT, StreamSummary, UsageScope};
use crate::agents::json::{Raw, Scalar, objects};
use crate::types::{Cost, CostKind, Usage};

/// A reader of its lines.
pub(super) type Rest = Objects<State>;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether the answer is the one that it put together itself.
    answered: bool,
    /// Searches so far, which have no ids of their own.
    searches: u64,
}

objects! {
    /// One line; which keys it has depends on its type.
    struct Record {
        kind: Scalar<'de> = "type",
        session: Scalar<'de> = "session",
        model: Scalar<'de> = "model",
        delta: Scalar<'de> = "delta",
        queries: Raw<'de> = "queries",
        urls: Raw<'de> = "urls",
        status: Scalar<'de> = "status",
        delay_ms: Scalar<'de> = "delay_ms",
        what: Scalar<'de> = "kind",
        resets_at: Scalar<'de> = "resets_at",
        source: Scalar<'de> = "source",
        input: Scalar<'de> = "input",
        cache_read: Scalar<'de> = "cache_read",
        cache_write: Scalar<'de> = "cache_write",
        output: Scalar<'de> = "output",
        reasoning: Scalar<'de> = "reasoning",
        cost: Scalar<'de> = "cost_usd",
        text: Scalar<'de> = "text",
        reason: Scalar<'de> = "reason",
        is_error: Scalar<'de> = "is_error",
        error: Scalar<'de> = "error",
    }
}

impl Vocabulary for State {
    type Record<'de> = Record<'de>;

    fn record(&mut self, summary: &mut StreamSummary, record: Record<'_>, emit: Emit<'_>) {
        match record.kind.text().unwrap_or_default() {
            "started" => {
                remember(&mut summary.session, &record.session);
                remember(&mut summary.model, &record.model);
                emit(EventKind::Started { session: word(&record.session), model: word(&record.model) });
            }
            "text" => {
                let text = record.delta.text().unwrap_or_default();
                emit(said(text, true));
                if !self.answered {
                    append(&mut summary.answer, "", text);
                }
            }
            "thought" => emit(thought(record.delta.text().unwrap_or_default(), true)),
            "search" => self.search(&record, emit),
            "retry" => emit(EventKind::Retry {
                status: status(&record.status),
                delay: record.delay_ms.number().and_then(pause),
                kind: word(&record.what).unwrap_or_else(|| "unknown".to_owned()),
            }),
            "limit" => {
                if let Some(limit) = limit(&record) {
                    refuse(summary, limit, emit);
                }
            }
            "usage" => used(&record, summary, emit),
            "answer" => {
                if let Some(text) = record.text.into_text() {
                    summary.answer = Some(text.into_owned());
                    self.answered = true;
                }
            }
            "ended" => {
                remember(&mut summary.session, &record.session);
                remember(&mut summary.model, &record.model);
                summary.api_status = status(&record.status);
                summary.error = record.error.text().and_then(error_words);
                let reason = word(&record.reason).unwrap_or_else(|| "unknown".to_owned());
                ended(summary, reason, record.is_error.is_true(), emit);
            }
            // Requests, sources, notes, and events of the vendor that the program itself does not know.
            _ => summary.unknown += 1,
        }
    }
}

impl State {
    /// The vendor searches by itself and does not say when it is done.
    fn search(&mut self, record: &Record<'_>, emit: Emit<'_>) {
        self.searches += 1;
        let id = format!("search-{}", self.searches);
        let list = |raw: Raw<'_>| if raw.0.is_empty() { "[]".to_owned() } else { cut(raw.0, MAX_TEXT / 2 - 32) };
        let input = format!("{{\"queries\":{},\"urls\":{}}}", list(record.queries), list(record.urls));
        emit(EventKind::ToolStart { id: id.clone(), name: "web_search".to_owned(), input });
        emit(EventKind::ToolEnd { id, ok: true, exit: None, result: None });
    }
}

fn limit(record: &Record<'_>) -> Option<Limit> {
    let kind = match record.what.text()? {
        "window" => LimitKind::Window,
        "daily" => LimitKind::Daily,
        "spend" => LimitKind::Spend,
        "credits" => LimitKind::Credits,
        "overload" => LimitKind::Overload,
        "auth" => LimitKind::Auth,
        _ => return None,
    };
    let source = if record.source.text() == Some("text") { LimitSource::Text } else { LimitSource::Json };
    let resets_at = record.resets_at.text().and_then(|text| text.parse::<Timestamp>().ok());
    Some(Limit { kind, resets_at, source })
}

fn used(record: &Record<'_>, summary: &mut StreamSummary, emit: Emit<'_>) {
    let cost = record.cost.number().filter(|usd| *usd >= 0.0);
    if record.input.count().is_none() && record.output.count().is_none() && cost.is_none() {
        return;
    }
    let usage = Usage {
        input: count(&record.input),
        cache_read: count(&record.cache_read),
        cache_write: count(&record.cache_write),
        output: count(&record.output),
        reasoning: count(&record.reasoning),
        cost: cost.map(|usd| Cost { usd, kind: CostKind::Exact }),
    };
    summary.models.clear();
    if let Some(model) = word(&record.model) {
        add_model(summary, &model, &usage);
    }
    total(summary, UsageScope::Process, usage, emit);
}
