//! Perplexity's agent API and xAI's responses API: events of one shape, of which each uses a part.

use serde::Deserialize;

use super::usage::RawUsage;
use super::{ApiError, Code, Finish, Maybe, Page, RawError, Step, WireError, cited, found};

/// Reads the events of one try.
#[derive(Debug, Default)]
pub struct Reader {
    /// The part of the answer that the last text belonged to.
    part: Option<(u64, u64)>,
    /// The same of reasoning.
    thought_part: Option<(u64, u64)>,
    thought: bool,
    /// Parts whose text came in pieces, and so does not count again when it comes whole.
    seen: bool,
    tool: Option<String>,
}

/// An event: all fields that any of them has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    delta: Maybe<String>,
    text: Maybe<String>,
    thought: Maybe<String>,
    queries: Maybe<Vec<Maybe<String>>>,
    urls: Maybe<Vec<Maybe<String>>>,
    results: Maybe<Vec<Maybe<Page>>>,
    contents: Maybe<Vec<Maybe<Page>>>,
    annotation: Maybe<Page>,
    response: Option<Response>,
    item: Option<Item>,
    error: Maybe<RawError>,
    code: Maybe<Code>,
    message: Maybe<String>,
    output_index: Maybe<u64>,
    content_index: Maybe<u64>,
    summary_index: Maybe<u64>,
}

/// The whole answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Response {
    id: Maybe<String>,
    model: Maybe<String>,
    status: Maybe<String>,
    output: Option<Vec<Item>>,
    error: Maybe<RawError>,
    incomplete_details: Maybe<Incomplete>,
    usage: Maybe<RawUsage>,
    citations: Maybe<Vec<Maybe<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Incomplete {
    reason: Maybe<String>,
}

