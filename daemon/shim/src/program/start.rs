//! The start protocol: no agent runs that is not recorded on disk.

use super::child::{self, Forked};
use super::exit;
use super::group::Group;
use super::leader::Leader;
use super::signals::Signals;
use super::stop::StopState;
use super::supervise::{Limits, Supervisor};
use super::{EXIT_RECORD_BYTES, EXIT_RECORDED, Failure, Files, LOCK_TIME, clock, detach};
use conductor_shim::cgroup::Cgroup;
use conductor_shim::durable::{self, PRIVATE, Preallocated};
use conductor_shim::failpoint;
use conductor_shim::lock::{self, FileLock};
use conductor_shim::process::{self, Pidfd};
use conductor_shim::protocol::{EXIT, SHIM_LOCK, SPEC, START, Spec, Start, TREE_LOCK, VERSION};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Starts the agent of the run in `folder` and stays until its tree has ended. Returns the exit code.
pub(crate) fn start(folder: &Path) -> i32 {
    let files = Files::of_run(folder);
    let mut status = Status { open: true };
    match begin(files) {
        Ok(mut supervisor) => {
            release_memory();
            supervisor.run(&mut status)
        }
        Err(NotStarted { failure, recorded }) => {
            status.failed(&failure);
            if recorded { EXIT_RECORDED } else { failure.exit_code() }
        }
    }
}

/// The pipe to conductord: one line on standard output, then closed. Only a wake-up; the truth is in the files.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) open: bool,
}

impl Status {
    pub(super) fn started(&mut self, pid: i32) {
        self.say(&format!("started {pid}\n"));
    }

    pub(super) fn failed(&mut self, failure: &Failure) {
        self.say(&format!("failed {} {}\n", failure.step, failure.errno));
    }

    fn say(&mut self, line: &str) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        // Nobody has to listen (EPIPE), and whoever does sees the pipe close.
        let _ = io::stdout().write_all(line.as_bytes());
        let _ = io::stdout().flush();
        if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
            // SAFETY: both descriptors are open.
            unsafe { libc::dup2(null.as_raw_fd(), libc::STDOUT_FILENO) };
        }
    }
}

/// A start that failed before there was anything to supervise.
#[derive(Debug)]
struct NotStarted {
    failure: Failure,
    recorded: bool,
}

impl From<Failure> for NotStarted {
    fn from(failure: Failure) -> Self {
        Self { failure, recorded: false }
    }
}

/// Everything up to the lock: what fails here can't be recorded, since the run may be another shim's.
fn begin(files: Files) -> Result<Supervisor, NotStarted> {
    hit("shim.start.before_setsid")?;
    detach().map_err(Failure::of("setsid"))?;
    let signals = Signals::take_over().map_err(Failure::of("signals"))?;
    let mut spec: Spec = durable::read_json(&files.path(SPEC)).map_err(Failure::of("spec"))?;
    if spec.version > VERSION {
        return Err(Failure::of("spec_version")(io::Error::from_raw_os_error(libc::EPROTONOSUPPORT)).into());
    }
    let lock = take_lock(&files)?;
    if files.path(START).exists() || files.path(EXIT).exists() {
        return Err(Failure::of("started_before")(io::Error::from_raw_os_error(libc::EEXIST)).into());
    }
    read_secrets(&mut spec).map_err(Failure::of("secrets"))?;
    let prepared = prepare(&files, &spec);
    // Closing the gate of a fork whose record failed is part of `prepare`; here only the outcome is left to say.
    let parts = prepared.map_err(|failure| {
        let recorded = exit::record_failed_spawn(&files, &spec, &failure);
        NotStarted { failure, recorded }
    })?;
    Ok(launch(files, spec, signals, lock, parts))
}

/// Bytes of all secrets at most: a pipe's buffer, so that conductord never waits for us.
const MAX_SECRETS: u64 = 64 << 10;

/// Adds the variables that come on standard input instead of by file.
fn read_secrets(spec: &mut Spec) -> io::Result<()> {
    if spec.secret_names.is_empty() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    io::stdin().lock().take(MAX_SECRETS).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EILSEQ))?;
    let given: Vec<(&str, &str)> = text.split_terminator('\0').filter_map(|pair| pair.split_once('=')).collect();
    let complete =
        text.ends_with('\0') && spec.secret_names.iter().all(|name| given.iter().any(|(known, _)| known == name));
    if !complete {
        return Err(io::Error::from_raw_os_error(libc::EPIPE));
    }
    spec.env.extend(given.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    Ok(())
}

pub(super) fn take_lock(files: &Files) -> Result<FileLock, Failure> {
    let lock = lock::exclusive_within(&files.path(SHIM_LOCK), LOCK_TIME).map_err(Failure::of("lock_file"))?;
    let lock = lock.ok_or_else(|| Failure::of("shim_lock")(io::Error::from_raw_os_error(libc::EWOULDBLOCK)))?;
    hit("shim.start.after_lock")?;
    Ok(lock)
}

/// What exists once the agent waits, recorded, at its gate.
struct Parts {
    logs: [File; 2],
    record: Preallocated,
    cgroup: Option<Cgroup>,
    forked: Forked,
    pidfd: Option<Pidfd>,
}

