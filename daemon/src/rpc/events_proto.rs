//! Events of agents to wire types, without configured tokens and with every text bounded.

use conductor_core::agents::event::{Event, EventKind, MAX_TEXT, Stream, UsageScope, head};
use conductor_core::agents::{Masks, Seam};
use conductor_core::types::Timestamp;
use conductor_proto::v1;
use v1::run_event::Event as Wire;

use super::to_proto;

/// Puts events on the wire, in their order: a token that two texts share is known by that.
pub struct Encoder {
    masks: Masks,
    text: Seam,
    thought: Seam,
}

impl Encoder {
    /// For one stream, from its first event on.
    #[must_use]
    pub fn new(masks: Masks) -> Self {
        Self { masks, text: Seam::default(), thought: Seam::default() }
    }

    /// One event; `next` is the place behind it, `time` when its line was read.
    pub fn event(&mut self, event: Event, next: v1::EventPosition, time: Option<Timestamp>) -> v1::RunEvent {
        let stream = match event.stream {
            Stream::Stdout => v1::LogStream::Stdout,
            Stream::Stderr => v1::LogStream::Stderr,
        };
        v1::RunEvent {
            stream: stream.into(),
            offset: event.offset,
            next: Some(next),
            time: time.map(to_proto::time),
            event: Some(self.kind(event.kind)),
        }
    }

    fn kind(&mut self, kind: EventKind) -> Wire {
        if !matches!(kind, EventKind::Text { .. }) {
            self.text.cut();
        }
        if !matches!(kind, EventKind::Thought { .. }) {
            self.thought.cut();
        }
        match kind {
            EventKind::Started { session, model } => {
                Wire::Started(v1::SessionStarted { session_id: self.maybe(session), model: self.maybe(model) })
            }
            EventKind::Text { text, whole, piece } => {
                let text = bounded(self.text.text(&self.masks, &text));
                Wire::Text(v1::AgentText { text, whole_bytes: whole.unwrap_or(0), piece })
            }
            EventKind::Thought { text, piece } => {
                Wire::Thought(v1::AgentThought { text: bounded(self.thought.text(&self.masks, &text)), piece })
            }
            EventKind::ToolStart { id, name, input } => Wire::ToolStarted(v1::ToolStarted {
                tool_id: self.masked(&id),
                name: self.masked(&name),
                input: self.masked(&input),
            }),
            EventKind::ToolEnd { id, ok, exit, result } => Wire::ToolEnded(v1::ToolEnded {
                tool_id: self.masked(&id),
                ok,
                exit_code: exit,
                result: result.map(|result| self.masked(&result)),
            }),
            EventKind::Retry { status, delay, kind } => Wire::Retry(v1::RequestRetry {
                status: status.unwrap_or(0).into(),
                delay: delay.map(to_proto::duration),
                kind: self.masked(&kind),
            }),
            EventKind::Limit(limit) => Wire::Limit(to_proto::limit(&limit)),
            EventKind::Usage { scope, model, usage } => Wire::Usage(v1::UsageReport {
                scope: scope_of(scope).into(),
                model: self.maybe(model),
                usage: Some(to_proto::usage(&usage)),
            }),
            EventKind::Ended { reason, is_error } => {
                Wire::Ended(v1::SessionEnded { reason: self.masked(&reason), is_error })
            }
        }
    }

    fn masked(&self, text: &str) -> String {
        bounded(self.masks.text(text).into_owned())
    }

    fn maybe(&self, text: Option<String>) -> String {
        text.map(|text| self.masked(&text)).unwrap_or_default()
    }
}

/// A text that is no longer than promised: a mask may be longer than what it hides.
fn bounded(mut text: String) -> String {
    let length = head(&text, MAX_TEXT).len();
    text.truncate(length);
    text
}

fn scope_of(scope: UsageScope) -> v1::UsageScope {
    match scope {
        UsageScope::Delta => v1::UsageScope::Delta,
        UsageScope::Process => v1::UsageScope::Process,
        UsageScope::Thread => v1::UsageScope::Thread,
    }
}
