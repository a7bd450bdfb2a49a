//! From the leader's end to the exit record: sweep, logs on disk, `exit.json`, and only then the leader is reaped.

use super::leader::{self, Ending};
use super::supervise::Supervisor;
use super::{EXIT_FAILED, EXIT_RECORD_BYTES, EXIT_RECORDED, Failure, Files, clock, signals};
use conductor_shim::durable::{self, Preallocated};
use conductor_shim::failpoint;
use conductor_shim::process::Stat;
use conductor_shim::protocol::{Cause, EXIT, Exit, OnExit, REAPED, Spec, Straggler, Tier, VERSION};
use conductor_shim::tree::Killed;
use std::collections::HashSet;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Stragglers that the record names; one more entry with pid 0 says how many there were beyond these.
const MAX_STRAGGLERS: usize = 64;
/// Looks in a row that must find nothing before a tree counts as empty: one can miss a process forked during it.
const EMPTY_LOOKS: u32 = 2;
/// Longest time between two looks at a tree that has a grace: those that were never our children send no SIGCHLD.
const GRACE_LOOK: Duration = Duration::from_millis(100);
/// How often writing the record is tried. What can fail in spite of the reserved space (EIO, a vanished folder) seldom
/// passes; after this the shim ends without reaping, so that the leader's new parent gets the status.
const RECORD_TRIES: u32 = 10;
/// Pause between two tries.
const RECORD_PAUSE: Duration = Duration::from_millis(500);

/// What was left of the tree after the leader.
#[derive(Debug, Default)]
struct Rest {
    found: Vec<Stat>,
    left: Vec<Stat>,
    is_empty: bool,
}

impl Supervisor {
    /// Ends the run. `killed`: what the kill of a stop met, if it came to that.
    pub(super) fn finish(&mut self, killed: Option<Killed>) -> i32 {
        let time = clock::now();
        let elapsed = self.elapsed();
        let _ = failpoint::hit("shim.exit.after_leader");
        let rest = self.sweep(killed);
        let _ = failpoint::hit("shim.exit.after_sweep");
        for log in &self.logs {
            // The agent's own writes may have failed (full disk); the record says how long the files are.
            let _ = log.sync_all();
        }
        let ended = self.leader.has_ended();
        // After the sweep: a rescue shim may have to wait for the status, and what was reaped meanwhile counts.
        let mut ending = if ended { self.leader.ending(&self.files.path(REAPED)) } else { Ending::default() };
        add_usage(&mut ending);
        let exit = self.exit_record(time, elapsed, &ending, &rest);
        let _ = failpoint::hit("shim.exit.before_exit_json");
        if !self.write(&exit) {
            return EXIT_FAILED;
        }
        let _ = failpoint::hit("shim.exit.after_exit_json");
        if ended {
            self.leader.reap();
        }
        let _ = failpoint::hit("shim.exit.after_reap");
        if rest.is_empty {
            self.group.remove();
        }
        EXIT_RECORDED
    }

    /// Ends what is left of the tree, as the policy says.
    fn sweep(&mut self, killed: Option<Killed>) -> Rest {
        let stopping = self.stop.is_requested();
        if !stopping && self.limits.on_exit != OnExit::Sweep {
            let left = self.group.alive();
            let is_empty = left.as_ref().is_ok_and(Vec::is_empty);
            let left = left.unwrap_or_default();
            return Rest { found: Vec::new(), left, is_empty };
        }
        let mut found = Vec::new();
        // A rescue that finds the agent dead has no exit to give a grace after.
        if !stopping && !self.leader.is_gone() && self.settle(&mut found) {
            return Rest { found, left: Vec::new(), is_empty: true };
        }
        // The kill of a stop has done all that can be done, unless it left nothing: then the leader's end is newer.
        let last = match killed {
            Some(killed) if !killed.left.is_empty() => Ok(killed),
            _ => self.group.kill(),
        };
        match last {
            Ok(last) => {
                found.extend(last.found);
                Rest { found, is_empty: last.left.is_empty(), left: last.left }
            }
            Err(error) => {
                eprintln!("conductor-shim: reading the process table: {error}");
                Rest { found, left: Vec::new(), is_empty: false }
            }
        }
    }

    /// The grace after a natural exit: until two looks find nothing, the time is over, or a stop is asked for. Puts
    /// what was there at its beginning into `found`. Returns whether nothing is left.
    fn settle(&mut self, found: &mut Vec<Stat>) -> bool {
        let deadline = Instant::now() + self.limits.exit_grace;
        let events = self.group.events();
        let mut empty_looks = 0;
        loop {
            self.take_signals();
            self.group.reap_others();
            if let Some(events) = &events {
                // Read before the look, so that any later change ends the wait. What it says the look finds too.
                let _ = events.is_populated();
            }
            match self.group.alive() {
                Ok(alive) if alive.is_empty() && self.group.is_childless() => {
                    empty_looks += 1;
                    if empty_looks == EMPTY_LOOKS {
                        return true;
                    }
                    continue;
                }
                Ok(alive) if found.is_empty() => *found = alive,
                // Unreadable now: what is left is found by the kill.
                _ => {}
            }
            empty_looks = 0;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.is_requested() {
                return false;
            }
            let changes = events.as_ref().map_or(-1, AsRawFd::as_raw_fd);
            let descriptors = [(self.signals.as_raw_fd(), libc::POLLIN), (changes, libc::POLLPRI)];
            signals::wait(&descriptors, Some(left.min(GRACE_LOOK)));
        }
    }

