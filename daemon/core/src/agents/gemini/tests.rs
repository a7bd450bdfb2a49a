//! What Gemini CLI is given, and what becomes of the user's settings.

use super::*;
use crate::agents::tests::{Bench, value};
use crate::config::{AgentConfig, AgentKind};

const TOKEN: [(&str, &str); 1] = [("CONDUCTOR_AGENT_GEMINI_TOKEN", "AIza-secret")];

fn plain() -> AgentConfig {
    AgentConfig::new(AgentKind::Gemini)
}

fn gateway() -> AgentConfig {
    AgentConfig { base_url: Some("http://127.0.0.1:1".into()), ..plain() }
}

fn with_settings(bench: &Bench, text: &str) -> PathBuf {
    let folder = bench.home().join(".gemini");
    fs::create_dir_all(folder.join("extensions")).unwrap();
    fs::write(folder.join("settings.json"), text).unwrap();
    folder
}

#[test]
fn the_command_has_the_exact_flags_and_the_prompt_on_its_input() {
    let config =
        AgentConfig { model: Some("gemini-2.5-pro".into()), args: vec!["--policy".into(), "p".into()], ..plain() };
    let bench = Bench::new("gemini", config, &[]);
    let command = bench.prepared(|run| {
        run.resume_session = Some("100bb259".into());
        run.extra_args = vec!["-e".into(), "none".into()];
    });
    assert_eq!(
        bench.words(&command),
        "-p  -o stream-json --approval-mode yolo --skip-trust -m gemini-2.5-pro -r 100bb259 --policy p -e none"
    );
    assert_eq!(command.argv[2], "");
    assert_eq!(command.stdin.as_deref(), Some(bench.request.prompt.as_path()));
    assert!(command.display.contains("-p '' -o"), "{}", command.display);
    assert_eq!((command.login.as_str(), value(&command, HOME)), ("login", None));
}

#[test]
fn every_permission_mode_is_an_approval_mode() {
    for (mode, expected) in [
        (PermissionMode::BypassPermissions, "yolo"),
        (PermissionMode::Yolo, "yolo"),
        (PermissionMode::AcceptEdits, "auto_edit"),
        (PermissionMode::AutoEdit, "auto_edit"),
        (PermissionMode::Plan, "plan"),
        (PermissionMode::Default, "default"),
    ] {
        let bench = Bench::new("gemini", AgentConfig { permission_mode: Some(mode), ..plain() }, &[]);
        let words = bench.words(&bench.prepared(|_| {}));
        assert!(words.contains(&format!("--approval-mode {expected} ")), "{words}");
    }
}

