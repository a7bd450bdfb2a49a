//! From the open gate to the leader's end: one loop over signals, the leader, limits and the stop sequence.

use super::child::{Launch, Launched};
use super::group::Group;
use super::leader::Leader;
use super::signals::{self, Signals};
use super::start::Status;
use super::stop::{Action, StopState};
use super::{Failure, Files};
use conductor_shim::durable::{self, Preallocated};
use conductor_shim::failpoint;
use conductor_shim::lock::FileLock;
use conductor_shim::protocol::{Cause, Graces, OnExit, STOP, Spec, Stop};
use conductor_shim::tree::Killed;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How often the length of the logs is compared with their limit.
const LOG_CHECK: Duration = Duration::from_secs(1);
/// How often a rescue shim, which is told of nothing by SIGCHLD, looks at the tree below the agent.
const RESCUE_TICK: Duration = Duration::from_secs(1);
/// Bytes of `who` and of `why` that are kept in the exit record, whose space is bounded.
const MAX_TEXT_BYTES: usize = 2048;

/// The part of the specification that outlives the start.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) wall_time: Option<Duration>,
    pub(super) log_bytes: Option<u64>,
    pub(super) on_exit: OnExit,
    pub(super) exit_grace: Duration,
    pub(super) graces: Graces,
}

impl Limits {
    pub(super) fn of(spec: &Spec) -> Self {
        Self {
            wall_time: spec.wall_time_ms.map(Duration::from_millis),
            log_bytes: spec.log_limit,
            on_exit: spec.on_exit,
            exit_grace: Duration::from_millis(spec.exit_grace_ms),
            graces: spec.graces,
        }
    }
}

/// What only a rescue shim knows.
#[derive(Debug)]
pub(super) struct Rescue {
    /// Whether `elapsed_before` is exact; asleep time makes it a lower bound.
    pub(super) elapsed_known: bool,
}

/// One run, from here to its exit record.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub(super) files: Files,
    pub(super) run_id: String,
    pub(super) limits: Limits,
    pub(super) signals: Signals,
    pub(super) leader: Leader,
    pub(super) group: Group,
    pub(super) logs: [File; 2],
    pub(super) record: Preallocated,
    pub(super) stop: StopState,
    pub(super) last_sequence: u32,
    pub(super) launch: Option<Launch>,
    pub(super) failure: Option<Failure>,
    pub(super) elapsed_before: Duration,
    pub(super) watched_since: Instant,
    pub(super) rescue: Option<Rescue>,
    pub(super) _lock: FileLock,
}

impl Supervisor {
    /// Stays until the run's tree has ended and the record is written. Returns the exit code.
    pub(super) fn run(&mut self, status: &mut Status) -> i32 {
        let killed = self.watch(status);
        self.finish(killed)
    }

    /// Until the leader has ended, or a kill has done all it can; then what that kill met.
    fn watch(&mut self, status: &mut Status) -> Option<Killed> {
        let mut next_log_check = Instant::now() + LOG_CHECK;
        loop {
            self.take_signals();
            self.take_launch(status);
            if self.leader.has_ended() {
                // Exec may have failed between the two looks.
                self.take_launch(status);
                return None;
            }
            let now = Instant::now();
            self.check_wall_time();
            if self.limits.log_bytes.is_some() && now >= next_log_check {
                self.check_logs();
                next_log_check = now + LOG_CHECK;
            }
            if self.rescue.is_some() {
                self.group.remember();
            }
            match self.stop.step(now) {
                Some(Action::Interrupt) => {
                    self.leader.interrupt();
                    let _ = failpoint::hit("shim.stop.after_int");
                }
                Some(Action::Terminate) => {
                    self.group.terminate();
                    let _ = failpoint::hit("shim.stop.after_term");
                }
                Some(Action::Kill) => {
                    let killed = self.kill();
                    let _ = failpoint::hit("shim.stop.after_kill");
                    return Some(killed);
                }
                None => {}
            }
            self.wait(next_log_check);
        }
    }

