//! What the vendors' events mean.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::args::{Args, Vendor};

fn read(api: Api, pieces: &[&[u8]]) -> Vec<Step> {
    let (mut parser, mut reader, mut events) = (sse::Parser::default(), Reader::new(api), Vec::new());
    pieces.iter().for_each(|piece| parser.feed(piece, &mut |event| events.push(event)));
    parser.finish(&mut |event| events.push(event));
    let mut steps: Vec<Step> = events.iter().flat_map(|event| reader.event(event).unwrap()).collect();
    steps.extend(reader.end().map(Step::Finish));
    steps
}

fn stream(events: &[serde_json::Value]) -> Vec<u8> {
    events.iter().flat_map(|event| format!("event: x\ndata: {event}\n\n").into_bytes()).collect()
}

/// Perplexity's, by its published schema.
fn perplexity() -> Vec<u8> {
    stream(&[
        json!({"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1", "model": "perplexity/sonar", "status": "in_progress", "output": []}}),
        json!({"type": "response.reasoning.started", "sequence_number": 1, "thought": "look it up"}),
        json!({"type": "response.reasoning.search_queries", "sequence_number": 2, "queries": ["rust"]}),
        json!({"type": "response.reasoning.search_results", "sequence_number": 3, "results": [
            {"id": 1, "url": "https://rust-lang.org", "title": "Rust", "snippet": "…", "date": "2026-01-02"},
            {"id": "odd", "url": "https://docs.rs", "title": null}]}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "m", "status": "in_progress", "role": "assistant", "content": []}}),
        json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "item_id": "m", "delta": "Rust "}),
        json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "item_id": "m", "delta": "is[1]"}),
        json!({"type": "response.output_text.done", "output_index": 0, "content_index": 0, "item_id": "m", "text": "Rust is[1]"}),
        json!({"type": "response.mood", "mood": "fine"}),
        json!({"type": "response.completed", "response": {"id": "resp_1", "model": "perplexity/sonar", "status": "completed", "error": null,
            "output": [
                {"type": "search_results", "queries": ["rust"], "results": [{"id": 1, "url": "https://rust-lang.org", "title": "Rust", "snippet": ""}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Rust is[1]", "annotations": []}]}],
            "usage": {"input_tokens": 100, "input_tokens_details": {"cache_read_input_tokens": 30, "cache_creation_input_tokens": 10},
                "output_tokens": 20, "total_tokens": 120, "cost": {"currency": "USD", "total_cost": 0.005}}}}),
    ])
}

fn page(number: Option<u32>, url: &str, title: Option<&str>, date: Option<&str>) -> Found {
    Found { number, url: url.into(), title: title.map(str::to_owned), date: date.map(str::to_owned) }
}

#[test]
fn perplexitys_stream_is_read() {
    let begun = || Step::Started { session: Some("resp_1".into()), model: Some("perplexity/sonar".into()) };
    let expected = vec![
        begun(),
        Step::Thought("look it up".into()),
        Step::Search { queries: vec!["rust".into()], urls: vec![] },
        Step::Sources(vec![
            page(Some(1), "https://rust-lang.org", Some("Rust"), Some("2026-01-02")),
            page(None, "https://docs.rs", None, None),
        ]),
        Step::Text("Rust ".into()),
        Step::Text("is[1]".into()),
        Step::Foreign,
        begun(),
        Step::Sources(vec![page(Some(1), "https://rust-lang.org", Some("Rust"), None)]),
        Step::Whole("Rust is[1]".into()),
        Step::Usage(Usage {
            input: Some(60),
            cache_read: Some(30),
            cache_write: Some(10),
            output: Some(20),
            reasoning: None,
            cost_usd: Some(0.005),
            model: Some("perplexity/sonar".into()),
        }),
        Step::Finish(Finish::Completed),
    ];
    assert_eq!(read(Api::Agent, &[&perplexity()]), expected);
}

