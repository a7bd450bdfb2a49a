//! The vendors' own programs against the fake of their services: by themselves, and Claude Code under the real conductord.
//!
//! `make test-vendors` installs the pinned programs and names their folder in `CONDUCTOR_VENDORS_DIR`. No account, no key
//! and no network beyond the loopback is used.

mod direct;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::{CostKind, EndReason, LogStream, RunFile, RunOutcome, TaskSpec};
use conductor_tests::client::{PROJECT, task_bus};
use conductor_tests::vendors::Fake;
use conductor_tests::vendors::programs::Program;
use conductor_tests::{Config, Daemon, Sandbox, Submit, in_sandbox, tree};

/// How long the real program may take for its two turns on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A configuration whose agent `claude` talks to a fake.
fn config(sandbox: &Sandbox, fake: &Fake) -> Result<Config> {
    let program = Program::Claude.path()?;
    // Claude Code refuses to skip permissions as root unless it is told that it is in a sandbox.
    let variables = "{IS_SANDBOX: '1', CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1'}";
    let keys = format!(
        "{{type: claude, program: {}, base_url: '{}', token: sk-test-not-a-key, env: {variables}}}",
        program.display(),
        fake.url("")
    );
    Ok(Config::new(sandbox).agent("claude", &keys))
}

/// A fake, as a program of its own.
fn start_service(sandbox: &Sandbox, arguments: &[&str]) -> Result<Fake> {
    Fake::spawn(&sandbox.program("conductor-fake-vendors"), arguments)
}

/// A fresh git repository in the sandbox's working folder.
fn repository(sandbox: &Sandbox) -> Result<()> {
    let identity = ["-c", "user.name=Test", "-c", "user.email=test@localhost"];
    std::fs::write(sandbox.work().join("README.md"), "# A repository\n")?;
    for arguments in [&["init", "--quiet"][..], &["add", "."], &["commit", "--quiet", "--message", "first"]] {
        let status = sandbox.command("git").args(identity).args(arguments).status()?;
        ensure!(status.success(), "git {arguments:?}: {status}");
    }
    Ok(())
}

fn submit(agent: &str) -> Submit {
    let spec = TaskSpec { agent: agent.to_owned(), max_restarts: 3, ..TaskSpec::default() };
    Submit {
        prompt: "Write hello.txt and say that you are done.".to_owned(),
        slug: "real-one".to_owned(),
        spec,
        ..Submit::default()
    }
}

#[test]
fn the_real_claude_code_does_a_task_whose_run_records_everything() {
    in_sandbox(|sandbox| {
        repository(sandbox)?;
        let command = "echo hello > hello.txt && conductorctl bus post --type FACT 'hello is written' \
                       && touch \"$CONDUCTOR_TASK_FOLDER/DONE\" && echo made";
        let service =
            start_service(sandbox, &["--scenario", "tool", "--command", command, "--answer", "It is written."])?;
        let daemon = Daemon::start(sandbox, &config(sandbox, &service)?)?;
        let client = daemon.client()?;
        client.create_project(PROJECT, &sandbox.work())?;
        let submitted = client.submit(submit("claude"))?;
        let task = client.wait_task_for(&submitted.task_id, PATIENCE)?;
        assert_eq!(task.end.as_ref().map(|end| end.reason()), Some(EndReason::Done), "{task:#?}");
        assert_eq!(sandbox.read("work/hello.txt"), "hello\n");

        let runs = client.task_runs(&task)?;
        assert_eq!(runs.len(), 1, "one attempt was enough");
        let run = &runs[0];
        assert_eq!(run.outcome(), RunOutcome::Completed);
        assert_eq!(run.exit_code, Some(0));
        assert_eq!(run.session_id.len(), 36, "a UUID: {:?}", run.session_id);
        assert!(run.model.starts_with("claude-"), "{:?}", run.model);
        assert!(run.agent_version.contains("2.1.197"), "{:?}", run.agent_version);
        let usage = run.usage.as_ref().context("the run has its usage")?;
        // Two calls of the model, each with the counts of the fake.
        let counts = (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.output_tokens);
        assert_eq!(counts, (200, 60, 40, 50));
        assert!(usage.cost_usd.is_some_and(|cost| cost > 0.0), "{usage:?}");
        assert_eq!(usage.cost_kind(), CostKind::Estimated);

        let output = client.run_file(run, RunFile::Output)?.context("output.md is there")?;
        assert_eq!(String::from_utf8_lossy(&output).trim_end(), "It is written.");
        let info = PathBuf::from(&run.folder).join("run-info.yaml");
        assert_eq!(tree::yaml_value(&info, "session_id"), Some(run.session_id.clone()));
        let text = std::fs::read_to_string(&info)?;
        let kept = tree::yaml_value(&info, "usage").context("run-info.yaml has the usage")?;
        let kept: serde_json::Value = serde_json::from_str(&kept)?;
        assert_eq!((&kept["output"], &kept["cost"]["kind"]), (&50.into(), &"estimated".into()), "{text}");
        assert!(!text.contains("sk-test"), "the key is in run-info.yaml:\n{text}");
        assert!(!run.command_line.contains("Write hello.txt"), "the prompt is in the arguments");

        let messages = client.messages(&task_bus(&task))?;
        assert!(messages.iter().any(|message| message.r#type == "FACT" && message.body == "hello is written"));
        let raw = client.log(run, LogStream::Stdout, 0, false)?;
        assert!(
            String::from_utf8_lossy(&raw).lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
        );
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_usage_limit_of_the_real_claude_code_is_told_from_a_failure() {
    in_sandbox(|sandbox| {
        repository(sandbox)?;
        let service = start_service(sandbox, &["--scenario", "limit"])?;
        let daemon = Daemon::start(sandbox, &config(sandbox, &service)?)?;
        let client = daemon.client()?;
        client.create_project(PROJECT, &sandbox.work())?;
        let task = client.submit(submit("claude"))?;
        // What the loop does then is its own matter: it may wait for the limit's end.
        let outcome = conductor_tests::wait_for("its first run has ended", PATIENCE, || {
            let run = client.task_runs(&task).ok()?.into_iter().next()?;
            Some(run.outcome()).filter(|outcome| *outcome != RunOutcome::Unspecified)
        })?;
        assert_eq!(outcome, RunOutcome::UsageLimited);
        client.stop(&task.task_id, 3000)?;
        client.wait_task(&task.task_id)?;
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_stopped_claude_code_leaves_no_tool_behind() {
    in_sandbox(|sandbox| {
        repository(sandbox)?;
        let command = "touch \"$CONDUCTOR_TASK_FOLDER/started\"; sleep 300";
        let service = start_service(sandbox, &["--scenario", "tool", "--command", command])?;
        let daemon = Daemon::start(sandbox, &config(sandbox, &service)?)?;
        let client = daemon.client()?;
        client.create_project(PROJECT, &sandbox.work())?;
        let submitted = client.submit(submit("claude"))?;
        let started = sandbox.root().join(PROJECT).join(&submitted.task_id).join("started");
        conductor_tests::wait_until("the tool runs", PATIENCE, || started.exists())?;
        client.stop(&submitted.task_id, 3000)?;
        let task = client.wait_task(&submitted.task_id)?;
        assert_eq!(task.end.as_ref().map(|end| end.reason()), Some(EndReason::Stopped));
        assert_eq!(client.last_run(&task)?.outcome(), RunOutcome::Stopped);
        sandbox.assert_no_strays()
    });
}
