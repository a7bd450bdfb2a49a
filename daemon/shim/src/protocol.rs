//! The files through which conductord and the shim of one run talk, version 1.
//!
//! All live in `<run>/shim/` (mode 0700) and are JSON. Each is written by one side only, by the durable write of
//! [`crate::durable`], and a reader ignores keys that it does not know, so that an old shim understands a new daemon.
//!
//! | file | writer | when | a crash before it leaves |
//! | --- | --- | --- | --- |
//! | `spec.json` | conductord | before the shim is spawned | a run without processes: `spawn_failed` or retried by recovery |
//! | `start.json` | shim | after the fork, before the gate opens | an agent that never execs (it reads EOF and exits 125) |
//! | `stop.json` | conductord | at a stop; rewritten by a more urgent one | a run that goes on |
//! | `reaped.json` | conductord | when it, not the shim, got the agent's wait status | an unknown exit code: `lost` |
//! | `exit.json` | shim or rescue shim | after the tree is empty and the logs are on disk | `lost`, or a rescue shim's work |
//!
//! Locks, held by the kernel and so released by any death: `shim.lock` (the one live shim of the run) and
//! `tree.lock` (inherited by the agent's tree at descriptor [`TREE_LOCK_FD`]; held means that something lives, free
//! means nothing).

use serde::{Deserialize, Serialize};

/// The version that this build writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// The descriptor at which the agent's tree inherits `tree.lock`. High, since node closes its children's low ones.
pub const TREE_LOCK_FD: i32 = 200;

/// Exit code of a shim that found `shim.lock` held for a second: another shim owns this run.
pub const EXIT_LOCKED: i32 = 111;

/// Exit code of a shim that found `start.json` or `exit.json`: this run was started before and isn't started again.
pub const EXIT_STARTED_BEFORE: i32 = 112;

/// Exit code of an agent's side that saw the gate close without a byte: it never ran the agent.
pub const EXIT_GATE_CLOSED: i32 = 125;

/// Folder of the protocol files below the run's folder.
pub const FOLDER: &str = "shim";

/// File names inside [`FOLDER`].
pub const SPEC: &str = "spec.json";
/// See [`Start`].
pub const START: &str = "start.json";
/// See [`Stop`].
pub const STOP: &str = "stop.json";
/// See [`Reaped`].
pub const REAPED: &str = "reaped.json";
/// See [`Exit`].
pub const EXIT: &str = "exit.json";
/// Held by the one live shim of the run.
pub const SHIM_LOCK: &str = "shim.lock";
/// Held by the agent's tree.
pub const TREE_LOCK: &str = "tree.lock";

/// What the shim is to run. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The run's id: the value of `CONDUCTOR_RUN_ID` in the agent's environment, by which its tree is recognised.
    pub run_id: String,
    /// The program and its arguments; the first is an absolute path.
    pub argv: Vec<String>,
    /// The agent's environment, `NAME=value` pairs in order, without its secrets.
    pub env: Vec<(String, String)>,
    /// Names of further variables, whose values are secrets and so never on disk: the shim reads them from its standard
    /// input, each as `NAME=value` with a zero byte behind it. An input without all of them means that conductord died:
    /// nothing is started.
    #[serde(default)]
    pub secret_names: Vec<String>,
    /// The agent's working folder.
    pub cwd: String,
    /// The file that becomes the agent's standard input; `None`: `/dev/null`.
    pub stdin: Option<String>,
    /// File for standard output, opened with `O_APPEND`.
    pub stdout: String,
    /// File for standard error, opened with `O_APPEND`.
    pub stderr: String,
    /// Folder below which the run's cgroup v2 folder is made; `None`: no cgroup, the walk tier is used.
    pub cgroup_parent: Option<String>,
    /// Wall time after which the run is stopped, in milliseconds of `CLOCK_MONOTONIC` (time asleep does not count).
    pub wall_time_ms: Option<u64>,
    /// Bytes of either log at which the run is stopped.
    pub log_limit: Option<u64>,
    /// What happens to the rest of the tree when the leader ends by itself.
    pub on_exit: OnExit,
    /// Time that the rest of the tree has after a natural exit of the leader, before it is swept.
    pub exit_grace_ms: u64,
    /// Graces of a stop that names none (SIGTERM to the shim, wall time, log limit).
    pub graces: Graces,
}

/// What happens to the rest of the tree after a natural exit of the leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExit {
    /// End it.
    #[default]
    Sweep,
    /// Leave it and name it in `exit.json`.
    Report,
    /// Leave it.
    Keep,
}

/// The two pauses of a stop: after SIGINT to the agent's group, and after SIGTERM to the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graces {
    /// Milliseconds between SIGINT and SIGTERM.
    pub int_ms: u64,
    /// Milliseconds between SIGTERM and the kill.
    pub term_ms: u64,
}