#[test]
fn xais_responses_are_read_with_citations_cost_and_reasoning() {
    let steps = read(
        Api::Responses,
        &[&stream(&[
            json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "hm"}),
            json!({"type": "response.output_item.done", "item": {"type": "web_search_call", "action": {"type": "search", "query": "q"}}}),
            json!({"type": "response.output_text.delta", "output_index": 1, "delta": "A"}),
            json!({"type": "response.output_text.delta", "output_index": 3, "delta": "B"}),
            json!({"type": "response.output_text.annotation.added", "annotation": {"type": "url_citation", "url": "https://x.ai/a", "title": "2"}}),
            json!({"type": "response.completed", "response": {"id": "r", "model": "m", "status": "completed", "citations": ["https://x.ai/b"],
                "usage": {"input_tokens": 9212, "input_tokens_details": {"cached_tokens": 3072}, "output_tokens": 3417,
                    "output_tokens_details": {"reasoning_tokens": 17}, "total_tokens": 12629, "cost_in_usd_ticks": 318_319_000u64}}}),
        ])],
    );
    let usage = Usage {
        input: Some(6140),
        cache_read: Some(3072),
        cache_write: None,
        output: Some(3417),
        reasoning: Some(17),
        cost_usd: Some(0.031_831_9),
        model: Some("m".into()),
    };
    let expected = vec![
        Step::Thought("hm".into()),
        Step::Search { queries: vec!["q".into()], urls: vec![] },
        Step::Text("A".into()),
        Step::Text("\n\nB".into()),
        Step::Sources(vec![page(Some(2), "https://x.ai/a", None, None)]),
        Step::Started { session: Some("r".into()), model: Some("m".into()) },
        Step::Sources(vec![page(Some(1), "https://x.ai/b", None, None)]),
        Step::Usage(usage),
        Step::Finish(Finish::Completed),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn chat_is_read_and_reasoning_beside_the_completion_is_counted_as_output() {
    let events = stream(&[
        json!({"id": "c", "model": "grok", "choices": [{"index": 0, "delta": {"role": "assistant", "content": null, "reasoning_content": "so"}}]}),
        json!({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}], "usage": {"prompt_tokens": 1}}),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "citations": ["https://a.org"]}),
        json!({"choices": [], "usage": {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 40}, "completion_tokens": 10,
            "completion_tokens_details": {"reasoning_tokens": 25}, "total_tokens": 135}}),
    ]);
    let usage = Usage {
        input: Some(60),
        cache_read: Some(40),
        output: Some(35),
        reasoning: Some(25),
        model: Some("grok".into()),
        ..Usage::default()
    };
    let expected = vec![
        Step::Started { session: None, model: Some("grok".into()) },
        Step::Thought("so".into()),
        Step::Text("Hi".into()),
        Step::Sources(vec![page(Some(1), "https://a.org", None, None)]),
        Step::Usage(usage),
        Step::Finish(Finish::Completed),
    ];
    assert_eq!(read(Api::Chat, &[&events, b"data: [DONE]\n\n"]), expected);
    assert_eq!(read(Api::Chat, &[&events]), expected, "some servers leave [DONE] out");
}

#[test]
fn other_ends_are_no_completion() {
    for (event, finish) in [
        (
            json!({"type": "response.incomplete", "response": {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}}),
            Finish::Incomplete("max_output_tokens".into()),
        ),
        (
            json!({"type": "response.completed", "response": {"status": "requires_action"}}),
            Finish::ToolCall(String::new()),
        ),
        (
            json!({"type": "response.completed", "response": {"status": "completed", "output": [{"type": "function_call", "name": "rm"}]}}),
            Finish::ToolCall("rm".into()),
        ),
        (
            json!({"type": "response.failed", "error": {"code": "rate_limit_exceeded", "type": "t", "message": "slow"}}),
            Finish::Failed(ApiError { status: None, code: "t rate_limit_exceeded".into(), message: "slow".into() }),
        ),
        (
            json!({"type": "response.failed", "response": {"error": {"code": "server_error", "message": "m"}}}),
            Finish::Failed(ApiError { status: None, code: "server_error".into(), message: "m".into() }),
        ),
        (
            json!({"type": "error", "code": "503", "message": "m"}),
            Finish::Failed(ApiError { status: Some(503), code: String::new(), message: "m".into() }),
        ),
        (json!({"error": "boom"}), Finish::Failed(ApiError { message: "boom".into(), ..ApiError::default() })),
    ] {
        assert_eq!(read(Api::Responses, &[&stream(&[event])]).pop(), Some(Step::Finish(finish)));
    }
    for (event, finish) in [
        (json!({"choices": [{"delta": {}, "finish_reason": "length"}]}), Finish::Incomplete("length".into())),
        (json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}), Finish::ToolCall(String::new())),
        (
            json!({"error": {"code": 502, "message": "m"}}),
            Finish::Failed(ApiError { status: Some(502), code: String::new(), message: "m".into() }),
        ),
    ] {
        assert_eq!(read(Api::Chat, &[&stream(&[event])]).pop(), Some(Step::Finish(finish)));
    }
    assert!(!read(Api::Chat, &[b"data: [DONE]\n\n"]).iter().any(|step| matches!(step, Step::Finish(_))));
}

