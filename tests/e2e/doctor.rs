//! What a newcomer trips over: `doctor`, `agent list`, `agent probe`, and prices of vendors that report no cost. With
//! programs that print what the vendors' were seen to print.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use conductor_proto::v1::{CostKind, EndReason, GetUsageRequest, RunOutcome, TaskPhase};
use conductor_tests::{Client, Config, Sandbox, Submit, in_sandbox, tree};
use serde_json::Value;

use crate::common::{again, finish, folder, once, reason, script, start_with, touch, wait_file};

/// Far longer than any of this takes.
const SOON: Duration = Duration::from_secs(30);

/// Refuses as the file `limit` (its text: the reset) or `auth` in the sandbox's folder says, else answers.
const CLAUDE: &str = r#"#!/bin/bash
[ "$1" = --version ] && { echo "2.1.197 (Claude Code)"; exit 0; }
here=$(dirname "$0")
echo '{"type":"system","subtype":"init","session_id":"11111111-2222-3333-4444-555555555555","model":"claude-x"}'
result() { echo '{"type":"result","subtype":"success","is_error":'$1',"api_error_status":'$2',"result":"'"$3"'","session_id":"11111111-2222-3333-4444-555555555555","modelUsage":{"claude-x":{"inputTokens":100,"outputTokens":20,"costUSD":0.25}},"total_cost_usd":0.25}'; }
if [ -e "$here/limit" ]; then
  echo '{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":'$(cat "$here/limit")',"rateLimitType":"five_hour"}}'
  result true 429 "You've hit your limit"; exit 1
fi
[ -e "$here/auth" ] && { result true 401 "Invalid bearer token"; exit 1; }
[ -n "$CONDUCTOR_TASK_FOLDER" ] && [ -e "$here/done" ] && touch "$CONDUCTOR_TASK_FOLDER/DONE"
result false null "OK"
"#;

/// As `codex exec --json` speaks: a counter of the whole thread, no cost.
const CODEX: &str = r#"#!/bin/bash
[ "$1" = --version ] && { echo "codex-cli 0.169.0"; exit 0; }
cat > /dev/null
echo '{"type":"thread.started","thread_id":"0199a213-81c0-7800-8aa1-bbab2a035a53"}'
echo '{"type":"turn.started"}'
echo '{"type":"item.completed","item":{"id":"item_0","type":"agent_message","text":"OK"}}'
echo '{"type":"turn.completed","usage":{"input_tokens":1000000,"cached_input_tokens":400000,"output_tokens":100000}}'
"#;

fn program(sandbox: &Sandbox, name: &str, text: &str) -> Result<String> {
    let path = sandbox.path().join(name);
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

fn config(sandbox: &Sandbox) -> Result<Config> {
    let claude = program(sandbox, "claude", CLAUDE)?;
    let codex = program(sandbox, "codex", CODEX)?;
    Ok(Config::new(sandbox)
        .agent("claude", &format!("{{type: claude, program: {claude}, token: sk-test-not-a-key}}"))
        .agent("codex", &format!("{{type: codex, program: {codex}, token: sk-test-not-a-key, model: gpt-5}}"))
        .set("prices.codex", "{'gpt-*': {input: 2, cache_read: 0.5, output: 10}}"))
}

fn write(sandbox: &Sandbox, name: &str, text: &str) -> Result<()> {
    Ok(std::fs::write(sandbox.path().join(name), text)?)
}

fn remove(sandbox: &Sandbox, name: &str) -> Result<()> {
    Ok(std::fs::remove_file(sandbox.path().join(name))?)
}

/// The findings of `doctor -o json` and its exit code.
fn doctor(sandbox: &Sandbox, agents: &[&str], variables: &[(&str, &str)]) -> Result<(Vec<Value>, i32)> {
    let arguments: Vec<&str> = ["doctor", "-o", "json"].iter().chain(agents).copied().collect();
    let output = sandbox.ctl_with(&arguments, variables, b"")?;
    let report: Value = serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))?;
    ensure!(report["ok"] == (output.code == 0), "{output:?}");
    let findings = report["findings"].as_array().context("findings")?.clone();
    Ok((findings, output.code))
}

