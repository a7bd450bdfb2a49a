//! The rescue of a run whose shim has died: watch the agent if it lives, end the tree if it doesn't, write the record.
//!
//! The agent is not our child here. It is known by pid and start time, watched through a pidfd, and its status comes
//! from conductord (`reaped.json`) or from the kernel (`PIDFD_GET_INFO`), or stays unknown.

use super::group::Group;
use super::leader::Leader;
use super::signals::Signals;
use super::start::{Status, open_log, release_memory, take_lock};
use super::stop::StopState;
use super::supervise::{Limits, Rescue, Supervisor};
use super::{EXIT_RECORD_BYTES, EXIT_RECORDED, Failure, Files, clock, detach};
use conductor_shim::cgroup::Cgroup;
use conductor_shim::durable::{self, Preallocated};
use conductor_shim::process::{self, Identity, Pidfd};
use conductor_shim::protocol::{EXIT, SPEC, START, Spec, Start, VERSION};
use conductor_shim::tree::Scope;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Largest time asleep since boot that is taken for none: the two clocks are read one after the other.
const AWAKE: Duration = Duration::from_millis(50);

/// Takes over the run in `folder` and stays until its tree has ended. Returns the exit code.
pub(crate) fn rescue(folder: &Path) -> i32 {
    let mut status = Status { open: true };
    match begin(Files::of_run(folder)) {
        Ok(Some(mut supervisor)) => {
            release_memory();
            status.started(supervisor.leader.pid().unwrap_or_default());
            supervisor.run(&mut status)
        }
        // The record is there: nothing is left to do.
        Ok(None) => EXIT_RECORDED,
        Err(failure) => {
            status.failed(&failure);
            failure.exit_code()
        }
    }
}

fn begin(files: Files) -> Result<Option<Supervisor>, Failure> {
    detach().map_err(Failure::of("setsid"))?;
    let signals = Signals::take_over().map_err(Failure::of("signals"))?;
    let spec: Spec = durable::read_json(&files.path(SPEC)).map_err(Failure::of("spec"))?;
    let lock = take_lock(&files)?;
    if files.path(EXIT).exists() {
        remove_empty_cgroup(&spec);
        return Ok(None);
    }
    let start: Option<Start> = durable::read_json_if_exists(&files.path(START)).map_err(Failure::of("start_record"))?;
    if spec.version > VERSION || start.as_ref().is_some_and(|start| start.version > VERSION) {
        return Err(Failure::of("spec_version")(io::Error::from_raw_os_error(libc::EPROTONOSUPPORT)));
    }
    // The shim's own files: there unless it died before it opened them.
    let logs = [
        open_log(&spec.stdout).map_err(Failure::of("stdout"))?,
        open_log(&spec.stderr).map_err(Failure::of("stderr"))?,
    ];
    // A disk that is full now may have room at the end, and what the dead shim had reserved is taken over.
    let record = Preallocated::create(&files.path(EXIT), EXIT_RECORD_BYTES)
        .or_else(|_| Preallocated::unreserved(&files.path(EXIT)))
        .map_err(Failure::of("exit_record"))?;
    let found = find(start, &spec).map_err(Failure::of("instance"))?;
    let mut supervisor = Supervisor {
        files,
        limits: Limits::of(&spec),
        run_id: spec.run_id,
        signals,
        leader: found.leader,
        group: found.group,
        logs,
        record,
        stop: StopState::new(),
        last_sequence: 0,
        launch: None,
        failure: None,
        elapsed_before: found.elapsed,
        watched_since: Instant::now(),
        rescue: Some(Rescue { elapsed_known: found.elapsed_known }),
        _lock: lock,
    };
    // A stop that the dead shim had begun begins anew: how far it came is not known.
    supervisor.read_stop();
    Ok(Some(supervisor))
}

/// What the dead shim had still to do after its record.
fn remove_empty_cgroup(spec: &Spec) {
    // Processes that a policy has kept stay in it; a folder that stays costs nothing.
    if let Some(group) = cgroup_of(spec)
        && group.is_populated().is_ok_and(|populated| !populated)
    {
        let _ = group.remove();
    }
}

/// The run's cgroup, by the same rule by which the dead shim made it: it may have died before it recorded it.
fn cgroup_of(spec: &Spec) -> Option<Cgroup> {
    Cgroup::of_run(Path::new(spec.cgroup_parent.as_deref()?), &spec.run_id)
}

/// What is left of the run.
struct Found {
    leader: Leader,
    group: Group,
    elapsed: Duration,
    elapsed_known: bool,
}

fn find(start: Option<Start>, spec: &Spec) -> io::Result<Found> {
    let nothing = |run_id: &str| Found {
        leader: Leader::Gone { may_be_told: false },
        group: Group::without_shim(cgroup_of(spec), Scope { run_id: run_id.to_owned(), ..Scope::default() }),
        elapsed: Duration::ZERO,
        elapsed_known: false,
    };
    let Some(start) = start else { return Ok(nothing(&spec.run_id)) };
    if process::instance()? != start.instance {
        // Another boot or container: its pids mean nothing here, and nothing of it can be alive.
        return Ok(nothing(&spec.run_id));
    }
    let cgroup = start.cgroup.as_deref().and_then(|path| Cgroup::open(Path::new(path))).or_else(|| cgroup_of(spec));
    let scope = Scope { above: Vec::new(), within: vec![start.agent.clone()], run_id: spec.run_id.clone() };
    let leader = match Pidfd::open_verified(&start.agent)? {
        Some(pidfd) => Leader::Orphan { identity: start.agent.clone(), pidfd },
        None => Leader::Gone { may_be_told: true },
    };
    let (elapsed, elapsed_known) = elapsed_since(&start.agent);
    // A leader that ended before now ran for a time that nobody measured.
    let elapsed_known = elapsed_known && !leader.has_ended();
    Ok(Found { leader, group: Group::without_shim(cgroup, scope), elapsed, elapsed_known })
}

/// Time since the agent's start, without time asleep, and whether that is exact. The kernel counts a start time with
/// sleep; when it slept is not known, so all of it is taken off: no run is ended too early.
fn elapsed_since(agent: &Identity) -> (Duration, bool) {
    let (with_sleep, awake) = clock::since_boot();
    let known = with_sleep.saturating_sub(awake) < AWAKE;
    (awake.saturating_sub(clock::ticks(agent.start_ticks)), known)
}
