//! Gemini CLI's `-o stream-json`: one JSON object per line, and its retries on standard error alone.
//!
//! Usage comes with the result: a process that is killed leaves none, since nothing before it holds tokens. There is no
//! cost. The final answer is what was said after the last tool.

use std::collections::BTreeMap;

use serde::de::MapAccess;

use super::common::{
    Emit, MAX_WORD, Objects, Vocabulary, append, count, cut, ended, error_words, pause, refuse, remember, said, total,
    word,
};
use crate::agents::event::{EventKind, Limit, LimitSource, MAX_MODELS, MAX_TEXT, StreamSummary, UsageScope};
use crate::agents::json::{Object, Raw, Scalar, Tolerant, objects};
use crate::agents::limits::gemini::kind_of;
use crate::types::Usage;

/// A reader of its lines.
pub(super) type Gemini = Objects<State>;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether the next text begins a new answer.
    anew: bool,
}

objects! {
    /// One line; which keys it has depends on its type.
    struct Record {
        kind: Scalar<'de> = "type",
        session: Scalar<'de> = "session_id",
        model: Scalar<'de> = "model",
        role: Scalar<'de> = "role",
        content: Scalar<'de> = "content",
        delta: Scalar<'de> = "delta",
        tool_name: Scalar<'de> = "tool_name",
        tool_id: Scalar<'de> = "tool_id",
        parameters: Raw<'de> = "parameters",
        status: Scalar<'de> = "status",
        output: Scalar<'de> = "output",
        severity: Scalar<'de> = "severity",
        message: Scalar<'de> = "message",
        error: Tolerant<Failure<'de>> = "error",
        stats: Tolerant<Stats<'de>> = "stats",
    }

    struct Failure {
        kind: Scalar<'de> = "type",
        message: Scalar<'de> = "message",
    }

    struct Stats {
        all: Scalar<'de> = "total_tokens",
        input_and_cached: Scalar<'de> = "input_tokens",
        output: Scalar<'de> = "output_tokens",
        cached: Scalar<'de> = "cached",
        input: Scalar<'de> = "input",
        models: Tolerant<Models> = "models",
    }
}

/// What each model used.
#[derive(Debug, Default)]
pub(crate) struct Models(BTreeMap<String, Usage>);

impl<'de> Object<'de> for Models {
    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let Tolerant(stats) = map.next_value::<Tolerant<Stats<'de>>>()?;
        if self.0.len() < MAX_MODELS {
            self.0.insert(cut(name, MAX_WORD), stats.usage());
        }
        Ok(())
    }
}

impl Stats<'_> {
    fn usage(&self) -> Usage {
        let (with_cached, cache_read) = (count(&self.input_and_cached), count(&self.cached));
        let output = count(&self.output);
        // `output_tokens` leaves thoughts out; only the sum of all holds them.
        let reasoning = count(&self.all).saturating_sub(with_cached).saturating_sub(output);
        Usage {
            input: self.input.count().unwrap_or(with_cached.saturating_sub(cache_read)),
            cache_read,
            cache_write: 0,
            output: output.saturating_add(reasoning),
            reasoning,
            cost: None,
        }
    }

    fn known(&self) -> bool {
        [&self.all, &self.input_and_cached, &self.output].iter().any(|value| value.count().is_some())
    }
}

impl Vocabulary for State {
    type Record<'de> = Record<'de>;

