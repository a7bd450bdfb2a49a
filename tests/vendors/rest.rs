//! Perplexity and xAI by their HTTP APIs, under conductord.

use anyhow::ensure;
use conductor_proto::v1::{CostKind, LimitKind, RunOutcome, TaskPhase};
use conductor_tests::in_sandbox;

use crate::bench::{Bench, PATIENCE, Setup};
use crate::done::no_key_is_left;

/// Keys of the agents besides.
fn keys(agent: &str) -> &'static str {
    if agent == "xai" { ", model: grok-4.6" } else { "" }
}

fn answers(agent: &str) {
    in_sandbox(|sandbox| {
        let setup = Setup { scenario: "answer,of=rest".to_owned(), ..Setup::default() };
        let bench = Bench::of(sandbox, agent, keys(agent), &setup)?;
        let submitted = bench.submit("Go.", &[], "It is found.")?;
        let (task, runs) = bench.done(&submitted)?;
        let report = bench.report(&runs);
        ensure!(runs.len() == 1 && runs[0].program.ends_with("/conductor-rest-agent"), "{report}");
        let output = bench.output(&runs[0])?;
        ensure!(output.starts_with("It is found."), "{output}");
        let usage = runs[0].usage.unwrap_or_default();
        if agent == "perplexity" {
            ensure!(output.contains("\n1. ") && output.contains("](http"), "numbered links: {output}");
            assert_eq!((usage.cost_usd, usage.cost_kind()), (Some(0.006), CostKind::Exact), "{report}");
        }
        ensure!((usage.input_tokens + usage.cache_read_tokens, usage.output_tokens) == (100, 25), "{report}");
        no_key_is_left(&bench, &task)
    });
}

fn waits(agent: &str) {
    in_sandbox(|sandbox| {
        let setup = Setup { scenario: "limit,resets_in=8s".to_owned(), keys: String::new(), ..Setup::default() };
        let keys = format!("{}, args: [--max-retry-time, 1s]", keys(agent));
        let bench = Bench::of(sandbox, agent, &keys, &setup)?;
        let submitted = bench.submit("Go.", &[], "It is found.")?;
        let waiting = |phase| phase == TaskPhase::WaitingLimit || phase == TaskPhase::Finished;
        let task =
            bench.client.wait_task_until(&submitted.task_id, "waiting", PATIENCE, |task| waiting(task.phase()))?;
        let runs = bench.client.task_runs(&task)?;
        ensure!(task.phase() == TaskPhase::WaitingLimit, "{task:#?}\n{}", bench.report(&runs));
        let trouble = bench.listed()?.trouble;
        let known = trouble.as_ref().map(|trouble| (trouble.kind(), trouble.until_known));
        ensure!(known == Some((LimitKind::Window, true)), "{trouble:?}\n{}", bench.report(&runs));
        let (task, runs) = bench.done(&submitted)?;
        let outcomes: Vec<_> = runs.iter().map(|run| (run.outcome(), run.attempt)).collect();
        let expected = [(RunOutcome::UsageLimited, 1), (RunOutcome::Completed, 1)];
        ensure!(outcomes == expected, "{outcomes:?}\n{}", bench.report(&runs));
        ensure!(bench.output(&runs[1])?.starts_with("It is found."), "{}", bench.report(&runs));
        no_key_is_left(&bench, &task)
    });
}

#[test]
fn perplexity_answers_with_its_sources() {
    answers("perplexity");
}

#[test]
fn xai_answers_by_its_api_where_grok_is_not_installed() {
    answers("xai");
}

#[test]
fn perplexity_goes_on_after_a_limit() {
    waits("perplexity");
}

#[test]
fn xai_goes_on_after_a_limit() {
    waits("xai");
}
