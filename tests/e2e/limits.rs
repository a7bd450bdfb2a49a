//! Usage limits, outages and refused logins, with a program that prints what Claude Code was seen to print. The real
//! program's part is in the vendors' tests.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use conductor_proto::v1::{
    EndReason, GetUsageRequest, LimitKind, ListAgentsRequest, RunOutcome, Task, TaskPhase, UsageGroup,
};
use conductor_tests::client::task_bus;
use conductor_tests::{Client, Config, Sandbox, Submit, in_sandbox};

use crate::common::{again, reason, script, start_with};

/// Far longer than any of this takes.
const SOON: Duration = Duration::from_secs(30);

/// Does what the files in the working folder say: `limit` (its text: the reset, in epoch seconds, or nothing) refuses,
/// `auth` refuses the login, `outage` fails as often as its text says, `done` writes DONE.
const CLAUDE: &str = r#"#!/bin/bash
[ "$1" = --version ] && { echo "2.1.197 (Claude Code)"; exit 0; }
session=fresh; while [ $# -gt 0 ]; do [ "$1" = --resume ] && session=$2; shift; done
echo "$session" >> sessions
[ "$session" = fresh ] && session=11111111-2222-3333-4444-555555555555
echo '{"type":"system","subtype":"init","session_id":"'$session'","model":"claude-x"}'
models='"modelUsage":{"claude-x":{"inputTokens":100,"outputTokens":20,"cacheReadInputTokens":7,"cacheCreationInputTokens":3,"costUSD":0.25}},"total_cost_usd":0.25'
result() { echo '{"type":"result","subtype":"success","is_error":'$1',"api_error_status":'$2',"result":"'"$3"'","session_id":"'$session'",'"$models"'}'; }
if [ -e limit ]; then
  reset=$(cat limit)
  [ -n "$reset" ] && echo '{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":'$reset',"rateLimitType":"five_hour"}}'
  result true 429 "You've hit your limit"; exit 1
fi
if [ -e auth ]; then result true 401 "Invalid bearer token"; exit 1; fi
if [ -e outage ]; then
  left=$(cat outage)
  if [ "$left" -gt 0 ]; then echo $((left - 1)) > outage; result true 529 "Overloaded"; exit 1; fi
fi
[ -e done ] && touch "$CONDUCTOR_TASK_FOLDER/DONE"
result false null "all right"
"#;

fn config(sandbox: &Sandbox) -> Result<Config> {
    let program = sandbox.path().join("claude");
    std::fs::write(&program, CLAUDE)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let agent = format!("{{type: claude, program: {}}}", program.display());
    // Two agents with one login.
    Ok(Config::new(sandbox).agent("claude", &agent).agent("second", &agent).set("backoff.base", "100ms"))
}

fn task(slug: &str, agent: &str) -> Submit {
    let mut submit = script(slug, &[]);
    submit.spec.agent = agent.to_owned();
    submit.spec.max_restarts = 2;
    submit.prompt = "Do it.".to_owned();
    submit
}

fn write(sandbox: &Sandbox, name: &str, text: &str) -> Result<()> {
    Ok(std::fs::write(sandbox.work().join(name), text)?)
}

fn remove(sandbox: &Sandbox, name: &str) -> Result<()> {
    Ok(std::fs::remove_file(sandbox.work().join(name))?)
}

fn sessions(sandbox: &Sandbox) -> Vec<String> {
    let text = std::fs::read_to_string(sandbox.work().join("sessions")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn in_seconds(seconds: i64) -> i64 {
    jiff::Timestamp::now().as_second() + seconds
}

fn wait_limited(client: &Client, task: &Task) -> Result<Task> {
    client.wait_task_until(&task.task_id, "waiting for a limit", SOON, |task| task.phase() == TaskPhase::WaitingLimit)
}

#[test]
fn a_limit_is_waited_for_across_a_kill_and_the_same_attempt_goes_on_in_its_session() {
    in_sandbox(|sandbox| {
        write(sandbox, "limit", &in_seconds(4).to_string())?;
        write(sandbox, "done", "")?;
        let (daemon, client) = start_with(sandbox, &config(sandbox)?)?;
        let task = client.submit(task("limited", "claude"))?;
        let waiting = wait_limited(&client, &task)?;
        ensure!(waiting.next_attempt_time.is_some() && waiting.why.contains("window limit"), "{waiting:#?}");
        let run = client.last_run(&waiting)?;
        ensure!(run.outcome() == RunOutcome::UsageLimited, "{run:#?}");
        let limit = run.limit.expect("the run says what refused it");
        ensure!(limit.kind() == LimitKind::Window && limit.reset_time.is_some(), "{limit:?}");
        daemon.kill9()?;
        remove(sandbox, "limit")?;
        let (_daemon, client) = again(sandbox)?;
        let ended = client.wait_task_for(&task.task_id, SOON)?;
        ensure!(reason(&ended) == EndReason::Done && ended.attempt == 1, "{ended:#?}");
        ensure!(sessions(sandbox) == ["fresh", "11111111-2222-3333-4444-555555555555"], "{:?}", sessions(sandbox));
        let told = client.messages(&task_bus(&task))?;
        let told = told.iter().filter(|message| message.body.starts_with("waiting for a usage limit")).count();
        ensure!(told == 1, "the wait is on the bus once, not {told} times");
        Ok(())
    });
}

#[test]
fn all_tasks_of_an_account_wait_without_a_run_and_a_person_can_try_at_once() {
    in_sandbox(|sandbox| {
        write(sandbox, "limit", "")?;
        write(sandbox, "done", "")?;
        let (daemon, client) = start_with(sandbox, &config(sandbox)?)?;
        let first = client.submit(task("first-one", "claude"))?;
        let waiting = wait_limited(&client, &first)?;
        ensure!(waiting.why.contains("not known"), "{}", waiting.why);
        let second = client.submit(task("second-one", "second"))?;
        let waiting = wait_limited(&client, &second)?;
        ensure!(waiting.run_count == 0 && waiting.attempt == 0, "no run was made: {waiting:#?}");
        let agents = client.wait(client.agents().list_agents(ListAgentsRequest::default()))?.agents;
        for name in ["claude", "second"] {
            let agent = agents.iter().find(|agent| agent.name == name).expect("configured");
            let trouble = agent.trouble.as_ref().expect("its account is in trouble");
            ensure!(trouble.kind() == LimitKind::Window && trouble.agent == "claude", "{trouble:?}");
        }
        remove(sandbox, "limit")?;
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        client.resume(&second.task_id, "")?;
        ensure!(reason(&client.wait_task_for(&second.task_id, SOON)?) == EndReason::Done);
        // The account has shown that it works: the other task goes on by itself.
        let ended = client.wait_task_for(&first.task_id, SOON)?;
        ensure!(reason(&ended) == EndReason::Done && ended.attempt == 1, "{ended:#?}");
        let agents = client.wait(client.agents().list_agents(ListAgentsRequest::default()))?.agents;
        ensure!(agents.iter().all(|agent| agent.trouble.is_none()), "it works again: {agents:#?}");
        Ok(())
    });
}

#[test]
fn an_outage_costs_no_attempt_and_a_refused_login_needs_a_person_at_once() {
    in_sandbox(|sandbox| {
        write(sandbox, "outage", "3")?;
        write(sandbox, "done", "")?;
        let (_daemon, client) = start_with(sandbox, &config(sandbox)?)?;
        let task_one = client.submit(task("outage", "claude"))?;
        let ended = client.wait_task_for(&task_one.task_id, SOON)?;
        ensure!(reason(&ended) == EndReason::Done && ended.attempt == 1, "{ended:#?}");
        let runs = client.task_runs(&task_one)?;
        let outcomes: Vec<RunOutcome> = runs.iter().map(|run| run.outcome()).collect();
        ensure!(outcomes[..3] == [RunOutcome::Failed; 3] && outcomes.len() == 4, "{outcomes:?}");
        ensure!(runs[0].limit.as_ref().is_some_and(|limit| limit.kind() == LimitKind::Overload), "{:#?}", runs[0]);
        write(sandbox, "auth", "")?;
        let task_two = client.submit(task("refused", "claude"))?;
        let ended = client.wait_task_for(&task_two.task_id, SOON)?;
        ensure!(reason(&ended) == EndReason::NeedsAttention && ended.run_count == 1, "{ended:#?}");
        ensure!(client.last_run(&ended)?.outcome() == RunOutcome::AuthFailed);
        Ok(())
    });
}

#[test]
fn usage_adds_up_by_every_group_and_outlives_its_task() {
    in_sandbox(|sandbox| {
        write(sandbox, "done", "")?;
        let (daemon, client) = start_with(sandbox, &config(sandbox)?)?;
        let first = client.submit(task("first-one", "claude"))?;
        client.wait_task_for(&first.task_id, SOON)?;
        let second = client.submit(task("second-one", "second"))?;
        let second = client.wait_task_for(&second.task_id, SOON)?;
        ensure!(second.usage.as_ref().is_some_and(|row| row.runs == 1), "{second:#?}");
        let plain = client.submit(script("plain", &["done", "exit 0"]))?;
        client.wait_task_for(&plain.task_id, SOON)?;
        let by = |client: &Client, group: UsageGroup| {
            client.wait(client.usage().get_usage(GetUsageRequest { group: group.into(), ..GetUsageRequest::default() }))
        };
        let keys =
            |group| -> Result<Vec<String>> { Ok(by(&client, group)?.rows.into_iter().map(|row| row.key).collect()) };
        ensure!(keys(UsageGroup::Agent)? == ["claude", "fake", "second"], "{:?}", keys(UsageGroup::Agent)?);
        ensure!(keys(UsageGroup::Model)? == ["claude-x", "unknown"], "{:?}", keys(UsageGroup::Model)?);
        ensure!(keys(UsageGroup::Task)?.len() == 3 && keys(UsageGroup::Day)?.len() == 1);
        let total = by(&client, UsageGroup::Unspecified)?.total.expect("a total");
        let used = total.usage.expect("what was used");
        ensure!((total.runs, total.runs_without_usage, used.input_tokens) == (3, 1, 200), "{total:?}");
        ensure!(used.cost_usd.is_some_and(|usd| (usd - 0.5).abs() < 1e-9), "{used:?}");
        let text = sandbox.ctl(&["usage", "--by", "agent"])?.ok()?;
        ensure!(text.contains("total") && text.contains("0.50"), "{text}");
        let text = sandbox.ctl(&["task", "show", "second-one"])?.ok()?;
        ensure!(text.contains("0.25"), "{text}");
        sandbox.ctl(&["task", "delete", "first-one"])?.ok()?;
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        let total = by(&client, UsageGroup::Unspecified)?.total.expect("a total");
        ensure!(total.runs == 3 && total.usage.is_some_and(|used| used.input_tokens == 200), "{total:?}");
        Ok(())
    });
}

#[test]
fn a_name_whose_use_is_kept_is_not_given_to_another_task() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start_with(sandbox, &config(sandbox)?)?;
        let mut names = std::collections::BTreeSet::new();
        // Fast enough for several within one second, whatever the machine does.
        for _ in 0..6 {
            let ended = client.submit(script("same-name", &["done"]))?;
            client.wait_task_for(&ended.task_id, SOON)?;
            sandbox.ctl(&["task", "delete", &ended.task_id])?.ok()?;
            ensure!(names.insert(ended.task_id.clone()), "{} was given twice", ended.task_id);
        }
        let total = client.wait(client.usage().get_usage(GetUsageRequest::default()))?.total.expect("a total");
        ensure!(total.runs == 6, "{total:?}");
        Ok(())
    });
}
