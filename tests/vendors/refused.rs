//! Limits, outages and refused keys: what the run is called, and what the loop does then.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use conductor_proto::v1::{EndReason, LimitKind, RunOutcome, TaskPhase};
use conductor_tests::in_sandbox;
use conductor_tests::vendors::programs::Program;

use crate::bench::{Bench, PATIENCE, Setup};

/// Commands of a task that can be begun anew.
const COMMANDS: [&str; 2] = ["touch one", "test -e one && touch \"$CONDUCTOR_TASK_FOLDER/DONE\""];

/// A limit that ends soon, told in such a way that the program ends at once and knows when.
fn limit(program: Program) -> Setup {
    let mut setup = Setup { scenario: "limit,after=1,retry=0,resets_in=8s".to_owned(), ..Setup::default() };
    match program {
        // Only a subscription is told when.
        Program::Claude => setup.token = "sk-ant-oat01-dummy-0123456789abcdef".to_owned(),
        // It tells minutes.
        Program::Codex => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            setup.scenario = format!("limit,after=1,resets_at={}", (now + 15).next_multiple_of(60));
        }
        Program::Gemini | Program::Grok => {}
    }
    setup
}

pub(crate) fn by_a_limit(program: Program) {
    in_sandbox(|sandbox| {
        let bench = Bench::new(sandbox, program, &limit(program))?;
        let submitted = bench.submit("Go.", &COMMANDS, "Gone.")?;
        let waits = |phase| phase == TaskPhase::WaitingLimit || phase == TaskPhase::Finished;
        let task = bench.client.wait_task_until(&submitted.task_id, "waiting", PATIENCE, |task| waits(task.phase()))?;
        let runs = bench.client.task_runs(&task)?;
        ensure!(task.phase() == TaskPhase::WaitingLimit, "{task:#?}\n{}", bench.report(&runs));
        let trouble = bench.listed()?.trouble;
        let kind = trouble.as_ref().map(|trouble| (trouble.kind(), trouble.until_known));
        ensure!(kind == Some((LimitKind::Window, true)), "{trouble:?}\n{}", bench.report(&runs));
        ensure!(sandbox.ctl(&["agent", "list", "-o", "json"])?.ok()?.contains("\"until\""), "agent list tells it");

        let (task, runs) = bench.done(&submitted)?;
        let outcomes: Vec<_> = runs.iter().map(|run| (run.outcome(), run.attempt)).collect();
        let expected = [(RunOutcome::UsageLimited, 1), (RunOutcome::Completed, 1)];
        ensure!(outcomes == expected, "{outcomes:?}\n{}", bench.report(&runs));
        ensure!(runs[0].session_id.len() == 36 && runs[0].session_id == runs[1].session_id, "{}", bench.report(&runs));
        assert_eq!(task.attempt, 1);
        assert_eq!(bench.output(&runs[1])?, "Gone.", "{}", bench.report(&runs));
        assert_eq!(bench.listed()?.trouble, None, "a run that completed shows that the account works");
        Ok(())
    });
}

pub(crate) fn by_a_short_outage(program: Program) {
    in_sandbox(|sandbox| {
        let setup = Setup { scenario: "overload,times=1".to_owned(), ..Setup::default() };
        let bench = Bench::new(sandbox, program, &setup)?;
        let submitted = bench.submit("Go.", &COMMANDS, "Gone.")?;
        let (_, runs) = bench.done(&submitted)?;
        ensure!(runs.len() == 1, "{}", bench.report(&runs));
        assert_eq!(bench.output(&runs[0])?, "Gone.", "{}", bench.report(&runs));
        ensure!(bench.fake.calls(&bench.scenario)?.len() == 4, "{}", bench.report(&runs));
        Ok(())
    });
}

/// A program that gives up soon, and an outage that lasts longer.
fn outage(program: Program) -> Setup {
    let mut setup = Setup::default();
    let times = match program {
        Program::Claude => {
            setup.env = vec![("CLAUDE_CODE_MAX_RETRIES", "1")];
            3
        }
        Program::Codex => {
            let set = |name: &str, times: u8| format!("-c, model_providers.conductor.{name}={times}");
            let arguments = [set("request_max_retries", 0), set("stream_max_retries", 1)].join(", ");
            setup.keys = format!(", args: [{arguments}]");
            3
        }
        // Its number of tries is in its settings.
        Program::Gemini => 3,
        Program::Grok => {
            setup.env = vec![("GROK_MAX_RETRIES", "1")];
            // So many tries it makes then, in some 46 s.
            4
        }
    };
    setup.scenario = format!("overload,times={times},of=long");
    setup
}

pub(crate) fn by_a_long_outage(program: Program) {
    in_sandbox(|sandbox| {
        if program == Program::Gemini {
            std::fs::create_dir(sandbox.path().join("home/.gemini"))?;
            std::fs::write(sandbox.path().join("home/.gemini/settings.json"), r#"{"general": {"maxAttempts": 1}}"#)?;
        }
        let bench = Bench::new(sandbox, program, &outage(program))?;
        let submitted = bench.submit("Go.", &COMMANDS, "Gone.")?;
        let (task, runs) = bench.done(&submitted)?;
        let report = bench.report(&runs);
        let (last, failed) = runs.split_last().expect("there are runs");
        ensure!(!failed.is_empty(), "the program gave up: {report}");
        for run in failed {
            let kind = run.limit.as_ref().map(|limit| limit.kind());
            // Gemini CLI keeps no session without an answer, so that there is none to go on with.
            let lost = program == Program::Gemini && run.error_summary.contains("Error resuming session");
            ensure!(run.outcome() == RunOutcome::Failed && (lost || kind == Some(LimitKind::Overload)), "{report}");
        }
        ensure!(last.outcome() == RunOutcome::Completed && runs.iter().all(|run| run.attempt == 1), "{report}");
        assert_eq!(task.attempt, 1);
        assert_eq!(bench.output(last)?, "Gone.", "{report}");
        Ok(())
    });
}

pub(crate) fn by_a_refused_key(program: Program) {
    in_sandbox(|sandbox| {
        let bench = Bench::new(sandbox, program, &Setup { scenario: "auth".to_owned(), ..Setup::default() })?;
        let submitted = bench.submit("Go.", &COMMANDS, "Gone.")?;
        let task = bench.client.wait_task_for(&submitted.task_id, PATIENCE)?;
        let runs = bench.client.task_runs(&task)?;
        let report = bench.report(&runs);
        let reason = task.end.as_ref().map(|end| end.reason());
        ensure!(reason == Some(EndReason::NeedsAttention), "{task:#?}\n{report}");
        ensure!(runs.len() == 1 && runs[0].outcome() == RunOutcome::AuthFailed, "{report}");
        let kind = bench.listed()?.trouble.map(|trouble| trouble.kind());
        ensure!(kind == Some(LimitKind::Auth), "{kind:?}\n{report}");
        sandbox.assert_no_strays()
    });
}
