//! Many live runs: recovery of them, 500 agents at once, and what a shim takes.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conductor_proto::v1;
use conductor_tests::{Client, Sandbox, procs, wait_until};
use nix::sys::stat::Mode;

use crate::notify;
use crate::report::{Limit, Report, Spread};
use crate::setup::{begin, config, proc_kib, running, runs, start_many, submit_many};

/// Live runs of the recovery.
const LIVE: usize = 1000;
/// Starts of the daemon on them that are measured.
const STARTS: usize = 5;
/// Runs that are started when the daemon is killed.
const EARLY: usize = 200;
/// Agents at once.
const AGENTS: usize = 500;
/// Code with which each of them ends.
const CODE: i32 = 7;
/// Shims whose memory is looked at.
const SHIMS: usize = 24;
/// How long 500 ends may take to be told.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn recovery_walk(report: &mut Report) -> Result<()> {
    recovery(report, "walk", "off")
}

pub(crate) fn recovery_cgroup(report: &mut Report) -> Result<()> {
    recovery(report, "cgroup", "auto")
}

fn recovery(report: &mut Report, tier: &str, setting: &str) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let (daemon, client) = begin(&sandbox, &config(&sandbox).set("cgroup", setting))?;
    let found = client.daemon_info()?;
    if found.tier != tier {
        eprintln!("no {tier} tier here: {}", found.tier_reason);
        return Ok(());
    }
    let begun = std::time::Instant::now();
    let before = Fate::of(&start_many(&client, &sandbox.socket(), "sleep", LIVE)?)?;
    let started = begun.elapsed();
    drop(client);
    daemon.kill9()?;
    let (mut times, mut inner, mut lost) = (Vec::new(), Vec::new(), 0);
    let (mut spawns, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let started = notify::start_again(&sandbox)?;
        let client = started.daemon.client()?;
        let summary = client.daemon_info()?.recovery.context("the daemon says what it found")?;
        let gone = before.lost(&client)?;
        if gone > 0 || summary.adopted as usize != LIVE {
            eprintln!("{gone} of {LIVE} runs are lost; {summary:?}");
        }
        lost = lost.max(gone).max(LIVE.abs_diff(summary.adopted as usize));
        times.push(started.from_lock);
        spawns.push(started.from_spawn);
        cpu.push(started.cpu);
        inner.push(summary.duration_ms as f64);
        drop(client);
        started.daemon.kill9()?;
    }
    let spread = Spread::of(times)?;
    let how = format!(
        "time of daemon.lock to READY=1, {STARTS} starts after kill -9, ms: {spread}; from the spawn: median {:.0}; the \
         daemon's own count: median {:.0}; CPU time until READY: median {:.0}; all were started in {:.1} s",
        Spread::of(spawns)?.median,
        Spread::of(inner)?.median,
        Spread::of(cpu)?.median,
        started.as_secs_f64()
    );
    report.row(format!("recovery of {LIVE} live runs, {tier} tier"), spread.median, "ms", Limit::AtMost(100.0), how);
    report.row(
        format!("recovery of {LIVE} live runs, {tier} tier: lost or not adopted"),
        lost as f64,
        "runs",
        Limit::AtMost(0.0),
        "after each start: adopted, shown as running with the same pid, the agent's process the same and alive",
    );
    Ok(())
}

/// The daemon is killed while runs start: those that had no agent yet are started again, none is there twice.
pub(crate) fn killed_early(report: &mut Report) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let (daemon, client) = begin(&sandbox, &config(&sandbox))?;
    submit_many(&sandbox.socket(), "sleep", EARLY)?;
    // Counts runs from their slot on, before their shim is spawned.
    wait_until("all have a slot", PATIENCE, || {
        client.daemon_info().is_ok_and(|info| info.live_runs as usize == EARLY)
    })?;
    let had_agents = running(&client)?.iter().filter(|run| run.pid > 0).count();
    drop(client);
    daemon.kill9()?;
    let started = notify::start_again(&sandbox)?;
    let client = started.daemon.client()?;
    let found = client.daemon_info()?.recovery.context("the daemon says what it found")?;
    let agents = || sandbox.processes().into_iter().filter(|process| process.name == "sleep").count();
    let live = || running(&client).map_or(0, |runs| runs.iter().filter(|run| run.pid > 0).count());
    let settled = wait_until("every task has one run", PATIENCE, || live() == EARLY);
    let (live, agents) = (live(), agents());
    report.row(
        format!("kill -9 while the last of {EARLY} runs start: tasks without a run, or with two agents"),
        (EARLY.abs_diff(live) + EARLY.abs_diff(agents)) as f64,
        "tasks",
        Limit::AtMost(0.0),
        format!(
            "{had_agents} shown with their pid at the kill; adopted {}, ended {}, rescued {}, lost {}, the rest started \
             again: {live} runs and {agents} agents live{}",
            found.adopted,
            found.ended,
            found.rescued,
            found.lost,
            if settled.is_ok() { "" } else { " after two minutes" }
        ),
    );
    Ok(())
}

