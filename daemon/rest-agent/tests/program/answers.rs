//! Complete answers: what is sent, printed and left behind.

use serde_json::{Value, json};

use crate::server::{Act, Server, answer, stream};
use crate::{KEY, command, finish, run};

pub(crate) fn text(delta: &str) -> Value {
    json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": delta})
}

pub(crate) fn created() -> Value {
    json!({"type": "response.created", "response": {"id": "resp_1", "model": "grok-real", "status": "in_progress"}})
}

pub(crate) fn completed() -> Value {
    json!({"type": "response.completed", "response": {"id": "resp_1", "model": "grok-real", "status": "completed",
        "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}}})
}

/// A usual answer.
pub(crate) fn hello() -> Vec<u8> {
    stream(&[created(), text("Hel"), text("lo"), completed()])
}

#[test]
fn perplexitys_answer_is_streamed_with_its_sources_and_finishes_the_task() {
    let server = Server::new(vec![Act::Send(stream(&[
        json!({"type": "response.created", "response": {"id": "resp_9", "model": "perplexity/sonar"}}),
        json!({"type": "response.reasoning.search_queries", "queries": ["q"], "thought": "hm"}),
        json!({"type": "response.reasoning.search_results", "results": [{"id": 1, "url": "https://a.org", "title": "A"}, {"id": 2, "url": "https://b.org", "title": "B", "date": "2026"}]}),
        text("It is so [1].\n"),
        json!({"type": "response.odd", "mood": ["fine"]}),
        json!({"type": "response.completed", "response": {"id": "resp_9", "model": "perplexity/sonar", "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "It is so [1].\n"}]}],
            "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10, "cost": {"currency": "USD", "total_cost": 0.01}}}}),
    ]))]);
    let ran = run(&server, "perplexity", &["--idle-timeout", "20s"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    let kinds: Vec<&str> = ran.events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["request", "started", "thought", "search", "sources", "text", "vendor", "usage", "answer", "ended"]
    );
    let url = format!("{}/v1/agent", server.url());
    let request = json!({"type": "request", "version": 1, "vendor": "perplexity", "api": "agent", "url": url,
        "model": "perplexity/sonar", "attempt": 1, "resumes": null});
    assert_eq!(ran.one("request"), &request);
    assert_eq!(ran.one("started"), &json!({"type": "started", "session": "resp_9", "model": "perplexity/sonar"}));
    assert_eq!(ran.one("vendor")["event"], json!({"type": "response.odd", "mood": ["fine"]}));
    assert_eq!(
        ran.one("usage"),
        &json!({"type": "usage", "input": 7, "cache_read": null, "cache_write": null, "output": 3, "reasoning": null,
            "cost_usd": 0.01, "model": "perplexity/sonar"})
    );
    let whole = "It is so [1].\n\n## Sources\n\n1. [A](https://a.org)\n2. [B](https://b.org) (2026)\n";
    assert_eq!(
        ran.one("answer"),
        &json!({"type": "answer", "text": whole, "bytes": 14, "sources": 2, "complete": true})
    );
    assert_eq!(
        ran.ended(),
        &json!({"type": "ended", "reason": "completed", "is_error": false, "status": null, "error": null,
            "session": "resp_9", "model": "perplexity/sonar"})
    );
    assert!(ran.done() && ran.stderr.is_empty());
    let sent = &server.requests()[0];
    assert!(sent.head.starts_with("POST /v1/agent HTTP/1.1\r\n") && sent.head.contains(&format!("Bearer {KEY}")));
    assert_eq!(sent.json(), json!({"model": "perplexity/sonar", "stream": true, "input": "say \"hi\"\n"}));
}

#[test]
fn a_session_is_resumed_and_one_that_is_gone_is_told_apart() {
    let gone = r#"{"code":"not-found","error":"Response with id resp_0 not found"}"#;
    let server = Server::new(vec![Act::Send(hello()), Act::Send(answer("404 Not Found", "", gone))]);
    let ran = run(&server, "xai", &["--resume", "resp_0"]);
    assert_eq!((ran.code, ran.ended()["session"].as_str()), (Some(0), Some("resp_1")));
    assert_eq!(server.requests()[0].json()["previous_response_id"], "resp_0");
    let ran = run(&server, "xai", &["--resume", "resp_0"]);
    assert_eq!((ran.code, ran.reason()), (Some(1), "session_not_found"));
    assert!(!ran.done());
}

#[test]
fn xai_without_a_model_lists_what_there_is_and_chooses_nothing() {
    let models = r#"{"object":"list","data":[{"id":"grok-a"},{"id":"grok-b"}]}"#;
    let server = Server::new(vec![Act::Send(answer("200 OK", "Content-Type: application/json\r\n", models))]);
    let folder = tempfile::tempdir().unwrap();
    let ran = finish(command(folder.path(), &["--vendor", "xai", "--base-url", &server.url()]), folder);
    assert_eq!((ran.code, ran.reason()), (Some(2), "no_model"));
    assert!(ran.error().ends_with("grok-a, grok-b"), "{}", ran.error());
    let requests = server.requests();
    assert!(requests.len() == 1 && requests[0].head.starts_with("GET /v1/models HTTP/1.1"));
    assert!(!ran.done());
}

#[test]
fn chat_and_answers_in_one_piece_are_complete_answers_too() {
    let chat = stream(&[
        json!({"id": "c", "model": "m", "choices": [{"delta": {"content": "Hello"}}]}),
        json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
    ]);
    let piece =
        r#"{"id":"r","model":"m","status":"completed","output":[{"type":"message","content":[{"text":"Hello"}]}]}"#;
    let server = Server::new(vec![
        Act::Send([&chat[..], b"data: [DONE]\n\n"].concat()),
        Act::Send(answer("200 OK", "Content-Type: application/json\r\n", piece)),
        Act::Send(answer("200 OK", "", format!(" \n{piece}"))),
    ]);
    for api in ["chat", "responses", "responses"] {
        let ran = run(&server, "xai", &["--api", api]);
        assert_eq!((ran.code, ran.text().as_str(), ran.done()), (Some(0), "Hello", true), "{}", ran.stdout);
    }
    assert!(server.requests()[0].head.starts_with("POST /v1/chat/completions "));
}

#[test]
fn lines_of_a_megabyte_work_and_longer_than_16_are_cut_with_a_note() {
    let long = "é\n".repeat(400_000);
    let huge = format!("data: {{\"type\":\"response.odd\",\"x\":\"{}\"}}\n\n", "x".repeat(17 << 20));
    let odd = json!({"type": "response.odd", "x": "y".repeat(1 << 21)});
    let mut body = stream(&[created(), text(&long), odd]);
    body.extend_from_slice(huge.as_bytes());
    body.extend_from_slice(format!("data: {}\n\n", completed()).as_bytes());
    let server = Server::new(vec![Act::Send(body)]);
    let ran = run(&server, "xai", &[]);
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.text(), long);
    assert!(ran.all("text").iter().all(|event| event["delta"].as_str().unwrap().len() <= 65_536));
    assert!(ran.one("note")["text"].as_str().unwrap().contains("was cut"));
    let foreign = ran.all("vendor");
    assert!(foreign[0]["bytes"].as_u64() > Some(1 << 21) && foreign[1]["bytes"].as_u64() > Some(17 << 20));
    let whole = ran.one("answer");
    assert_eq!(whole["bytes"].as_u64(), Some(long.len() as u64));
    assert!(whole["text"].as_str().unwrap().len() <= 1 << 20);
    assert!(ran.stdout.lines().all(|line| line.len() < 3 << 20));
}

#[test]
fn the_key_is_masked_wherever_the_server_echoes_it() {
    let echo = format!("you sent {KEY}");
    let (head, tail) = KEY.split_at(9);
    let escaped = format!("\\u{:04x}{}", u32::from(KEY.as_bytes()[0]), &KEY[1..]);
    let hidden = format!("data: {{\"type\":\"response.odd\",\"x\":\"{escaped}\"}}\n\n");
    let mut echoes = stream(&[created()]);
    echoes.extend_from_slice(hidden.as_bytes());
    for event in [
        text(&echo),
        text(head),
        text(tail),
        json!({"type": KEY, "key": KEY}),
        json!({"type": "response.reasoning.search_results", "results": [{"url": format!("https://x.org/{KEY}"), "title": KEY}]}),
        completed(),
    ] {
        echoes.extend_from_slice(format!("data: {event}\n\n").as_bytes());
    }
    let server = Server::new(vec![
        Act::Send(echoes),
        Act::Send(answer("401 Unauthorized", "", format!("{{\"error\":\"bad key {KEY}\"}}"))),
        Act::Send(answer("418 Teapot", "", &echo)),
        Act::Send(answer("307 Temporary Redirect", &format!("Location: https://evil.org/?k={KEY}\r\n"), "")),
        Act::Send(answer("200 OK", "", format!("data: {KEY}\n\n"))),
    ]);
    // `finish` looks for the key.
    let ran = run(&server, "xai", &[]);
    assert!(ran.one("answer")["text"].as_str().unwrap().starts_with("you sent ******"), "{}", ran.stdout);
    for reason in ["auth", "refused", "invalid", "invalid"] {
        let ran = run(&server, "xai", &[]);
        assert_eq!(ran.reason(), reason);
        assert!(ran.error().contains("***") && ran.stderr.contains("***"), "{}", ran.error());
    }
}

#[test]
fn proxies_are_used_and_no_proxy_holds() {
    let (proxy, server) = (Server::new(vec![Act::Send(hello())]), Server::new(vec![Act::Send(hello())]));
    for (no_proxy, through) in [("", true), ("gateway.invalid,127.0.0.1", false)] {
        let folder = tempfile::tempdir().unwrap();
        let url = if through { "http://gateway.invalid".to_owned() } else { server.url() };
        let mut command = command(folder.path(), &["--vendor", "xai", "--model", "m", "--base-url", &url]);
        command.env("HTTP_PROXY", proxy.url()).env("NO_PROXY", no_proxy);
        let ran = finish(command, folder);
        assert_eq!(ran.code, Some(0), "{}", ran.stdout);
        assert_eq!(ran.all("note").len(), usize::from(through), "a key in the clear is told");
    }
    assert!(proxy.requests()[0].head.starts_with("POST http://gateway.invalid/v1/responses "));
    assert_eq!((proxy.requests().len(), server.requests().len()), (1, 1));
}
