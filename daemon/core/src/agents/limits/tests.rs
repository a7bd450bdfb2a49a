//! What failed runs are taken for.

use super::*;
use crate::agents::EventParser;
use crate::agents::event::Stream;
use crate::agents::stream::parser;
use crate::types::Timestamp;

fn natural(code: i32) -> ExitFacts {
    ExitFacts {
        code: Some(code),
        signal: None,
        cause: EndCause::Natural,
        oom_kills: 0,
        stderr_tail: String::new(),
        ended: "2030-03-17T15:00:00Z".parse::<Timestamp>().unwrap(),
    }
}

fn read(vendor: Vendor, stream: &str) -> StreamSummary {
    let mut parser: Box<dyn EventParser> = parser(vendor);
    parser.feed(Stream::Stdout, stream.as_bytes(), &mut |_| {});
    parser.finish(&mut |_| {});
    parser.summary().clone()
}

fn classified(vendor: Vendor, exit: &ExitFacts, stream: &str) -> Classified {
    classify(vendor, exit, &read(vendor, stream), &TimeZone::UTC, &str::to_owned)
}

/// Kind, reset as a text, and source.
fn found(classified: &Classified) -> Option<(LimitKind, Option<String>, LimitSource)> {
    classified.limit.as_ref().map(|limit| (limit.kind, limit.resets_at.map(|reset| reset.to_string()), limit.source))
}

