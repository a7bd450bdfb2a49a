//! Configurations that are read, and the exact words for those that are not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn load(text: &str) -> Result<Config, ConfigError> {
    load_with(text, &Env::from([("HOME".to_owned(), "/home/a".to_owned())]))
}

fn load_with(text: &str, env: &Env) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("conductor.yaml");
    fs::write(&path, text).unwrap();
    Config::load(&path, env)
}

/// The error without the name of the temporary folder.
fn words(text: &str) -> String {
    let error = load(text).unwrap_err();
    let file = error.path.clone().unwrap();
    error.to_string().replace(file.parent().unwrap().to_str().unwrap(), "").replace("/conductor.yaml", "conductor.yaml")
}

const FULL: &str = "
root: /data/runs
socket: /run/c.sock
socket_group: root
agents:
  claude: {type: claude, model: opus, permission_mode: acceptEdits, base_url: 'https://gw.example/v1', env: {A: 'b'}}
  codex: {type: codex, version: '>=0.169, <1', permission_mode: workspace-write, account: team}
  shell: {type: command, program: ./agent.sh, args: ['--file', '{prompt}'], prompt: file, env_pass: [AWS_*]}
defaults:
  {agent: shell, max_restarts: 3, restart_delay: 500ms, child_wait_timeout: 1h30m, on_child_timeout: stop,
   wall_time: 2h, log_limit: 512MiB, idle_warn: 2m, idle_timeout: off, max_concurrent_runs: 4}
bus: {durability: always, rotate_size: 10MiB, lock_timeout: 5s}
stop: {int_grace: 0s, term_grace: 1s, exit_grace: 250ms}
backoff: {base: 2s, max: 1m}
cgroup: off
env_pass: [EXTRA]
on_shutdown: stop
log: {filter: 'info,conductor_core=debug', format: json}
limits: {max_depth: 2}
prices: {codex: {'gpt-5*': {input: 1.25, cache_read: 0.125, output: 10}}}
";

#[test]
fn an_empty_file_is_the_defaults_and_claude_is_there() {
    for text in ["", "# nothing\n", "---\n", "agents:\n", "{}"] {
        assert_eq!(load(text).unwrap(), Config::default(), "{text:?}");
    }
    let config = load("agents: {shell: {type: command, program: sh}}").unwrap();
    let names = ["claude", "codex", "gemini", "grok", "perplexity", "shell", "xai"];
    assert_eq!(config.agents.keys().collect::<Vec<_>>(), names);
    // A name of a built-in one may be taken.
    let config = load("agents: {codex: {type: command, program: sh}}").unwrap();
    assert_eq!(config.agents["codex"].kind, AgentKind::Command);
}

#[test]
fn every_key_is_read_and_paths_are_relative_to_the_file() {
    let config = load(FULL).unwrap();
    assert_eq!(config.defaults.child_wait_timeout.get().as_secs(), 5400);
    assert_eq!(config.defaults.log_limit.get(), 512 << 20);
    assert_eq!((config.defaults.idle_warn, config.defaults.idle_timeout), (TimeOrOff::seconds(120), TimeOrOff::OFF));
    assert_eq!(config.defaults.on_child_timeout, ChildPolicy::Stop);
    assert_eq!((config.cgroup, config.on_shutdown), (CgroupMode::Off, OnShutdown::Stop));
    assert_eq!(config.agents["claude"].permission_mode, Some(PermissionMode::AcceptEdits));
    assert_eq!(config.agents["codex"].permission_mode, Some(PermissionMode::WorkspaceWrite));
    assert_eq!(config.agents["codex"].version.as_ref().unwrap().to_string(), ">=0.169, <1");
    let usage = crate::types::Usage { output: 100_000, ..Default::default() };
    assert!(
        config.prices.cost(AgentKind::Codex, Some("gpt-5.1"), &usage).is_some_and(|cost| (cost.usd - 1.0).abs() < 1e-9)
    );
    let program = config.agents["shell"].program.as_deref().unwrap();
    assert!(program.starts_with('/') && program.ends_with("agent.sh"), "{program}");
    let config = load("agents: {claude: {type: claude, config_dir: ~/c}}\nroot: runs").unwrap();
    assert_eq!(config.agents["claude"].config_dir.as_deref(), Some(Path::new("/home/a/c")));
    assert!(config.root.unwrap().is_absolute());
}

