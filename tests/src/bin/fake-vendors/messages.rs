//! The Messages service: which answer a request gets, by the scenario.
//!
//! Shapes are those that Claude Code 2.1.197 accepts. Token counts are constants, so that tests can assert them.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::{Scenario, Server};

/// The usage of each call of the model.
const INPUT: u32 = 100;
const CACHE_WRITE: u32 = 20;
const CACHE_READ: u32 = 30;
const OUTPUT: u32 = 25;

/// When a reached limit ends, in seconds of the epoch: 2030, so that no test waits for it.
const RESET: &str = "1900000000";

/// The answer to a request.
pub(crate) fn answer(server: &Server, request: &Request) -> Answer {
    match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/v1/messages") => messages(server, &request.body),
        ("POST", "/v1/messages/count_tokens") => plain(200, &json!({"input_tokens": INPUT})),
        ("HEAD", _) => plain(200, &Value::Null),
        _ => error(404, "not_found_error", "the fake has no such address"),
    }
}

fn messages(server: &Server, body: &[u8]) -> Answer {
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return error(400, "invalid_request_error", "the body is no JSON");
    };
    let call = server.calls.fetch_add(1, Ordering::Relaxed);
    match server.arguments.scenario {
        Scenario::Limit => return limit(),
        Scenario::Denied => return error(401, "authentication_error", "invalid x-api-key"),
        Scenario::Overloaded if call == 0 => return error(529, "overloaded_error", "Overloaded"),
        _ => {}
    }
    let wants_tool = server.arguments.scenario == Scenario::Tool && has_bash(&request) && !has_tool_result(&request);
    let block = if wants_tool {
        let input = json!({"command": server.arguments.command, "description": "Do the task"});
        json!({"type": "tool_use", "id": format!("toolu_fake{call:04}"), "name": "Bash", "input": input})
    } else {
        json!({"type": "text", "text": server.arguments.answer})
    };
    let stop = if wants_tool { "tool_use" } else { "end_turn" };
    let mut message = json!({
        "id": format!("msg_fake{call:04}"), "type": "message", "role": "assistant", "model": request["model"],
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {
            "input_tokens": INPUT, "cache_creation_input_tokens": CACHE_WRITE,
            "cache_read_input_tokens": CACHE_READ, "output_tokens": 1,
        },
    });
    if request["stream"] == true {
        return stream(&message, &block, stop);
    }
    message["content"] = json!([block]);
    message["stop_reason"] = json!(stop);
    message["usage"]["output_tokens"] = json!(OUTPUT);
    plain(200, &message)
}

/// Whether the request offers the tool Bash: the program also makes requests of its own that don't.
fn has_bash(request: &Value) -> bool {
    request["tools"].as_array().is_some_and(|tools| tools.iter().any(|tool| tool["name"] == "Bash"))
}

fn has_tool_result(request: &Value) -> bool {
    let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let blocks = messages.iter().filter_map(|message| message["content"].as_array()).flatten();
    blocks.into_iter().any(|block| block["type"] == "tool_result")
}

/// A message as server-sent events.
fn stream(message: &Value, block: &Value, stop: &str) -> Answer {
    let (empty, delta) = if block["type"] == "tool_use" {
        let mut empty = block.clone();
        empty["input"] = json!({});
        (empty, json!({"type": "input_json_delta", "partial_json": block["input"].to_string()}))
    } else {
        (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": block["text"]}))
    };
    let events = [
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": empty}),
        json!({"type": "ping"}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({
            "type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null},
            "usage": {"output_tokens": OUTPUT},
        }),
        json!({"type": "message_stop"}),
    ];
    let mut body = String::new();
    for event in &events {
        let name = event["type"].as_str().unwrap_or_default();
        // Writing to a String can't fail.
        let _ = write!(body, "event: {name}\ndata: {event}\n\n");
    }
    Answer { status: 200, headers: vec![("content-type", "text/event-stream".to_owned())], body }
}

/// The headers are those of a subscription; with an API key only the status counts.
fn limit() -> Answer {
    let mut answer = error(429, "rate_limit_error", "This request would exceed your account's rate limit.");
    let unified = [
        ("anthropic-ratelimit-unified-status", "rejected"),
        ("anthropic-ratelimit-unified-reset", RESET),
        ("anthropic-ratelimit-unified-representative-claim", "five_hour"),
        ("anthropic-ratelimit-unified-5h-utilization", "1.0"),
        ("anthropic-ratelimit-unified-overage-status", "rejected"),
        ("x-should-retry", "false"),
        ("retry-after", "7"),
    ];
    answer.headers.extend(unified.map(|(name, value)| (name, value.to_owned())));
    answer
}

fn error(status: u16, kind: &str, message: &str) -> Answer {
    plain(status, &json!({"type": "error", "error": {"type": kind, "message": message}}))
}

fn plain(status: u16, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Answer { status, headers: vec![("content-type", "application/json".to_owned())], body }
}
