//! From a stop to an empty tree, seen by pidfds and not by the daemon.

use std::fs;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conductor_shim::process::Pidfd;
use conductor_tests::{Client, DEADLINE, Sandbox, procs, wait_until};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::report::{Limit, Report, Spread};
use crate::setup::{begin, config, job, on_threads};

/// Samples of each kind, and how many at once.
const SAMPLES: usize = 60;
const AT_ONCE: usize = 4;
/// Both graces of a stop of an agent that ignores everything.
const GRACE_MS: i32 = 200;
/// Graces that an agent which obeys doesn't need.
const LONG_MS: i32 = 5000;

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let sandbox = Sandbox::new()?;
    // Each leaves a child in a session of its own, as the vendors' tools are. A shell's background jobs ignore INT.
    let config = config(&sandbox)
        .agent("obeys", "{type: command, program: sh, args: [-c, 'setsid sleep 600 & exec sleep 600']}")
        .agent(
            "ignores",
            "{type: command, program: sh, args: [-c, 'trap \"\" INT TERM; setsid sleep 600 & sleep 600']}",
        );
    for tier in ["walk", "cgroup"] {
        let config = config.clone().set("cgroup", if tier == "walk" { "off" } else { "auto" });
        let (daemon, client) = begin(&sandbox, &config)?;
        if client.daemon_info()?.tier == tier {
            obeys(report, &sandbox, tier)?;
            ignores(report, &sandbox, tier)?;
        }
        drop(client);
        drop(daemon);
    }
    Ok(())
}

fn obeys(report: &mut Report, sandbox: &Sandbox, tier: &str) -> Result<()> {
    let ends = samples(sandbox, "obeys", 1, LONG_MS)?;
    let after = Spread::of(ends.iter().map(|end| ms(end.tree.saturating_sub(end.leader))).collect())?;
    let asked = Spread::of(ends.iter().map(|end| ms(end.tree)).collect())?;
    let shim = Spread::of(ends.iter().map(|end| ms(end.shim.saturating_sub(end.leader))).collect())?;
    report.row(
        format!("stop to empty tree, agent obeys INT, {tier} tier: p99 after its leader's end"),
        after.p99,
        "ms",
        Limit::AtMost(50.0),
        format!(
            "its child in another session ignores INT; {AT_ONCE} at once; {after}; from the request: median {:.1}, p99 \
             {:.1}; leader's end to the shim's (exit record durable): median {:.1}, p99 {:.1}",
            asked.median, asked.p99, shim.median, shim.p99
        ),
    );
    Ok(())
}

fn ignores(report: &mut Report, sandbox: &Sandbox, tier: &str) -> Result<()> {
    let ends = samples(sandbox, "ignores", 2, GRACE_MS)?;
    let graces = 2.0 * f64::from(GRACE_MS);
    let beyond = Spread::of(ends.iter().map(|end| ms(end.tree) - graces).collect())?;
    report.row(
        format!("stop to empty tree, agent ignores all, {tier} tier: p99 beyond both graces"),
        beyond.p99,
        "ms",
        Limit::AtMost(50.0),
        format!("from the request; graces {GRACE_MS} ms each; three processes, one in another session; {AT_ONCE} at once; {beyond}"),
    );
    Ok(())
}

/// When each part of a run had ended, counted from the request to stop.
struct Ends {
    leader: Duration,
    /// The last process of the agent's tree.
    tree: Duration,
    shim: Duration,
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn samples(sandbox: &Sandbox, agent: &str, children: usize, grace_ms: i32) -> Result<Vec<Ends>> {
    let ends = on_threads(AT_ONCE, |_| {
        let client = Client::lazy(&sandbox.socket(), None)?;
        (0..SAMPLES / AT_ONCE).map(|_| sample(&client, agent, children, grace_ms)).collect::<Result<Vec<_>>>()
    })?;
    Ok(ends.into_iter().flatten().collect())
}

fn sample(client: &Client, agent: &str, children: usize, grace_ms: i32) -> Result<Ends> {
    let task = client.submit(job(agent))?;
    let leader = client.wait_running(&task.task_id)?.pid;
    let mut tree = Vec::new();
    wait_until("the agent has its children", DEADLINE, || {
        tree = children_of(leader);
        let ready = |pid: &i32| procs::stat(*pid).is_some_and(|(.., name)| name == "sleep");
        tree.len() == children && tree.iter().all(ready)
    })?;
    let (_, shim, _, name) = procs::stat(leader).context("the agent lives")?;
    ensure!(name == "sleep" || children == 2, "the leader is {name}");
    // Leader first, shim last.
    let pids: Vec<i32> = [leader].into_iter().chain(tree).chain([shim]).collect();
    let watched = pids.iter().map(|pid| Ok(Pidfd::open(*pid)?)).collect::<Result<Vec<Pidfd>>>()?;
    let ends = std::thread::scope(|scope| {
        let watched = &watched;
        let begun = Instant::now();
        let watcher = scope.spawn(move || watch(watched, begun));
        client.stop(&task.task_id, grace_ms)?;
        watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?
    })?;
    client.wait_task(&task.task_id)?;
    let (shim, tree) = ends.split_last().context("a shim was watched")?;
    let last = tree.iter().max().context("a leader was watched")?;
    Ok(Ends { leader: ends[0], tree: *last, shim: *shim })
}

fn children_of(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Waits until all have ended; when each did.
fn watch(watched: &[Pidfd], begun: Instant) -> Result<Vec<Duration>> {
    let mut ends: Vec<Option<Duration>> = vec![None; watched.len()];
    while ends.iter().any(Option::is_none) {
        let open: Vec<usize> = (0..watched.len()).filter(|index| ends[*index].is_none()).collect();
        let mut list: Vec<PollFd<'_>> =
            open.iter().map(|index| PollFd::new(watched[*index].as_fd(), PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(DEADLINE).map_err(|_| anyhow::anyhow!("the deadline is too long"))?;
        let ready = poll(&mut list, timeout)?;
        let now = begun.elapsed();
        ensure!(ready > 0, "processes of a stopped run live on");
        for (index, entry) in open.iter().zip(&list) {
            if entry.any() == Some(true) {
                ends[*index] = Some(now);
            }
        }
    }
    Ok(ends.into_iter().flatten().collect())
}