fn claude(status: &str, words: &str) -> String {
    format!(r#"{{"type":"result","subtype":"success","is_error":true,"api_error_status":{status},"result":"{words}"}}"#)
}

#[test]
fn claudes_refusals_are_told_apart() {
    use LimitKind::{Auth, Credits, Overload, Spend, Window};
    use LimitSource::{Json, Text};
    let at = |text: &str| Some(text.to_owned());
    for (status, words, expected) in [
        ("429", "You've hit your limit · resets 5:46pm (UTC)", Some((Window, at("2030-03-17T17:46:00Z"), Text))),
        (
            "429",
            "You've hit your weekly limit · resets Mar 22, 6am (UTC)",
            Some((Window, at("2030-03-22T06:00:00Z"), Text)),
        ),
        ("429", "You've hit your weekly limit · resets Mar 28, 6am (UTC)", Some((Window, None, Json))),
        ("429", "You've hit your individual spend limit · run /usage-credits to raise it", Some((Spend, None, Json))),
        (
            "429",
            "You've hit your individual spend limit · run /usage-credits to ask your admin for a higher limit · your session limit resets 6:50pm (Asia/Tokyo)",
            Some((Spend, at("2030-03-18T09:50:00Z"), Text)),
        ),
        ("429", "You've hit your org's monthly spend limit", Some((Spend, None, Json))),
        ("429", "Extra usage has been disabled by your admin", Some((Auth, None, Json))),
        ("429", "You're out of extra usage · resets 5pm (UTC)", Some((Credits, None, Json))),
        (
            "429",
            "API Error: Server is temporarily limiting requests (not your usage limit)",
            Some((Overload, None, Json)),
        ),
        ("429", "Request rejected (429)", Some((Window, None, Json))),
        ("400", "Credit balance is too low", Some((Credits, None, Json))),
        ("400", "This organization has been disabled.", Some((Auth, None, Json))),
        ("400", "prompt is too long", None),
        ("402", "payment", Some((Credits, None, Json))),
        ("401", "Invalid bearer token", Some((Auth, None, Json))),
        ("403", "forbidden", Some((Auth, None, Json))),
        ("529", "overloaded", Some((Overload, None, Json))),
        ("500", "Invalid API key", Some((Overload, None, Json))),
        ("null", "Invalid API key · Please run /login", Some((Auth, None, Text))),
        ("null", "Your organization has disabled Claude subscription access", Some((Auth, None, Text))),
        ("null", "Claude AI usage limit reached|1900002600", Some((Window, at("2030-03-17T18:30:00Z"), Text))),
        ("null", "the tests say: Invalid API key", None),
        ("null", "the page says: You've hit your limit", None),
    ] {
        let classified = classified(Vendor::Claude, &natural(1), &claude(status, words));
        assert_eq!(found(&classified), expected, "{status} {words}");
        let outcome = classified.limit.map_or(Outcome::Failed, |limit| limit.outcome());
        assert_eq!(classified.outcome, outcome, "{status} {words}");
    }
}

#[test]
fn a_stream_that_ended_well_is_never_limited_whatever_it_says() {
    let fine = Classified { outcome: Outcome::Completed, summary: None, limit: None };
    let words = "You’ve hit your usage limit. You've hit your limit · resets 5pm. 429 rate limit exceeded, HTTP 503";
    for (vendor, stream) in [
        (
            Vendor::Claude,
            format!(
                "{}\n{}",
                r#"{"type":"assistant","error":"rate_limit","message":{"content":[]}}"#,
                format_args!(r#"{{"type":"result","subtype":"success","is_error":false,"result":"{words}"}}"#)
            ),
        ),
        (
            Vendor::Codex,
            format!(
                "{}\n{}\n{}",
                format_args!(r#"{{"type":"error","message":"{words}"}}"#),
                format_args!(
                    r#"{{"type":"item.completed","item":{{"id":"1","type":"agent_message","text":"{words}"}}}}"#
                ),
                r#"{"type":"turn.completed","usage":{"input_tokens":1}}"#
            ),
        ),
        (
            Vendor::Gemini,
            format!(
                "{}\n{}",
                format_args!(r#"{{"type":"message","role":"assistant","content":"{words}"}}"#),
                r#"{"type":"result","status":"success","stats":{}}"#
            ),
        ),
        (
            Vendor::Grok,
            format!(
                "{}\n{}",
                format_args!(r#"{{"type":"text","data":"{words}"}}"#),
                r#"{"type":"end","stopReason":"end_turn"}"#
            ),
        ),
        (
            Vendor::Rest,
            format!(
                "{}\n{}",
                format_args!(r#"{{"type":"answer","text":"{words}"}}"#),
                r#"{"type":"ended","reason":"completed","is_error":false}"#
            ),
        ),
    ] {
        let exit = ExitFacts { stderr_tail: words.to_owned(), ..natural(0) };
        assert_eq!(classified(vendor, &exit, &stream), fine, "{vendor:?}");
        // The same answer of a run that failed for another reason: the words are its own, not the vendor's.
        let died = ExitFacts { signal: Some(11), code: None, ..natural(0) };
        let answer: Vec<&str> =
            stream.lines().filter(|line| !line.contains("rror\"") && !line.contains("\"end")).collect();
        let only_answer =
            answer.iter().filter(|line| line.contains("usage limit")).copied().collect::<Vec<_>>().join("\n");
        if vendor != Vendor::Claude {
            assert_eq!(classified(vendor, &died, &only_answer).outcome, Outcome::Signaled, "{vendor:?}");
        }
    }
}

#[test]
fn what_was_seen_before_a_claude_died_counts() {
    let died = r#"{"type":"assistant","error":"authentication_failed","message":{"content":[]}}"#;
    assert_eq!(classified(Vendor::Claude, &natural(1), died).outcome, Outcome::AuthFailed);
    // It calls it an error and exits with 0.
    assert_eq!(classified(Vendor::Claude, &natural(0), &claude("null", "odd")).outcome, Outcome::Failed);
    // What we did comes first.
    let stopped = ExitFacts { cause: EndCause::Stop, ..natural(1) };
    assert_eq!(classified(Vendor::Claude, &stopped, &claude("429", "x")).outcome, Outcome::Stopped);
    // A reset in JSON comes before one in words, if it is to be believed.
    let told = |reset: i64| {
        let event = format!(
            r#"{{"type":"rate_limit_event","rate_limit_info":{{"status":"rejected","resetsAt":{reset},"rateLimitType":"five_hour"}}}}"#
        );
        let stream = format!("{event}\n{}", claude("429", "You've hit your limit · resets 5:46pm (UTC)"));
        found(&classified(Vendor::Claude, &natural(1), &stream)).unwrap()
    };
    assert_eq!(told(1_900_000_800), (LimitKind::Window, Some("2030-03-17T18:00:00Z".into()), LimitSource::Json));
    assert_eq!(told(2_000_000_000), (LimitKind::Window, Some("2030-03-17T17:46:00Z".into()), LimitSource::Text));
}

#[test]
fn codexs_refusals_are_told_apart() {
    use LimitKind::{Auth, Credits, Daily, Overload, Spend, Window};
    for (words, expected, reset) in [
        (
            "You’ve hit your usage limit. Upgrade to Pro, purchase more credits or try again at 5:46 PM.",
            Some(Window),
            Some("2030-03-17T17:46:00Z"),
        ),
        (
            "You've hit your usage limit. To get more access now, send a request to your admin or try again in 3 days 4 hours.",
            Some(Window),
            Some("2030-03-20T19:00:00Z"),
        ),
        ("usage_limit_reached: The usage limit has been reached", Some(Window), None),
        ("exceeded retry limit, last status: 429 Too Many Requests", Some(Window), None),
        (
            "Rate limit reached for gpt-5 on tokens per min. Please try again in 1.898s.",
            Some(Window),
            Some("2030-03-17T15:00:01.898Z"),
        ),
        (
            "Rate limit reached for m on requests per day (RPD): Limit 200. Please try again in 7m12s.",
            Some(Daily),
            Some("2030-03-17T15:07:12Z"),
        ),
        ("Billing hard limit has been reached.", Some(Spend), None),
        (
            "Your workspace is out of credits. Ask your workspace owner to refill in order to continue.",
            Some(Credits),
            None,
        ),
        ("Quota exceeded. Check your plan and billing details.", Some(Credits), None),
        ("You hit your spend cap set by the owner of your workspace.", Some(Spend), None),
        ("You've hit your individual spend limit.", Some(Spend), None),
        ("Codex has been disabled by your admin.", Some(Auth), None),
        ("unexpected status 401 Unauthorized: Incorrect API key provided", Some(Auth), None),
        (
            "Your access token could not be refreshed because your refresh token was already used. Please log out and sign in again.",
            Some(Auth),
            None,
        ),
        ("exceeded retry limit, last status: 503 Service Unavailable", Some(Overload), None),
        ("Selected model is at capacity. Please try a different model.", Some(Overload), None),
        ("unexpected status 400 Bad Request: error", None, None),
        ("stream disconnected before completion: error sending request", None, None),
    ] {
        let stream = format!(r#"{{"type":"turn.failed","error":{{"message":"{words}"}}}}"#);
        let from_stream = classified(Vendor::Codex, &natural(1), &stream);
        let limit = found(&from_stream);
        assert_eq!(limit.as_ref().map(|(kind, ..)| *kind), expected, "{words}");
        assert_eq!(limit.and_then(|(_, at, _)| at).as_deref(), reset, "{words}");
        assert_eq!(from_stream.summary.as_deref(), Some(words));
        // Where there is no stream, the same words on standard error tell it.
        let exit = ExitFacts { stderr_tail: format!("Reading prompt from stdin...\nERROR: {words}"), ..natural(1) };
        let from_stderr = classified(Vendor::Codex, &exit, "");
        assert_eq!(from_stderr.limit.as_ref().map(|limit| limit.kind), expected, "{words}");
        assert!(from_stderr.limit.is_none_or(|limit| limit.source == LimitSource::Stderr));
    }
}

#[test]
fn geminis_refusals_are_told_apart() {
    use LimitKind::{Auth, Daily, Overload, Window};
    for (code, words, expected) in [
        (173, "[API Error: You have exhausted your daily quota on this model.]", Some(Daily)),
        (
            1,
            "[API Error: You have exhausted your capacity on this model. Your quota will reset after 42m1s.]",
            Some(Window),
        ),
        (1, "[API Error: Resource has been exhausted (e.g. check quota).]", Some(Window)),
        (1, "[API Error: The model is overloaded. Please try again later.]", Some(Overload)),
        (1, "[API Error: API key not valid. Please pass a valid API key.]", Some(Auth)),
        (41, "Invalid auth method selected.", Some(Auth)),
        (53, "Reached max session turns", None),
    ] {
        let stream =
            format!(r#"{{"type":"result","status":"error","error":{{"type":"unknown","message":"{words}"}}}}"#);
        let classified = classified(Vendor::Gemini, &natural(code), &stream);
        assert_eq!(classified.limit.as_ref().map(|limit| limit.kind), expected, "{words}");
        assert_eq!(classified.summary.as_deref(), Some(words));
        if words.contains("42m1s") {
            assert_eq!(found(&classified).unwrap().1.as_deref(), Some("2030-03-17T15:42:01Z"));
        }
    }
    // A limit per minute, on standard error alone.
    let tail =
        "Attempt 10 failed with status 429. Max attempts reached\nError when talking to Gemini API {\n  status: 429\n}";
    let exit = ExitFacts { stderr_tail: tail.to_owned(), ..natural(1) };
    assert_eq!(found(&classified(Vendor::Gemini, &exit, "")).unwrap(), (Window, None, LimitSource::Stderr));
    let exit = ExitFacts { stderr_tail: "Please set an Auth method in your settings.json".to_owned(), ..natural(41) };
    assert_eq!(classified(Vendor::Gemini, &exit, "").outcome, Outcome::AuthFailed);
    // What it tried again after is not what ended it.
    let retried = "Attempt 1 failed with status 429. Retrying after 500ms...\n  status: 429\n}";
    let exit = ExitFacts { stderr_tail: retried.to_owned(), ..natural(53) };
    let turns = r#"{"type":"result","status":"error","error":{"type":"FatalTurnLimitedError","message":"Reached max session turns"}}"#;
    let other = classified(Vendor::Gemini, &exit, turns);
    assert_eq!((other.outcome, other.limit), (Outcome::Failed, None));
    let last = format!("{retried}\nError when talking to Gemini API {{\n  retryDelayMs: 60000,\n  status: 429\n}}");
    let exit = ExitFacts { stderr_tail: last, ..natural(173) };
    let reset = Some("2030-03-17T15:01:00Z".to_owned());
    assert_eq!(found(&classified(Vendor::Gemini, &exit, "")).unwrap(), (Window, reset, LimitSource::Stderr));
    // It exits with 0 when a signal ends it.
    let init = r#"{"type":"init","session_id":"s","model":"m"}"#;
    assert_eq!(classified(Vendor::Gemini, &natural(0), init).outcome, Outcome::Failed);
    assert_eq!(classified(Vendor::Gemini, &natural(0), "plain text").outcome, Outcome::Completed);
}

#[test]
fn groks_and_the_rest_agents_refusals_are_told_apart() {
    use LimitKind::{Auth, Credits, Daily, Overload, Spend, Window};
    for (words, expected) in [
        ("usage_limit_reached: The usage limit has been reached", Some(Window)),
        ("Your team has either used all available credits or reached its monthly spending limit.", Some(Credits)),
        ("Some resource has been exhausted: You have reached your individual spend limit.", Some(Spend)),
        (
            "Some resource has been exhausted: You have reached your daily limit. Try again in 100000000 seconds.",
            Some(Daily),
        ),
        ("Some resource has been exhausted: You have reached your usage limit.", Some(Window)),
        ("API error (status 403 Forbidden): API access has been disabled by your admin.", Some(Auth)),
        ("Unauthorized (401) from http://127.0.0.1/v1/responses: who?", Some(Auth)),
        ("Your account is out of credits", Some(Credits)),
        ("Incorrect API key provided", Some(Auth)),
        ("API request failed with status 503 Service Unavailable", Some(Overload)),
        ("something broke", None),
    ] {
        let stream = format!(r#"{{"type":"error","message":"{words}"}}"#);
        let classified = classified(Vendor::Grok, &natural(1), &stream);
        assert_eq!(classified.limit.map(|limit| limit.kind), expected, "{words}");
    }
    let ended = |reason: &str| format!(r#"{{"type":"ended","reason":"{reason}","is_error":true,"error":"words"}}"#);
    let limit = r#"{"type":"limit","kind":"daily","resets_at":"2030-03-18T00:00:00Z","source":"header"}"#;
    let told = classified(Vendor::Rest, &natural(4), &format!("{limit}\n{}", ended("limit")));
    assert_eq!(found(&told).unwrap(), (Daily, Some("2030-03-18T00:00:00Z".into()), LimitSource::Json));
    for (code, reason, expected) in [
        (3, "auth", Some(Auth)),
        (4, "limit", Some(Window)),
        (1, "overloaded", Some(Overload)),
        (1, "network", Some(Overload)),
        (1, "invalid", None),
        (2, "no_model", None),
    ] {
        let classified = classified(Vendor::Rest, &natural(code), &ended(reason));
        assert_eq!(classified.limit.map(|limit| limit.kind), expected, "{reason}");
    }
    assert_eq!(classified(Vendor::Rest, &natural(3), "").outcome, Outcome::AuthFailed);
}

#[test]
fn an_overload_is_a_failure_with_its_limit_and_a_signal_stays_a_signal() {
    let overloaded = classified(Vendor::Claude, &natural(1), &claude("529", "Overloaded"));
    assert_eq!((overloaded.outcome, overloaded.limit.unwrap().kind), (Outcome::Failed, LimitKind::Overload));
    let error = r#"{"type":"assistant","error":"overloaded","message":{"content":[]}}"#;
    let killed = ExitFacts { code: None, signal: Some(9), ..natural(1) };
    assert_eq!(classified(Vendor::Claude, &killed, error).outcome, Outcome::Signaled);
}

#[test]
fn the_zone_of_a_program_is_that_of_its_environment() {
    let offset = |tz: &str| zone(Some(tz)).to_offset("2030-07-01T00:00:00Z".parse().unwrap()).seconds();
    for (tz, expected) in [
        ("Europe/Berlin", 7200),
        (":Europe/Berlin", 7200),
        ("", 0),
        ("UTC", 0),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 7200),
        ("no zone", 0),
    ] {
        assert_eq!(offset(tz), expected, "{tz}");
    }
}
