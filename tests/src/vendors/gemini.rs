//! The Gemini service of Google, in shapes that Gemini CLI 0.61.0 accepts.
//!
//! Each call of the model counts 100 tokens of the prompt, 30 of them cached, 25 of the answer and 5 of thoughts.

use serde_json::{Value, json};

use super::dialogue::{Conversation, Item, Turn};
use super::http::Answer;
use super::scenario::Kind;
use super::sse;

/// Tokens of the prompt, those of the cache included.
pub const PROMPT: u32 = 100;
/// Tokens of the prompt that the cache had.
pub const CACHED: u32 = 30;
/// Tokens of the answer.
pub const ANSWER: u32 = 25;
/// Tokens of thoughts, besides those of the answer.
pub const THOUGHTS: u32 = 5;

/// What a request asks of a model.
pub(super) fn conversation(model: &str, stream: bool, request: &Value) -> Conversation {
    let mut items = Vec::new();
    for content in request["contents"].as_array().into_iter().flatten().filter(|content| content["role"] == "user") {
        for part in content["parts"].as_array().into_iter().flatten() {
            if part["functionResponse"].is_object() {
                items.push(Item::Result);
            } else if let Some(text) = part["text"].as_str() {
                items.push(Item::User(text.to_owned()));
            }
        }
    }
    let groups = request["tools"].as_array().into_iter().flatten();
    let tools = groups.filter_map(|group| group["functionDeclarations"].as_array()).flatten();
    let tools = tools.filter_map(|tool| Some(tool["name"].as_str()?.to_owned())).collect();
    // The choice of the model, and checks of the program: an answer in a given form.
    let aside = request["generationConfig"]["responseJsonSchema"].is_object()
        || request["generationConfig"]["responseSchema"].is_object();
    Conversation { model: model.to_owned(), stream, tools, items, aside }
}

/// The model speaks: in chunks, and as a whole.
pub(super) fn answer(conversation: &Conversation, turn: &Turn, _number: u64) -> (Vec<String>, Value) {
    let response = |parts: Value, last: bool| {
        let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
        let mut value = json!({"modelVersion": conversation.model});
        if last {
            candidate["finishReason"] = json!("STOP");
            value["usageMetadata"] = json!({
                "promptTokenCount": PROMPT, "cachedContentTokenCount": CACHED, "candidatesTokenCount": ANSWER,
                "thoughtsTokenCount": THOUGHTS, "totalTokenCount": PROMPT + ANSWER + THOUGHTS,
            });
        }
        value["candidates"] = json!([candidate]);
        value
    };
    let parts: Vec<Value> = match turn {
        Turn::Call { tool, input } => vec![json!({"functionCall": {"name": tool, "args": input}})],
        Turn::Text(pieces) => pieces.iter().map(|piece| json!({"text": piece})).collect(),
    };
    let last = parts.len().saturating_sub(1);
    let chunks = parts.iter().enumerate().map(|(index, part)| response(json!([part]), index == last));
    (chunks.map(|chunk| sse::plain(&chunk)).collect(), response(json!(parts), true))
}

/// What the program asks for itself: the choice of a model.
pub(super) fn aside() -> Turn {
    let choice =
        json!({"reasoning": "short", "model_choice": "flash", "complexity_reasoning": "short", "complexity_score": 1});
    Turn::Text(vec![choice.to_string()])
}

/// The service refuses.
pub(super) fn refuse(kind: Kind, status: u16, reset: u64) -> Answer {
    const EXHAUSTED: &str = "RESOURCE_EXHAUSTED";
    let wait = sse::seconds_until(reset);
    match kind {
        Kind::Limit => {
            let text = format!("Resource has been exhausted (e.g. check quota). Please retry in {wait}s.");
            error(429, EXHAUSTED, &text, json!([quota("GenerateRequestsPerMinutePerProjectPerModel"), retry(wait)]))
        }
        Kind::Daily => {
            let text = "You exceeded your current quota, please check your plan and billing details.";
            error(429, EXHAUSTED, text, json!([quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier")]))
        }
        Kind::Spend => error(429, EXHAUSTED, "Your project has exceeded its monthly spending cap.", json!([])),
        Kind::Credits => error(429, EXHAUSTED, "Your prepayment credits are depleted.", json!([])),
        Kind::Overload => error(status, "UNAVAILABLE", "The model is overloaded. Please try again later.", json!([])),
        Kind::Auth if status == 403 => error(403, "PERMISSION_DENIED", "Permission denied.", json!([])),
        Kind::Auth => {
            let info = json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
            });
            error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", json!([info]))
        }
        Kind::Disabled => error(403, "PERMISSION_DENIED", "Gemini has been disabled by your admin.", json!([])),
        _ => error(status, "INTERNAL", "An internal error has occurred.", json!([])),
    }
}

/// The quota of a subscription, for whose end Gemini CLI does not wait, however near it is.
pub(super) fn exhausted(reset: u64) -> Answer {
    let wait = sse::seconds_until(reset);
    let text = format!("You have reached the quota limit of this model. Your quota will reset after {wait}s.");
    let info = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "QUOTA_EXHAUSTED",
        "domain": "cloudcode-pa.googleapis.com",
    });
    error(429, "RESOURCE_EXHAUSTED", &text, json!([info, retry(wait)]))
}

fn quota(id: &str) -> Value {
    let violation = json!({"quotaMetric": "generativelanguage.googleapis.com/generate_requests", "quotaId": id});
    json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]})
}

fn retry(wait: u64) -> Value {
    json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{wait}s")})
}

fn error(status: u16, code: &str, message: &str, details: Value) -> Answer {
    let error = json!({"code": status, "message": message, "status": code, "details": details});
    Answer::json(status, &json!({"error": error}))
}
