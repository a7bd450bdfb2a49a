//! Golden tests over every recorded stream, and what must hold for any bytes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::agents::event::{MAX_ANSWER, MAX_TEXT};
use crate::agents::{EndCause, Event, EventKind, ExitFacts, Stream, StreamSummary, limits};
use crate::types::CostKind;

const STREAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/streams");

/// The recorded streams, with the exit code that the real program had; 128 and the signal's number where a signal ended it.
const RECORDED: [(Vendor, &str, i32); 76] = [
    (Vendor::Claude, "claude-hi", 0),
    (Vendor::Claude, "claude-tool", 0),
    (Vendor::Claude, "claude-two-tools", 0),
    (Vendor::Claude, "claude-tool-denied", 0),
    (Vendor::Claude, "claude-tool-failed", 0),
    (Vendor::Claude, "claude-partial", 0),
    (Vendor::Claude, "claude-overloaded-retry", 0),
    (Vendor::Claude, "claude-cut", 0),
    (Vendor::Claude, "claude-resume", 0),
    (Vendor::Claude, "claude-stdin-two-turns", 0),
    (Vendor::Claude, "claude-max-turns", 1),
    (Vendor::Claude, "claude-sigINT", 1),
    (Vendor::Claude, "claude-sigTERM", 143),
    (Vendor::Claude, "claude-limit-apikey", 1),
    (Vendor::Claude, "claude-limit-oauth", 1),
    (Vendor::Claude, "claude-spend", 1),
    (Vendor::Claude, "claude-credits", 1),
    (Vendor::Claude, "claude-disabled", 1),
    (Vendor::Claude, "claude-auth", 1),
    (Vendor::Claude, "claude-auth-retry", 143),
    (Vendor::Claude, "claude-api-retry-timeout-killed", 143),
    (Vendor::Codex, "codex-hi", 0),
    (Vendor::Codex, "codex-tool", 0),
    (Vendor::Codex, "codex-two-tools", 0),
    (Vendor::Codex, "codex-tool-sandbox", 0),
    (Vendor::Codex, "codex-tool-failed", 0),
    (Vendor::Codex, "codex-overload", 0),
    (Vendor::Codex, "codex-cut", 0),
    (Vendor::Codex, "codex-resume", 0),
    (Vendor::Codex, "codex-resumed", 0),
    (Vendor::Codex, "codex-sigINT", 1),
    (Vendor::Codex, "codex-sigTERM", 143),
    (Vendor::Codex, "codex-stream-disconnected", 1),
    (Vendor::Codex, "codex-limit", 1),
    (Vendor::Codex, "codex-window", 1),
    (Vendor::Codex, "codex-daily", 1),
    (Vendor::Codex, "codex-credits", 1),
    (Vendor::Codex, "codex-auth", 1),
    (Vendor::Codex, "codex-disabled", 1),
    (Vendor::Gemini, "gemini-hi", 0),
    (Vendor::Gemini, "gemini-json", 0),
    (Vendor::Gemini, "gemini-tool", 0),
    (Vendor::Gemini, "gemini-two-tools", 0),
    (Vendor::Gemini, "gemini-tool-default-approval", 0),
    (Vendor::Gemini, "gemini-tool-failed", 0),
    (Vendor::Gemini, "gemini-overload", 0),
    (Vendor::Gemini, "gemini-resumed", 0),
    (Vendor::Gemini, "gemini-sigINT", 0),
    (Vendor::Gemini, "gemini-sigTERM", 0),
    (Vendor::Gemini, "gemini-limit-daily", 173),
    (Vendor::Gemini, "gemini-window", 173),
    (Vendor::Gemini, "gemini-daily", 173),
    (Vendor::Gemini, "gemini-auth", 144),
    (Vendor::Gemini, "gemini-disabled", 147),
    (Vendor::Gemini, "gemini-spend", 137),
    (Vendor::Grok, "grok-hi", 0),
    (Vendor::Grok, "grok-tool", 0),
    (Vendor::Grok, "grok-two-tools", 0),
    (Vendor::Grok, "grok-tool-failed", 0),
    (Vendor::Grok, "grok-overload", 0),
    (Vendor::Grok, "grok-cut", 0),
    (Vendor::Grok, "grok-resume", 0),
    (Vendor::Grok, "grok-max-turns", 0),
    (Vendor::Grok, "grok-sigINT", 130),
    (Vendor::Grok, "grok-sigTERM", 143),
    (Vendor::Grok, "grok-limit", 1),
    (Vendor::Grok, "grok-daily", 1),
    (Vendor::Grok, "grok-spend", 1),
    (Vendor::Grok, "grok-credits", 1),
    (Vendor::Grok, "grok-auth", 1),
    (Vendor::Grok, "grok-disabled", 1),
    (Vendor::Claude, "grok-messages-tool", 0),
    (Vendor::Rest, "by-hand/rest-answer", 0),
    (Vendor::Rest, "by-hand/rest-limit", 4),
    (Vendor::Rest, "by-hand/rest-cut", 1),
    (Vendor::Rest, "by-hand/rest-auth", 3),
];

