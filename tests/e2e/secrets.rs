//! Where secrets must not be: in no file below the root, no log of ours, no answer, no argument list, and in no
//! environment but that of the agent they are for.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::GetConfigRequest;
use conductor_tests::{Client, Config, Sandbox, in_sandbox, tree};

use crate::common::{again, script, start_with, touch, wait_file};

/// A key as a vendor gives it out; unlike anything else in the sandbox.
const KEY: &str = "sk-ant-api03-e2e0c2f4-never-to-be-seen-77aa";
/// One that is configured for an agent that does not run.
const OTHER_KEY: &str = "sk-ant-api03-9f1b-of-somebody-else-31cd";
/// One of the caller's environment, which is never used silently.
const CALLERS_KEY: &str = "sk-ant-api03-caller-must-not-leak-55";

/// A program in the place of Claude Code: it writes what it sees of its key to a file outside of the root, waits, and
/// ends as the real one does.
const CLAUDE: &str = r#"#!/bin/sh
case "$*" in *--version*) echo "2.1.112 (Claude Code)"; exit 0;; esac
cat > /dev/null
printenv > "$HOME/agent-environment"
: > "$CONDUCTOR_TASK_FOLDER/up"
while [ ! -e "$CONDUCTOR_TASK_FOLDER/go" ]; do sleep 0.05; done
printf '%s\n' '{"type":"system","subtype":"init","session_id":"11111111-1111-4111-8111-111111111111","model":"m"}'
printf '%s\n' '{"type":"result","subtype":"success","is_error":false,"result":"fine","session_id":"11111111-1111-4111-8111-111111111111","num_turns":1,"usage":{}}'
: > "$CONDUCTOR_TASK_FOLDER/DONE"
"#;

fn holders(folder: &Path, secrets: &[&str], except: &[&str]) -> Vec<String> {
    let files = tree::list(folder).into_iter().filter(|(path, kind)| *kind == 'f' && !except.contains(&path.as_str()));
    files
        .filter(|(path, _)| {
            let text = std::fs::read(folder.join(path)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            secrets.iter().any(|secret| text.contains(secret))
        })
        .map(|(path, _)| path)
        .collect()
}

/// Processes of the sandbox whose arguments, or environment, hold a secret; by name.
fn in_processes(sandbox: &Sandbox, file: &str, secret: &str) -> BTreeSet<String> {
    let holds = |pid: i32| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(secret)
    };
    sandbox.processes().into_iter().filter(|process| holds(process.pid)).map(|process| process.name).collect()
}

fn assert_unseen_by_callers(client: &Client) -> Result<()> {
    let config = client.wait(client.daemon().get_config(GetConfigRequest {}))?;
    let info = format!("{:?}", client.daemon_info()?);
    for text in [config.yaml.as_str(), info.as_str()] {
        ensure!(![KEY, OTHER_KEY, CALLERS_KEY].iter().any(|key| text.contains(key)), "an answer has a key: {text}");
    }
    Ok(())
}

#[test]
fn a_configured_key_reaches_its_agent_and_nothing_else() {
    in_sandbox(|sandbox| {
        use std::os::unix::fs::PermissionsExt as _;
        let program = sandbox.path().join("claude");
        std::fs::write(&program, CLAUDE)?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        let key_file = sandbox.path().join("config/other.key");
        std::fs::write(&key_file, format!("{OTHER_KEY}\n"))?;
        std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600))?;
        let config = Config::new(sandbox)
            .agent("claude", &format!("{{type: claude, program: {}, token: {KEY}}}", program.display()))
            .agent("other", &format!("{{type: claude, program: {}, token_file: other.key}}", program.display()))
            .set("log.filter", "trace");
        std::fs::write(sandbox.config_path(), config.yaml())?;
        std::fs::set_permissions(sandbox.config_path(), std::fs::Permissions::from_mode(0o600))?;
        let (daemon, client) = start_with(sandbox, &config)?;
        let mut submit = script("with-a-key", &[]);
        submit.spec.agent = "claude".to_owned();
        submit.prompt = "Do it.".to_owned();
        let task = client.submit(submit)?;
        wait_file(sandbox, &task, "up")?;

        let environment = sandbox.read("home/agent-environment");
        ensure!(environment.contains(KEY), "the agent has its key:\n{environment}");
        ensure!(!environment.contains(OTHER_KEY), "and no other");
        let except = ["home/agent-environment", "config/conductor.yaml", "config/other.key"];
        let while_running = holders(sandbox.path(), &[KEY, OTHER_KEY], &except);
        ensure!(while_running.is_empty(), "a key is in {while_running:?}");
        for secret in [KEY, OTHER_KEY] {
            let arguments = in_processes(sandbox, "cmdline", secret);
            ensure!(arguments.is_empty(), "{secret} is in the arguments of {arguments:?}");
        }
        let knowing = in_processes(sandbox, "environ", KEY);
        let strangers: Vec<&String> = knowing.iter().filter(|name| name.starts_with("conductor")).collect();
        ensure!(strangers.is_empty(), "the key is in the environment of {strangers:?}");
        assert_unseen_by_callers(&client)?;

        // Recovery writes files too.
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        touch(sandbox, &task, "go")?;
        let task = client.wait_task(&task.task_id)?;
        let run = client.last_run(&task)?;
        ensure!(!format!("{task:?}{run:?}").contains(KEY), "an answer has the key");
        ensure!(!run.login.is_empty(), "what it used is shown: {run:#?}");
        assert_unseen_by_callers(&client)?;
        let afterwards = holders(sandbox.path(), &[KEY, OTHER_KEY], &except);
        ensure!(afterwards.is_empty(), "a key is in {afterwards:?}");
        for arguments in [&["config", "show"][..], &["agent", "list", "-o", "json"], &["run", "show", &run.run_id]] {
            let output = sandbox.ctl(arguments)?;
            ensure!(!format!("{output:?}").contains(KEY), "{arguments:?} shows the key");
        }
        Ok(())
    });
}

#[test]
fn a_key_of_the_daemons_environment_is_not_handed_to_agents_silently() {
    in_sandbox(|sandbox| {
        std::fs::write(sandbox.config_path(), Config::new(sandbox).yaml())?;
        let variables = [("ANTHROPIC_API_KEY", CALLERS_KEY), ("SOME_OTHER_SECRET", CALLERS_KEY)];
        let mut daemon = conductor_tests::Daemon::spawn(sandbox, &variables)?;
        daemon.ready()?;
        let client = daemon.client()?;
        client.create_project(conductor_tests::client::PROJECT, &sandbox.work())?;
        let task = client.submit(script("keyless", &["sh printenv > $CONDUCTOR_TASK_FOLDER/environment", "done"]))?;
        let task = client.wait_task(&task.task_id)?;
        let environment = std::fs::read_to_string(crate::common::folder(sandbox, &task).join("environment"))
            .context("the agent's environment")?;
        ensure!(environment.contains("CONDUCTOR_RUN_ID="), "{environment}");
        ensure!(!environment.contains(CALLERS_KEY), "{environment}");
        Ok(())
    });
}