/// The agents of runs: pid and start time by run.
struct Fate(HashMap<String, (i32, u64)>);

impl Fate {
    fn of(runs: &[v1::Run]) -> Result<Self> {
        let agents = runs.iter().map(|run| {
            let (_, _, start, _) = procs::stat(run.pid).with_context(|| format!("{}: no process", run.run_id))?;
            Ok((run.run_id.clone(), (run.pid, start)))
        });
        Ok(Self(agents.collect::<Result<_>>()?))
    }

    /// How many of them are not shown as running with their agent, or whose agent is not the same live process.
    fn lost(&self, client: &Client) -> Result<usize> {
        let shown: HashMap<String, i32> = running(client)?.into_iter().map(|run| (run.run_id, run.pid)).collect();
        let lost = self.0.iter().filter(|(run, (pid, start))| {
            let same = procs::lives(*pid) && procs::stat(*pid).is_some_and(|(_, _, found, _)| found == *start);
            !same || shown.get(*run) != Some(pid)
        });
        Ok(lost.count())
    }
}

/// 500 agents that wait for one sign, end with a code of their own and say so.
pub(crate) fn agents(report: &mut Report) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let gate = sandbox.path().join("gate");
    nix::unistd::mkfifo(&gate, Mode::S_IRUSR | Mode::S_IWUSR)?;
    // Opening a pipe waits until somebody opens its other end.
    let script = format!("read sign < {}; echo done; exit {CODE}", gate.display());
    let config = config(&sandbox).agent("gate", &format!("{{type: command, program: sh, args: [-c, '{script}']}}"));
    let (daemon, client) = begin(&sandbox, &config)?;
    let begun = std::time::Instant::now();
    start_many(&client, &sandbox.socket(), "gate", AGENTS)?;
    let started = begun.elapsed().as_secs_f64();
    let live = proc_kib(daemon.pid(), "status", "VmRSS")? / 1024.0;
    let begun = std::time::Instant::now();
    drop(OpenOptions::new().write(true).open(&gate)?);
    // One that came to the pipe after it was closed gets a sign of its own.
    let ended = wait_until("all ended", PATIENCE, || {
        let flags = nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_NONBLOCK;
        drop(nix::fcntl::open(&gate, flags, Mode::empty()));
        client.daemon_info().is_ok_and(|info| info.live_runs == 0 && info.queued_tasks == 0)
    });
    let took = begun.elapsed().as_secs_f64();
    let peak = proc_kib(daemon.pid(), "status", "VmHWM")? / 1024.0;
    let all = runs(&client, Vec::new())?;
    let good = all.iter().filter(|run| {
        let said = client.log(run, v1::LogStream::Stdout, 0, false);
        run.outcome() == v1::RunOutcome::Failed
            && run.exit_code == Some(CODE)
            && said.is_ok_and(|said| said == b"done\n")
    });
    let good = good.count();
    ended.with_context(|| format!("{} runs, {good} with their exit code", all.len()))?;
    ensure!(all.len() == AGENTS, "{} runs instead of {AGENTS}", all.len());
    report.row(
        format!("{AGENTS} agents at once: exit code or output lost"),
        (AGENTS - good) as f64,
        "runs",
        Limit::AtMost(0.0),
        format!("all started in {started:.1} s, released at once, all ended and recorded {took:.1} s later"),
    );
    report.row(
        format!("{AGENTS} agents at once: daemon RSS"),
        peak,
        "MiB",
        Limit::AtMost(60.0),
        format!("peak until all had ended; {live:.1} MiB while they lived"),
    );
    Ok(())
}

/// Memory that a shim shares with nobody.
pub(crate) fn shim(report: &mut Report) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let (_daemon, client) = begin(&sandbox, &config(&sandbox))?;
    let live = start_many(&client, &sandbox.socket(), "sleep", SHIMS)?;
    let (mut unique, mut shared) = (Vec::new(), Vec::new());
    for run in &live {
        let (_, parent, _, _) = procs::stat(run.pid).context("the agent lives")?;
        let (_, _, _, name) = procs::stat(parent).context("the shim lives")?;
        ensure!(name == "conductor-shim", "the agent's parent is {name}");
        let kib = |field| proc_kib(parent, "smaps_rollup", field);
        unique.push(kib("Private_Clean")? + kib("Private_Dirty")?);
        shared.push(kib("Rss")?);
    }
    let (unique, rss) = (Spread::of(unique)?, Spread::of(shared)?);
    report.row(
        "shim, unique memory",
        unique.max,
        "KiB",
        Limit::AtMost(200.0),
        format!("Private_Clean + Private_Dirty of smaps_rollup, the largest of {SHIMS} shims with a live agent; {unique}; RSS median {:.0}", rss.median),
    );
    Ok(())
}
