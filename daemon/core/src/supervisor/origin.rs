//! Which run a process belongs to: how conductord tells an agent's call from a person's.
//!
//! A process belongs to a run if it is in the run's cgroup, if it or a process above it was started with the run's id in
//! its environment, or if a shim is above it. Whoever clears the environment and leaves the tree altogether is not
//! recognised without a cgroup; see `docs/security.md`.

use conductor_shim::{cgroup, process};

use crate::store::Catalog;
use crate::types::{RunId, RunKey, RunStatus};

/// Processes above one that are looked at: deeper nesting is a loop in the table.
const MAX_ABOVE: usize = 64;

/// The live run that `pid` belongs to.
pub(super) fn run_of(catalog: &Catalog, pid: i32) -> Option<RunKey> {
    let mut at = pid;
    for _ in 0..MAX_ABOVE {
        if at <= 1 {
            return None;
        }
        if let Some(run) = named_by(at).and_then(|id| live(catalog, &id)) {
            return Some(run);
        }
        at = process::stat(at).ok()?.ppid;
    }
    None
}

fn named_by(pid: i32) -> Option<RunId> {
    let environment = process::environment(pid).unwrap_or_default();
    let marked = process::environment_value(&environment, process::RUN_ID_VARIABLE)
        .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    marked.or_else(|| by_cgroup(pid)).or_else(|| by_shim(pid))
}

/// A run's cgroup is named after it.
fn by_cgroup(pid: i32) -> Option<RunId> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.split('/').rev().find_map(|part| part.strip_prefix(cgroup::RUN_PREFIX)?.parse().ok())
}

/// A shim's argument is the run's folder.
fn by_shim(pid: i32) -> Option<RunId> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0);
    let program = words.next()?;
    if !program.ends_with(b"conductor-shim") {
        return None;
    }
    words.filter_map(|word| std::str::from_utf8(word).ok()).find_map(|word| word.rsplit('/').next()?.parse().ok())
}

fn live(catalog: &Catalog, id: &RunId) -> Option<RunKey> {
    let run = catalog.find_run(id.as_str(), None).ok()?;
    (run.status == RunStatus::Running).then(|| run.key())
}
