//! `AGENT=claude`: the first task with the real Claude Code, its real login or key, and a real repository.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use conductor_proto::v1::{EndReason, TaskSpec};
use conductor_tests::checks::Checks;
use conductor_tests::client::{PROJECT, task_bus};
use conductor_tests::{Config, Daemon, Sandbox, Submit};

use crate::{end, live};

/// How long the real agent may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Asks for little, so that it costs little.
const PROMPT: &str = "Create the file answer.txt that holds exactly the line: The answer is 42. Then post one FACT to the \
                      task's bus that says so, and finish the task as you were told.";

pub(crate) fn show(checks: &mut Checks) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let (keys, key) = access()?;
    std::fs::write(sandbox.config_path(), Config::new(&sandbox).agent("claude", &keys).yaml())?;
    let variables: Vec<(&str, &str)> = key.iter().map(|key| ("ANTHROPIC_API_KEY", key.as_str())).collect();
    let mut daemon = Daemon::spawn(&sandbox, &variables)?;
    daemon.ready()?;
    let client = daemon.client()?;
    ensure!(sandbox.command("git").args(["init", "--quiet"]).status()?.success(), "git init failed");
    client.create_project(PROJECT, &sandbox.work())?;

    checks.scene("the real Claude Code does a small task");
    let spec = TaskSpec { agent: "claude".to_owned(), max_restarts: 3, ..TaskSpec::default() };
    let task = client.submit(Submit {
        prompt: PROMPT.to_owned(),
        slug: "small-task".to_owned(),
        spec,
        ..Submit::default()
    })?;
    let followers = live::Followers::default();
    followers.follow(&sandbox, task_bus(&task), "claude");
    let task = client.wait_task_for(&task.task_id, PATIENCE);
    followers.finish();
    let task = task?;
    checks.equal("it ended done", &end(&task), &EndReason::Done);
    let run = client.last_run(&task)?;
    checks.note(format!("{} {}, session {}, {}", run.model, run.agent_version, run.session_id, run.login));
    checks.note(format!("{:?}", run.usage));
    checks.equal("the file that it made", sandbox.read("work/answer.txt").trim_end(), "The answer is 42.");
    checks.holds("its session is known", !run.session_id.is_empty());
    checks.holds("its usage is known", run.usage.is_some());
    checks.holds("nothing of it is left", sandbox.assert_no_strays().is_ok());
    println!("\n{}", sandbox.ctl(&["output", &task.task_id])?.ok()?);
    Ok(())
}

/// The keys of the agent's configuration and the API key, if that is what there is.
fn access() -> Result<(String, Option<String>)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .map(|folder| folder.join("claude"))
        .find(|path| path.is_file())
        .context("claude is not installed: npm install -g @anthropic-ai/claude-code")?;
    // SAFETY: geteuid takes nothing.
    let root = unsafe { libc::geteuid() } == 0;
    // Claude Code refuses to skip permissions as root unless it is told that it is in a sandbox.
    let variables = if root { ", env: {IS_SANDBOX: '1'}" } else { "" };
    let common = format!("type: claude, program: {}{variables}", program.display());
    if let Ok(key) = std::env::var("ANTHROPIC_API_KEY") {
        return Ok((format!("{{{common}, token_env: ANTHROPIC_API_KEY}}"), Some(key)));
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set")?;
    let folder = std::env::var_os("CLAUDE_CONFIG_DIR").map_or(home.join(".claude"), PathBuf::from);
    if !folder.join(".credentials.json").exists() {
        bail!("claude has no login here: run `claude` and log in, or set ANTHROPIC_API_KEY");
    }
    Ok((format!("{{{common}, config_dir: {}}}", folder.display()), None))
}
