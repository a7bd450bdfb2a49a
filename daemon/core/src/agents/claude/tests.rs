//! Golden tests over the recorded streams of claude 2.1.197, and what is made of a request.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::agents::Stream;
use crate::agents::tests::request;
use crate::agents::{Agents, EndCause, Event, EventKind, Host};
use crate::config::{AgentConfig, Config};
use crate::types::{Outcome, Timestamp};

const STREAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/streams");

fn recorded(name: &str) -> Vec<u8> {
    fs::read(format!("{STREAMS}/claude-{name}.jsonl")).unwrap()
}

fn parse(chunks: &[&[u8]]) -> (Vec<Event>, StreamSummary) {
    let (mut parser, mut events) = (stream::claude(), Vec::new());
    for chunk in chunks {
        parser.feed(Stream::Stdout, chunk, &mut |event| events.push(event));
    }
    parser.finish(&mut |event| events.push(event));
    (events, parser.summary().clone())
}

fn natural(code: i32) -> ExitFacts {
    ExitFacts {
        code: Some(code),
        signal: None,
        cause: EndCause::Natural,
        oom_kills: 0,
        stderr_tail: String::new(),
        ended: Timestamp::UNIX_EPOCH,
    }
}

/// An adapter whose program is a file in a folder of its own.
fn adapter(config: AgentConfig, env: &[(&str, &str)], root: bool) -> (tempfile::TempDir, Arc<dyn Adapter>) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("claude");
    fs::write(&program, "#!/bin/sh\necho '2.1.197 (Claude Code)'\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut all: Env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    all.insert("PATH".to_owned(), folder.path().to_str().unwrap().to_owned());
    let host = Arc::new(Host { env: all, programs: None, root });
    let config = Config { agents: [("claude".to_owned(), config)].into(), ..Config::default() };
    let adapter = Arc::clone(Agents::new(&config, &host).get("claude").unwrap());
    (folder, adapter)
}

fn plain() -> AgentConfig {
    AgentConfig::new(AgentKind::Claude)
}

fn prepared(config: AgentConfig, env: &[(&str, &str)], root: bool, run: impl Fn(&mut RunRequest)) -> AgentCommand {
    let (folder, adapter) = adapter(config, env, root);
    let mut request = request(folder.path());
    fs::create_dir_all(&request.run_folder).unwrap();
    fs::write(&request.prompt, "do it").unwrap();
    run(&mut request);
    adapter.prepare(&request).unwrap()
}

fn value<'a>(command: &'a AgentCommand, name: &str) -> Option<&'a str> {
    command.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn every_recorded_stream_gives_its_events_outcome_and_answer() {
    let (_folder, adapter) = adapter(plain(), &[], false);
    // The exit code that the real program had.
    let exits = [
        ("hi", 0),
        ("tool", 0),
        ("tool-denied", 0),
        ("partial", 0),
        ("overloaded-retry", 0),
        ("resume", 0),
        ("stdin-two-turns", 0),
        ("max-turns", 1),
        ("sigINT", 1),
        ("sigTERM", 143),
        ("limit-apikey", 1),
        ("limit-oauth", 1),
        ("api-retry-timeout-killed", 143),
    ];
    assert_eq!(exits.len(), fs::read_dir(STREAMS).unwrap().filter(|f| is_claude(f.as_ref().unwrap())).count());
    let mut text = String::new();
    for (name, code) in exits {
        let (events, summary) = parse(&[&recorded(name)]);
        let classified = adapter.classify(&natural(code), &summary);
        let _ = writeln!(text, "== {name}");
        for event in &events {
            let _ = writeln!(text, "{:>6} {:?}", event.offset, event.kind);
        }
        let _ = writeln!(text, "session {:?} model {:?} usage {:?}", summary.session, summary.model, summary.usage);
        let _ = writeln!(text, "lines {} unknown {} limit {:?}", summary.lines, summary.unknown, summary.limit);
        let _ = writeln!(text, "{:?} {:?}", classified.outcome, classified.summary);
        let _ = writeln!(text, "answer {:?}\n", adapter.final_answer(&summary));
    }
    insta::assert_snapshot!(text);
}

fn is_claude(file: &fs::DirEntry) -> bool {
    let name = file.file_name().into_string().unwrap();
    name.starts_with("claude-") && name.ends_with(".jsonl")
}