const VENDORS: [Vendor; 5] = [Vendor::Claude, Vendor::Codex, Vendor::Gemini, Vendor::Grok, Vendor::Rest];

fn recorded(name: &str) -> Vec<u8> {
    fs::read(format!("{STREAMS}/{name}.jsonl")).unwrap()
}

fn stderr(name: &str) -> Vec<u8> {
    fs::read(format!("{STREAMS}/{name}.stderr.txt")).unwrap_or_default()
}

/// Parses a standard output in pieces.
fn parse(vendor: Vendor, chunks: &[&[u8]]) -> (Vec<Event>, StreamSummary) {
    let (mut parser, mut events) = (parser(vendor), Vec::new());
    for chunk in chunks {
        parser.feed(Stream::Stdout, chunk, &mut |event| events.push(event));
    }
    parser.finish(&mut |event| events.push(event));
    (events, parser.summary().clone())
}

fn summary(vendor: Vendor, stream: &str) -> StreamSummary {
    parse(vendor, &[stream.as_bytes()]).1
}

fn golden(of: &str) -> String {
    let mut text = String::new();
    for (vendor, name, code) in RECORDED.into_iter().filter(|(_, name, _)| name.starts_with(of)) {
        let (stdout, stderr) = (recorded(name), stderr(name));
        let (mut parser, mut events) = (parser(vendor), Vec::new());
        parser.feed(Stream::Stdout, &stdout, &mut |event| events.push(event));
        parser.feed(Stream::Stderr, &stderr, &mut |event| events.push(event));
        parser.finish(&mut |event| events.push(event));
        let summary = parser.summary();
        let exit = ExitFacts {
            code: Some(code),
            signal: None,
            cause: EndCause::Natural,
            oom_kills: 0,
            stderr_tail: String::from_utf8(stderr).unwrap(),
            ended: "2030-03-17T15:00:00Z".parse().unwrap(),
        };
        let classified = limits::classify(vendor, &exit, summary, &TimeZone::UTC, &str::to_owned);
        let _ = writeln!(text, "== {name}");
        for event in &events {
            let _ = writeln!(text, "{:>6} {:?}", event.offset, event.kind);
        }
        let StreamSummary { session, model, usage, usage_scope, models, .. } = summary;
        let _ = writeln!(text, "session {session:?} model {model:?}\nusage {usage:?} of {usage_scope:?}");
        for (model, usage) in models {
            let _ = writeln!(text, "  {model}: {usage:?}");
        }
        let _ = writeln!(text, "lines {} unknown {} limit {:?}", summary.lines, summary.unknown, summary.limit);
        let _ = writeln!(text, "ended {} {:?} is_error {}", summary.ended, summary.reason, summary.is_error);
        let _ = writeln!(text, "{:?} {:?} {:?}", classified.outcome, classified.summary, classified.limit);
        let _ = writeln!(text, "answer {:?}\n", summary.answer);
    }
    text
}

#[test]
fn every_recorded_stream_of_claude_gives_its_events_usage_outcome_and_answer() {
    insta::assert_snapshot!(golden("claude-"));
}

#[test]
fn every_recorded_stream_of_codex_gives_its_events_usage_outcome_and_answer() {
    insta::assert_snapshot!(golden("codex-"));
}

#[test]
fn every_recorded_stream_of_gemini_gives_its_events_usage_outcome_and_answer() {
    insta::assert_snapshot!(golden("gemini-"));
}

#[test]
fn every_recorded_stream_of_grok_gives_its_events_usage_outcome_and_answer() {
    insta::assert_snapshot!(golden("grok-"));
}

#[test]
fn every_stream_of_the_rest_agent_gives_its_events_usage_outcome_and_answer() {
    insta::assert_snapshot!(golden("by-hand/"));
}