fn find<'a>(findings: &'a [Value], agent: Option<&str>, subject: &str) -> Result<&'a Value> {
    let found = findings.iter().find(|one| one["agent"].as_str() == agent && one["subject"] == subject);
    found.with_context(|| format!("nothing is said of {subject} of {agent:?}: {findings:#?}"))
}

fn listed(sandbox: &Sandbox, name: &str) -> Result<Value> {
    let agents = sandbox.ctl(&["agent", "list", "-o", "json"])?.json()?;
    let found = agents.as_array().context("a list")?.iter().find(|agent| agent["name"] == name).cloned();
    found.with_context(|| format!("{name} is not listed: {agents}"))
}

fn submit(slug: &str, agent: &str) -> Submit {
    let mut submit = script(slug, &[]);
    submit.spec.agent = agent.to_owned();
    submit.spec.max_restarts = 2;
    submit.prompt = "Do it.".to_owned();
    submit
}

fn until_limited(client: &Client, slug: &str) -> Result<String> {
    let task = client.submit(submit(slug, "claude"))?;
    client
        .wait_task_until(&task.task_id, "waiting for a limit", SOON, |task| task.phase() == TaskPhase::WaitingLimit)?;
    Ok(task.task_id)
}

fn in_an_hour() -> String {
    (jiff::Timestamp::now().as_second() + 3600).to_string()
}

#[test]
fn a_doctor_names_what_is_well_what_is_not_and_variables_without_their_values() {
    in_sandbox(|sandbox| {
        let (_daemon, _client) = start_with(sandbox, &config(sandbox)?)?;
        let variables = [("NODE_OPTIONS", "--secret-option"), ("XAI_API_KEY", "sk-secret-key"), ("HTTP_PROXY", "")];
        let (findings, code) = doctor(sandbox, &["claude", "codex"], &variables)?;
        ensure!(code == 0, "{findings:#?}");
        for subject in ["daemon", "config", "data", "clock", "programs", "processes"] {
            ensure!(find(&findings, None, subject)?["level"] == "good", "{findings:#?}");
        }
        find(&findings, None, "confinement")?;
        for (agent, version) in [("claude", "2.1.197 (Claude Code)"), ("codex", "codex-cli 0.169.0")] {
            ensure!(find(&findings, Some(agent), "version")?["text"] == version);
            ensure!(find(&findings, Some(agent), "login")?["text"] == "key from the configuration");
            ensure!(find(&findings, Some(agent), "permissions")?["level"] == "good");
            ensure!(find(&findings, Some(agent), "account")?["level"] == "good");
        }
        let shell: Vec<&str> = findings
            .iter()
            .filter(|one| one["about"] == "shell")
            .filter_map(|one| one["subject"].as_str())
            .filter(|name| ["NODE_OPTIONS", "XAI_API_KEY", "HTTP_PROXY"].contains(name))
            .collect();
        ensure!(shell == ["NODE_OPTIONS", "XAI_API_KEY"], "{shell:?}");
        ensure!(find(&findings, None, "git")?["about"] == "folder");
        let text = sandbox.ctl_with(&["doctor"], &variables, b"")?;
        ensure!(text.code == 0 && text.stdout.contains("NODE_OPTIONS"), "{text:?}");
        for secret in ["sk-secret", "--secret-option", "sk-test-not-a-key"] {
            ensure!(!text.stdout.contains(secret) && !format!("{findings:?}").contains(secret), "{secret} is shown");
        }
        let log = sandbox.read("conductord-1.log");
        ensure!(!log.contains("sk-secret") && !log.contains("--secret-option"), "the daemon's log has a value");
        Ok(())
    });
}

#[test]
fn a_doctor_fails_on_what_would_stop_a_run_and_says_what_to_do() {
    in_sandbox(|sandbox| {
        let missing = "{type: codex, program: /nonexistent/codex}";
        let (_daemon, _client) = start_with(sandbox, &config(sandbox)?.agent("codex", missing))?;
        let (findings, code) = doctor(sandbox, &["codex"], &[])?;
        ensure!(code == 1, "{findings:#?}");
        let program = find(&findings, Some("codex"), "program")?;
        ensure!(program["level"] == "problem" && program.to_string().contains("npm install"), "{program}");
        // Nobody asked for it: it is no problem that it is not here.
        let (findings, code) = doctor(sandbox, &[], &[])?;
        ensure!(code == 0 && find(&findings, Some("codex"), "codex")?["level"] == "notice", "{findings:#?}");
        ensure!(sandbox.ctl(&["doctor", "nobody"])?.code == 3);
        Ok(())
    });
}

