//! What the readers of all vendors share: lines of JSON told from text, and values of bounded length.

use std::time::Duration;

use crate::agents::event::{
    Event, EventKind, Limit, MAX_ANSWER, MAX_MODELS, MAX_TEXT, Stream, StreamSummary, UsageScope, head,
};
use crate::agents::json::{Object, Scalar, object};
use crate::agents::lines::Line;
use crate::agents::parser::{Reader, text_event};
use crate::types::Usage;

/// Longest pause that a retry is believed to make; a real program was seen to announce 6 h.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(8 * 86_400);
/// Bytes of an id, a name or a word that are kept.
pub(super) const MAX_WORD: usize = 256;

/// What takes the events of one line.
pub(super) type Emit<'a> = &'a mut dyn FnMut(EventKind);

/// One vendor's objects.
pub(super) trait Vocabulary: Send {
    /// One object.
    type Record<'de>: Object<'de>;

    /// One object of standard output.
    fn record(&mut self, summary: &mut StreamSummary, record: Self::Record<'_>, emit: Emit<'_>);

    /// One line of standard error, its first [`MAX_TEXT`] bytes.
    fn stderr(&mut self, _line: &str, _emit: Emit<'_>) {}
}

/// Reads lines of standard output, each one JSON object; a line that is none is text.
#[derive(Debug, Default)]
pub(super) struct Objects<V> {
    summary: StreamSummary,
    vocabulary: V,
}

impl<V: Vocabulary> Reader for Objects<V> {
    fn line(&mut self, stream: Stream, offset: u64, line: &Line<'_>, sink: &mut dyn FnMut(Event)) {
        let Self { summary, vocabulary } = self;
        if stream == Stream::Stderr {
            let (Line::Whole(bytes) | Line::Cut(bytes, _)) = line;
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]);
            return vocabulary.stderr(&text, &mut |kind| sink(Event { stream, offset, kind }));
        }
        summary.lines += 1;
        let Line::Whole(bytes) = line else { return sink(text_event(stream, offset, line)) };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        match object::<V::Record<'_>>(&String::from_utf8_lossy(bytes)) {
            Some(record) => vocabulary.record(summary, record, &mut |kind| sink(Event { stream, offset, kind })),
            None => sink(text_event(stream, offset, line)),
        }
    }

    fn summary(&self) -> &StreamSummary {
        &self.summary
    }
}

/// A copy of a text's first bytes.
pub(super) fn cut(text: &str, limit: usize) -> String {
    head(text, limit).to_owned()
}

/// A text that is not empty, as an id or a name.
pub(super) fn word(value: &Scalar<'_>) -> Option<String> {
    value.text().filter(|text| !text.is_empty()).map(|text| cut(text, MAX_WORD))
}

/// Keeps an id or a name that is told again and again.
pub(super) fn remember(slot: &mut Option<String>, value: &Scalar<'_>) {
    let Some(text) = value.text().filter(|text| !text.is_empty()) else { return };
    let text = head(text, MAX_WORD);
    if slot.as_deref() != Some(text) {
        *slot = Some(text.to_owned());
    }
}

/// What the agent says.
pub(super) fn said(text: &str, piece: bool) -> EventKind {
    let shown = head(text, MAX_TEXT);
    let whole = (shown.len() < text.len()).then_some(text.len() as u64);
    EventKind::Text { text: shown.to_owned(), whole, piece }
}

/// What the agent thinks.
pub(super) fn thought(text: &str, piece: bool) -> EventKind {
    EventKind::Thought { text: cut(text, MAX_TEXT), piece }
}

/// Adds to an answer that is put together from several texts.
pub(super) fn append(answer: &mut Option<String>, separator: &str, text: &str) {
    let answer = answer.get_or_insert_default();
    if !answer.is_empty() {
        answer.push_str(separator);
    }
    answer.push_str(text);
    // Only now and then: cutting moves all that stays.
    if answer.len() > 2 * MAX_ANSWER {
        let mut from = answer.len() - MAX_ANSWER;
        while !answer.is_char_boundary(from) {
            from += 1;
        }
        answer.drain(..from);
    }
}

/// A refusal, told once: one that is known with its reset is not told again without.
pub(super) fn refuse(summary: &mut StreamSummary, limit: Limit, emit: Emit<'_>) {
    let known = summary.limit.as_ref();
    if known.is_some_and(|known| known.kind == limit.kind && (known == &limit || limit.resets_at.is_none())) {
        return;
    }
    summary.limit = Some(limit.clone());
    emit(EventKind::Limit(limit));
}

/// Adds to what one model used.
pub(super) fn add_model(summary: &mut StreamSummary, model: &str, usage: &Usage) {
    let model = head(model, MAX_WORD);
    if let Some(sum) = summary.models.get_mut(model) {
        sum.add(usage);
    } else if summary.models.len() < MAX_MODELS {
        summary.models.insert(model.to_owned(), usage.clone());
    }
}

/// The sum of all that the process used.
pub(super) fn total(summary: &mut StreamSummary, scope: UsageScope, usage: Usage, emit: Emit<'_>) {
    summary.usage = Some(usage.clone());
    summary.usage_scope = scope;
    emit(EventKind::Usage { scope, model: None, usage });
}

/// The end, as the program itself tells it.
pub(super) fn ended(summary: &mut StreamSummary, reason: String, is_error: bool, emit: Emit<'_>) {
    summary.ended = true;
    summary.is_error = is_error;
    summary.reason = Some(reason.clone());
    emit(EventKind::Ended { reason, is_error });
}

/// What the program says of an error.
pub(super) fn error_words(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| cut(text, MAX_TEXT))
}

/// An HTTP status.
pub(super) fn status(value: &Scalar<'_>) -> Option<u16> {
    value.count().filter(|code| (100..1000).contains(code)).and_then(|code| u16::try_from(code).ok())
}

/// A count, 0 where there is none.
pub(super) fn count(value: &Scalar<'_>) -> u64 {
    value.count().unwrap_or(0)
}

/// A pause in milliseconds.
pub(super) fn pause(milliseconds: f64) -> Option<Duration> {
    (milliseconds >= 0.0)
        .then(|| Duration::try_from_secs_f64(milliseconds / 1000.0).map_or(MAX_DELAY, |delay| delay.min(MAX_DELAY)))
}

/// US dollars, where they are known: nothing for some tokens means that the price is not.
pub(super) fn dollars(value: &Scalar<'_>, tokens: u64) -> Option<f64> {
    value.number().filter(|usd| *usd > 0.0 || (*usd == 0.0 && tokens == 0))
}