#[test]
fn a_key_alone_needs_no_settings() {
    let bench = Bench::new("gemini", plain(), &TOKEN);
    let command = bench.prepared(|_| {});
    assert_eq!((value(&command, KEY), value(&command, HOME)), (Some("AIza-secret"), None));
    with_settings(&bench, r#"{"security":{"auth":{"selectedType":"gemini-api-key"}}}"#);
    assert!(bench.prepared(|_| {}).notes.is_empty());
}

#[test]
fn settings_that_do_not_choose_the_key_are_left_alone_and_the_run_gets_its_own() {
    let bench = Bench::new("gemini", gateway(), &TOKEN);
    let text = "{ // mine\n\"ui\": {\"theme\": \"a//b\"}, /* x */ \"security\": {\"auth\": {\"selectedType\": \"oauth-personal\"}}}";
    let users = with_settings(&bench, text);
    let command = bench.prepared(|_| {});
    let own = bench.request.root.join(".conductor/agents/gemini");
    assert_eq!(value(&command, HOME), own.to_str());
    assert_eq!(value(&command, "HOME"), bench.home().to_str());
    assert_eq!(value(&command, "GOOGLE_GEMINI_BASE_URL"), Some("http://127.0.0.1:1"));
    let settings: Value = serde_json::from_slice(&fs::read(own.join(".gemini/settings.json")).unwrap()).unwrap();
    assert_eq!(settings["security"]["auth"]["selectedType"], BY_KEY);
    assert_eq!(settings["ui"]["theme"], "a//b");
    assert_eq!(fs::read_to_string(users.join("settings.json")).unwrap(), text);
    assert_eq!(fs::read_link(own.join(".gemini/extensions")).unwrap(), users.join("extensions"));
    assert!(fs::symlink_metadata(own.join(".gemini/skills")).is_err());
    let note = &command.notes[0];
    assert!(note.contains("oauth-personal") && note.contains("your file is as it was"), "{note}");
    assert!(!fs::read_to_string(own.join(".gemini/settings.json")).unwrap().contains("secret"));
    // It may be prepared again, and follows the user's settings.
    fs::write(users.join("settings.json"), "{\"ui\": {}}").unwrap();
    assert!(bench.prepared(|_| {}).notes[0].contains("without which a base_url is refused"));
}

#[test]
fn a_gateway_needs_the_choice_even_without_any_settings() {
    let bench = Bench::new("gemini", gateway(), &TOKEN);
    let command = bench.prepared(|_| {});
    assert!(value(&command, HOME).is_some() && command.display.starts_with("GEMINI_CLI_HOME="), "{}", command.display);
    // Without a key the settings decide.
    let bench = Bench::new("gemini", gateway(), &[]);
    assert!(bench.prepared(|_| {}).notes.is_empty());
}

#[test]
fn a_folder_of_its_own_is_where_its_settings_are_looked_for() {
    let bench = Bench::new("gemini", plain(), &[]);
    let folder = bench.home().join("work");
    let config = AgentConfig { config_dir: Some(folder.clone()), ..gateway() };
    let bench = Bench::new("gemini", config, &TOKEN);
    fs::create_dir_all(folder.join(".gemini")).unwrap();
    fs::write(folder.join(".gemini/settings.json"), r#"{"security":{"auth":{"selectedType":"gemini-api-key"}}}"#)
        .unwrap();
    let command = bench.prepared(|_| {});
    assert_eq!((value(&command, HOME), command.notes.len()), (folder.to_str(), 0));
}

#[test]
fn settings_that_are_no_json_are_an_error_that_names_the_file() {
    for text in ["{", "[]", "7", "{\"a\" 1}"] {
        let bench = Bench::new("gemini", gateway(), &TOKEN);
        let users = with_settings(&bench, text);
        let error = bench.adapter.prepare(&bench.request).unwrap_err().to_string();
        let start = format!("agent gemini: {} is no", users.join("settings.json").display());
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn another_login_that_a_variable_chooses_is_not_in_the_keys_way() {
    let pass = AgentConfig { env_pass: vec!["GOOGLE_*".into(), "GEMINI_*".into()], ..gateway() };
    let env = [("GOOGLE_GENAI_USE_VERTEXAI", "true"), ("GOOGLE_API_KEY", "k"), ("GEMINI_API_KEY", "shell")];
    let command = Bench::new("gemini", pass.clone(), &[&env[..], &TOKEN].concat()).prepared(|_| {});
    assert!(value(&command, "GOOGLE_API_KEY").is_none() && value(&command, "GOOGLE_GENAI_USE_VERTEXAI").is_none());
    assert_eq!(value(&command, KEY), Some("AIza-secret"));
    let command = Bench::new("gemini", pass, &env).prepared(|_| {});
    assert_eq!((command.login.as_str(), value(&command, HOME)), ("key from variable GEMINI_API_KEY", None));
}

#[test]
fn a_prompt_over_8_mib_is_handed_over_by_path() {
    let bench = Bench::new("gemini", plain(), &[]);
    fs::write(&bench.request.prompt, "x".repeat((8 << 20) + 1)).unwrap();
    let command = bench.prepared(|_| {});
    let words = fs::read_to_string(command.stdin.unwrap()).unwrap();
    assert!(words.contains(bench.request.prompt.to_str().unwrap()) && command.notes[0].contains("8388608"), "{words}");
}

#[test]
fn comments_are_left_out_and_texts_are_not() {
    for (text, expected) in [
        ("1 // a\n2", "1 \n2"),
        ("1/* a\n*/2", "1\n2"),
        (r#""// /* \" //" 3"#, r#""// /* \" //" 3"#),
        ("/*", ""),
        ("/***/1", "1"),
        ("\"\\", "\"\\"),
    ] {
        assert_eq!(without_comments(text), expected, "{text}");
    }
}