#[test]
fn the_answers_of_the_predecessors_vectors_are_given() {
    let answer = |text: &str| parse(&[text.as_bytes()]).1.answer;
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
fn a_subagents_text_and_the_programs_own_error_text_are_no_answer() {
    let stream = r#"{"type":"assistant","message":{"content":[{"type":"text","text":"mine"}]},"parent_tool_use_id":null}
{"type":"assistant","message":{"content":[{"type":"text","text":"sub"}]},"parent_tool_use_id":"toolu_1"}
{"type":"assistant","message":{"model":"<synthetic>","content":[{"type":"text","text":"API Error"}]},"error":"rate_limit"}"#;
    let (events, summary) = parse(&[stream.as_bytes()]);
    assert_eq!(summary.answer.as_deref(), Some("mine"));
    assert_eq!(events.len(), 3);
}

#[test]
fn a_line_over_16_mib_is_one_text_and_the_next_is_read() {
    let result = r#"{"type":"result","subtype":"success","is_error":false,"result":"ok"}"#;
    let long = vec![b'x'; (16 << 20) + 5];
    let (events, summary) = parse(&[b"a\n", &long, b"\n", result.as_bytes()]);
    assert_eq!(events.len(), 3);
    let EventKind::Text { text, whole } = &events[1].kind else { panic!("{:?}", events[1].kind) };
    assert_eq!((events[1].offset, text.len(), *whole), (2, 64 << 10, Some((16 << 20) + 5)));
    assert_eq!(events[2].offset, 2 + (16 << 20) + 6);
    assert_eq!((summary.answer.as_deref(), summary.lines), (Some("ok"), 3));
}

#[test]
fn wrong_types_duplicate_keys_and_bad_utf8_cost_nothing() {
    let stream = b"{\"type\":\"x\",\"type\":\"result\",\"session_id\":[1],\"session_id\":\"s\",\"is_error\":0,\"result\":\"a\xffb\",\
        \"modelUsage\":{\"m\":{\"inputTokens\":\"7\",\"outputTokens\":3},\"n\":[1],\"o\":{\"inputTokens\":2}},\
        \"errors\":{},\"message\":7,\"rate_limit_info\":\"x\",\"total_cost_usd\":null}\n{\"type\":5}\n[1]\n17\n";
    let (events, summary) = parse(&[stream]);
    assert_eq!(summary.session.as_deref(), Some("s"));
    assert_eq!(summary.answer.as_deref(), Some("a\u{fffd}b"));
    let usage = summary.usage.unwrap();
    assert_eq!((usage.input, usage.output, usage.cost), (2, 3, None));
    assert_eq!((summary.lines, summary.unknown), (4, 1));
    assert!(matches!(&events[3].kind, EventKind::Text { text, .. } if text == "17"), "{events:?}");
}

#[test]
fn refusals_are_told_apart_from_failures() {
    let (_folder, adapter) = adapter(plain(), &[], false);
    let outcome = |line: &str, code| adapter.classify(&natural(code), &parse(&[line.as_bytes()]).1);
    let result = |status: &str, text: &str| {
        format!(
            r#"{{"type":"result","subtype":"success","is_error":true,"api_error_status":{status},"result":"{text}"}}"#
        )
    };
    for (status, text, expected) in [
        ("429", "You've hit your limit", Outcome::UsageLimited),
        ("401", "Invalid bearer token", Outcome::AuthFailed),
        ("403", "forbidden", Outcome::AuthFailed),
        ("null", "Invalid API key · Please run /login", Outcome::AuthFailed),
        ("529", "overloaded", Outcome::Failed),
        ("null", "the tests say: Invalid API key", Outcome::Failed),
        ("500", "Invalid API key", Outcome::Failed),
    ] {
        assert_eq!(outcome(&result(status, text), 1).outcome, expected, "{status} {text}");
    }
    // An answer that merely talks about limits is none; nor is one that came after a refused request.
    let fine = r#"{"type":"assistant","error":"rate_limit","message":{"content":[]}}
{"type":"result","subtype":"success","is_error":false,"result":"You've hit your limit · resets 5pm"}"#;
    assert_eq!(outcome(fine, 0), Classified { outcome: Outcome::Completed, summary: None, limit: None });
    // It calls it an error and exits with 0.
    assert_eq!(outcome(&result("null", "odd"), 0).outcome, Outcome::Failed);
    // The last word before it died was a refusal.
    let died = r#"{"type":"assistant","error":"authentication_failed","message":{"content":[]}}"#;
    assert_eq!(outcome(died, 1).outcome, Outcome::AuthFailed);
    // What we did comes first.
    let stopped = ExitFacts { cause: EndCause::Stop, ..natural(1) };
    assert_eq!(adapter.classify(&stopped, &parse(&[result("429", "x").as_bytes()]).1).outcome, Outcome::Stopped);
}

#[test]
fn the_command_has_the_exact_flags_and_no_prompt_in_it() {
    let mut config = plain();
    config.model = Some("opus".into());
    config.args = vec!["--max-turns".into(), "9".into()];
    let command = prepared(config, &[], false, |run| {
        run.resume_session = Some("s-1".into());
        run.extra_args = vec!["--effort".into(), "low".into()];
    });
    let expected = "-p --input-format text --output-format stream-json --verbose --permission-mode bypassPermissions \
                    --model opus --resume s-1 --max-turns 9 --effort low";
    assert_eq!(command.argv[1..].join(" "), expected);
    assert!(Path::new(&command.argv[0]).is_absolute() && command.argv[0] == command.program.to_str().unwrap());
    assert_eq!(command.display, format!("{} {expected} < {}", command.argv[0], command.stdin.unwrap().display()));
    assert_eq!((command.login.as_str(), command.model.as_deref()), ("login", Some("opus")));
    assert!(command.notes.is_empty());
    let command = prepared(AgentConfig { model: Some("opus".into()), ..plain() }, &[], false, |run| {
        run.model = Some("sonnet".into());
    });
    assert!(command.display.contains("--model sonnet") && !command.display.contains("--resume"));
}

#[test]
fn bypassing_permissions_as_root_sets_is_sandbox_and_says_so() {
    let command = prepared(plain(), &[], true, |_| {});
    assert_eq!(value(&command, "IS_SANDBOX"), Some("1"));
    assert!(command.display.starts_with("IS_SANDBOX=1 /") && command.notes[0].contains("not confined"));
    let plan = AgentConfig { permission_mode: Some(PermissionMode::Plan), ..plain() };
    let command = prepared(plan, &[], true, |_| {});
    assert_eq!(value(&command, "IS_SANDBOX"), None);
    assert!(command.display.contains("--permission-mode plan"));
}

#[test]
fn a_token_goes_into_the_right_variable_and_nowhere_else() {
    let foreign = [("ANTHROPIC_API_KEY", "sk-shell"), ("CLAUDECODE", "1")];
    for (token, variable) in [("sk-ant-api-1", "ANTHROPIC_API_KEY"), ("sk-ant-oat-1", "CLAUDE_CODE_OAUTH_TOKEN")] {
        let env = [&foreign[..], &[("CONDUCTOR_AGENT_CLAUDE_TOKEN", token)]].concat();
        let command = prepared(plain(), &env, false, |_| {});
        let holders: Vec<&str> =
            command.env.iter().filter(|(_, value)| value.contains(token)).map(|(name, _)| name.as_str()).collect();
        assert_eq!(holders, [variable]);
        assert_eq!(command.secret_names, [variable, "CONDUCTOR_TOKEN"]);
        assert_eq!(command.login, "key from CONDUCTOR_AGENT_CLAUDE_TOKEN");
        assert!(!format!("{command:?}{}{:?}", command.display, command.argv).contains(token));
        assert!(!format!("{:?}", adapter(plain(), &env, false).1).contains(token));
    }
    let command = prepared(plain(), &foreign, false, |_| {});
    assert_eq!((value(&command, "ANTHROPIC_API_KEY"), value(&command, "CLAUDECODE")), (None, None));
    let passed = AgentConfig { env_pass: vec!["ANTHROPIC_API_KEY".into()], ..plain() };
    let command = prepared(passed, &foreign, false, |_| {});
    assert_eq!(value(&command, "ANTHROPIC_API_KEY"), Some("sk-shell"));
    assert_eq!(command.login, "key from variable ANTHROPIC_API_KEY");
}

#[test]
fn what_is_kept_of_an_agents_words_does_not_hold_its_key() {
    let (_folder, adapter) = adapter(plain(), &[("CONDUCTOR_AGENT_CLAUDE_TOKEN", "sk-ant-api-1")], false);
    let line =
        r#"{"type":"result","subtype":"success","is_error":true,"api_error_status":401,"result":"bad sk-ant-api-1"}"#;
    let classified = adapter.classify(&natural(1), &parse(&[line.as_bytes()]).1);
    assert_eq!((classified.outcome, classified.summary.as_deref()), (Outcome::AuthFailed, Some("bad ***")));
    let exit = ExitFacts { stderr_tail: "no sk-ant-api-1".into(), ..natural(1) };
    assert_eq!(adapter.classify(&exit, &StreamSummary::default()).summary.unwrap(), "exit code 1: no ***");
}

#[test]
fn address_and_folder_of_settings_are_told_by_environment_and_updates_are_off() {
    let mut config = plain();
    config.base_url = Some("http://127.0.0.1:1".into());
    config.config_dir = Some("/c".into());
    let command = prepared(config, &[], false, |_| {});
    assert_eq!(value(&command, "ANTHROPIC_BASE_URL"), Some("http://127.0.0.1:1"));
    assert_eq!(value(&command, "CLAUDE_CONFIG_DIR"), Some("/c"));
    assert_eq!(value(&command, "DISABLE_AUTOUPDATER"), Some("1"));
    assert!(value(&command, "CONDUCTOR_RUN_ID").is_some());
}

#[test]
fn a_prompt_over_10_mb_is_handed_over_by_path() {
    let (folder, adapter) = adapter(plain(), &[], false);
    let request = request(folder.path());
    fs::create_dir_all(&request.run_folder).unwrap();
    fs::write(&request.prompt, "x".repeat(10_000_001)).unwrap();
    let command = adapter.prepare(&request).unwrap();
    let words = fs::read_to_string(command.stdin.unwrap()).unwrap();
    assert!(words.len() < 1000 && words.contains(request.prompt.to_str().unwrap()), "{words}");
    assert!(command.notes[0].contains("10 MB"));
    fs::remove_file(&request.prompt).unwrap();
    assert!(matches!(adapter.prepare(&request), Err(PrepareError::Prompt { .. })));
}

#[test]
fn a_missing_or_unusable_program_is_named_with_the_way_to_install_it() {
    let (folder, adapter) = adapter(plain(), &[], false);
    assert_eq!(adapter.version().unwrap().as_deref(), Some("2.1.197 (Claude Code)"));
    fs::set_permissions(folder.path().join("claude"), fs::Permissions::from_mode(0o644)).unwrap();
    let text = adapter.prepare(&request(folder.path())).unwrap_err().to_string();
    assert!(text.ends_with("/claude is not an executable file"), "{text}");
    fs::remove_file(folder.path().join("claude")).unwrap();
    let text = adapter.prepare(&request(folder.path())).unwrap_err().to_string();
    let expected =
        "agent claude: program claude was not found; install it with: npm install -g @anthropic-ai/claude-code";
    assert_eq!(text, expected);
    assert_eq!(adapter.version(), Err(VersionError::NoProgram(expected.to_owned())));
}

fn streams() -> impl Strategy<Value = Vec<u8>> {
    let names = ["hi", "tool", "limit-oauth", "partial", "sigINT", "max-turns"];
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..600),
        // A recorded stream, cut anywhere, with one byte changed.
        (0..names.len(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()).prop_map(
            move |(name, end, place, byte)| {
                let mut stream = recorded(names[name]);
                let place = place.index(stream.len());
                stream[place] = byte;
                let end = end.index(stream.len() + 1);
                stream.truncate(end);
                stream
            }
        ),
        // Objects of the right keys with values of any kind.
        "(\\{\"type\":(\"result\"|\"assistant\"|\"user\"|\"system\"|7),\"(message|result|modelUsage|errors|subtype)\":(null|\\{\\}|\\[\\[\\]\\]|-1|1e99|\"x\"|\\{\"content\":\\[\\{\"type\":\"text\",\"text\":\"y\"\\},3\\]\\})\\}\n){0,5}"
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same_events(
        stream in streams(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        let whole = parse(&[&stream]);
        prop_assert_eq!(&parse(&chunks), &whole);
        // Every event points to the beginning of a line.
        for event in &whole.0 {
            let at = usize::try_from(event.offset).unwrap();
            prop_assert!(at == 0 || stream[at - 1] == b'\n');
        }
    }
}
