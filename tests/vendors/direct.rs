//! The programs themselves, without Conductor, against the fake: that its shapes are those that they accept.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conductor_tests::vendors::programs::{ALL, Program, Session};
use conductor_tests::vendors::{Fake, Options};
use conductor_tests::wait_for;
use serde_json::Value;

/// How long a run may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A session's id, where a program lets one choose it.
const SESSION: &str = "5b0e8a52-6c4b-4d5e-9f1a-0c1d2e3f4a5b";

/// Folders of one run, and what it wrote.
struct Run {
    folder: tempfile::TempDir,
    status: ExitStatus,
}

impl Run {
    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn text(&self, name: &str) -> String {
        std::fs::read(self.folder.path().join(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn report(&self) -> String {
        format!("{}\n--- out\n{}\n--- err\n{}", self.status, self.text("out"), self.text("err"))
    }

    /// The lines of its standard output.
    fn events(&self) -> Vec<Value> {
        self.text("out").lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// Runs a program once to its end.
fn run(program: Program, service: &str, prompt: &str) -> Result<Run> {
    let folder = tempfile::Builder::new().prefix("cdt-").tempdir_in("/tmp")?;
    for name in ["home", "work"] {
        std::fs::create_dir(folder.path().join(name))?;
    }
    let status = again(program, service, folder.path(), prompt, Session::New(SESSION))?;
    Ok(Run { folder, status })
}

fn again(program: Program, service: &str, folder: &Path, prompt: &str, session: Session<'_>) -> Result<ExitStatus> {
    let file = folder.join("prompt");
    std::fs::write(&file, prompt)?;
    let mut command: Command = program.command(service, &folder.join("home"), &file, session)?;
    command.current_dir(folder.join("work")).stdin(File::open(&file)?);
    command.stdout(File::create(folder.join("out"))?).stderr(File::create(folder.join("err"))?);
    let mut child = command.spawn()?;
    let ended = wait_for("the program ends", PATIENCE, || child.try_wait().ok().flatten());
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    ended.with_context(|| std::fs::read_to_string(folder.join("out")).unwrap_or_default())
}

/// A fake of its own for one test, and a test for each program at once.
fn each(test: impl Fn(Program, &Fake) -> Result<()> + Sync) {
    let fake = Fake::start(Options::default()).expect("the fake");
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = ALL.iter().map(|program| (program, scope.spawn(|| test(*program, &fake)))).collect();
        let results = threads.into_iter().map(|(program, thread)| (program, thread.join().expect("the test's thread")));
        results.filter_map(|(program, result)| Some(format!("{program:?}: {:#}", result.err()?))).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// The requests of a scenario, for a failure's message.
fn told(fake: &Fake, scenario: &str) -> Result<String> {
    let line = |request: Value| {
        format!("{} {} -> {}, aside {}\n", request["method"], request["path"], request["status"], request["aside"])
    };
    Ok(fake.requests(scenario)?.into_iter().map(line).collect())
}

/// The path of a scenario that no other program uses.
fn scenario(text: &str, program: Program) -> String {
    format!("{text},key={}", program.name())
}

#[test]
fn every_program_accepts_an_answer() {
    each(|program, fake| {
        let scenario = scenario("answer", program);
        let run = run(program, &fake.url(&scenario), "Say something.\nFAKE-SAY: It is said.\n")?;
        ensure!(run.status.success(), "{}", run.report());
        ensure!(answer(program, &run) == "It is said.", "{}", run.report());
        ensure!(fake.calls(&scenario)?.len() == 1, "{}", told(fake, &scenario)?);
        Ok(())
    });
}

#[test]
fn every_program_runs_the_commands_of_the_prompt() {
    each(|program, fake| {
        let scenario = scenario("script", program);
        let prompt = "Make two files.\nFAKE-RUN: touch one\nFAKE-RUN: touch \"$HOME/two\"\nFAKE-SAY: They are made.\n";
        let run = run(program, &fake.url(&scenario), prompt)?;
        ensure!(run.status.success(), "{}", run.report());
        ensure!(run.work().join("one").exists() && run.folder.path().join("home/two").exists(), "{}", run.report());
        ensure!(answer(program, &run) == "They are made.", "{}", run.report());
        ensure!(fake.calls(&scenario)?.len() == 3, "{}", told(fake, &scenario)?);
        Ok(())
    });
}

#[test]
fn a_prompt_of_200_kb_arrives_whole_and_in_no_argument() {
    each(|program, fake| {
        let scenario = scenario("answer,of=long", program);
        let prompt = format!("FAKE-SAY: Read.\n{}", "A line of a long prompt.\n".repeat(8200));
        let run = run(program, &fake.url(&scenario), &prompt)?;
        ensure!(run.status.success() && answer(program, &run) == "Read.", "{}", run.report());
        let calls = fake.calls(&scenario)?;
        let bytes = calls.first().and_then(|call| call["prompt_bytes"].as_u64()).context("a call")?;
        ensure!(bytes >= 200_000, "{bytes} bytes arrived");
        Ok(())
    });
}

#[test]
fn every_program_ends_with_a_failure_at_a_daily_limit() {
    each(|program, fake| {
        let run = run(program, &fake.url(&scenario("daily", program)), "Do it.\n")?;
        ensure!(!run.status.success(), "{}", run.report());
        Ok(())
    });
}

#[test]
fn every_program_goes_on_in_the_same_session_after_a_limit() {
    each(|program, fake| {
        let scenario = scenario("limit,after=1,resets_in=20s", program);
        let service = fake.url(&scenario);
        let run = run(program, &service, "Go.\nFAKE-RUN: touch one\nFAKE-RUN: touch two\nFAKE-SAY: Gone.\n")?;
        ensure!(run.work().join("one").exists(), "{}", run.report());
        // Gemini and Grok wait for the end of a limit of seconds by themselves.
        let waits = matches!(program, Program::Gemini | Program::Grok);
        ensure!(run.status.success() == waits, "{}", run.report());
        if !waits {
            ensure!(!run.work().join("two").exists(), "{}", run.report());
            let session = session(&run).unwrap_or_else(|| SESSION.to_owned());
            wait_for("the limit ends", PATIENCE, || {
                let status = again(program, &service, run.folder.path(), "Go on.\n", Session::Resume(&session)).ok()?;
                status.success().then_some(())
            })
            .with_context(|| run.report())?;
        }
        ensure!(run.work().join("two").exists(), "{}", run.report());
        ensure!(answer(program, &run) == "Gone.", "{}", run.report());
        Ok(())
    });
}

#[test]
fn every_program_tries_again_when_the_service_is_overloaded() {
    each(|program, fake| {
        let scenario = scenario("overload,times=1", program);
        let run = run(program, &fake.url(&scenario), "Do it.\nFAKE-SAY: Done after all.\n")?;
        ensure!(run.status.success() && answer(program, &run) == "Done after all.", "{}", run.report());
        ensure!(fake.calls(&scenario)?.len() == 2, "{}", told(fake, &scenario)?);
        Ok(())
    });
}

#[test]
fn every_program_fails_with_a_key_that_is_not_valid() {
    each(|program, fake| {
        let run = run(program, &fake.url(&scenario("auth", program)), "Do it.\n")?;
        ensure!(!run.status.success(), "{}", run.report());
        Ok(())
    });
}

/// The final answer, as each program's stream has it.
fn answer(program: Program, run: &Run) -> String {
    let events = run.events();
    let of = |kind: &str| events.iter().filter(move |event| event["type"] == kind).collect::<Vec<_>>();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match program {
        Program::Claude => of("result").last().map(|event| text(&event["result"])).unwrap_or_default(),
        Program::Codex => {
            let items = of("item.completed");
            let mut messages = items.iter().filter(|event| event["item"]["type"] == "agent_message");
            messages.next_back().map(|event| text(&event["item"]["text"])).unwrap_or_default()
        }
        Program::Gemini => of("message")
            .iter()
            .filter(|event| event["role"] == "assistant")
            .map(|event| text(&event["content"]))
            .collect(),
        Program::Grok => of("text").iter().map(|event| text(&event["data"])).collect(),
    }
}

/// The session's id, where the program chose it.
fn session(run: &Run) -> Option<String> {
    run.events().iter().find_map(|event| Some(event["thread_id"].as_str()?.to_owned()))
}