impl Default for Graces {
    fn default() -> Self {
        Self { int_ms: 10_000, term_ms: 5_000 }
    }
}

/// Identity of a process that survives the reuse of its pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id in the namespace of the writer.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// One boot of one machine or container: pids of another instance mean nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Inode of `/proc/self/ns/pid`.
    pub pid_namespace: u64,
}

/// Written by the shim once the agent's process exists, before it execs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Where the pids below are valid.
    pub instance: Instance,
    /// The shim.
    pub shim: Identity,
    /// The agent, leader of its session and process group.
    pub agent: Identity,
    /// The agent's process group (equal to its pid).
    pub pgid: i32,
    /// The run's cgroup folder, where there is one.
    pub cgroup: Option<String>,
    /// Time of the start, RFC 3339 UTC with nanoseconds.
    pub time: String,
}

/// Written by conductord: end this run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Grows with every rewrite; the shim acts on a number above the last that it saw. The second stop skips graces.
    pub sequence: u32,
    /// Who asked, for people.
    pub who: String,
    /// Why, for people.
    pub why: String,
    /// Pauses of the stop sequence; both 0 means kill at once.
    pub graces: Graces,
    /// The run is ended because it showed no sign of life; `why` says since when, and the outcome is `timed_out` instead
    /// of `stopped`. Read by conductord alone: a shim carries out every stop alike. Later orders keep what the first
    /// said.
    #[serde(default)]
    pub idle: bool,
}

/// Written by conductord when the agent's exit was seen by it and not by a shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaped {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Raw status as `waitpid` gives it.
    pub wait_status: i32,
    /// How it was obtained.
    pub source: StatusSource,
}

/// How a wait status was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusSource {
    /// By the parent, with `waitid`.
    Parent,
    /// By conductord, to which the agent had been re-parented.
    Subreaper,
    /// From `/proc`, while the agent was the zombie of a parent that had not reaped it.
    Zombie,
    /// By `PIDFD_GET_INFO` on a pidfd opened while the agent lived (Linux 6.15).
    PidfdInfo,
}

/// Why the shim ended the run, as far as it was the shim that did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Cause {
    /// The leader ended by itself.
    Natural,
    /// A stop was asked for.
    Stop {
        /// Who asked.
        who: String,
        /// Why.
        why: String,
    },
    /// The wall time was used up.
    WallTime,
    /// A log reached its limit.
    LogLimit,
    /// The agent could not be executed.
    SpawnFailed {
        /// What failed: `chdir`, `stdin`, `exec`, …
        step: String,
        /// The error number.
        errno: i32,
    },
}

/// A process that was still there after the leader had ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Straggler {
    /// Its pid; 0 in a last entry that stands for all beyond the first 64.
    pub pid: i32,
    /// Its command name (`comm`); `and N more` in that last entry.
    pub name: String,
    /// Whether it is gone now. `false`: it could not be ended (for instance in uninterruptible sleep), or was kept.
    pub ended: bool,
}

/// Which mechanism found and ended the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// A cgroup v2 folder of its own: `cgroup.kill`, `populated 0`.
    Cgroup,
    /// Children of the subreaping shim, recursively, and processes whose environment carries the run's id.
    Walk,
}

/// The end of the run: written once, before the leader is reaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The run's id, so that a misplaced file is noticed.
    pub run_id: String,
    /// Raw wait status; `None`: not known, the outcome is `lost`.
    pub wait_status: Option<i32>,
    /// How the status was obtained; `None` with no status.
    pub source: Option<StatusSource>,
    /// Exit code, if the leader exited.
    pub code: Option<i32>,
    /// Signal number, if it was ended by one.
    pub signal: Option<i32>,
    /// Time of the leader's end, RFC 3339 UTC with nanoseconds.
    pub time: String,
    /// Wall time of the run in milliseconds of `CLOCK_MONOTONIC`; 0 where a rescue shim does not know it.
    pub elapsed_ms: u64,
    /// Why.
    pub cause: Cause,
    /// Number of processes of the run's cgroup that the kernel's OOM killer ended; `None` without a memory controller.
    pub oom_kills: Option<u64>,
    /// User CPU time of the reaped tree in milliseconds.
    pub user_ms: u64,
    /// System CPU time of the reaped tree in milliseconds.
    pub system_ms: u64,
    /// Largest resident set of any reaped process, in KiB.
    pub max_rss_kib: u64,
    /// What was left of the tree when the leader had ended.
    pub stragglers: Vec<Straggler>,
    /// Whether the tree is empty now. `false` only by policy or if something could not be ended.
    pub tree_empty: bool,
    /// Mechanism in force.
    pub tier: Tier,
    /// Length of standard output's file.
    pub stdout_bytes: u64,
    /// Length of standard error's file.
    pub stderr_bytes: u64,
    /// Written by a rescue shim.
    #[serde(default)]
    pub rescued: bool,
}