    /// Until something happens or is due.
    fn wait(&self, next_log_check: Instant) {
        let log_check = self.limits.log_bytes.map(|_| next_log_check);
        let tick = self.rescue.as_ref().map(|_| Instant::now() + RESCUE_TICK);
        let due = [self.stop.deadline(), self.wall_deadline(), log_check, tick].into_iter().flatten().min();
        let launch = self.launch.as_ref().map_or(-1, Launch::descriptor);
        let descriptors = [
            (self.signals.as_raw_fd(), libc::POLLIN),
            (self.leader.descriptor(), libc::POLLIN),
            (launch, libc::POLLIN),
        ];
        signals::wait(&descriptors, due.map(|due| due.saturating_duration_since(Instant::now())));
    }

    /// Kills the whole tree. If the table of processes can't even be read, nothing is known, and nothing is claimed.
    fn kill(&mut self) -> Killed {
        self.group.kill().unwrap_or_else(|error| {
            eprintln!("conductor-shim: reading the process table: {error}");
            Killed::default()
        })
    }

    /// Acts on the signals that came.
    pub(super) fn take_signals(&mut self) {
        let pending = self.signals.drain().unwrap_or_default();
        if pending.children {
            self.group.reap_others();
        }
        if pending.reread {
            self.read_stop();
        }
        for _ in 0..pending.terminate {
            // A second SIGTERM means what a second stop means: no more patience.
            let graces = if self.stop.is_requested() { Graces { int_ms: 0, term_ms: 0 } } else { self.limits.graces };
            let cause = Cause::Stop { who: "SIGTERM".to_owned(), why: "the shim was told to end".to_owned() };
            self.stop.request(graces, cause);
        }
    }

    /// Reads `stop.json` and asks for that stop, if it is newer than the last.
    pub(super) fn read_stop(&mut self) {
        let stop = match durable::read_json_if_exists::<Stop>(&self.files.path(STOP)) {
            Ok(None) => return,
            Ok(Some(stop)) => stop,
            // Somebody wanted a stop; that its details can't be read must not make it vanish.
            Err(error) => Stop {
                version: conductor_shim::protocol::VERSION,
                sequence: self.last_sequence.saturating_add(1),
                who: "unknown".to_owned(),
                why: format!("{STOP} could not be read: {error}"),
                graces: self.limits.graces,
                idle: false,
            },
        };
        if stop.sequence <= self.last_sequence {
            return;
        }
        self.last_sequence = stop.sequence;
        let _ = failpoint::hit("shim.stop.after_read");
        self.stop.request(stop.graces, Cause::Stop { who: bounded(stop.who), why: bounded(stop.why) });
    }

    fn take_launch(&mut self, status: &mut Status) {
        let Some(launch) = &mut self.launch else { return };
        match launch.look() {
            Launched::Pending => return,
            Launched::Executed => status.started(self.leader.pid().unwrap_or_default()),
            Launched::Failed(failure) => {
                status.failed(&failure);
                self.failure = Some(failure);
            }
        }
        self.launch = None;
    }

    /// Time since the gate opened.
    pub(super) fn elapsed(&self) -> Duration {
        self.elapsed_before + self.watched_since.elapsed()
    }

    fn wall_deadline(&self) -> Option<Instant> {
        let limit = self.limits.wall_time.filter(|_| !self.stop.is_requested())?;
        self.watched_since.checked_add(limit.saturating_sub(self.elapsed_before))
    }

    fn check_wall_time(&mut self) {
        if self.wall_deadline().is_some_and(|deadline| Instant::now() >= deadline) {
            self.stop.request(self.limits.graces, Cause::WallTime);
        }
    }

    fn check_logs(&mut self) {
        let limit = self.limits.log_bytes.unwrap_or(u64::MAX);
        let over = self.logs.iter().any(|log| log.metadata().is_ok_and(|metadata| metadata.len() >= limit));
        if over && !self.stop.is_requested() {
            self.stop.request(self.limits.graces, Cause::LogLimit);
        }
    }
}

/// The longest beginning of whole characters within [`MAX_TEXT_BYTES`].
fn bounded(mut text: String) -> String {
    let end = (0..=MAX_TEXT_BYTES.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or_default());
    text
}
