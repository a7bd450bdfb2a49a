//! `AGENT=fake-claude` and its like: a task with the vendor's own program, whose service is `conductor-fake-vendors`. No
//! key, no account, no network beyond the loopback; the program's settings are those of a folder of the demo's own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use conductor_proto::v1::{EndReason, TaskSpec};
use conductor_tests::checks::Checks;
use conductor_tests::client::{PROJECT, task_bus};
use conductor_tests::vendors::Fake;
use conductor_tests::vendors::programs::Program;
use conductor_tests::{Config, Daemon, Sandbox, Submit};

use crate::{end, live};

/// How long a vendor's program may take for its few turns on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The fake makes the program run these lines with its shell tool, and answers with the last. See docs/fake-vendors.md.
const PROMPT: &str = "Make the answer, and tell the others.
FAKE-RUN: echo 'The answer is 42.' > answer.txt
FAKE-RUN: conductorctl bus post --type FACT 'answer.txt is written'
FAKE-RUN: touch \"$CONDUCTOR_TASK_FOLDER/DONE\"
FAKE-SAY: The answer is 42.";

pub(crate) fn show(checks: &mut Checks, vendor: Program) -> Result<()> {
    let name = vendor.name();
    let program = find(vendor)?;
    let sandbox = Sandbox::new()?;
    let service = Fake::spawn(&sandbox.program("conductor-fake-vendors"), &[])?;
    let daemon = Daemon::start(&sandbox, &config(&sandbox, vendor, &program, &service))?;
    let client = daemon.client()?;
    ensure!(sandbox.command("git").args(["init", "--quiet"]).status()?.success(), "git init failed");
    client.create_project(PROJECT, &sandbox.work())?;

    checks.scene("what the doctor says of it");
    println!("{}", sandbox.ctl(&["doctor", name])?.stdout);

    checks.scene(&format!("{name} does a task; its model is a fake at {}", service.url("")));
    checks.note(format!("the program: {}", program.display()));
    let spec = TaskSpec { agent: name.to_owned(), max_restarts: 3, ..TaskSpec::default() };
    let task = client.submit(Submit {
        prompt: PROMPT.to_owned(),
        slug: "small-task".to_owned(),
        spec,
        ..Submit::default()
    })?;
    let followers = live::Followers::default();
    followers.follow(&sandbox, task_bus(&task), name);
    let task = client.wait_task_for(&task.task_id, PATIENCE);
    followers.finish();
    let task = task?;
    checks.equal("it ended done", &end(&task), &EndReason::Done);
    let run = client.last_run(&task)?;
    checks.note(format!("{} {}, session {}, {}", run.model, run.agent_version, run.session_id, run.login));
    checks.equal("the file that it made", sandbox.read("work/answer.txt").trim_end(), "The answer is 42.");
    let messages = client.messages(&task_bus(&task))?;
    checks.equal("FACT messages of its agent", &messages.iter().filter(|message| message.r#type == "FACT").count(), &1);
    checks.equal("its answer", sandbox.ctl(&["output", &task.task_id])?.ok()?.trim_end(), "The answer is 42.");
    checks.holds("its session is known", !run.session_id.is_empty());
    checks.holds("its usage is known", run.usage.is_some());
    checks.holds("nothing of it is left", sandbox.assert_no_strays().is_ok());
    println!("\n{}", sandbox.ctl(&["usage", "--by", "model"])?.ok()?);
    Ok(())
}

fn config(sandbox: &Sandbox, vendor: Program, program: &std::path::Path, service: &Fake) -> Config {
    // Claude Code refuses to skip permissions as root unless it is told that it is in a sandbox.
    let (model, env) = match vendor {
        Program::Claude => ("", ", env: {IS_SANDBOX: '1', CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1'}"),
        Program::Codex => (", model: gpt-fake", ""),
        Program::Gemini => (", model: gemini-2.5-flash", ""),
        Program::Grok => (", model: grok-4.6", ""),
    };
    let keys = format!(
        "{{type: {name}, program: {}, base_url: '{}', token: sk-test-not-a-key{model}{env}}}",
        program.display(),
        service.url(""),
        name = vendor.name()
    );
    Config::new(sandbox).agent(vendor.name(), &keys)
}

/// The program, from `PATH` or the folder of `make test-vendors`.
fn find(vendor: Program) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tests = std::env::var_os("CONDUCTOR_VENDORS_DIR").map(PathBuf::from);
    let found =
        std::env::split_paths(&path).chain(tests).map(|folder| folder.join(vendor.name())).find(|path| path.is_file());
    let package = match vendor {
        Program::Claude => "@anthropic-ai/claude-code",
        Program::Codex => "@openai/codex",
        Program::Gemini => "@google/gemini-cli",
        Program::Grok => "@xai-official/grok",
    };
    match found {
        Some(program) => Ok(program),
        None => bail!(
            "{} is not installed: npm install -g {package} (no account is needed for this); or, for the pinned version:\n   \
             CONDUCTOR_VENDORS_DIR=$(.ci/vendors) make demo AGENT=fake-{0}",
            vendor.name()
        ),
    }
}
