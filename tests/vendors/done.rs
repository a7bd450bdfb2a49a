//! To `DONE` through a tool call, with a long prompt: what the run records, and that no key is in anything of ours.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::{self, CostKind, LogStream, RunOutcome, Task};
use conductor_tests::client::task_bus;
use conductor_tests::vendors::programs::Program;
use conductor_tests::{in_sandbox, tree};

use crate::bench::{Bench, Setup};

/// Lines of 25 bytes that make a prompt of 200 KB.
const LINES: usize = 8200;

pub(crate) fn with_a_long_prompt(program: Program) {
    in_sandbox(|sandbox| {
        let bench = Bench::new(sandbox, program, &Setup { scenario: "script,of=done".to_owned(), ..Setup::default() })?;
        let prompt = "A line of a long prompt.\n".repeat(LINES);
        let commands = [
            "echo hello > hello.txt && conductorctl bus post --type FACT 'hello is written' && touch \"$CONDUCTOR_TASK_FOLDER/DONE\"",
        ];
        // The answer is on the last line of the prompt.
        let submitted = bench.submit(&prompt, &commands, "It is written.")?;
        let (task, runs) = bench.done(&submitted)?;
        assert_eq!(runs.len(), 1, "one attempt was enough: {}", bench.report(&runs));
        let run = &runs[0];
        assert_eq!(sandbox.read("work/hello.txt"), "hello\n");
        assert_eq!(bench.output(run)?, "It is written.", "{}", bench.report(&runs));
        let calls = bench.fake.calls(&bench.scenario)?;
        let bytes = calls.first().and_then(|call| call["prompt_bytes"].as_u64()).context("a call")?;
        ensure!(bytes >= 200_000, "{bytes} bytes arrived");
        assert_eq!(calls.len(), 2, "{}", bench.report(&runs));
        assert!(!run.command_line.contains("A line of"), "the prompt is in the arguments");

        assert_eq!((run.outcome(), run.exit_code), (RunOutcome::Completed, Some(0)));
        assert_eq!(run.session_id.len(), 36, "a UUID: {:?}", run.session_id);
        let model = if program == Program::Claude { "claude-" } else { &run.model };
        assert!(!run.model.is_empty() && run.model.starts_with(model), "{:?}", run.model);
        assert!(run.agent_version.contains(&pinned(program)?), "{:?}", run.agent_version);
        usage(program, run)?;
        let info = PathBuf::from(&run.folder).join("run-info.yaml");
        assert_eq!(tree::yaml_value(&info, "session_id"), Some(run.session_id.clone()));
        let messages = bench.client.messages(&task_bus(&task))?;
        assert!(messages.iter().any(|message| message.r#type == "FACT" && message.body == "hello is written"));
        let raw = bench.client.log(run, LogStream::Stdout, 0, false)?;
        let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
        assert!(String::from_utf8_lossy(&raw).lines().all(json), "{}", bench.report(&runs));
        no_key_is_left(&bench, &task)
    });
}

/// Two calls of the model, each with the counts of the fake.
fn usage(program: Program, run: &v1::Run) -> Result<()> {
    let usage = run.usage.as_ref().context("the run has its usage")?;
    let counts = (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.output_tokens);
    let expected = match program {
        Program::Claude => (200, 60, 40, 50),
        // What was thought is output, and comes on top.
        Program::Gemini => (140, 60, 0, 60),
        Program::Codex | Program::Grok => (140, 60, 0, 50),
    };
    assert_eq!(counts, expected, "{usage:?}");
    if program == Program::Claude {
        assert!(usage.cost_usd.is_some_and(|cost| cost > 0.0), "{usage:?}");
        assert_eq!(usage.cost_kind(), CostKind::Estimated);
    } else {
        assert_eq!(usage.cost_usd, None, "it tells no cost: {usage:?}");
    }
    Ok(())
}

/// The version that is installed.
fn pinned(program: Program) -> Result<String> {
    let pins: serde_json::Value = serde_json::from_str(include_str!("../vendors.json"))?;
    let packages = pins["dependencies"].as_object().context("an object")?;
    let (_, version) = packages.iter().find(|(name, _)| name.contains(program.name())).context("it is pinned")?;
    Ok(version.as_str().context("a version")?.to_owned())
}

/// Looks for the key in everything that was left behind but the file that it is in, and in what the daemon tells.
pub(crate) fn no_key_is_left(bench: &Bench<'_>, task: &Task) -> Result<()> {
    let client = &bench.client;
    let runs = client.task_runs(task)?;
    let mut told = format!("{:?}{runs:?}{:?}{:?}", client.task(&task.task_id)?, bench.listed()?, client.daemon_info()?);
    told += &format!("{:?}", client.wait(client.daemon().get_config(v1::GetConfigRequest::default()))?);
    told += &format!("{:?}", client.messages(&task_bus(task))?);
    for run in &runs {
        told += &bench.sandbox.ctl(&["run", "show", &run.run_id, "-o", "json"])?.ok()?;
    }
    for arguments in
        [&["task", "show", &task.task_id][..], &["config", "show"], &["agent", "list"], &["daemon", "info"]]
    {
        told += &bench.sandbox.ctl(arguments)?.ok()?;
    }
    ensure!(told.contains(&task.task_id), "the daemon told nothing");
    ensure!(!told.contains(&bench.token), "the key is told: {told}");

    let mut looked_at = 0;
    let mut folders = vec![bench.sandbox.path().to_owned()];
    // What the vendor's program keeps in its home folder is its own, and the key's file is the place for it.
    let left_out = [bench.sandbox.path().join("home"), bench.sandbox.path().join("keys")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let kind = std::fs::symlink_metadata(&path)?;
            if kind.is_dir() && !left_out.contains(&path) {
                folders.push(path);
            } else if kind.is_file() {
                let bytes = std::fs::read(&path)?;
                let found = bytes.windows(bench.token.len()).any(|window| window == bench.token.as_bytes());
                ensure!(!found, "the key is in {}", path.display());
                looked_at += 1;
            }
        }
    }
    ensure!(looked_at > 10, "{looked_at} files");
    Ok(())
}