    fn exit_record(&self, time: String, elapsed: Duration, ending: &Ending, rest: &Rest) -> Exit {
        // An agent's side that did not exec has no status worth the name.
        let status = ending.status.filter(|_| self.failure.is_none());
        let raw = status.map(|(raw, _)| raw);
        let cause = match (&self.failure, self.stop.cause()) {
            (Some(Failure { step, errno }), _) => Cause::SpawnFailed { step: (*step).to_owned(), errno: *errno },
            (None, Some(cause)) => cause.clone(),
            (None, None) => Cause::Natural,
        };
        let length = |index: usize| self.logs[index].metadata().map_or(0, |metadata| metadata.len());
        let elapsed_known = self.rescue.as_ref().is_none_or(|rescue| rescue.elapsed_known);
        Exit {
            version: VERSION,
            run_id: self.run_id.clone(),
            wait_status: raw,
            source: status.map(|(_, source)| source),
            code: raw.filter(|&raw| libc::WIFEXITED(raw)).map(|raw| libc::WEXITSTATUS(raw)),
            signal: raw.filter(|&raw| libc::WIFSIGNALED(raw)).map(|raw| libc::WTERMSIG(raw)),
            time,
            elapsed_ms: if elapsed_known { milliseconds(elapsed) } else { 0 },
            cause,
            oom_kills: self.group.cgroup().and_then(conductor_shim::cgroup::Cgroup::oom_kills),
            user_ms: milliseconds(ending.user),
            system_ms: milliseconds(ending.system),
            max_rss_kib: ending.max_rss_kib,
            stragglers: self.stragglers(rest),
            tree_empty: rest.is_empty,
            tier: self.group.tier(),
            stdout_bytes: length(0),
            stderr_bytes: length(1),
            rescued: self.rescue.is_some(),
        }
    }

    /// Each process once, those that are still there first; the leader only if it could not be ended.
    fn stragglers(&self, rest: &Rest) -> Vec<Straggler> {
        if self.limits.on_exit == OnExit::Keep && !self.stop.is_requested() {
            return Vec::new();
        }
        let leader = self.leader.pid();
        let ended = rest.found.iter().filter(|process| Some(process.pid) != leader);
        let mut seen = HashSet::new();
        let mut named: Vec<Straggler> = Vec::new();
        let mut unnamed = 0u32;
        let mut unnamed_left = false;
        for (process, ended) in rest.left.iter().map(|it| (it, false)).chain(ended.map(|it| (it, true))) {
            if !seen.insert((process.pid, process.start_ticks)) {
                continue;
            }
            if named.len() < MAX_STRAGGLERS {
                named.push(Straggler { pid: process.pid, name: process.name.clone(), ended });
            } else {
                unnamed += 1;
                unnamed_left |= !ended;
            }
        }
        if unnamed > 0 {
            named.push(Straggler { pid: 0, name: format!("and {unnamed} more"), ended: !unnamed_left });
        }
        named
    }

    fn write(&self, exit: &Exit) -> bool {
        let result = durable::to_json(exit).and_then(|bytes| repeated(|| self.record.finish(&bytes)));
        if let Err(error) = &result {
            eprintln!("conductor-shim: {EXIT}: {error}");
        }
        result.is_ok()
    }
}

fn repeated(mut action: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut result = action();
    for _ in 1..RECORD_TRIES {
        match &result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => std::thread::sleep(RECORD_PAUSE),
            _ => break,
        }
        result = action();
    }
    result
}

/// Adds what the reaped rest of the tree has used to what the leader has.
fn add_usage(ending: &mut Ending) {
    let reaped = leader::reaped_usage();
    ending.user += reaped.user;
    ending.system += reaped.system;
    ending.max_rss_kib = ending.max_rss_kib.max(reaped.max_rss_kib);
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Records a start that failed before there was a supervisor: no process of the run exists. Returns whether it worked.
pub(super) fn record_failed_spawn(files: &Files, spec: &Spec, failure: &Failure) -> bool {
    let length = |path: &str| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let exit = Exit {
        version: VERSION,
        run_id: spec.run_id.clone(),
        wait_status: None,
        source: None,
        code: None,
        signal: None,
        time: clock::now(),
        elapsed_ms: 0,
        cause: Cause::SpawnFailed { step: failure.step.to_owned(), errno: failure.errno },
        oom_kills: None,
        user_ms: 0,
        system_ms: 0,
        max_rss_kib: 0,
        stragglers: Vec::new(),
        tree_empty: true,
        tier: Tier::Walk,
        stdout_bytes: length(&spec.stdout),
        stderr_bytes: length(&spec.stderr),
        rescued: false,
    };
    let written = durable::to_json(&exit)
        // Takes over the space that was reserved, if it came to that.
        .and_then(|bytes| {
            let path = files.path(EXIT);
            Preallocated::create(&path, EXIT_RECORD_BYTES).or_else(|_| Preallocated::unreserved(&path))?.finish(&bytes)
        });
    if let Err(error) = &written {
        eprintln!("conductor-shim: {EXIT}: {error}");
    }
    written.is_ok()
}