#[test]
fn a_doctor_without_a_daemon_says_how_to_start_one() {
    in_sandbox(|sandbox| {
        let output = sandbox.ctl(&["doctor"])?;
        ensure!(output.code == 5 && output.stderr.contains("conductorctl daemon start"), "{output:?}");
        Ok(())
    });
}

#[test]
fn a_probe_that_succeeds_lets_the_tasks_of_its_account_go_on() {
    in_sandbox(|sandbox| {
        write(sandbox, "limit", &in_an_hour())?;
        write(sandbox, "done", "")?;
        let (_daemon, client) = start_with(sandbox, &config(sandbox)?)?;
        let task = until_limited(&client, "limited")?;
        let agent = listed(sandbox, "claude")?;
        ensure!(agent["trouble"]["kind"] == "window" && agent["version"] == "2.1.197 (Claude Code)", "{agent}");
        let (findings, code) = doctor(sandbox, &["claude"], &[])?;
        let account = find(&findings, Some("claude"), "account")?;
        ensure!(code == 0 && account["level"] == "notice", "{account}");
        ensure!(account["text"].as_str().is_some_and(|text| text.contains("window limit until")), "{account}");

        // It is asked although the account is limited, and still is.
        let refused = sandbox.ctl(&["agent", "probe", "claude", "-o", "json"])?;
        let told: Value = serde_json::from_str(&refused.stdout)?;
        ensure!(refused.code == 1 && told["failure"] == "limit" && told["ok"] == false, "{told:#}");
        ensure!(client.task(&task)?.phase() == TaskPhase::WaitingLimit);

        remove(sandbox, "limit")?;
        let text = sandbox.ctl(&["agent", "probe", "claude"])?.ok()?;
        ensure!(text.contains("claude answered") && text.contains("OK") && text.contains("2.1.197"), "{text}");
        ensure!(text.contains("0.25") && text.contains("key from the configuration"), "{text}");
        let ended = client.wait_task_for(&task, SOON)?;
        ensure!(reason(&ended) == EndReason::Done && ended.attempt == 1, "{ended:#?}");
        ensure!(listed(sandbox, "claude")?["trouble"].is_null(), "it works again");
        let left = sandbox.ctl(&["task", "list", "-p", "agent-probes", "-o", "json"])?.json()?;
        ensure!(left.as_array().is_some_and(Vec::is_empty), "probes are deleted: {left}");
        Ok(())
    });
}

#[test]
fn a_probe_tells_a_refused_login_from_an_answer_and_is_kept_if_that_is_wanted() {
    in_sandbox(|sandbox| {
        write(sandbox, "auth", "")?;
        let (_daemon, client) = start_with(sandbox, &config(sandbox)?)?;
        let refused = sandbox.ctl(&["agent", "probe", "claude", "--keep"])?;
        ensure!(refused.code == 1 && refused.stdout.contains("the login was refused"), "{refused:?}");
        ensure!(refused.stdout.contains("agent-probes/task-"), "{refused:?}");
        let (findings, code) = doctor(sandbox, &["claude"], &[])?;
        ensure!(code == 1 && find(&findings, Some("claude"), "account")?["level"] == "problem", "{findings:#?}");
        remove(sandbox, "auth")?;
        sandbox.ctl(&["agent", "probe", "claude"])?.ok()?;
        let (findings, code) = doctor(sandbox, &["claude"], &[])?;
        ensure!(code == 0, "{findings:#?}");
        let kept = sandbox.ctl(&["task", "list", "-p", "agent-probes", "-o", "json"])?.json()?;
        ensure!(kept.as_array().is_some_and(|tasks| tasks.len() == 1), "{kept}");
        ensure!(sandbox.ctl(&["agent", "probe", "nobody"])?.code == 3);
        let total = client.wait(client.usage().get_usage(GetUsageRequest::default()))?.total.context("a total")?;
        ensure!(total.runs == 2, "what a deleted probe used is known: {total:?}");
        Ok(())
    });
}

