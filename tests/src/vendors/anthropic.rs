//! The Messages service of Anthropic, in shapes that Claude Code 2.1.197 accepts.
//!
//! Each call of the model counts 100 tokens of input, 20 written to and 30 read from the cache, 25 of output.

use serde_json::{Value, json};

use super::dialogue::{Conversation, Item, Turn};
use super::http::Answer;
use super::scenario::Kind;
use super::sse;

/// Tokens of input besides those of the cache.
pub const INPUT: u32 = 100;
/// Tokens written to the cache.
pub const CACHE_WRITE: u32 = 20;
/// Tokens read from the cache.
pub const CACHE_READ: u32 = 30;
/// Tokens of output.
pub const OUTPUT: u32 = 25;

/// What a request asks.
pub(super) fn conversation(request: &Value) -> Conversation {
    let mut items = Vec::new();
    for message in request["messages"].as_array().into_iter().flatten() {
        if message["role"] != "user" {
            continue;
        }
        if let Some(text) = message["content"].as_str() {
            items.push(Item::User(text.to_owned()));
        }
        for block in message["content"].as_array().into_iter().flatten() {
            match block["type"].as_str() {
                Some("tool_result") => items.push(Item::Result),
                Some("text") => items.push(Item::User(block["text"].as_str().unwrap_or_default().to_owned())),
                _ => {}
            }
        }
    }
    let tools = request["tools"].as_array().into_iter().flatten();
    let tools: Vec<String> = tools.filter_map(|tool| Some(tool["name"].as_str()?.to_owned())).collect();
    let model = request["model"].as_str().unwrap_or_default().to_owned();
    // Titles and summaries: asked of the small model, without tools.
    let aside = tools.is_empty() && model.contains("haiku");
    Conversation { model, stream: request["stream"] == true, tools, items, aside }
}

/// The model speaks.
pub(super) fn answer(conversation: &Conversation, turn: &Turn, number: u64) -> (Vec<String>, Value) {
    let (block, stop) = match turn {
        Turn::Call { tool, input } => {
            let id = format!("toolu_fake{number:04}");
            (json!({"type": "tool_use", "id": id, "name": tool, "input": input}), "tool_use")
        }
        Turn::Text(_) => (json!({"type": "text", "text": turn.text()}), "end_turn"),
    };
    let mut message = json!({
        "id": format!("msg_fake{number:04}"), "type": "message", "role": "assistant", "model": conversation.model,
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {
            "input_tokens": INPUT, "cache_creation_input_tokens": CACHE_WRITE,
            "cache_read_input_tokens": CACHE_READ, "output_tokens": 1,
        },
    });
    let (empty, deltas) = match turn {
        Turn::Call { input, .. } => {
            let mut empty = block.clone();
            empty["input"] = json!({});
            (empty, vec![json!({"type": "input_json_delta", "partial_json": input.to_string()})])
        }
        Turn::Text(pieces) => {
            let deltas = pieces.iter().map(|piece| json!({"type": "text_delta", "text": piece})).collect();
            (json!({"type": "text", "text": ""}), deltas)
        }
    };
    let mut events = vec![
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": empty}),
        json!({"type": "ping"}),
    ];
    events.extend(deltas.iter().map(|delta| json!({"type": "content_block_delta", "index": 0, "delta": delta})));
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({
            "type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null},
            "usage": {"output_tokens": OUTPUT},
        }),
        json!({"type": "message_stop"}),
    ]);
    message["content"] = json!([block]);
    message["stop_reason"] = json!(stop);
    message["usage"]["output_tokens"] = json!(OUTPUT);
    (events.iter().map(sse::named).collect(), message)
}

/// The service refuses.
pub(super) fn refuse(kind: Kind, status: u16, reset: u64) -> Answer {
    match kind {
        Kind::Limit => limit("five_hour", reset),
        Kind::Daily => limit("seven_day", reset),
        Kind::Spend => {
            let time = sse::date_and_time(reset);
            let text =
                format!("You have reached your specified API usage limits. You will regain access on {time} UTC.");
            error(400, "invalid_request_error", &text)
        }
        Kind::Credits => {
            let text = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to \
                        upgrade or purchase credits.";
            error(400, "invalid_request_error", text)
        }
        Kind::Overload => error(status, "overloaded_error", "Overloaded"),
        Kind::Auth if status == 403 => error(403, "permission_error", "Your account does not have access to this."),
        Kind::Auth => error(status, "authentication_error", "invalid x-api-key").with("x-should-retry", "false"),
        Kind::Disabled => error(403, "permission_error", "Claude Code has been disabled by your admin."),
        _ => error(status, "api_error", "Internal server error"),
    }
}

/// The headers are those of a subscription; with an API key only the status counts.
fn limit(claim: &str, reset: u64) -> Answer {
    error(429, "rate_limit_error", "This request would exceed your account's rate limit. Please try again later.")
        .with("anthropic-ratelimit-unified-status", "rejected")
        .with("anthropic-ratelimit-unified-reset", reset.to_string())
        .with("anthropic-ratelimit-unified-representative-claim", claim)
        .with("anthropic-ratelimit-unified-5h-utilization", "1.0")
        .with("anthropic-ratelimit-unified-overage-status", "rejected")
        .with("x-should-retry", "false")
        .retry_after(reset)
}

fn error(status: u16, kind: &str, message: &str) -> Answer {
    Answer::json(status, &json!({"type": "error", "error": {"type": kind, "message": message}}))
}
