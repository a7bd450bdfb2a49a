//! What is made of a request.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::agents::Stream;
use crate::agents::tests::request;
use crate::agents::{
    Adapter, AgentCommand, Agents, EndCause, ExitFacts, Host, PrepareError, StreamSummary, VersionError, stream,
};
use crate::config::{AgentConfig, AgentKind, Config, Env};
use crate::types::{Outcome, Timestamp};

fn parse(line: &str) -> StreamSummary {
    let mut parser = stream::claude();
    parser.feed(Stream::Stdout, line.as_bytes(), &mut |_| {});
    parser.finish(&mut |_| {});
    parser.summary().clone()
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
    assert!(command.display.starts_with("IS_SANDBOX=1 /") && command.notes[0].starts_with("IS_SANDBOX=1 is set"));
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
    let classified = adapter.classify(&natural(1), &parse(line));
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
    assert!(command.notes[0].contains("at most 10000000 bytes"));
    fs::remove_file(&request.prompt).unwrap();
    assert!(matches!(adapter.prepare(&request), Err(PrepareError::Prompt { .. })));
}

#[test]
fn a_missing_or_unusable_program_is_named_with_the_way_to_install_it() {
    let (folder, adapter) = adapter(plain(), &[], false);
    assert_eq!(adapter.version().unwrap().as_deref(), Some("2.1.197 (Claude Code)"));
    fs::set_permissions(folder.path().join("claude"), fs::Permissions::from_mode(0o644)).unwrap();
    let text = adapter.prepare(&request(folder.path())).unwrap_err().to_string();
    assert!(text.contains("/claude is not an executable file; install it with: npm install -g @"), "{text}");
    fs::remove_file(folder.path().join("claude")).unwrap();
    let text = adapter.prepare(&request(folder.path())).unwrap_err().to_string();
    let expected =
        "agent claude: program claude was not found; install it with: npm install -g @anthropic-ai/claude-code";
    assert_eq!(text, expected);
    assert_eq!(adapter.version(), Err(VersionError::NoProgram(expected.to_owned())));
}
