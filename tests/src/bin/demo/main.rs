//! The main job of Conductor, live and checked: a task of three attempts, a parent with three children, `kill -9` of
//! the daemon in the middle of both, and the same processes adopted by the next one.
//!
//! Every claim is a printed check; one that fails makes the exit code 1. It works in a folder of its own in /tmp and
//! touches nothing of the user's.

mod claude;
mod live;
mod vendor;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use conductor_proto::v1::{EndReason, ListTasksRequest, RunOutcome, Task, TaskPhase, TaskSpec};
use conductor_tests::checks::Checks;
use conductor_tests::client::{PROJECT, project_bus, task_bus};
use conductor_tests::vendors::programs::Program;
use conductor_tests::{Client, Config, DEADLINE, Daemon, Sandbox, Submit, entries, procs, tree, wait_for, wait_until};

/// Shows Conductor at its main job and checks what it claims.
#[derive(Debug, Parser)]
struct Arguments {
    /// The agent: `fake` shows everything; `fake-claude`, `fake-codex`, `fake-gemini` and `fake-grok` do a task with the
    /// vendor's own program against a fake of its service, without a key; `claude` does one with the real service.
    #[arg(long, value_enum, default_value_t = Agent::Fake)]
    agent: Agent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Agent {
    Fake,
    FakeClaude,
    FakeCodex,
    FakeGemini,
    FakeGrok,
    Claude,
}

/// The first task: what the scripted agent does in each of its attempts.
const ATTEMPTS: &str = "Make the answer. It takes three attempts.
@fake print attempt at work
@fake sleep 700
@fake post PROGRESS I am at it
@fake touch up
@fake on-attempt 2 touch second
@fake on-attempt 2 wait-file go
@fake until 3 exit 1
@fake output The answer is 42.
@fake done";

/// The parent: three children through conductorctl, and DONE before they have ended.
const PARENT: &str = "Split the work among three children.
@fake child kid-one post PROGRESS one is on | touch up | wait-file go | sleep 900 | print one | done
@fake child kid-two post PROGRESS two is on | touch up | wait-file go | sleep 900 | print two | done
@fake child kid-three post PROGRESS three is on | touch up | wait-file go | sleep 900 | print three | done
@fake done";

fn main() -> ExitCode {
    let start = Instant::now();
    let mut checks = Checks::default();
    let result = match Arguments::parse().agent {
        Agent::Fake => show(&mut checks),
        Agent::FakeClaude => vendor::show(&mut checks, Program::Claude),
        Agent::FakeCodex => vendor::show(&mut checks, Program::Codex),
        Agent::FakeGemini => vendor::show(&mut checks, Program::Gemini),
        Agent::FakeGrok => vendor::show(&mut checks, Program::Grok),
        Agent::Claude => claude::show(&mut checks),
    };
    if let Err(error) = &result {
        println!("\n   FAIL the demonstration could not go on: {error:#}");
    }
    let passed = checks.finish() && result.is_ok();
    println!("{:.1} s", start.elapsed().as_secs_f32());
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(checks: &mut Checks) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let result = scenes(checks, &sandbox);
    if result.is_err() {
        println!("{}", sandbox.report());
    }
    result
}

fn scenes(checks: &mut Checks, sandbox: &Sandbox) -> Result<()> {
    checks.scene("conductord starts in a fresh folder");
    let daemon = Daemon::start(sandbox, &Config::new(sandbox))?;
    let client = daemon.client()?;
    let info = client.daemon_info()?;
    checks.note(format!("pid {}, data in {}, process trees by {}", info.pid, info.root, info.tier));
    client.create_project(PROJECT, &sandbox.work())?;
    let live = live::Followers::default();
    live.follow(sandbox, project_bus(PROJECT), "project");

    checks.scene("a task whose agent needs three attempts, and a parent that starts three children");
    let first = client.submit(submit("three-attempts", ATTEMPTS))?;
    live.follow(sandbox, task_bus(&first), "three-attempts");
    let parent = client.submit(submit("parent-task", PARENT))?;
    live.follow(sandbox, task_bus(&parent), "parent-task");
    let children = wait_for("three children are there", DEADLINE, || {
        family(&client, &parent).ok().filter(|children| children.len() == 3)
    })?;
    for child in &children {
        live.follow(sandbox, task_bus(child), "child");
    }
    let held = client.wait_task_until(&parent.task_id, "held open", DEADLINE, is_held)?;
    checks.equal("DONE is there, and the parent is held open by its live children", &held.live_child_count, &3);
    file(sandbox, &first, "second")?;
    for child in &children {
        file(sandbox, child, "up")?;
    }
    let mut before = vec![client.wait_running(&first.task_id)?];
    for child in &children {
        before.push(client.wait_running(&child.task_id)?);
    }
    checks.equal("agents that live", &before.len(), &4);

    // For the eye only: nothing below depends on it.
    std::thread::sleep(std::time::Duration::from_secs(1));
    checks.scene("kill -9 of conductord in the middle of both");
    daemon.kill9()?;
    checks.holds("all four agents live on without it", before.iter().all(|run| procs::lives(run.pid)));
    let back = Instant::now();
    let daemon = Daemon::again(sandbox)?;
    let client = daemon.client()?;
    let recovery = client.daemon_info()?.recovery.context("the daemon says what it found")?;
    checks.note(format!("answers again after {:.0} ms", back.elapsed().as_secs_f32() * 1000.0));
    checks.equal("runs adopted as if nothing had happened", &recovery.adopted, &4);
    checks.equal("runs lost", &recovery.lost, &0);
    checks.holds("they are the same processes", before.iter().all(|run| procs::lives(run.pid)));
    checks.holds("the parent is still held open", is_held(&client.task(&parent.task_id)?));

    checks.scene("the agents may go on");
    for task in std::iter::once(&first).chain(&children) {
        std::fs::write(folder(sandbox, task).join("go"), "")?;
    }
    let first = client.wait_task(&first.task_id)?;
    let parent = client.wait_task(&parent.task_id)?;
    live.finish();
    check_first(checks, sandbox, &client, &first)?;
    check_family(checks, &client, &parent)?;
    check_traces(checks, sandbox, &client, &[&first, &parent])?;

    checks.scene("the tree of tasks and runs");
    for task in [&first, &parent] {
        println!("{}", sandbox.ctl(&["run", "tree", &task.task_id])?.ok()?);
    }
    checks.scene("the bus of the first task");
    let bus = format!("{PROJECT}/{}", first.task_id);
    println!("{}", sandbox.ctl(&["bus", "read", "--task", &bus])?.ok()?);

    checks.scene("conductord ends");
    let status = daemon.terminate()?;
    checks.holds("it ends cleanly on SIGTERM", status.success());
    checks.equal("processes that are left", &sandbox.processes().len(), &0);
    Ok(())
}

fn submit(slug: &str, prompt: &str) -> Submit {
    let spec = TaskSpec { agent: "fake".to_owned(), max_restarts: 5, ..TaskSpec::default() };
    Submit { prompt: prompt.to_owned(), slug: slug.to_owned(), spec, ..Submit::default() }
}

fn is_held(task: &Task) -> bool {
    task.phase() == TaskPhase::WaitingChildren && task.live_child_count == 3
}

/// The tasks that a task's runs started.
fn family(client: &Client, parent: &Task) -> Result<Vec<Task>> {
    let request = ListTasksRequest { project_id: PROJECT.to_owned(), ..ListTasksRequest::default() };
    let tasks = client.wait(client.tasks().list_tasks(request))?.tasks;
    let ours = |task: &Task| task.parent.as_ref().is_some_and(|run| run.task_id == parent.task_id);
    Ok(tasks.into_iter().filter(ours).collect())
}

fn folder(sandbox: &Sandbox, task: &Task) -> std::path::PathBuf {
    sandbox.root().join(&task.project_id).join(&task.task_id)
}

fn file(sandbox: &Sandbox, task: &Task, name: &str) -> Result<()> {
    let path = folder(sandbox, task).join(name);
    wait_until(&format!("{} has {name}", task.task_id), DEADLINE, || path.exists())
}

fn check_first(checks: &mut Checks, sandbox: &Sandbox, client: &Client, task: &Task) -> Result<()> {
    checks.scene("what became of the first task");
    checks.equal("it ended done", &end(task), &EndReason::Done);
    let runs = client.task_runs(task)?;
    let codes: Vec<Option<i32>> = runs.iter().map(|run| run.exit_code).collect();
    checks.equal("exit codes of its attempts, that over the kill included", &codes, &vec![Some(1), Some(1), Some(0)]);
    let mut lines = 0;
    for run in &runs {
        let log = client.log(run, conductor_proto::v1::LogStream::Stdout, 0, false)?;
        lines += String::from_utf8_lossy(&log).lines().filter(|line| *line == "attempt at work").count();
    }
    checks.equal("lines printed by its attempts", &lines, &3);
    let answer = sandbox.ctl(&["output", &task.task_id])?.ok()?;
    checks.equal("its answer", answer.trim_end(), "The answer is 42.");
    let messages = client.messages(&task_bus(task))?;
    let count = |kind: &str| messages.iter().filter(|message| message.r#type == kind).count();
    checks.equal("PROGRESS messages of its agent", &count("PROGRESS"), &3);
    checks.equal("RUN_START messages", &count("RUN_START"), &3);
    Ok(())
}

fn check_family(checks: &mut Checks, client: &Client, parent: &Task) -> Result<()> {
    checks.scene("what became of the family");
    checks.equal("the parent ended done", &end(parent), &EndReason::Done);
    checks.equal("it ran once: DONE restarts nothing", &parent.run_count, &1);
    let children = family(client, parent)?;
    let done = children.iter().filter(|child| end(child) == EndReason::Done).count();
    checks.equal("children that ended done", &done, &3);
    let last =
        children.iter().filter_map(|child| child.end.as_ref()?.time).map(|time| (time.seconds, time.nanos)).max();
    let own = parent.end.as_ref().and_then(|end| end.time).map(|time| (time.seconds, time.nanos));
    checks.holds("the parent ended after the last of them", own >= last && last.is_some());
    for child in &children {
        let run = client.last_run(child)?;
        checks.equal(&format!("outcome of {}", child.task_id), &run.outcome(), &RunOutcome::Completed);
    }
    Ok(())
}

fn check_traces(checks: &mut Checks, sandbox: &Sandbox, client: &Client, tasks: &[&Task]) -> Result<()> {
    checks.scene("what is on disk, and what is not");
    for task in tasks {
        let path = folder(sandbox, task).join("TASK-MESSAGE-BUS.md");
        let file = entries::read(&path);
        let ids: Vec<String> = client.messages(&task_bus(task))?.into_iter().map(|message| message.msg_id).collect();
        let same = file.iter().map(|entry| &entry.id).eq(&ids);
        checks.holds(&format!("bus of {}: {} messages, file and API agree in order", task.task_id, ids.len()), same);
        checks.equal("     ids that occur twice", &entries::repeated_ids(&file), &Vec::new());
        checks.equal("     state changes announced twice", &entries::repeated_keys(&file), &Vec::new());
        for run in tree::runs(&folder(sandbox, task)) {
            let status = tree::yaml_value(&run.join("run-info.yaml"), "status");
            checks.holds("     run-info.yaml says how the run ended", status.is_some_and(|status| status != "running"));
        }
    }
    let strays = sandbox.assert_no_strays();
    checks.holds("no agent, shim or child of an agent is left", strays.is_ok());
    Ok(())
}

/// Why a task ended.
fn end(task: &Task) -> EndReason {
    task.end.as_ref().map_or(EndReason::Unspecified, |end| end.reason())
}