/// A part of the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Item {
    #[serde(rename = "type")]
    kind: Maybe<String>,
    name: Maybe<String>,
    role: Maybe<String>,
    content: Option<Vec<Content>>,
    queries: Maybe<Vec<Maybe<String>>>,
    results: Maybe<Vec<Maybe<Page>>>,
    contents: Maybe<Vec<Maybe<Page>>>,
    action: Maybe<Action>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Content {
    text: Maybe<String>,
    refusal: Maybe<String>,
    annotations: Maybe<Vec<Maybe<Page>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Action {
    query: Maybe<String>,
    url: Maybe<String>,
}

impl Reader {
    pub(super) fn event(&mut self, text: &str) -> Result<Vec<Step>, WireError> {
        let event: Event = serde_json::from_str(text)?;
        let part = (event.output_index.clone().value().unwrap_or(0), event.content_index.clone().value().unwrap_or(0));
        let mut steps = Vec::new();
        let thought = event.thought.clone().value();
        steps.extend(thought.filter(|thought| !thought.is_empty()).map(Step::Thought));
        match event.kind.as_str() {
            "response.created" | "response.in_progress" | "response.queued" => {
                steps.extend(event.response.map(started));
            }
            "response.output_text.delta" | "response.refusal.delta" => {
                steps.extend(event.delta.value().map(|delta| self.text(part, delta)));
            }
            "response.output_text.done" | "response.refusal.done" => {
                if self.part != Some(part) {
                    steps.extend(event.text.value().map(|text| self.text(part, text)));
                }
            }
            "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => {
                let part = (part.0, event.summary_index.value().unwrap_or(part.1));
                steps.extend(event.delta.value().map(|delta| self.thought(part, delta)));
            }
            "response.reasoning.started" | "response.reasoning.stopped" => {}
            "response.reasoning.search_queries" => steps.extend(search(event.queries, Maybe::default())),
            "response.reasoning.fetch_url_queries" => steps.extend(search(Maybe::default(), event.urls)),
            "response.reasoning.search_results" => steps.extend(sources(event.results)),
            "response.reasoning.fetch_url_results" => steps.extend(sources(event.contents)),
            "response.output_text.annotation.added" => {
                steps.extend(event.annotation.value().and_then(Page::found).map(|one| Step::Sources(vec![one])));
            }
            "response.output_item.done" => steps.extend(event.item.and_then(|item| self.item_done(item))),
            kind if known_without_news(kind) => {}
            "response.completed" | "response.incomplete" => {
                let complete = event.kind == "response.completed";
                steps.extend(self.finish(event.response.unwrap_or_default(), complete));
            }
            "response.failed" | "response.cancelled" | "error" => {
                let nested = event.response.and_then(|response| response.error.value());
                let mut error: ApiError = event.error.value().or(nested).map(ApiError::from).unwrap_or_default();
                if error.message.is_empty() {
                    error.message = event.message.value().unwrap_or_default();
                }
                if let Some(code) = event.code.value() {
                    code.add_to(&mut error);
                }
                steps.push(Step::Finish(Finish::Failed(error)));
            }
            // Some gateways send a bare error in the middle of a stream.
            "" if matches!(event.error, Maybe::Value(_)) => {
                steps.extend(event.error.value().map(|error| Step::Finish(Finish::Failed(error.into()))));
            }
            _ => steps.push(Step::Foreign),
        }
        Ok(steps)
    }

    pub(super) fn document(&mut self, text: &str) -> Result<Vec<Step>, WireError> {
        let response: Response = serde_json::from_str(text)?;
        if response.output.is_none() && matches!(response.error, Maybe::Other(_)) {
            return Err(WireError::Nothing);
        }
        Ok(self.finish(response, true))
    }

    /// A piece of text; parts are paragraphs.
    fn text(&mut self, part: (u64, u64), text: String) -> Step {
        let other = self.part.replace(part).is_some_and(|last| last != part) && self.seen;
        self.seen |= !text.is_empty();
        Step::Text(if other { format!("\n\n{text}") } else { text })
    }

    fn thought(&mut self, part: (u64, u64), text: String) -> Step {
        let other = self.thought_part.replace(part).is_some_and(|last| last != part) && self.thought;
        self.thought |= !text.is_empty();
        Step::Thought(if other { format!("\n\n{text}") } else { text })
    }

    /// A part that has ended: what the events of its pieces did not say.
    fn item_done(&mut self, item: Item) -> Option<Step> {
        match item.kind.value().unwrap_or_default().as_str() {
            "search_results" => sources(item.results),
            "fetch_url_results" => sources(item.contents),
            "web_search_call" | "x_search_call" => {
                let action = item.action.value()?;
                let (queries, urls) = (list(action.query.value()), list(action.url.value()));
                (!queries.is_empty() || !urls.is_empty()).then_some(Step::Search { queries, urls })
            }
            "function_call" => {
                self.tool = Some(item.name.value().unwrap_or_default());
                None
            }
            "message" => {
                let pages = item.content.into_iter().flatten().filter_map(|content| content.annotations.value());
                let all: Vec<_> = pages.flat_map(found).collect();
                (!all.is_empty()).then_some(Step::Sources(all))
            }
            _ => None,
        }
    }

    /// The whole answer: what is new in it, and how it ended.
    fn finish(&mut self, mut response: Response, complete: bool) -> Vec<Step> {
        let status = response.status.clone().value().unwrap_or_default();
        let error = std::mem::take(&mut response.error).value();
        let incomplete = std::mem::take(&mut response.incomplete_details).value();
        let usage = std::mem::take(&mut response.usage).value();
        let citations = std::mem::take(&mut response.citations).value();
        let output = response.output.take().unwrap_or_default();
        let model = response.model.clone().value();
        let mut steps = vec![started(response)];
        let mut texts = Vec::new();
        let mut cites = false;
        for mut item in output {
            let is_message = item.kind.clone().value().is_some_and(|kind| kind == "message");
            if is_message && item.role.clone().value().is_none_or(|role| role == "assistant") {
                for content in item.content.iter_mut().flatten() {
                    let text = std::mem::take(&mut content.text).value();
                    texts.extend(text.or_else(|| std::mem::take(&mut content.refusal).value()));
                }
            }
            // Searches were shown when they happened, and are none of the answer.
            if let Some(step @ Step::Sources(_)) = self.item_done(item) {
                cites |= is_message;
                steps.push(step);
            }
        }
        texts.retain(|text| !text.is_empty());
        if !texts.is_empty() {
            steps.push(Step::Whole(texts.join("\n\n")));
        }
        // All pages that were met, in place of those that are cited.
        if !cites && let Some(citations) = citations {
            steps.push(Step::Sources(cited(citations)));
        }
        steps.extend(usage.and_then(|usage| usage.usage(model)).map(Step::Usage));
        let reason = incomplete.and_then(|details| details.reason.value());
        steps.push(Step::Finish(match (status.as_str(), error, self.tool.take()) {
            ("failed" | "cancelled", error, _) => Finish::Failed(error.map(ApiError::from).unwrap_or_default()),
            (_, Some(error), _) => Finish::Failed(error.into()),
            (_, None, Some(tool)) => Finish::ToolCall(tool),
            ("requires_action", None, None) => Finish::ToolCall(String::new()),
            ("incomplete" | "in_progress" | "queued", None, None) => Finish::Incomplete(reason.unwrap_or(status)),
            _ if !complete => Finish::Incomplete(reason.unwrap_or_default()),
            _ => Finish::Completed,
        }));
        steps
    }
}

fn started(response: Response) -> Step {
    Step::Started { session: response.id.value(), model: response.model.value() }
}

/// Kinds that announce what another event says in full.
fn known_without_news(kind: &str) -> bool {
    matches!(
        kind,
        "response.output_item.added"
            | "response.content_part.added"
            | "response.content_part.done"
            | "response.reasoning_text.done"
            | "response.reasoning_summary_text.done"
            | "response.reasoning_summary_part.added"
            | "response.reasoning_summary_part.done"
            | "response.function_call_arguments.delta"
            | "response.function_call_arguments.done"
    )
}

fn search(queries: Maybe<Vec<Maybe<String>>>, urls: Maybe<Vec<Maybe<String>>>) -> Option<Step> {
    let texts = |list: Maybe<Vec<Maybe<String>>>| -> Vec<String> {
        list.value().into_iter().flatten().filter_map(Maybe::value).collect()
    };
    let (queries, urls) = (texts(queries), texts(urls));
    (!queries.is_empty() || !urls.is_empty()).then_some(Step::Search { queries, urls })
}

fn sources(pages: Maybe<Vec<Maybe<Page>>>) -> Option<Step> {
    let all = found(pages.value()?);
    (!all.is_empty()).then_some(Step::Sources(all))
}

fn list(one: Option<String>) -> Vec<String> {
    one.filter(|text| !text.is_empty()).into_iter().collect()
}