#[test]
fn errors_of_the_text_name_line_column_and_what_was_expected() {
    let all = [
        "agnets: {}",
        "defaults:\n  max_restart: 5",
        "defaults:\n  restart_delay: 90",
        "defaults:\n  wall_time: 90 minutes",
        "defaults: {log_limit: 2GB}",
        "defaults: {idle_warn: never}",
        "defaults: {idle_timeout: 30}",
        "bus:\n  durability: sometimes",
        "agents:\n  claude: {type: cursor}",
        "agents:\n  a: {type: claude, version: 2.1}",
        "agents:\n  a: {type: claude, version: latest}",
        "agents:\n  a: {type: codex, permission_mode: never}",
        "agents:\n  a: {type: codex, env: {A: 'x', A: 'y'}}",
        "prices:\n  cursor: {}",
        "prices:\n  codex: {}\n  codex: {}",
        "prices:\n  codex: {a: {input: 1}}",
        "prices:\n  codex: {a: {input: 1, output: 1}, a: {input: 1, output: 1}}",
        "agents:\n  claude: {model: opus}",
        "agents:\n  a: {type: claude}\n  a: {type: claude}",
        "cgroup: auto\ncgroup: off",
        "defaults:\n  max_restarts: many",
        "defaults: [1",
        "root: a\n\tsocket: b",
        "a: 1\n---\nb: 2",
        "- a",
    ];
    let text: Vec<String> = all.iter().map(|text| format!("{}\n  {}", text.replace('\n', "⏎"), words(text))).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn errors_of_values_are_all_told_with_their_key() {
    insta::assert_snapshot!(words(
        "
agents:
  Claude: {type: claude}
  a: {type: claude, token: x, token_env: Y}
  b: {type: claude, token_file: /none/token, prompt: file}
  c: {type: claude, token_env: NOT_SET}
  d: {type: claude, base_url: 'gw.example'}
  e: {type: claude, base_url: 'https://me:pw@gw.example/'}
  f: {type: claude, env: {CONDUCTOR_TOKEN: x, CLAUDECODE: '1', 'A-B': x}, env_pass: ['*', 'JRUN_*', 'OK_*']}
  g: {type: claude, token: ''}
  h: {type: command, model: x, token: x, version: '1'}
  i: {type: codex, permission_mode: dontAsk, account: 'a b'}
  j: {type: gemini, permission_mode: read-only, base_url: 'ftp://x'}
  k: {type: perplexity, permission_mode: plan, config_dir: /x, prompt: stdin}
  l: {type: grok, token: 'a b'}
prices: {codex: {gpt: {input: -1, output: .nan}}}
defaults: {agent: nobody, max_restarts: 0, restart_delay: 2d, wall_time: 0s, log_limit: 1KiB, idle_warn: 999ms, idle_timeout: 400d, max_concurrent_runs: 0}
bus: {rotate_size: 1B, lock_timeout: 1ms}
stop: {int_grace: 2h}
backoff: {base: 10s, max: 1s}
limits: {max_depth: 17}
log: {filter: ''}
socket: /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
"
    ));
}

#[test]
fn a_token_of_the_wrong_type_does_not_show_in_the_error() {
    for value in ["123456", "-123456", "123456.5", "[123456]", "{123456: 123456}"] {
        let text = words(&format!("agents:\n  claude:\n    type: claude\n    token: {value}\n"));
        assert!(!text.contains("123456") && text.contains("put it in quotes"), "{text}");
    }
}

#[test]
fn a_variable_with_a_bad_token_is_told_with_its_agent() {
    let env = Env::from([("CONDUCTOR_AGENT_CODEX_TOKEN".to_owned(), "a b".to_owned())]);
    let error = load_with("agents: {}", &env).unwrap_err();
    assert_eq!(error.problems[0].place, Place::Key("CONDUCTOR_AGENT_CODEX_TOKEN".to_owned()));
    assert!(error.problems[0].message.starts_with("agent codex: CONDUCTOR_AGENT_CODEX_TOKEN contains"), "{error}");
}

#[test]
fn a_missing_unreadable_or_huge_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let env = Env::new();
    let error = |path: &Path| Config::load(path, &env).unwrap_err().to_string();
    assert!(error(&folder.path().join("none.yaml")).contains("can't be opened: No such file"));
    assert!(error(folder.path()).contains("can't be read"));
    let path = folder.path().join("conductor.yaml");
    fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(error(&path).contains("more than 1 MiB"));
    fs::write(&path, b"root: \xff").unwrap();
    assert!(error(&path).contains("UTF-8"), "{}", error(&path));
}

