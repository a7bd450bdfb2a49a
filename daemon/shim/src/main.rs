//! `conductor-shim <run folder>`: starts the agent of one run, keeps its exit code, ends its tree.
//! `conductor-shim --rescue <run folder>`: does what is left of that for a run whose shim has died.
//! `conductor-shim --exec …`: no shim at all, but the way into a wrapper around an agent, and out of it; see `exec`.
//!
//! It reads and writes the files of [`conductor_shim::protocol`] and knows nothing else of Conductor. It never
//! touches the agent's output, restarts nothing, and decides nothing: limits, graces and policy are in `spec.json`.
//!
//! ```text
//!   setsid, subreaper, signals, spec.json
//!        │ shim.lock (1 s, else exit 111)          start.json or exit.json is there: exit 112
//!   Locked
//!        │ logs, space for exit.json, cgroup, tree.lock, fork behind the gate, move, start.json
//!   Recorded ──── stop.json is there: the gate stays shut ───────────────┐
//!        │ gate opened                                                   │
//!   Launching ──── exec failed (step, errno by pipe) ────────────────────┤
//!        │ exec worked: "started PID" on standard output                 │
//!   Running ──── leader ended by itself ─────────────────────────────────┤
//!        │ stop.json + SIGUSR1, SIGTERM, wall time, log limit            │
//!   Interrupted ──── leader ended ───────────────────────────────────────┤
//!        │ grace over, or a newer stop with a shorter one                │
//!   Terminated ──── leader ended ────────────────────────────────────────┤
//!        │ grace over                                                    │
//!   Killed ──── leader ended, or nothing helped for 10 s ────────────────┤
//!                                                                        ▼
//!   Sweeping: the rest of the tree (a grace only after a natural exit)
//!        │ tree empty, or what is left is named
//!   Written: logs fsynced, exit.json durable ─► leader reaped ─► cgroup removed ─► exit 0
//! ```
//!
//! What a kill -9 of the shim leaves behind, by the last state that it reached:
//!
//! | state | left behind | who goes on |
//! | --- | --- | --- |
//! | before Locked, Locked | no process; at most an agent's side that reads end-of-file from the gate and exits 125 | conductord: starts anew, or `lost` once start.json exists |
//! | Recorded | the same, with a start.json | a rescue shim finds the agent dead and says so |
//! | Launching to Terminated | the agent, running; tree.lock held | conductord gets its status, a rescue shim watches and sweeps |
//! | Killed, Sweeping | part of the tree; the leader's status goes to conductord, its new parent | a rescue shim sweeps |
//! | Written | exit.json; the leader's zombie goes to the new parent; an empty cgroup folder | nobody needs to |

#[cfg(target_os = "linux")]
mod program;

/// Exit code for wrong usage, or a system that this program does not support.
const EXIT_USAGE: i32 = 2;

#[cfg(target_os = "linux")]
fn main() {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let code = match arguments.as_slice() {
        [flag, folder] if flag == "--rescue" => program::rescue(folder.as_ref()),
        [flag, how, argv @ ..] if flag == "--exec" && !argv.is_empty() => program::exec(how, argv),
        [folder] if !folder.as_encoded_bytes().starts_with(b"-") => program::start(folder.as_ref()),
        _ => {
            eprintln!("usage: conductor-shim [--rescue] RUN_FOLDER | --exec ignore|default PROGRAM ARGUMENT...");
            EXIT_USAGE
        }
    };
    std::process::exit(code);
}

/// macOS needs kqueue in place of signalfd and pidfds, and has no subreaper: not written yet.
#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("conductor-shim: this system is not supported yet");
    std::process::exit(EXIT_USAGE);
}
