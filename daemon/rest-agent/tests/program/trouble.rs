//! Everything that is no complete answer, and what is tried again.

use serde_json::json;

use crate::answers::{completed, created, hello, text};
use crate::server::{Act, Server, answer, stream};
use crate::{command, finish, path, run};

#[test]
fn what_may_pass_is_tried_again_and_nothing_is_printed_twice() {
    let server = Server::new(vec![
        Act::Send(answer("429 Too Many Requests", "Retry-After: 0\r\n", r#"{"error":"slow down"}"#)),
        Act::Send(answer("503 Service Unavailable", "Retry-After: 0\r\n", "<html>")),
        Act::Slam,
        Act::Send([stream(&[created()]), b"data: {\"type\":\"respo".to_vec()].concat()),
        Act::Send(stream(&[created(), json!({"type": "error", "code": "server_error", "message": "boom"})])),
        Act::Send(hello()),
    ]);
    let ran = run(&server, "xai", &[]);
    assert_eq!((ran.code, ran.text().as_str(), ran.done()), (Some(0), "Hello", true), "{}", ran.stdout);
    let retries = ran.all("retry");
    let kinds: Vec<_> =
        retries.iter().map(|retry| (retry["kind"].as_str().unwrap(), retry["status"].as_u64())).collect();
    assert_eq!(
        kinds,
        [
            ("rate_limit", Some(429)),
            ("overloaded", Some(503)),
            ("network", None),
            ("cut", None),
            ("server_error", None)
        ]
    );
    assert!(retries.iter().all(|retry| retry["delay_ms"].as_u64() >= Some(100)));
    let attempts: Vec<_> = ran.all("request").iter().map(|request| request["attempt"].as_u64()).collect();
    assert_eq!(attempts, (1..=6).map(Some).collect::<Vec<_>>());
    assert!(retries[0]["error"].as_str().unwrap().contains("slow down"));
}

#[test]
fn refusals_that_waiting_does_not_help_are_told_at_once_and_apart() {
    let credits = r#"{"code":"c","error":"Your team has either used all available credits or reached its monthly spending limit."}"#;
    let quota = r#"{"error":{"code":"insufficient_quota","message":"m"}}"#;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(3);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&soon).unwrap();
    let far = format!("Retry-After: {date}\r\n");
    let cases = [
        ("401 Unauthorized", "", "", "auth", "auth", 3),
        ("403 Forbidden", "", r#"{"error":"disabled by your admin"}"#, "auth", "auth", 3),
        ("403 Forbidden", "", credits, "credits", "limit", 4),
        ("402 Payment Required", "", "", "credits", "limit", 4),
        ("429 Too Many Requests", "", credits, "credits", "limit", 4),
        ("429 Too Many Requests", "Retry-After: 1\r\n", quota, "credits", "limit", 4),
        ("429 Too Many Requests", "", r#"{"error":"50 requests per day"}"#, "daily", "limit", 4),
        ("429 Too Many Requests", "", r#"{"error":"spend limit reached"}"#, "spend", "limit", 4),
        ("429 Too Many Requests", &far, "", "window", "limit", 4),
        ("429 Too Many Requests", "Retry-After: 7200\r\n", "", "window", "limit", 4),
        ("503 Service Unavailable", "Retry-After: 7200\r\n", "", "overload", "overloaded", 1),
    ];
    let script = cases.iter().map(|case| Act::Send(answer(case.0, case.1, case.2))).collect();
    let server = Server::new(script);
    for (status, headers, body, kind, reason, code) in cases {
        let ran = run(&server, "xai", &[]);
        let limit = ran.one("limit");
        let found = (ran.code, ran.reason(), limit["kind"].as_str().unwrap());
        assert_eq!(found, (Some(code), reason, kind), "{status} {headers} {body}");
        assert_eq!(limit["resets_at"].is_string(), !headers.is_empty(), "{status} {headers}");
        if headers == far {
            let at: jiff::Timestamp = limit["resets_at"].as_str().unwrap().parse().unwrap();
            assert_eq!((at.as_second(), &limit["source"]), (soon.as_second(), &json!("header")));
        }
        assert!(limit["status"].as_u64().unwrap() > 400 && ran.ended()["status"] == limit["status"]);
        assert!(ran.all("retry").is_empty() && !ran.done());
        assert!(ran.error().starts_with("xai (http://127.0.0.1:"), "{}", ran.error());
    }
    assert_eq!(server.requests().len(), cases.len());
}

#[test]
fn tries_are_bounded_and_their_end_says_what_it_was() {
    for (act, kind, reason, code) in [
        (|| Act::Send(answer("429 Too Many Requests", "", "")), Some("window"), "limit", 4),
        (|| Act::Send(answer("500 Oops", "", "")), Some("overload"), "overloaded", 1),
        (|| Act::Slam, None, "network", 1),
    ] as [(fn() -> Act, Option<&str>, &str, i32); 3]
    {
        let server = Server::new(vec![act(), act(), act()]);
        let ran = run(&server, "perplexity", &["--max-retries", "1"]);
        assert_eq!((ran.code, ran.reason(), ran.all("retry").len()), (Some(code), reason, 1), "{}", ran.stdout);
        assert_eq!(ran.all("limit").first().map(|limit| limit["kind"].as_str().unwrap()), kind);
        assert_eq!(server.requests().len(), 2);
    }
}

#[test]
fn a_stream_that_is_cut_in_the_answer_is_the_end_and_what_was_seen_is_kept() {
    let promised = answer("200 OK", "Content-Type: text/event-stream\r\nContent-Length: 9999\r\n", "");
    let half = |events: &[serde_json::Value], tail: &str| {
        let mut bytes = stream(events);
        bytes.extend_from_slice(tail.as_bytes());
        bytes
    };
    let promised = [promised, format!("data: {}\n\n", text("Hel")).into_bytes()].concat();
    let cases = [
        (Act::Send(half(&[created(), text("Hel")], "")), "cut"),
        (Act::Send(half(&[created(), text("Hel")], "data: {\"type\":\"respo")), "cut"),
        (Act::Send(promised), "cut"),
        (Act::Hold(half(&[created(), text("Hel")], "")), "timeout"),
        (Act::Send(half(&[text("Hel"), json!({"type": "error", "code": "server_error"})], "")), "overloaded"),
        (Act::Send(half(&[text("Hel"), json!({"type": "error", "code": "rate_limit"})], "")), "limit"),
        (
            Act::Send(half(
                &[text("Hel"), json!({"type": "response.incomplete", "response": {"status": "incomplete"}})],
                "",
            )),
            "incomplete",
        ),
    ];
    for (act, reason) in cases {
        let server = Server::new(vec![act]);
        let ran = run(&server, "xai", &["--idle-timeout", "700ms"]);
        assert_eq!((ran.reason(), ran.text().as_str()), (reason, "Hel"), "{}", ran.stdout);
        assert_eq!(
            (ran.one("answer")["complete"].as_bool(), ran.one("answer")["text"].as_str()),
            (Some(false), Some("Hel"))
        );
        assert!(!ran.done() && ran.code != Some(0));
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn answers_that_are_none_give_one_clear_line() {
    let sse = "Content-Type: text/event-stream\r\n";
    let cases: [(Vec<u8>, &str); 12] = [
        (answer("200 OK", "Content-Type: text/html\r\n", "<html>log in</html>"), "HTML"),
        (answer("200 OK", "", " \n<!doctype html>"), "HTML"),
        (answer("204 No Content", "", ""), "empty"),
        (answer("200 OK", "Content-Type: application/json\r\n", ""), "empty"),
        (answer("200 OK", sse, ""), "empty"),
        (answer("302 Found", "Location: https://other.example/x\r\n", ""), "redirects to https://other.example/x"),
        (answer("200 OK", "Content-Type: application/json\r\n", "{\"output\":"), "not the JSON"),
        (answer("200 OK", sse, "data: {oops}\n\n"), "not the JSON"),
        (answer("200 OK", sse, "data: {\"type\":\"a\",\"type\":\"b\"}\n\n"), "duplicate field"),
        (answer("200 OK", sse, b"data: \"\xff\"\n\n"), "not UTF-8"),
        (answer("200 OK", "Content-Type: text/plain\r\n", "all good"), "no event: \"all good\""),
        (answer("200 OK", "", "{}"), "neither output nor error"),
    ];
    for (bytes, text) in cases {
        let server = Server::new(vec![Act::Send(bytes)]);
        let ran = run(&server, "perplexity", &[]);
        assert_eq!((ran.code, ran.reason()), (Some(1), "invalid"), "{}", ran.stdout);
        let expected = format!("perplexity ({}/v1/agent): ", server.url());
        assert!(ran.error().starts_with(&expected) && ran.error().contains(text), "{text}: {}", ran.error());
        assert!(ran.error().contains("base URL") && ran.stderr.trim_end() == ran.error(), "{}", ran.stderr);
        assert!(!ran.done() && server.requests().len() == 1);
    }
}

#[test]
fn an_empty_answer_a_tool_call_and_a_plain_no_are_no_finished_work() {
    let call = json!({"type": "response.completed", "response": {"status": "completed", "output": [{"type": "function_call", "name": "rm"}]}});
    let no = r#"{"error":{"message":"unknown model","type":"invalid_request_error"}}"#;
    for (bytes, reason) in [
        (stream(&[completed()]), "empty"),
        (stream(&[text("x"), call]), "tool_call"),
        (answer("400 Bad Request", "", no), "refused"),
        (answer("404 Not Found", "", "<html>"), "refused"),
    ] {
        let ran = run(&Server::new(vec![Act::Send(bytes)]), "xai", &[]);
        assert_eq!((ran.code, ran.reason(), ran.done()), (Some(1), reason, false), "{}", ran.stdout);
    }
}

#[test]
fn silence_before_the_answer_is_tried_again() {
    let server = Server::new(vec![Act::Hold(Vec::new()), Act::Send(hello())]);
    let ran = run(&server, "xai", &["--idle-timeout", "500ms"]);
    assert_eq!((ran.code, ran.one("retry")["kind"].as_str()), (Some(0), Some("timeout")), "{}", ran.stdout);
}

#[test]
fn a_done_that_cannot_be_written_is_an_error_after_the_answer() {
    let server = Server::new(vec![Act::Send(hello())]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(path(&folder, "DONE")).unwrap();
    let ran = finish(command(folder.path(), &["--vendor", "xai", "--model", "m", "--base-url", &server.url()]), folder);
    assert_eq!((ran.code, ran.reason()), (Some(1), "done_failed"));
    assert_eq!(ran.one("answer")["complete"], true);
}