#[test]
fn the_file_is_found_by_flag_variable_home_and_machine_in_that_order() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("conductor");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("conductor.yaml"), "").unwrap();
    let mut env = Env::from([("XDG_CONFIG_HOME".to_owned(), folder.path().to_str().unwrap().to_owned())]);
    assert_eq!(Config::find(None, &env), Some(home.join("conductor.yaml")));
    env.insert("CONDUCTOR_CONFIG".to_owned(), "/v.yaml".to_owned());
    assert_eq!(Config::find(None, &env), Some("/v.yaml".into()));
    assert_eq!(Config::find(Some(Path::new("/f.yaml")), &env), Some("/f.yaml".into()));
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let env = Env::from([
        ("CONDUCTOR_ROOT".to_owned(), "/v".to_owned()),
        ("CONDUCTOR_SOCKET".to_owned(), "/v.sock".to_owned()),
        ("CONDUCTOR_LOG".to_owned(), "debug".to_owned()),
    ]);
    let config = load(FULL).unwrap();
    let flags = Flags { root: Some("/f".into()), ..Flags::default() };
    let applied = config.clone().apply(&flags, &env).unwrap();
    assert_eq!((applied.root, applied.socket), (Some("/f".into()), Some("/v.sock".into())));
    assert_eq!(applied.log.filter, "debug");
    assert_eq!(config.clone().apply(&Flags::default(), &Env::new()).unwrap(), config);
    let long = Flags { socket: Some(format!("/{}", "a".repeat(200)).into()), ..Flags::default() };
    let text = config.apply(&long, &Env::new()).unwrap_err().to_string();
    assert!(text.starts_with("--socket: socket path /aaa") && text.contains("at most 103"), "{text}");
}

#[test]
fn the_view_for_people_holds_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "sk-file").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "agents:\n  a: {{type: claude, token: sk-inline, env: {{KEY: sk-env}}}}\n  b: {{type: claude, token_file: {}}}\n",
        token.display()
    );
    let config = load(&text).unwrap();
    let view = config.redacted_yaml();
    assert!(!view.contains("sk-") && !format!("{config:?}").contains("sk-"), "{view}");
    assert!(view.contains("token: '***'") && view.contains("KEY: '***'") && view.contains("token_file: /"), "{view}");
    assert_eq!(config.agents["b"].resolve_token("b", &Env::new()).unwrap().unwrap().login, "key from token_file");
}

#[test]
fn the_view_of_the_defaults_reads_back_as_the_defaults() {
    assert_eq!(load(&Config::default().redacted_yaml()).unwrap(), Config::default());
}

#[test]
fn root_and_socket_come_from_the_file_or_the_scope() {
    let env = Env::from([("HOME".to_owned(), "/home/a".to_owned())]);
    let (full, empty) = (load(FULL).unwrap(), Config::default());
    assert_eq!(full.root_or_default(Scope::User, &env), Ok("/data/runs".into()));
    assert_eq!(full.socket_or_default(Scope::System, &env), Ok("/run/c.sock".into()));
    assert_eq!(empty.root_or_default(Scope::System, &env), Ok(SYSTEM_ROOT.into()));
    let deep = Env::from([("HOME".to_owned(), format!("/{}", "h".repeat(100)))]);
    assert!(matches!(empty.socket_or_default(Scope::User, &deep), Err(PathError::SocketTooLong(_))));
}

#[test]
fn only_root_and_what_the_socket_is_need_a_restart() {
    let (old, new) = (Config::default(), load(FULL).unwrap());
    assert_eq!(Config::diff_restart_needed(&old, &new), ["root", "socket", "socket_group"]);
    assert!(Config::diff_restart_needed(&new, &new).is_empty());
}

#[test]
fn the_schema_has_units_policies_and_no_unknown_keys() {
    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    let defaults = &schema["$defs"]["Defaults"]["properties"];
    assert!(defaults["restart_delay"]["pattern"].is_string(), "{defaults}");
    for policy in defaults["on_child_timeout"]["enum"].as_array().unwrap() {
        assert!(serde_json::from_value::<ChildPolicy>(policy.clone()).is_ok());
    }
    assert_eq!(schema["$defs"]["AgentConfig"]["required"], serde_json::json!(["type"]));
}

/// Every key of the schema, by its path, with `NAME` for an agent's name.
fn keys() -> Vec<String> {
    let schema = schema();
    let mut keys = Vec::new();
    let section = |reference: &serde_json::Value| {
        let name = reference["$ref"].as_str().and_then(|text| text.strip_prefix("#/$defs/")).map(str::to_owned);
        name.and_then(|name| schema["$defs"][&name]["properties"].as_object().cloned())
    };
    for (key, value) in schema["properties"].as_object().unwrap() {
        let (prefix, inner) = if key == "agents" {
            ("agents.NAME".to_owned(), section(&value["additionalProperties"]))
        } else {
            (key.clone(), section(value))
        };
        match inner {
            Some(inner) => keys.extend(inner.keys().map(|name| format!("{prefix}.{name}"))),
            None => keys.push(prefix),
        }
    }
    keys
}

#[test]
fn the_documentation_names_every_key_and_no_other() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");
    let text = fs::read_to_string(path).unwrap();
    let mut documented: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(key, _)| key.to_owned()))
        .filter(|key| !key.starts_with("CONDUCTOR_") && !key.starts_with("--"))
        .collect();
    let mut known = keys();
    documented.sort();
    known.sort();
    assert_eq!(documented, known);
}