fn prepare(files: &Files, spec: &Spec) -> Result<Parts, Failure> {
    let logs = [
        open_log(&spec.stdout).map_err(Failure::of("stdout"))?,
        open_log(&spec.stderr).map_err(Failure::of("stderr"))?,
    ];
    hit("shim.start.after_logs")?;
    let record = Preallocated::create(&files.path(EXIT), EXIT_RECORD_BYTES).map_err(Failure::of("exit_record"))?;
    let cgroup = spec.cgroup_parent.as_deref().and_then(|parent| make_cgroup(Path::new(parent), &spec.run_id));
    let result = fork_recorded(files, spec, &logs, cgroup.as_ref());
    match result {
        Ok((forked, pidfd, joined)) => {
            // A group that the agent could not be moved into holds nothing: the walk tier has to do.
            let cgroup = cgroup.filter(|group| joined || group.remove().is_err());
            Ok(Parts { logs, record, cgroup: cgroup.filter(|_| joined), forked, pidfd })
        }
        Err(failure) => {
            if let Some(cgroup) = cgroup {
                // Empty; a folder that stays is removed at the next start or by hand.
                let _ = cgroup.remove();
            }
            Err(failure)
        }
    }
}

pub(super) fn open_log(path: &str) -> io::Result<File> {
    // Without O_NONBLOCK a pipe that the agent put in its log's place would hang a rescue.
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(PRIVATE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // The agent shares these flags: it gets an ordinary file.
    // SAFETY: the descriptor is open; the call takes no pointer.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_APPEND) } {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}

fn make_cgroup(parent: &Path, run_id: &str) -> Option<Cgroup> {
    match Cgroup::create(parent, run_id) {
        Ok(group) => Some(group),
        Err(error) => {
            eprintln!("conductor-shim: no cgroup below {}: {error}", parent.display());
            None
        }
    }
}

/// Forks the agent's side and writes `start.json`. On an error the child has ended without exec and is reaped.
fn fork_recorded(
    files: &Files,
    spec: &Spec,
    logs: &[File; 2],
    cgroup: Option<&Cgroup>,
) -> Result<(Forked, Option<Pidfd>, bool), Failure> {
    let tree_lock = lock::exclusive_within(&files.path(TREE_LOCK), LOCK_TIME).map_err(Failure::of("tree_lock"))?;
    let tree_lock =
        tree_lock.ok_or_else(|| Failure::of("tree_lock")(io::Error::from_raw_os_error(libc::EWOULDBLOCK)))?;
    let forked = child::fork(spec, logs, tree_lock)?;
    match record_start(files, &forked, cgroup) {
        Ok((pidfd, joined)) => Ok((forked, pidfd, joined)),
        Err(failure) => {
            let pid = forked.pid;
            drop(forked);
            // SAFETY: no pointers; our own unreaped child, which waits at the closed gate or has ended.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
            Err(failure)
        }
    }
}

fn record_start(files: &Files, forked: &Forked, cgroup: Option<&Cgroup>) -> Result<(Option<Pidfd>, bool), Failure> {
    hit("shim.start.after_fork")?;
    let pid = forked.pid;
    let joined = cgroup.is_some_and(|group| match group.add(pid) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("conductor-shim: moving the agent into {}: {error}", group.path().display());
            false
        }
    });
    hit("shim.start.after_cgroup")?;
    let identities = || -> io::Result<Start> {
        Ok(Start {
            version: VERSION,
            instance: process::instance()?,
            shim: process::identity(std::process::id() as i32)?,
            agent: process::identity(pid)?,
            pgid: pid,
            cgroup: cgroup.filter(|_| joined).map(|group| group.path().to_string_lossy().into_owned()),
            time: clock::now(),
        })
    };
    let start = identities().map_err(Failure::of("identity"))?;
    durable::write_json(&files.path(START), &start).map_err(Failure::of("start_record"))?;
    hit("shim.start.after_start_json")?;
    // Without pidfds (before Linux 5.3) SIGCHLD alone tells of the end.
    Ok((Pidfd::open(pid).ok(), joined))
}

/// Opens the gate, unless a stop came first.
fn launch(files: Files, spec: Spec, signals: Signals, lock: FileLock, parts: Parts) -> Supervisor {
    let Parts { logs, record, cgroup, forked, pidfd } = parts;
    let pid = forked.pid;
    let mut supervisor = Supervisor {
        group: Group::below_shim(cgroup, &spec.run_id, pid),
        leader: Leader::Child { pid, pidfd },
        limits: Limits::of(&spec),
        run_id: spec.run_id,
        files,
        signals,
        logs,
        record,
        stop: StopState::new(),
        last_sequence: 0,
        launch: None,
        failure: None,
        elapsed_before: Duration::ZERO,
        watched_since: Instant::now(),
        rescue: None,
        _lock: lock,
    };
    supervisor.read_stop();
    supervisor.take_signals();
    if supervisor.stop.is_requested() {
        supervisor.stop.keep_from_exec(Instant::now());
        drop(forked);
    } else {
        supervisor.launch = Some(forked.open_gate());
        supervisor.watched_since = Instant::now();
        // Only a test's error can come back, and the gate is open.
        let _ = failpoint::hit("shim.start.after_gate");
    }
    supervisor
}

/// Gives back what the specification, with its whole environment, took. It has to be dropped by now.
pub(super) fn release_memory() {
    // SAFETY: no pointers.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

fn hit(name: &'static str) -> Result<(), Failure> {
    failpoint::hit(name).map_err(Failure::of("failpoint"))
}
