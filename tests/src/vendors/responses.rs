//! The Responses service of OpenAI and xAI, in shapes that Codex 0.169.0 and Grok 1.0.41 accept.
//!
//! Each call of the model counts 100 tokens of input, 30 of them cached, and 25 of output, 5 of them for reasoning.

use serde_json::{Value, json};

use super::dialogue::{Conversation, Item, Turn};
use super::http::Answer;
use super::scenario::Kind;
use super::sse;

/// Tokens of input, those of the cache included.
pub const INPUT: u32 = 100;
/// Tokens of input that the cache had.
pub const CACHED: u32 = 30;
/// Tokens of output, those of reasoning included.
pub const OUTPUT: u32 = 25;
/// Tokens of output for reasoning.
pub const REASONING: u32 = 5;

/// What a request asks.
pub(super) fn conversation(request: &Value) -> Conversation {
    let mut items = Vec::new();
    if let Some(text) = request["input"].as_str() {
        items.push(Item::User(text.to_owned()));
    }
    for item in request["input"].as_array().into_iter().flatten() {
        if item["type"].as_str().is_some_and(|kind| kind.ends_with("_call_output")) {
            items.push(Item::Result);
        } else if item["role"] == "user" {
            let blocks = item["content"].as_array().into_iter().flatten();
            let texts = blocks.filter_map(|block| block["text"].as_str()).chain(item["content"].as_str());
            items.extend(texts.map(|text| Item::User(text.to_owned())));
        }
    }
    let tools = request["tools"].as_array().into_iter().flatten();
    let tools: Vec<String> =
        tools.filter_map(|tool| Some(tool["name"].as_str().or(tool["type"].as_str())?.to_owned())).collect();
    let model = request["model"].as_str().unwrap_or_default().to_owned();
    // Grok has the model name each session.
    let aside = tools == ["session_title"];
    Conversation { model, stream: request["stream"] == true, tools, items, aside }
}

/// The model speaks.
pub(super) fn answer(conversation: &Conversation, turn: &Turn, number: u64) -> (Vec<String>, Value) {
    let response = json!({
        "id": format!("resp_fake{number:04}"), "object": "response", "created_at": 1_795_360_000, "status": "in_progress",
        "model": conversation.model, "output": [], "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
        "error": null, "incomplete_details": null, "instructions": null, "metadata": {}, "temperature": 1.0,
        "top_p": 1.0,
    });
    let id = format!("item_fake{number:04}");
    let mut events = vec![json!({"type": "response.created", "response": response})];
    let item = match turn {
        Turn::Call { tool, input } => json!({
            "type": "function_call", "id": id, "call_id": format!("call_fake{number:04}"), "name": tool,
            "arguments": input.to_string(), "status": "completed",
        }),
        Turn::Text(pieces) => {
            let open =
                json!({"type": "message", "role": "assistant", "id": id, "content": [], "status": "in_progress"});
            events.push(json!({"type": "response.output_item.added", "output_index": 0, "item": open}));
            events.extend(pieces.iter().map(|piece| {
                json!({
                    "type": "response.output_text.delta", "item_id": id, "output_index": 0, "content_index": 0,
                    "delta": piece,
                })
            }));
            let text = json!({"type": "output_text", "text": turn.text(), "annotations": []});
            json!({"type": "message", "role": "assistant", "id": id, "content": [text], "status": "completed"})
        }
    };
    events.push(json!({"type": "response.output_item.done", "output_index": 0, "item": item}));
    let mut done = response;
    done["status"] = json!("completed");
    done["output"] = json!([item]);
    done["usage"] = json!({
        "input_tokens": INPUT, "input_tokens_details": {"cached_tokens": CACHED},
        "output_tokens": OUTPUT, "output_tokens_details": {"reasoning_tokens": REASONING},
        "total_tokens": INPUT + OUTPUT,
    });
    events.push(json!({"type": "response.completed", "response": done}));
    for (sequence, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(sequence);
    }
    (events.iter().map(sse::named).collect(), done)
}

/// The service of OpenAI refuses.
pub(super) fn refuse(kind: Kind, status: u16, reset: u64) -> Answer {
    match kind {
        Kind::Limit => {
            let error = json!({
                "type": "usage_limit_reached", "message": "The usage limit has been reached", "plan_type": "plus",
                "resets_at": reset, "resets_in_seconds": sse::seconds_until(reset),
            });
            Answer::json(429, &json!({"error": error}))
        }
        Kind::Daily => {
            let wait = sse::seconds_until(reset);
            let text = format!(
                "Rate limit reached for gpt-fake in organization org-fake on requests per day (RPD): Limit 200, Used 200, \
                 Requested 1. Please try again in {wait}s."
            );
            error(429, "requests", "rate_limit_exceeded", &text).retry_after(reset)
        }
        Kind::Spend => {
            error(429, "billing_error", "billing_hard_limit_reached", "Billing hard limit has been reached.")
        }
        Kind::Credits => {
            let text = "You exceeded your current quota, please check your plan and billing details.";
            error(429, "insufficient_quota", "insufficient_quota", text)
        }
        Kind::Overload => {
            let text = "Our servers are currently overloaded. Please try again later.";
            error(status, "service_unavailable_error", "server_is_overloaded", text)
        }
        Kind::Auth if status == 403 => {
            error(403, "invalid_request_error", "forbidden", "You do not have access to this project.")
        }
        Kind::Auth => error(status, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-****."),
        Kind::Disabled => {
            error(403, "invalid_request_error", "access_disabled", "Codex has been disabled by your admin.")
        }
        _ => error(status, "server_error", "server_error", "The server had an error while processing your request."),
    }
}

fn error(status: u16, kind: &str, code: &str, message: &str) -> Answer {
    Answer::json(status, &json!({"error": {"message": message, "type": kind, "param": null, "code": code}}))
}
