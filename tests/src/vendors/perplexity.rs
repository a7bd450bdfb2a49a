//! The Agent service of Perplexity, constructed by hand from its documentation: no program of theirs talks to it.
//!
//! Each call counts 100 tokens of input and 25 of output and costs 0.006 USD, 0.005 of it for the search. It finds two
//! sources. With a preset the model is `perplexity/sonar`.

use serde_json::{Value, json};

use super::dialogue::{Conversation, Turn};
use super::http::Answer;
use super::scenario::Kind;
use super::{responses, sse};

/// What a request asks.
pub(super) fn conversation(request: &Value) -> Conversation {
    let mut conversation = responses::conversation(request);
    if conversation.model.is_empty() {
        conversation.model = "perplexity/sonar".to_owned();
    }
    conversation.aside = false;
    conversation
}

/// The model speaks.
pub(super) fn answer(conversation: &Conversation, turn: &Turn, number: u64) -> (Vec<String>, Value) {
    let response = json!({
        "id": format!("resp_fake{number:04}"), "object": "response", "created_at": 1_795_360_000, "status": "in_progress",
        "model": conversation.model, "output": [],
    });
    let source = |id: u32| {
        json!({
            "id": id, "title": format!("Source {id}"), "url": format!("https://example.com/{id}"),
            "snippet": format!("What source {id} says."), "date": "2026-01-01",
        })
    };
    let sources = json!([source(1), source(2)]);
    let id = format!("msg_fake{number:04}");
    let mut events = vec![
        json!({"type": "response.created", "response": response}),
        json!({"type": "response.in_progress", "response": response}),
        json!({"type": "response.reasoning.started"}),
        json!({"type": "response.reasoning.search_queries", "queries": ["what is asked"]}),
        json!({"type": "response.reasoning.search_results", "results": sources}),
        json!({"type": "response.reasoning.stopped"}),
    ];
    let open = json!({"type": "message", "role": "assistant", "id": id, "content": [], "status": "in_progress"});
    events.push(json!({"type": "response.output_item.added", "output_index": 1, "item": open}));
    let pieces = if let Turn::Text(pieces) = turn { pieces.as_slice() } else { &[] };
    let place = json!({"item_id": id, "output_index": 1, "content_index": 0});
    let placed = |mut event: Value| {
        for key in ["item_id", "output_index", "content_index"] {
            event[key] = place[key].clone();
        }
        event
    };
    events.extend(pieces.iter().map(|piece| placed(json!({"type": "response.output_text.delta", "delta": piece}))));
    events.push(placed(json!({"type": "response.output_text.done", "text": turn.text()})));
    let text = json!({"type": "output_text", "text": turn.text(), "annotations": []});
    let message = json!({"type": "message", "role": "assistant", "id": id, "content": [text], "status": "completed"});
    events.push(json!({"type": "response.output_item.done", "output_index": 1, "item": message}));
    let search = json!({"type": "search_results", "queries": ["what is asked"], "results": sources});
    let mut done = response;
    done["status"] = json!("completed");
    done["output"] = json!([search, message]);
    done["usage"] = json!({
        "input_tokens": responses::INPUT, "output_tokens": responses::OUTPUT,
        "total_tokens": responses::INPUT + responses::OUTPUT,
        "cost": {
            "currency": "USD", "input_cost": 0.0005, "output_cost": 0.0005, "tool_calls_cost": 0.005, "total_cost": 0.006,
        },
    });
    events.push(json!({"type": "response.completed", "response": done}));
    for (sequence, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(sequence);
    }
    (events.iter().map(sse::named).collect(), done)
}

/// The service refuses. Without credits it answers 401, as with a bad key.
pub(super) fn refuse(kind: Kind, status: u16, reset: u64) -> Answer {
    match kind {
        Kind::Limit => error(429, "rate_limit_exceeded", "Rate limit exceeded.").retry_after(reset),
        Kind::Daily => error(429, "rate_limit_exceeded", "Daily request limit reached.").retry_after(reset),
        Kind::Spend => error(429, "spend_limit_exceeded", "You have reached your monthly spend limit."),
        Kind::Credits => {
            let text = "You exceeded your current quota, please check your plan and billing details.";
            error(401, "insufficient_quota", text)
        }
        Kind::Overload => error(status, "service_unavailable", "The service is overloaded."),
        Kind::Auth => error(status, "invalid_api_key", "Invalid API key provided."),
        Kind::Disabled => error(403, "forbidden", "API access has been disabled by your admin."),
        _ => error(status, "internal_error", "Internal error."),
    }
}

fn error(status: u16, kind: &str, message: &str) -> Answer {
    Answer::json(status, &json!({"error": {"message": message, "type": kind, "code": status}}))
}
