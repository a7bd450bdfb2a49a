//! The numbers of the design that exist by now, each beside its limit or beside a bare peer measured in the same run.
//!
//! Prints a table, writes JSON with `--json FILE`, measures one group with `--only NAME`. A number out of reach does not
//! fail it: it measures, people judge. A group that can't be measured does.

mod agent;
mod bus;
mod count;
mod follow;
mod history;
mod idle;
mod live;
mod notify;
mod parsers;
mod report;
mod setup;
mod starts;
mod stop;
mod stream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, Subcommand};

use report::Report;

/// A group of rows that share what they measure on.
type Group = (&'static str, fn(&mut Report) -> Result<()>);

/// The groups, in the order in which they are measured.
const GROUPS: [Group; 13] = [
    ("bus", bus::measure),
    ("stream", stream::measure),
    ("starts", starts::measure),
    ("recovery-walk", live::recovery_walk),
    ("recovery-cgroup", live::recovery_cgroup),
    ("killed-early", live::killed_early),
    ("history", history::measure),
    ("follow", follow::measure),
    ("agents", live::agents),
    ("shim", live::shim),
    ("idle", idle::measure),
    ("stop", stop::measure),
    ("parsers", parsers::measure),
];

/// Measures Conductor.
#[derive(Debug, Parser)]
struct Arguments {
    /// Also write the numbers here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measure only this group: bus, stream, starts, recovery-walk, recovery-cgroup, killed-early, history, follow, agents, shim, idle, stop,
    /// parsers.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is for itself where it needs an agent.
#[derive(Debug, Subcommand)]
enum Role {
    /// Writes lines, each with the time at which it was written.
    #[command(hide = true)]
    Lines { go: PathBuf, count: u32, pause_ms: u64 },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Role::Lines { go, count, pause_ms }) = arguments.role {
        agent::lines(&go, count, pause_ms)?;
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = |name: &str| arguments.only.as_ref().is_none_or(|only| only == name);
    anyhow::ensure!(GROUPS.iter().any(|(name, _)| wanted(name)), "no such group: {:?}", arguments.only);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let begun = Instant::now();
    let mut report = Report::default();
    let mut failed = false;
    for (name, group) in GROUPS.iter().filter(|(name, _)| wanted(name)) {
        let start = Instant::now();
        if let Err(error) = group(&mut report) {
            eprintln!("{name} could not be measured: {error:#}");
            failed = true;
        }
        eprintln!("{name}: {:.1} s", start.elapsed().as_secs_f64());
    }
    let busy = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{} CPUs; load at the begin {}, at the end {}", cpus(), first(&load), first(&busy));
    report.print();
    println!("{:.0} s in all", begun.elapsed().as_secs_f64());
    if let Some(path) = arguments.json {
        report.write(&path)?;
        println!("written: {}", path.display());
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// The mean of the last minute: what other programs did at the begin, and with the benchmark's own at the end.
fn first(load: &str) -> &str {
    load.split(' ').next().unwrap_or_default()
}
