//! 10,000 finished runs on disk: a start of the daemon, and `conductorctl ps`.
//!
//! They are copies of a real one, under ids of their own, written without syncs: what is measured is reading.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use conductor_tests::client::PROJECT;
use conductor_tests::{Sandbox, tree};

use crate::notify;
use crate::report::{Limit, Report, Spread};
use crate::setup::{begin, config, job, runs};

const TASKS: usize = 500;
const RUNS: usize = 20;
/// Starts of the daemon that are measured.
const STARTS: usize = 5;
/// Calls of `conductorctl ps` that are measured, after some to warm up.
const CALLS: usize = 50;
const WARM_UP: usize = 5;

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let (daemon, client) = begin(&sandbox, &config(&sandbox))?;
    let task = client.submit(job("true"))?;
    let task = client.wait_task(&task.task_id)?;
    let run = client.last_run(&task)?;
    drop(client);
    daemon.terminate()?;
    let total = TASKS * RUNS;
    build(&sandbox.root().join(PROJECT), &task.task_id, &run.run_id)?;

    // Reads everything once: what follows finds it in memory.
    notify::start_again(&sandbox)?.daemon.terminate()?;
    let (mut times, mut spawns, mut inner, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let started = notify::start_again(&sandbox)?;
        let info = started.daemon.client()?.daemon_info()?;
        let summary = info.recovery.context("the daemon says what it found")?;
        ensure!(info.problems.is_empty() && summary.lost == 0, "{:?}, {summary:?}", info.problems);
        times.push(started.from_lock);
        spawns.push(started.from_spawn);
        cpu.push(started.cpu);
        inner.push(summary.duration_ms as f64);
        started.daemon.terminate()?;
    }
    let spread = Spread::of(times)?;
    let how = format!(
        "{TASKS} tasks of {RUNS} runs, time of daemon.lock to READY=1, {STARTS} starts, ms: {spread}; from the spawn: \
         median {:.0}; the daemon's own count: median {:.0}; CPU time until READY: median {:.0}",
        Spread::of(spawns)?.median,
        Spread::of(inner)?.median,
        Spread::of(cpu)?.median
    );
    report.row(format!("recovery of {total} finished runs"), spread.median, "ms", Limit::AtMost(1000.0), how);

    let started = notify::start_again(&sandbox)?;
    let shown = runs(&started.daemon.client()?, Vec::new())?.len();
    ensure!(shown == total + 1, "{shown} runs are shown instead of {total} and one");
    ps(report, &sandbox, total)
}

fn ps(report: &mut Report, sandbox: &Sandbox, total: usize) -> Result<()> {
    for (arguments, what) in [(&["ps"][..], "ps"), (&["ps", "--all"][..], "ps --all")] {
        let mut times = Vec::new();
        let mut lines = 0;
        for call in 0..WARM_UP + CALLS {
            let mut command = sandbox.command(sandbox.program("conductorctl"));
            command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
            let start = Instant::now();
            let output = command.output()?;
            let took = start.elapsed().as_secs_f64() * 1e3;
            ensure!(output.status.success(), "conductorctl {what}: {}", output.status);
            lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
            if call >= WARM_UP {
                times.push(took);
            }
        }
        let spread = Spread::of(times)?;
        report.row(
            format!("conductorctl {what}, {total} runs on disk"),
            spread.median,
            "ms",
            Limit::AtMost(20.0),
            format!("one page ({lines} lines), process start included, ms: {spread}"),
        );
    }
    Ok(())
}

/// Copies the task under new ids, its run [`RUNS`] times into each.
fn build(project: &Path, task: &str, run: &str) -> Result<()> {
    let origin = project.join(task);
    let files: Vec<(PathBuf, String)> = tree::list(&origin)
        .into_iter()
        .filter(|(path, kind)| *kind == 'f' && path != "fake-attempts")
        .map(|(path, _)| Ok((PathBuf::from(&path), fs::read_to_string(origin.join(&path))?)))
        .collect::<Result<_>>()?;
    let below = Path::new("runs").join(run);
    let (of_run, of_task): (Vec<_>, Vec<_>) = files.into_iter().partition(|(path, _)| path.starts_with(&below));
    for number in 0..TASKS {
        let (minute, second) = (number / 60 % 60, number % 60);
        let new_task = format!("task-20260102-03{minute:02}{second:02}-bench-{number}");
        let folder = project.join(&new_task);
        let run_id = |n: usize| format!("20260102-03{minute:02}{second:02}{n:04}-{}-{n}", 1000 + number);
        fs::create_dir_all(folder.join("runs"))?;
        let rename = |text: &str, n: usize| text.replace(task, &new_task).replace(run, &run_id(n));
        for (path, text) in &of_task {
            fs::write(folder.join(path), rename(text, RUNS - 1))?;
        }
        for n in 0..RUNS {
            let target = folder.join("runs").join(run_id(n));
            fs::create_dir_all(target.join("shim"))?;
            for (path, text) in &of_run {
                fs::write(target.join(path.strip_prefix(&below)?), rename(text, n))?;
            }
        }
    }
    Ok(())
}
