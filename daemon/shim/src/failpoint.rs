//! Named places where a test can make the program die, fail or wait.
//!
//! Compiled in only with the cargo feature `failpoints`; otherwise [`hit`] is an empty inline function. The set of
//! active points comes from `CONDUCTOR_FAILPOINTS`, a `;`-separated list of `name=action`:
//!
//! | action | effect |
//! | --- | --- |
//! | `kill` | the process ends itself with SIGKILL, as a power cut would |
//! | `kill:N` | the same at the N-th time (from 1) that the point is reached |
//! | `err:ENOSPC` | [`hit`] returns that error (`ENOSPC`, `EIO`, `EMFILE`, `EAGAIN`) every time |
//! | `sleep:MS` | the thread sleeps that many milliseconds |
//!
//! The entry `log=PATH` names a file to which a point's name is written, one a line, right before it kills: how a test
//! knows that the point was met. A name that ends in `*` matches every point with that prefix. Every point name is listed in [`NAMES`], so that a
//! test can try them all; [`hit`] with a name that is not listed panics in test builds.

use std::io;

/// Every failpoint of the workspace, in the order in which a run meets them. A test kills at each of them in turn.
pub const NAMES: &[&str] = &[
    // conductord, start of a run
    "daemon.start.before_spec",
    "daemon.start.after_spec",
    "daemon.start.after_run_info",
    "daemon.start.before_spawn",
    "daemon.start.after_spawn",
    // shim, start
    "shim.start.before_setsid",
    "shim.start.after_lock",
    "shim.start.after_logs",
    "shim.start.after_fork",
    "shim.start.after_cgroup",
    "shim.start.after_start_json",
    "shim.start.after_gate",
    // shim, exit
    "shim.exit.after_leader",
    "shim.exit.after_sweep",
    "shim.exit.before_exit_json",
    "shim.exit.after_exit_json",
    "shim.exit.after_reap",
    // conductord, stop
    "daemon.stop.before_stop_json",
    "daemon.stop.after_stop_json",
    "daemon.stop.after_signal",
    // conductord, the end of an idle run
    "daemon.idle.before_stop_json",
    "daemon.idle.after_stop_json",
    "daemon.idle.after_signal",
    // shim, stop
    "shim.stop.after_read",
    "shim.stop.after_int",
    "shim.stop.after_term",
    "shim.stop.after_kill",
    // conductord, exit
    "daemon.exit.before_consume",
    "daemon.exit.after_run_info",
    // the durable-write module, both programs
    "durable.before_write",
    "durable.after_write",
    "durable.after_fsync",
    "durable.after_rename",
    "durable.after_dir_fsync",
    // the bus
    "bus.before_append",
    "bus.after_append",
    "bus.after_sync",
    "bus.before_rotate",
    "bus.after_rotate",
    // the task file
    "daemon.task.before_persist",
    "daemon.task.after_persist",
    "daemon.post.after_intent",
    "daemon.post.after_append",
];

/// Reaches the failpoint `name`.
///
/// # Errors
/// The error that an `err:` action names; never one without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &'static str) -> io::Result<()> {
    Ok(())
}

/// Reaches the failpoint `name`.
///
/// # Errors
/// The error that an `err:` action names.
#[cfg(feature = "failpoints")]
pub fn hit(name: &'static str) -> io::Result<()> {
    active::hit(name)
}

#[cfg(feature = "failpoints")]
mod active {
    use std::collections::HashMap;
    use std::io::{self, Write as _};
    use std::sync::{Mutex, OnceLock};
    use std::time::Duration;

    /// The entry that is no point.
    const LOG: &str = "log=";

    #[derive(Clone, Copy)]
    enum Action {
        Kill { at: u32 },
        Fail(i32),
        Sleep(Duration),
    }

    struct Table {
        points: Vec<(String, Action)>,
        log: Option<String>,
        counts: Mutex<HashMap<&'static str, u32>>,
    }

    fn table() -> &'static Table {
        static TABLE: OnceLock<Table> = OnceLock::new();
        TABLE.get_or_init(|| {
            let text = std::env::var("CONDUCTOR_FAILPOINTS").unwrap_or_default();
            let parts = || text.split(';').filter(|part| !part.is_empty());
            Table {
                points: parts().filter(|part| !part.starts_with(LOG)).map(parse).collect(),
                log: parts().find_map(|part| part.strip_prefix(LOG)).map(str::to_owned),
                counts: Mutex::default(),
            }
        })
    }

    fn parse(part: &str) -> (String, Action) {
        let (name, action) = part.split_once('=').expect("a failpoint is name=action");
        let (verb, value) = action.split_once(':').unwrap_or((action, ""));
        let action = match verb {
            "kill" => Action::Kill { at: value.parse().unwrap_or(1) },
            "sleep" => Action::Sleep(Duration::from_millis(value.parse().expect("milliseconds"))),
            "err" => Action::Fail(match value {
                "ENOSPC" => libc::ENOSPC,
                "EIO" => libc::EIO,
                "EMFILE" => libc::EMFILE,
                "EAGAIN" => libc::EAGAIN,
                other => panic!("unknown errno {other} in CONDUCTOR_FAILPOINTS"),
            }),
            other => panic!("unknown failpoint action {other}"),
        };
        (name.to_owned(), action)
    }

    /// Writes down that a point is met; without effect where that fails, which a test notices.
    fn note(path: &str, name: &str) {
        if let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path) {
            let _ = writeln!(file, "{name}");
        }
    }

    pub(super) fn hit(name: &'static str) -> io::Result<()> {
        assert!(super::NAMES.contains(&name), "failpoint {name} is not listed in NAMES");
        let table = table();
        if table.points.is_empty() {
            return Ok(());
        }
        let matched = table.points.iter().find(|(pattern, _)| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => pattern == name,
        });
        let Some((_, action)) = matched else { return Ok(()) };
        match *action {
            Action::Sleep(time) => std::thread::sleep(time),
            Action::Fail(errno) => return Err(io::Error::from_raw_os_error(errno)),
            Action::Kill { at } => {
                let mut counts = table.counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let count = counts.entry(name).or_insert(0);
                *count += 1;
                if *count == at {
                    if let Some(path) = &table.log {
                        note(path, name);
                    }
                    // SAFETY: kill and getpid take no pointers.
                    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
                }
            }
        }
        Ok(())
    }
}
