//! The daemon with nothing to do.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use conductor_tests::Sandbox;

use crate::report::{Limit, Report};
use crate::setup::{begin, config, job, proc_kib};

/// What a start leaves behind settles first.
const SETTLE: Duration = Duration::from_secs(12);
/// How long it is watched.
const WATCHED: Duration = Duration::from_secs(20);

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let (daemon, client) = begin(&sandbox, &config(&sandbox))?;
    let task = client.submit(job("true"))?;
    client.wait_task(&task.task_id)?;
    drop(client);
    std::thread::sleep(SETTLE);
    let before = switches(daemon.pid())?;
    std::thread::sleep(WATCHED);
    let after = switches(daemon.pid())?;
    report.row(
        "daemon idle, voluntary context switches",
        (after.0 - before.0) as f64 / WATCHED.as_secs_f64(),
        "1/s",
        Limit::AtMost(1.0),
        format!("all {} threads over {} s, no watchdog, no client, one finished run", after.1, WATCHED.as_secs()),
    );
    let mib = |field| proc_kib(daemon.pid(), "status", field).map(|kib| kib / 1024.0);
    report.row(
        "daemon idle, RSS",
        mib("VmRSS")?,
        "MiB",
        Limit::AtMost(15.0),
        format!("anonymous {:.2}, files {:.2}, peak {:.2} MiB", mib("RssAnon")?, mib("RssFile")?, mib("VmHWM")?),
    );
    Ok(())
}

/// Voluntary context switches of all threads so far, and how many threads there are.
fn switches(pid: i32) -> Result<(u64, usize)> {
    let mut sum = (0, 0);
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let text = fs::read_to_string(thread.path().join("status"))?;
        let value = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum.0 += value.context("the kernel counts switches")?.trim().parse::<u64>()?;
        sum.1 += 1;
    }
    Ok(sum)
}
