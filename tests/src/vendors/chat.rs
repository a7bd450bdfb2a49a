//! The Chat Completions service of xAI, and how xAI refuses in either service.
//!
//! Each call of the model counts 100 tokens of the prompt, 30 of them cached, and 25 of the completion, 5 of them for
//! reasoning. The shapes of its refusals were constructed by hand.

use serde_json::{Value, json};

use super::dialogue::{Conversation, Item, Turn};
use super::http::Answer;
use super::responses::{CACHED, INPUT, OUTPUT, REASONING};
use super::scenario::Kind;
use super::sse;

/// What a request asks.
pub(super) fn conversation(request: &Value) -> Conversation {
    let mut items = Vec::new();
    for message in request["messages"].as_array().into_iter().flatten() {
        if message["role"] == "tool" {
            items.push(Item::Result);
        } else if message["role"] == "user" {
            let blocks = message["content"].as_array().into_iter().flatten();
            let texts = blocks.filter_map(|block| block["text"].as_str()).chain(message["content"].as_str());
            items.extend(texts.map(|text| Item::User(text.to_owned())));
        }
    }
    let tools = request["tools"].as_array().into_iter().flatten();
    let tools: Vec<String> = tools.filter_map(|tool| Some(tool["function"]["name"].as_str()?.to_owned())).collect();
    let model = request["model"].as_str().unwrap_or_default().to_owned();
    let aside = tools == ["session_title"];
    Conversation { model, stream: request["stream"] == true, tools, items, aside }
}

/// The model speaks. Usage comes with a stream only if it was asked for.
pub(super) fn answer(request: &Value, conversation: &Conversation, turn: &Turn, number: u64) -> (Vec<String>, Value) {
    let usage = json!({
        "prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT,
        "prompt_tokens_details": {"cached_tokens": CACHED},
        "completion_tokens_details": {"reasoning_tokens": REASONING},
    });
    let shape = |object: &str, choices: Value, usage: &Value| {
        let mut value = json!({
            "id": format!("chatcmpl_fake{number:04}"), "object": object, "created": 1_795_360_000,
            "model": conversation.model, "choices": choices,
        });
        if !usage.is_null() {
            value["usage"] = usage.clone();
        }
        value
    };
    let chunk = |delta: Value, finish: Value| {
        shape("chat.completion.chunk", json!([{"index": 0, "delta": delta, "finish_reason": finish}]), &Value::Null)
    };
    let (mut message, finish) = (
        json!({"role": "assistant", "content": turn.text()}),
        match turn {
            Turn::Call { .. } => "tool_calls",
            Turn::Text(_) => "stop",
        },
    );
    let mut chunks = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    match turn {
        Turn::Call { tool, input } => {
            let function = json!({"name": tool, "arguments": input.to_string()});
            let call =
                json!({"index": 0, "id": format!("call_fake{number:04}"), "type": "function", "function": function});
            message["tool_calls"] = json!([call]);
            chunks.push(chunk(json!({"tool_calls": [call]}), Value::Null));
        }
        Turn::Text(pieces) => {
            chunks.extend(pieces.iter().map(|piece| chunk(json!({"content": piece}), Value::Null)));
        }
    }
    chunks.push(chunk(json!({}), json!(finish)));
    if request["stream_options"]["include_usage"] == true {
        chunks.push(shape("chat.completion.chunk", json!([]), &usage));
    }
    let mut frames: Vec<String> = chunks.iter().map(sse::plain).collect();
    frames.push("data: [DONE]\n\n".to_owned());
    let choices = json!([{"index": 0, "message": message, "finish_reason": finish}]);
    (frames, shape("chat.completion", choices, &usage))
}

/// xAI refuses: a code in words and one text.
pub(super) fn refuse(kind: Kind, status: u16, reset: u64) -> Answer {
    const EXHAUSTED: &str = "Some resource has been exhausted";
    const FORBIDDEN: &str = "The caller does not have permission to execute the specified operation";
    let wait = sse::seconds_until(reset);
    match kind {
        Kind::Limit => {
            error(429, EXHAUSTED, &format!("You have reached your usage limit. Try again in {wait} seconds."))
                .retry_after(reset)
        }
        Kind::Daily => {
            error(429, EXHAUSTED, &format!("You have reached your daily limit. Try again in {wait} seconds."))
                .retry_after(reset)
        }
        Kind::Spend => error(429, EXHAUSTED, "You have reached your individual spend limit."),
        Kind::Credits => {
            let text = "Your team has either used all available credits or reached its monthly spending limit. To \
                        continue making API requests, please purchase more credits or raise your spending limit.";
            error(429, EXHAUSTED, text)
        }
        Kind::Overload => error(
            status,
            "The service is currently unavailable",
            "The model is at capacity and currently cannot serve this request. Please try again later.",
        ),
        Kind::Auth if status == 403 => error(403, FORBIDDEN, "Your API key lacks the permission for this model."),
        Kind::Auth => error(status, "Client specified an invalid argument", "Incorrect API key provided: xa***ey."),
        Kind::Disabled => error(403, FORBIDDEN, "API access has been disabled by your admin."),
        _ => error(status, "Internal error", "Internal server error"),
    }
}

fn error(status: u16, code: &str, text: &str) -> Answer {
    Answer::json(status, &json!({"code": code, "error": text}))
}