#[test]
fn prices_are_the_cost_of_a_vendor_that_reports_none_and_stay_as_they_were() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start_with(sandbox, &config(sandbox)?)?;
        let mut job = submit("priced", "codex");
        job.spec.mode = conductor_proto::v1::TaskMode::Once.into();
        let task = client.submit(job)?;
        let ended = client.wait_task_for(&task.task_id, SOON)?;
        let run = client.last_run(&ended)?;
        ensure!(run.outcome() == RunOutcome::Completed, "{run:#?}");
        // 600,000 uncached, 400,000 from the cache, 100,000 out.
        let used = run.usage.as_ref().context("its usage")?;
        ensure!(used.cost_usd.is_some_and(|usd| (usd - 2.4).abs() < 1e-9), "{used:?}");
        ensure!(used.cost_kind() == CostKind::Estimated, "{used:?}");
        let info = std::path::PathBuf::from(&run.folder).join("run-info.yaml");
        let kept: Value = serde_json::from_str(&tree::yaml_value(&info, "usage").context("usage on disk")?)?;
        ensure!(kept["cost"]["kind"] == "estimated", "{kept}");
        daemon.kill9()?;
        let dearer = config(sandbox)?.set("prices.codex", "{'gpt-*': {input: 200, output: 1000}}");
        std::fs::write(sandbox.config_path(), dearer.yaml())?;
        let (_daemon, client) = again(sandbox)?;
        let run = client.last_run(&client.task(&task.task_id)?)?;
        ensure!(run.usage.as_ref().is_some_and(|used| used.cost_usd == Some(2.4)), "{run:#?}");
        let text = sandbox.ctl(&["usage", "--by", "model"])?.ok()?;
        ensure!(text.contains("~$2.40"), "{text}");
        Ok(())
    });
}

#[test]
fn a_service_that_cannot_be_reached_is_a_matter_of_the_network() {
    in_sandbox(|sandbox| {
        // Nobody listens at port 1.
        let agent = "{type: perplexity, base_url: 'http://127.0.0.1:1', token: not-a-key, args: [--max-retries, '0']}";
        let (_daemon, _client) = start_with(sandbox, &config(sandbox)?.agent("perplexity", agent))?;
        let output = sandbox.ctl(&["agent", "probe", "perplexity", "-o", "json"])?;
        let told: Value = serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))?;
        ensure!(output.code == 1 && told["failure"] == "network", "{told:#}");
        ensure!(listed(sandbox, "perplexity")?["trouble"].is_null(), "an outage says nothing of the account");
        Ok(())
    });
}

#[test]
fn a_run_neither_probes_nor_looks_at_the_machine() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start_with(sandbox, &config(sandbox)?)?;
        let say = |command: &str, file: &str| {
            format!(
                "sh conductorctl {command} > $CONDUCTOR_TASK_FOLDER/{file} 2>&1; echo $? >> $CONDUCTOR_TASK_FOLDER/{file}"
            )
        };
        let (probe, doctor) = (say("agent probe claude", "probe"), say("doctor", "doctor"));
        let task = finish(&client, once("inside", &[&probe, &doctor, "exit 0"]))?;
        for file in ["probe", "doctor"] {
            let said = std::fs::read_to_string(folder(sandbox, &task).join(file))?;
            ensure!(said.trim_end().ends_with('4') && said.contains("error:"), "{file}: {said}");
        }
        // The RPC by itself, with the run's own project.
        let step = "sh printenv CONDUCTOR_TOKEN > $CONDUCTOR_TASK_FOLDER/token";
        let live = client.submit(script("live", &[step, "touch up", "wait-file go", "done"]))?;
        wait_file(sandbox, &live, "up")?;
        let token = std::fs::read_to_string(folder(sandbox, &live).join("token"))?;
        let agent = Client::lazy(&sandbox.socket(), Some(token.trim()))?;
        let mut probe = submit("try-me", "claude");
        probe.spec.probe = true;
        let refused = agent.submit(probe).err().context("a run must not start a probe")?;
        ensure!(format!("{refused:#}").contains("spec.probe"), "{refused:#}");
        touch(sandbox, &live, "go")?;
        client.wait_task(&live.task_id)?;
        Ok(())
    });
}
