//! Runs from submit to end, beside a bare program that does as many spawns and as many durable writes.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conductor_proto::v1;
use conductor_tests::{Client, Sandbox};

use crate::count::{Counts, Tracer};
use crate::report::{Limit, Report};
use crate::setup::{begin, config, job, on_threads};

/// Runs at once, as the design's table says.
const AT_ONCE: usize = 16;
/// Runs of one turn, and turns of each side, which alternate.
const TURN: usize = 96;
const TURNS: usize = 6;
/// Runs that are counted under strace.
const COUNTED: usize = 32;

/// What one run costs; the values that strace counted where there is no strace.
struct Cost {
    /// fsync and fdatasync together.
    syncs: usize,
    renames: usize,
    folders: usize,
    from: String,
}

/// Of the durable writes of a run, those that replace an earlier file: `task.yaml` at the start, at the end and once its
/// entries are posted, `run-info.yaml` at the end. Replacing costs more than making, since an inode is freed.
const REPLACING: usize = 4;
/// Bytes of one durable write: about the mean of a run's files.
const BYTES: usize = 2000;

const KNOWN: Cost = Cost { syncs: 31, renames: 10, folders: 5, from: String::new() };

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let config = config(&sandbox).set("defaults.max_concurrent_runs", &AT_ONCE.to_string());
    let (daemon, _client) = begin(&sandbox, &config)?;
    let socket = sandbox.socket();
    let clients = on_threads(AT_ONCE, |_| Client::lazy(&socket, None))?;
    turn(2 * AT_ONCE, |thread, _| one_run(&clients[thread]))?;
    let cost = cost(&sandbox, daemon.pid(), &clients)?;
    let folder = sandbox.path().join("peer");
    std::fs::create_dir(&folder)?;
    let (mut ours, mut bare) = (Duration::ZERO, Duration::ZERO);
    for number in 0..TURNS {
        ours += turn(TURN, |thread, _| one_run(&clients[thread]))?;
        bare += turn(TURN, |thread, n| one_bare(&folder.join(format!("{number}-{thread}-{n}")), &cost))?;
    }
    let rate = |time: Duration| (TURNS * TURN) as f64 / time.as_secs_f64();
    report.row(
        format!("run start to exit, /bin/true, {AT_ONCE} at once: share of the bare peer"),
        rate(ours) / rate(bare) * 100.0,
        "%",
        Limit::AtLeast(60.0),
        format!(
            "{:.1} runs/s beside {:.1}/s, {TURNS} turns of {TURN} each, alternating; {}; the peer: {} durable writes of 2 \
             syncs ({REPLACING} of them replace a file), {} appends of 1 sync, {} folders, shell and /bin/true",
            rate(ours),
            rate(bare),
            cost.from,
            cost.renames,
            cost.syncs.saturating_sub(2 * cost.renames),
            cost.folders
        ),
    );
    Ok(())
}

/// Does `count` jobs on [`AT_ONCE`] threads.
fn turn(count: usize, job: impl Fn(usize, usize) -> Result<()> + Sync) -> Result<Duration> {
    let begun = Instant::now();
    on_threads(AT_ONCE, |thread| (0..count / AT_ONCE).try_for_each(|n| job(thread, n)))?;
    Ok(begun.elapsed())
}

fn one_run(client: &Client) -> Result<()> {
    let task = client.submit(job("true"))?;
    let request = v1::WaitTaskRequest { project_id: task.project_id, task_id: task.task_id };
    let task = client.wait(client.tasks().wait_task(request))?.task.context("a task in the answer")?;
    ensure!(task.phase() == v1::TaskPhase::Finished, "the task is {:?}", task.phase());
    Ok(())
}

fn cost(sandbox: &Sandbox, daemon: i32, clients: &[Client]) -> Result<Cost> {
    let Some(tracer) = Tracer::attach(daemon, &sandbox.path().join("trace"))? else {
        return Ok(Cost { from: "no strace here: counts of an earlier run".to_owned(), ..KNOWN });
    };
    turn(COUNTED, |thread, _| one_run(&clients[thread]))?;
    let counts: Counts = tracer.finish()?;
    if std::env::var_os("CONDUCTOR_KEEP_TRACE").is_some() {
        std::fs::copy(sandbox.path().join("trace"), std::env::temp_dir().join("conductor-bench.trace"))?;
    }
    let per_run = |names: &[&str]| counts.of(names) as f64 / COUNTED as f64;
    let syncs = per_run(&["fsync", "fdatasync"]);
    let renames = per_run(&["rename", "renameat", "renameat2"]);
    let from = format!(
        "strace of {COUNTED} runs, each: fsync {:.2}, fdatasync {:.2}, rename {renames:.2}, mkdir {:.2}, execve {:.2}, \
         new processes and threads {:.2}",
        per_run(&["fsync"]),
        per_run(&["fdatasync"]),
        per_run(&["mkdir", "mkdirat"]),
        per_run(&["execve"]),
        per_run(&["clone", "clone3", "fork", "vfork"]),
    );
    let folders = per_run(&["mkdir", "mkdirat"]);
    let whole = |count: f64| count.round() as usize;
    Ok(Cost { syncs: whole(syncs), renames: whole(renames), folders: whole(folders), from })
}

/// As many durable writes and spawns as a run, and nothing else.
fn one_bare(folder: &Path, cost: &Cost) -> Result<()> {
    std::fs::create_dir(folder)?;
    for number in 1..cost.folders {
        std::fs::create_dir(folder.join(format!("folder-{number}")))?;
    }
    let made = cost.renames.saturating_sub(REPLACING);
    for write in 0..cost.renames {
        // The last ones replace the first.
        durable(folder, &format!("file-{}", write % made.max(1)))?;
    }
    let mut log = File::create(folder.join("log"))?;
    for _ in 2 * cost.renames..cost.syncs {
        log.write_all(&[b'x'; 300])?;
        log.sync_data()?;
    }
    // Shim and agent: two programs, one the parent of the other.
    let status = Command::new("/bin/sh").args(["-c", "/bin/true; exit 0"]).stdin(Stdio::null()).status()?;
    ensure!(status.success(), "the peer's agent: {status}");
    Ok(())
}

/// Temporary file, fsync, rename, fsync of the folder.
fn durable(folder: &Path, name: &str) -> Result<()> {
    let temporary = folder.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(&[b'x'; BYTES])?;
    file.sync_all()?;
    std::fs::rename(&temporary, folder.join(name))?;
    File::open(folder)?.sync_all()?;
    Ok(())
}