#[test]
fn no_recorded_stream_is_left_out() {
    let names = |folder: &str, prefix: &str| -> Vec<String> {
        let files = fs::read_dir(folder).unwrap().filter_map(|file| file.unwrap().file_name().into_string().ok());
        files.filter_map(|name| Some(format!("{prefix}{}", name.strip_suffix(".jsonl")?))).collect()
    };
    let there: BTreeSet<String> =
        names(STREAMS, "").into_iter().chain(names(&format!("{STREAMS}/by-hand"), "by-hand/")).collect();
    let tested: BTreeSet<String> = RECORDED.iter().map(|(_, name, _)| (*name).to_owned()).collect();
    assert_eq!(there, tested);
}

#[test]
fn the_answers_of_the_predecessors_vectors_are_given() {
    let answer = |text: &str| summary(Vendor::Claude, text).answer;
    assert_eq!(
        answer(r#"{"type":"result","is_error":false,"result":"Final answer text"}"#).as_deref(),
        Some("Final answer text")
    );
    let blocks = r#"{"type":"assistant","message":{"content":[{"type":"text","text":"Hello"}]}}
not json {
{"type":"assistant","message":{"content":[{"type":"text","text":"World"}]}}"#;
    assert_eq!(answer(blocks).as_deref(), Some("Hello\nWorld"));
    assert_eq!(answer(r#"{"type":"result","is_error":true,"result":"API Error"}"#), None);
    let long = format!("{}\n{}", "x".repeat(2 << 20), r#"{"type":"result","is_error":false,"result":"after"}"#);
    assert_eq!(answer(&long).as_deref(), Some("after"));
}

#[test]
fn a_subagents_text_and_claudes_own_error_text_are_no_answer() {
    let stream = r#"{"type":"assistant","message":{"content":[{"type":"text","text":"mine"}]},"parent_tool_use_id":null}
{"type":"assistant","message":{"content":[{"type":"text","text":"sub"}]},"parent_tool_use_id":"toolu_1"}
{"type":"assistant","message":{"model":"<synthetic>","content":[{"type":"text","text":"API Error"}]},"error":"rate_limit"}"#;
    let (events, summary) = parse(Vendor::Claude, &[stream.as_bytes()]);
    assert_eq!(summary.answer.as_deref(), Some("mine"));
    assert_eq!(events.len(), 3);
}

#[test]
fn a_killed_claude_keeps_each_message_once_and_no_cost() {
    let line = |id: &str, tokens: u64| {
        format!(
            r#"{{"type":"assistant","message":{{"id":"{id}","model":"m","content":[],"usage":{{"input_tokens":{tokens},"output_tokens":1}}}}}}"#
        )
    };
    let messages = [line("a", 10), line("a", 10), line("b", 5), line("a", 10)].join("\n");
    let killed = summary(Vendor::Claude, &messages).usage.unwrap();
    assert_eq!((killed.input, killed.output, killed.cost), (15, 2, None));
    // A result says it all; what comes after it is added, and then the cost is partial.
    let result = r#"{"type":"result","is_error":false,"total_cost_usd":0.5,"modelUsage":{"m":{"inputTokens":100,"outputTokens":7}}}"#;
    let known = summary(Vendor::Claude, &format!("{messages}\n{result}")).usage.unwrap();
    assert_eq!((known.input, known.output, known.cost.unwrap().kind), (100, 7, CostKind::Estimated));
    let more = summary(Vendor::Claude, &format!("{messages}\n{result}\n{}", line("c", 1))).usage.unwrap();
    assert_eq!((more.input, more.output, more.cost.unwrap().kind), (101, 8, CostKind::Partial));
}

#[test]
fn no_price_for_some_tokens_is_an_unknown_cost_and_none_for_no_tokens_is_nothing() {
    let result = |cost: &str, tokens: u64| {
        let line = format!(
            r#"{{"type":"result","is_error":false,"total_cost_usd":{cost},"modelUsage":{{"m":{{"inputTokens":{tokens}}}}}}}"#
        );
        summary(Vendor::Claude, &line).usage.unwrap().cost.map(|cost| cost.usd)
    };
    assert_eq!(
        (result("0.0", 7), result("0.0", 0), result("0.5", 7), result("-1", 7)),
        (None, Some(0.0), Some(0.5), None)
    );
}

#[test]
fn every_kind_of_a_codex_item_is_told() {
    let stream = r#"{"type":"item.completed","item":{"id":"i0","type":"reasoning","text":"hm"}}
{"type":"item.started","item":{"id":"i1","type":"command_execution","command":"false","aggregated_output":"","exit_code":null,"status":"in_progress"}}
{"type":"item.completed","item":{"id":"i1","type":"command_execution","command":"false","aggregated_output":"no\n","exit_code":1,"status":"failed"}}
{"type":"item.completed","item":{"id":"i2","type":"file_change","changes":[{"path":"a","kind":"add"}],"status":"completed"}}
{"type":"item.started","item":{"id":"i3","type":"mcp_tool_call","server":"s","tool":"t","arguments":{"x":1},"status":"in_progress"}}
{"type":"item.completed","item":{"id":"i3","type":"mcp_tool_call","server":"s","tool":"t","arguments":{"x":1},"result":{"content":[{"type":"text","text":"r"}]},"error":null,"status":"completed"}}
{"type":"item.completed","item":{"id":"i4","type":"mcp_tool_call","server":"s","tool":"t","arguments":null,"result":null,"error":{"message":"gone"},"status":"failed"}}
{"type":"item.started","item":{"id":"i5","type":"collab_tool_call","tool":"spawn_agent","prompt":"go","status":"in_progress"}}
{"type":"item.completed","item":{"id":"i5","type":"collab_tool_call","tool":"spawn_agent","prompt":"go","status":"completed"}}
{"type":"item.completed","item":{"id":"i6","type":"web_search","query":"q"}}
{"type":"item.started","item":{"id":"i7","type":"todo_list","items":[{"text":"a","completed":false}]}}
{"type":"item.updated","item":{"id":"i7","type":"todo_list","items":[{"text":"a","completed":true}]}}
{"type":"item.completed","item":{"id":"i8","type":"error","message":"You've hit your usage limit."}}
{"type":"error","message":"Reconnecting... 1/5"}
{"type":"item.completed","item":{"id":"i9","type":"agent_message","text":"first"}}
{"type":"item.completed","item":{"id":"i10","type":"agent_message","text":"It’s done"}}
{"type":"turn.completed","usage":{"input_tokens":100,"cached_input_tokens":60,"cache_write_input_tokens":10,"output_tokens":9,"reasoning_output_tokens":4}}"#;
    let (events, summary) = parse(Vendor::Codex, &[stream.as_bytes()]);
    let text: String = events.iter().map(|event| format!("{:?}\n", event.kind)).collect();
    insta::assert_snapshot!(text);
    assert_eq!((summary.answer.as_deref(), summary.unknown, summary.is_error), (Some("It’s done"), 3, false));
    let usage = summary.usage.unwrap();
    assert_eq!((usage.input, usage.cache_read, usage.cache_write, usage.tokens()), (30, 60, 10, 109));
}

#[test]
fn geminis_answer_is_what_it_said_after_the_last_tool() {
    let stream = r#"{"type":"message","role":"assistant","content":"Let me ","delta":true}
{"type":"message","role":"assistant","content":"look.","delta":true}
{"type":"tool_use","tool_name":"ls","tool_id":"1","parameters":{}}
{"type":"tool_result","tool_id":"1","status":"error","error":{"type":"x","message":"no"}}
{"type":"message","role":"assistant","content":"It ","delta":true}
{"type":"message","role":"assistant","content":"is fine.","delta":true}"#;
    assert_eq!(summary(Vendor::Gemini, stream).answer.as_deref(), Some("It is fine."));
    // A tool that is cut leaves what was said before.
    let cut: Vec<&str> = stream.lines().take(3).collect();
    assert_eq!(summary(Vendor::Gemini, &cut.join("\n")).answer.as_deref(), Some("Let me look."));
}

#[test]
fn geminis_thoughts_are_output_that_only_the_sum_of_all_tokens_tells() {
    let stream = r#"{"type":"result","status":"success","stats":{"total_tokens":300,"input_tokens":200,"output_tokens":50,"cached":60,"input":140,"models":{"m":{"total_tokens":300,"input_tokens":200,"output_tokens":50,"cached":60}}}}"#;
    let summary = summary(Vendor::Gemini, stream);
    let usage = summary.usage.unwrap();
    assert_eq!((usage.input, usage.cache_read, usage.output, usage.reasoning, usage.tokens()), (140, 60, 100, 50, 300));
    assert_eq!(summary.models["m"], usage);
}

#[test]
fn groks_cost_is_known_only_where_it_says_so() {
    let cost = |keys: &str| {
        let line =
            format!(r#"{{"type":"end","stopReason":"end_turn","usage":{{"input_tokens":5,"output_tokens":1}}{keys}}}"#);
        summary(Vendor::Grok, &line).usage.unwrap().cost.map(|cost| (cost.usd, cost.kind))
    };
    assert_eq!(cost(""), None);
    assert_eq!(cost(r#","total_cost_usd":0.0"#), None);
    assert_eq!(cost(r#","total_cost_usd":0.25"#), Some((0.25, CostKind::Estimated)));
    assert_eq!(cost(r#","total_cost_usd_ticks":5000000000"#), Some((0.5, CostKind::Estimated)));
    assert_eq!(cost(r#","total_cost_usd":0.25,"cost_is_partial":true"#), Some((0.25, CostKind::Partial)));
    assert_eq!(cost(r#","total_cost_usd":0.25,"usage_is_incomplete":true"#), Some((0.25, CostKind::Partial)));
}

#[test]
fn a_killed_grok_keeps_the_sum_of_its_requests() {
    let line = r#"{"type":"usage","usage":{"input_tokens":70,"output_tokens":25,"cache_read_input_tokens":30,"reasoning_tokens":5}}"#;
    let usage = summary(Vendor::Grok, &format!("{line}\n{line}")).usage.unwrap();
    assert_eq!((usage.input, usage.cache_read, usage.output, usage.reasoning, usage.cost), (140, 60, 50, 10, None));
}

#[test]
fn a_line_over_16_mib_is_one_text_and_the_next_is_read() {
    let result = r#"{"type":"result","subtype":"success","is_error":false,"result":"ok"}"#;
    let long = vec![b'x'; (16 << 20) + 5];
    let (events, summary) = parse(Vendor::Claude, &[b"a\n", &long, b"\n", result.as_bytes()]);
    assert_eq!(events.len(), 3);
    let EventKind::Text { text, whole, .. } = &events[1].kind else { panic!("{:?}", events[1].kind) };
    assert_eq!((events[1].offset, text.len(), *whole), (2, 64 << 10, Some((16 << 20) + 5)));
    assert_eq!(events[2].offset, 2 + (16 << 20) + 6);
    assert_eq!((summary.answer.as_deref(), summary.lines), (Some("ok"), 3));
}

#[test]
fn wrong_types_duplicate_keys_and_bad_utf8_cost_nothing() {
    let stream = b"{\"type\":\"x\",\"type\":\"result\",\"session_id\":[1],\"session_id\":\"s\",\"is_error\":0,\"result\":\"a\xffb\",\
        \"modelUsage\":{\"m\":{\"inputTokens\":\"7\",\"outputTokens\":3},\"n\":[1],\"o\":{\"inputTokens\":2}},\
        \"errors\":{},\"message\":7,\"rate_limit_info\":\"x\",\"total_cost_usd\":null}\n{\"type\":5}\n[1]\n17\n";
    let (events, summary) = parse(Vendor::Claude, &[stream]);
    assert_eq!(summary.session.as_deref(), Some("s"));
    assert_eq!(summary.answer.as_deref(), Some("a\u{fffd}b"));
    let usage = summary.usage.unwrap();
    assert_eq!((usage.input, usage.output, usage.cost), (2, 3, None));
    assert_eq!((summary.lines, summary.unknown), (4, 1));
    assert!(matches!(&events[3].kind, EventKind::Text { text, .. } if text == "17"), "{events:?}");
}

#[test]
fn memory_is_bounded_whatever_a_stream_says() {
    let long = "y".repeat(1 << 20);
    for (vendor, line) in [
        (
            Vendor::Claude,
            format!(r#"{{"type":"assistant","message":{{"content":[{{"type":"text","text":"{long}"}}]}}}}"#),
        ),
        (Vendor::Gemini, format!(r#"{{"type":"message","role":"assistant","content":"{long}","delta":true}}"#)),
        (Vendor::Grok, format!(r#"{{"type":"text","data":"{long}"}}"#)),
        (Vendor::Rest, format!(r#"{{"type":"text","delta":"{long}"}}"#)),
    ] {
        let mut parser = parser(vendor);
        for _ in 0..8 {
            parser.feed(Stream::Stdout, line.as_bytes(), &mut |event| assert!(size(&event) <= MAX_TEXT));
            parser.feed(Stream::Stdout, b"\n", &mut |event| assert!(size(&event) <= MAX_TEXT));
        }
        let answer = parser.summary().answer.as_ref().unwrap();
        assert!((MAX_ANSWER..=2 * MAX_ANSWER).contains(&answer.len()), "{vendor:?} {}", answer.len());
    }
    // Thousands of models, and of tools that never end.
    let models: String = (0..5000).map(|n| format!("\"m{n}\":{{\"inputTokens\":1}},")).collect();
    let result = format!(r#"{{"type":"result","modelUsage":{{{models}"z":{{}}}}}}"#);
    let counted = summary(Vendor::Claude, &result);
    assert_eq!((counted.models.len(), counted.usage.unwrap().input), (64, 5000));
}

fn size(event: &Event) -> usize {
    match &event.kind {
        EventKind::Text { text, .. } | EventKind::Thought { text, .. } => text.len(),
        EventKind::ToolStart { id, name, input } => id.len().max(name.len()).max(input.len()),
        EventKind::ToolEnd { id, result, .. } => id.len().max(result.as_ref().map_or(0, String::len)),
        _ => 0,
    }
}

/// Any bytes; recorded streams, also of another vendor, cut, changed and interleaved; and objects with the right keys
/// and values of any kind.
fn streams() -> impl Strategy<Value = (Vendor, Vec<u8>)> {
    let vendor = (0..VENDORS.len()).prop_map(|at| VENDORS[at]);
    let index = any::<prop::sample::Index>;
    let bytes = prop_oneof![
        1 => proptest::collection::vec(any::<u8>(), 0..600),
        3 => (0..RECORDED.len(), index(), index(), 0u8..8).prop_map(|(name, end, place, bit)| {
            let mut stream = recorded(RECORDED[name].1);
            let place = place.index(stream.len());
            stream[place] ^= 1 << bit;
            stream.truncate(end.index(stream.len() + 1));
            stream
        }),
        // Two writers, one of which is cut into by the other.
        2 => (0..RECORDED.len(), 0..RECORDED.len(), index()).prop_map(|(one, other, place)| {
            let mut stream = recorded(RECORDED[one].1);
            let at = place.index(stream.len());
            stream.splice(at..at, recorded(RECORDED[other].1));
            stream
        }),
        2 => "(\\{\"type\":(\"result\"|\"assistant\"|\"user\"|\"system\"|\"item.completed\"|\"turn.failed\"|\"end\"|\"tool_call_update\"|\"usage\"|\"limit\"|\"message\"|7),\"(message|result|modelUsage|errors|item|usage|error|stats|content|rawOutput|kind|total_cost_usd)\":(null|\\{\\}|\\[\\[\\]\\]|-1|1e99|\"x\"|\\{\"content\":\\[\\{\"type\":\"text\",\"text\":\"y\"\\},3\\]\\}|\\{\"type\":\"mcp_tool_call\",\"result\":\\{\"content\":[0-9]\\}\\})\\}\n){0,5}"
            .prop_map(String::into_bytes),
    ];
    (vendor, bytes)
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same_events(
        (vendor, stream) in streams(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        let whole = parse(vendor, &[&stream]);
        prop_assert_eq!(&parse(vendor, &chunks), &whole);
        for event in &whole.0 {
            // Every event points to the beginning of a line, and its texts are bounded.
            let at = usize::try_from(event.offset).unwrap();
            prop_assert!(at == 0 || stream[at - 1] == b'\n');
            prop_assert!(size(event) <= MAX_TEXT);
        }
    }

    #[test]
    fn the_lines_of_a_prefix_give_the_first_events_of_the_whole((vendor, stream) in streams(), end in any::<prop::sample::Index>()) {
        let end = end.index(stream.len() + 1);
        let end = stream[..end].iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let (whole, part) = (parse(vendor, &[&stream]).0, parse(vendor, &[&stream[..end]]).0);
        prop_assert_eq!(&whole[..part.len()], &part[..]);
        prop_assert!(whole[part.len()..].iter().all(|event| event.offset >= end as u64));
    }

    #[test]
    fn the_other_stream_does_not_disturb((vendor, stream) in streams(), other in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (mut parser, mut events) = (parser(vendor), Vec::new());
        for piece in stream.chunks(97) {
            parser.feed(Stream::Stderr, &other, &mut |_| {});
            parser.feed(Stream::Stdout, piece, &mut |event| events.push(event));
        }
        parser.finish(&mut |event| events.push(event));
        events.retain(|event| event.stream == Stream::Stdout);
        let (expected, summary) = parse(vendor, &[&stream]);
        prop_assert_eq!(&events, &expected);
        prop_assert_eq!(parser.summary(), &summary);
    }
}