    fn record(&mut self, summary: &mut StreamSummary, record: Record<'_>, emit: Emit<'_>) {
        match record.kind.text().unwrap_or_default() {
            "init" => {
                remember(&mut summary.session, &record.session);
                remember(&mut summary.model, &record.model);
                emit(EventKind::Started { session: word(&record.session), model: word(&record.model) });
            }
            "message" if record.role.text() == Some("assistant") => {
                let text = record.content.text().unwrap_or_default();
                emit(said(text, record.delta.is_true()));
                if std::mem::take(&mut self.anew) {
                    summary.answer = None;
                }
                append(&mut summary.answer, if record.delta.is_true() { "" } else { "\n" }, text);
            }
            "tool_use" => {
                self.anew = true;
                emit(EventKind::ToolStart {
                    id: word(&record.tool_id).unwrap_or_default(),
                    name: word(&record.tool_name).unwrap_or_default(),
                    input: cut(record.parameters.0, MAX_TEXT),
                });
            }
            "tool_result" => {
                let result = record.output.text().or(record.error.0.message.text());
                emit(EventKind::ToolEnd {
                    id: word(&record.tool_id).unwrap_or_default(),
                    ok: record.status.text() == Some("success"),
                    exit: None,
                    result: result.map(|text| cut(text, MAX_TEXT)),
                });
            }
            "error" if record.severity.text() == Some("error") => {
                summary.error = error_words(record.message.text().unwrap_or_default());
            }
            "result" => result(&record, summary, emit),
            // The prompt, and warnings.
            _ => summary.unknown += 1,
        }
    }

    fn stderr(&mut self, line: &str, emit: Emit<'_>) {
        if let Some(retry) = retry(line) {
            emit(retry);
        }
    }
}

fn result(record: &Record<'_>, summary: &mut StreamSummary, emit: Emit<'_>) {
    let stats = &record.stats.0;
    if stats.known() {
        summary.models.clone_from(&stats.models.0.0);
        total(summary, UsageScope::Process, stats.usage(), emit);
    }
    let word_for_it = word(&record.status).unwrap_or_else(|| "unknown".to_owned());
    if word_for_it == "success" {
        summary.error = None;
        return ended(summary, word_for_it, false, emit);
    }
    let error = &record.error.0;
    if let Some(words) = error_words(error.message.text().unwrap_or_default()) {
        if let Some(kind) = kind_of(&words) {
            refuse(summary, Limit { kind, resets_at: None, source: LimitSource::Text }, emit);
        }
        summary.error = Some(words);
    }
    let reason = word(&error.kind).filter(|kind| kind != "unknown").unwrap_or(word_for_it);
    ended(summary, reason, true, emit);
}

/// `Attempt 2 failed with status 429. Retrying after 15890ms...`
fn retry(line: &str) -> Option<EventKind> {
    let (_, rest) = line.split_once("Attempt ")?;
    let (ordinal, rest) = rest.split_once(" failed")?;
    ordinal.parse::<u32>().ok()?;
    let number = |after: &str| -> Option<f64> {
        let (_, rest) = rest.rsplit_once(after)?;
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].trim_end_matches('.').parse().ok()
    };
    let status = number("status ").filter(|code| (100.0..1000.0).contains(code)).map(|code| code as u16);
    let kind = match status {
        Some(429) => "rate_limit",
        Some(500..) => "overloaded",
        _ if rest.to_ascii_lowercase().contains("quota") => "rate_limit",
        _ => "unknown",
    };
    let delay = number("Retrying after ").and_then(pause);
    Some(EventKind::Retry { status, delay, kind: kind.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retries_are_read_from_standard_error() {
        let read = |line: &str| match retry(line) {
            Some(EventKind::Retry { status, delay, kind }) => Some((status, delay, kind)),
            _ => None,
        };
        let ms = Duration::from_millis;
        let limited =
            "Attempt 2 failed with status 429. Retrying after 15890ms... ApiError: {\"error\":{\"code\":429}}";
        assert_eq!(read(limited), Some((Some(429), Some(ms(15_890)), "rate_limit".into())));
        let quota = "Attempt 1 failed: You have exhausted your capacity. Your quota will reset after 2s.. Retrying after 2374.5ms...";
        assert_eq!(read(quota), Some((None, Some(Duration::from_micros(2_374_500)), "rate_limit".into())));
        let broken = "Attempt 1 failed with status 503. Retrying with backoff...";
        assert_eq!(read(broken), Some((Some(503), None, "overloaded".into())));
        for other in ["Attempt failed", "attempt 1 failed", "Attempt x failed with status 429", "", "Attempt 1 failed"]
        {
            assert_eq!(read(other), (other == "Attempt 1 failed").then(|| (None, None, "unknown".into())), "{other}");
        }
    }
}
