//! Chat completions: the API that gateways have.

use serde::Deserialize;

use super::usage::RawUsage;
use super::{Finish, Maybe, Page, RawError, Step, WireError, cited, found};
use crate::event::Usage;

/// Reads the events of one try.
#[derive(Debug, Default)]
pub struct Reader {
    started: bool,
    finish: Option<Finish>,
    model: Option<String>,
}

/// A piece of an answer, or a whole one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Chunk {
    model: Maybe<String>,
    choices: Option<Vec<Choice>>,
    usage: Maybe<RawUsage>,
    citations: Maybe<Vec<Maybe<String>>>,
    search_results: Maybe<Vec<Maybe<Page>>>,
    error: Maybe<RawError>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    delta: Option<Message>,
    message: Option<Message>,
    finish_reason: Maybe<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Maybe<String>,
    reasoning_content: Maybe<String>,
    reasoning: Maybe<String>,
    refusal: Maybe<String>,
}

impl Reader {
    pub(super) fn event(&mut self, text: &str) -> Result<Vec<Step>, WireError> {
        let chunk: Chunk = serde_json::from_str(text)?;
        let known =
            chunk.choices.is_some() || matches!(chunk.usage, Maybe::Value(_)) || matches!(chunk.error, Maybe::Value(_));
        if !known {
            return Ok(vec![Step::Foreign]);
        }
        Ok(self.chunk(chunk, false))
    }

    pub(super) fn document(&mut self, text: &str) -> Result<Vec<Step>, WireError> {
        let chunk: Chunk = serde_json::from_str(text)?;
        if chunk.choices.is_none() && matches!(chunk.error, Maybe::Other(_)) {
            return Err(WireError::Nothing);
        }
        let mut steps = self.chunk(chunk, true);
        if !matches!(steps.last(), Some(Step::Finish(_))) {
            steps.push(Step::Finish(self.end().unwrap_or(Finish::Completed)));
        }
        Ok(steps)
    }

    /// How it ended, once it has said so: the counts may come later.
    pub(super) fn end(&mut self) -> Option<Finish> {
        self.finish.take()
    }

    /// Of a `whole` answer the message counts, of a piece the difference: some gateways send the message so far as well.
    fn chunk(&mut self, chunk: Chunk, whole: bool) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(error) = chunk.error.value() {
            return vec![Step::Finish(Finish::Failed(error.into()))];
        }
        let model = chunk.model.value();
        if !std::mem::replace(&mut self.started, true) {
            self.model.clone_from(&model);
            steps.push(Step::Started { session: None, model });
        }
        for choice in chunk.choices.into_iter().flatten().take(1) {
            let message = if whole { choice.message.or(choice.delta) } else { choice.delta };
            let message = message.unwrap_or_default();
            let thought = message.reasoning_content.value().or(message.reasoning.value());
            steps.extend(thought.filter(|text| !text.is_empty()).map(Step::Thought));
            let text = message.content.value().or(message.refusal.value());
            steps.extend(text.filter(|text| !text.is_empty()).map(Step::Text));
            if let Some(reason) = choice.finish_reason.value() {
                self.finish = Some(finish(reason));
            }
        }
        let pages = chunk.search_results.value().map(found).unwrap_or_default();
        let numbered = (1..).zip(pages).map(|(n, mut page)| {
            page.number = page.number.or(Some(n));
            page
        });
        let mut all: Vec<_> = numbered.collect();
        if all.is_empty() {
            all = chunk.citations.value().map(cited).unwrap_or_default();
        }
        if !all.is_empty() {
            steps.push(Step::Sources(all));
        }
        // Some send the counts so far with every piece; those of the last one are the turn's.
        let counts = chunk.usage.value().and_then(|usage| usage.usage(self.model.clone()));
        steps.extend(counts.filter(|_| whole || self.finish.is_some()).map(|usage: Usage| Step::Usage(usage)));
        steps
    }
}

fn finish(reason: String) -> Finish {
    match reason.as_str() {
        "stop" | "end_turn" | "eos" | "" => Finish::Completed,
        "tool_calls" | "function_call" => Finish::ToolCall(String::new()),
        _ => Finish::Incomplete(reason),
    }
}