#[test]
fn duplicate_keys_bad_utf8_and_broken_json_are_errors() {
    for data in [
        &br#"{"type":"response.output_text.delta","delta":"a","delta":"b"}"#[..],
        br#"{"type":"x","type":"y"}"#,
        b"{\"type\":\"\xff\"}",
        br#"{"type":"#,
        b"no json",
        b"[]x",
    ] {
        let event = sse::Event { name: Vec::new(), data: data.to_vec(), cut: None };
        assert!(Reader::new(Api::Responses).event(&event).is_err(), "{}", String::from_utf8_lossy(data));
    }
    let twice = br#"{"choices":[{"delta":{"content":"a"},"delta":{"content":"b"}}]}"#;
    let event = sse::Event { name: Vec::new(), data: twice.to_vec(), cut: None };
    assert!(Reader::new(Api::Chat).event(&event).is_err());
}

#[test]
fn a_completion_that_is_too_long_to_be_kept_is_still_one() {
    let big = |name: &str, data: &str| {
        let event = sse::Event { name: name.into(), data: data.into(), cut: Some(1 << 30) };
        Reader::new(Api::Agent).event(&event).unwrap()
    };
    let complete = vec![Step::Foreign, Step::Finish(Finish::Completed)];
    assert_eq!(big("response.completed", "{"), complete);
    assert_eq!(big("", r#"{"type": "response.completed","#), complete);
    assert_eq!(big("response.mood", "{"), [Step::Foreign]);
}

#[test]
fn an_answer_in_one_piece_is_read() {
    let mut reader = Reader::new(Api::Responses);
    let steps =
        reader.document(br#"{"id":"r","status":"completed","output":[{"type":"message","content":[{"text":"Hi"}]}]}"#);
    assert!(steps.unwrap().contains(&Step::Whole("Hi".into())));
    let steps =
        Reader::new(Api::Chat).document(br#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}"#);
    assert_eq!(steps.unwrap().last(), Some(&Step::Finish(Finish::Completed)));
    assert!(matches!(reader.document(b"{}"), Err(WireError::Nothing)));
    assert!(matches!(Reader::new(Api::Chat).document(b"{}"), Err(WireError::Nothing)));
}

#[test]
fn requests_carry_what_was_asked_for_and_nothing_else() {
    let args = |vendor, api| Args {
        vendor,
        api: Some(api),
        base_url: None,
        model: Some("m".into()),
        preset: None,
        tools: Vec::new(),
        prompt_file: "-".into(),
        resume: None,
        done: None,
        max_retries: 0,
        max_retry_time: std::time::Duration::ZERO,
        connect_timeout: std::time::Duration::ZERO,
        idle_timeout: std::time::Duration::ZERO,
    };
    let body = |vendor, api, preset, tools: &[String], resume| -> serde_json::Value {
        let target = args(vendor, api).target().unwrap();
        serde_json::from_slice(&request(&target, preset, tools, resume, "p\n\"")).unwrap()
    };
    assert_eq!(
        body(Vendor::Xai, Api::Responses, None, &["web_search".into()], Some("r")),
        json!({"model": "m", "stream": true, "input": "p\n\"", "previous_response_id": "r", "tools": [{"type": "web_search"}]})
    );
    assert_eq!(
        body(Vendor::Perplexity, Api::Agent, Some("fast"), &[], None),
        json!({"model": "m", "preset": "fast", "stream": true, "input": "p\n\""})
    );
    assert_eq!(
        body(Vendor::Xai, Api::Chat, None, &[], None),
        json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "p\n\""}], "stream_options": {"include_usage": true}})
    );
}

#[test]
fn errors_are_read_in_all_their_shapes() {
    let expect = |body: &str, status, code: &str, message: &str| {
        let expected = ApiError { status, code: code.into(), message: message.into() };
        assert_eq!(error(body.as_bytes()), Some(expected), "{body}");
    };
    expect(r#"{"code":"c d","error":"m"}"#, None, "c d", "m");
    expect(r#"{"error":{"message":"m","type":"t","code":429}}"#, Some(429), "t", "m");
    expect(r#"{"error":{"message":"m","type":"t","code":"c"}}"#, None, "t c", "m");
    expect(r#"{"detail":"m"}"#, None, "", "m");
    expect(r#"{"message":"m"}"#, None, "", "m");
    assert_eq!(error(b"<html>"), None);
    assert_eq!(error(b"{}"), None);
}

proptest! {
    #[test]
    fn any_split_of_a_stream_means_the_same(cuts in prop::collection::vec(0usize..3000, 0..20)) {
        let bytes = perplexity();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(read(Api::Agent, &pieces), read(Api::Agent, &[&bytes]));
    }

    #[test]
    fn no_event_is_too_wild(data in prop::collection::vec(any::<u8>(), 0..200)) {
        for api in [Api::Agent, Api::Chat] {
            let event = sse::Event { name: Vec::new(), data: data.clone(), cut: None };
            let _ = Reader::new(api).event(&event);
            let _ = Reader::new(api).document(&data);
        }
    }
}
