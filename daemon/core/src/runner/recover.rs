//! What a run without an end on disk has come to, found at a start of conductord. Never waits.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use conductor_shim::cgroup::Cgroup;
use conductor_shim::lock;
use conductor_shim::process::Pidfd;
use conductor_shim::protocol::{Exit, FOLDER, Graces, Identity, SHIM_LOCK, SPEC, START, STOP, Start, TREE_LOCK};
use conductor_shim::tree;

use super::stop::write_order;
use super::watch::{RunFinish, Watched, finish_of};
use super::{Runner, StopOrder, read_exit, read_start};
use crate::types::RunKey;

/// What a run has come to.
#[derive(Debug)]
pub enum Found {
    /// Its end is on disk.
    Exited(Box<Exit>),
    /// Its shim lives: watch it.
    Alive(Watched),
    /// Its shim is dead; something of its tree lives, or may: watch it, a rescue shim will be started.
    ShimDied(Watched),
    /// The agent was never executed, and now can't be.
    NeverStarted,
    /// Machine or container has restarted: nothing of it can live.
    Restarted,
    /// It is over, and how it ended can't be known.
    Gone,
}

impl Runner {
    /// Finds out. Idempotent; sends no signal but that to read `stop.json` again.
    ///
    /// # Errors
    /// A file of the shim can't be read, or `/proc` can't; or the holder of its lock is not to be seen from here. Then
    /// something may live: ask again.
    pub fn recover(&self, key: &RunKey, folder: &Path) -> io::Result<Found> {
        if let Some(exit) = read_exit(folder)? {
            return Ok(found(exit));
        }
        let shim_folder = folder.join(FOLDER);
        // The shim is spawned after its spec is durable.
        if !shim_folder.join(SPEC).exists() {
            return Ok(Found::NeverStarted);
        }
        // A held lock says more than anything that is written: its holder may be in another pid namespace.
        if is_held(&shim_folder.join(SHIM_LOCK))? {
            return self.adopt(key, folder);
        }
        match read_start(folder) {
            Ok(Some(start)) if start.instance != self.0.instance => Ok(Found::Restarted),
            Ok(Some(start)) => self.without_shim(key, folder, &start),
            Ok(None) => self.before_start(key, folder),
            // Who the agent was can't be known; whether something of the run lives can.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let alive = is_held(&shim_folder.join(TREE_LOCK))? || has_members(None, key)?;
                Ok(if alive { self.shim_died(key, folder) } else { Found::Gone })
            }
            Err(error) => Err(error),
        }
    }

    fn shim_died(&self, key: &RunKey, folder: &Path) -> Found {
        Found::ShimDied(Watched::adopted(key.clone(), folder.to_owned(), None))
    }

    /// The lock is held: its holder is the shim in charge.
    fn adopt(&self, key: &RunKey, folder: &Path) -> io::Result<Found> {
        let holder = match read_start(folder).unwrap_or(None) {
            Some(start) => Pidfd::open_verified(&start.shim)?.map(|pidfd| (pidfd, start.shim.pid)),
            None => None,
        };
        let listens = holder.is_some();
        // A shim before its start.json, or a rescue shim: found by its command line.
        let holder = match holder {
            Some(holder) => Some(holder),
            None => find_shim(folder)?,
        };
        match holder {
            Some((pidfd, _)) => {
                let pidfd = Arc::new(pidfd);
                self.0.shims.put(key, Arc::clone(&pidfd));
                // An order that was written, and that nobody may have told it of; it ignores one that it has seen. A shim
                // that has written start.json listens; a rescue shim reads the order when it is ready.
                if listens && folder.join(FOLDER).join(STOP).exists() {
                    pidfd.send_signal(libc::SIGUSR1)?;
                }
                Ok(Found::Alive(Watched::adopted(key.clone(), folder.to_owned(), Some(pidfd))))
            }
            // It has ended between the two looks.
            None => match read_exit(folder)? {
                Some(exit) => Ok(found(exit)),
                None => Err(io::Error::other("shim.lock is held and its holder can't be found")),
            },
        }
    }

    /// No shim, no start.json: whoever was spawned and is late must find the order to stop before it opens the gate.
    fn before_start(&self, key: &RunKey, folder: &Path) -> io::Result<Found> {
        let order = StopOrder {
            who: "conductord".to_owned(),
            why: "conductord restarted before the agent was executed".to_owned(),
            graces: Graces { int_ms: 0, term_ms: 0 },
        };
        write_order(folder, &order)?;
        if is_held(&folder.join(FOLDER).join(SHIM_LOCK))? {
            let found = self.adopt(key, folder)?;
            // It may have looked for the order just before it was written.
            if folder.join(FOLDER).join(START).exists() {
                self.0.shims.signal(key, libc::SIGUSR1)?;
            }
            return Ok(found);
        }
        Ok(Found::NeverStarted)
    }

    /// The shim has started an agent and is dead.
    fn without_shim(&self, key: &RunKey, folder: &Path, start: &Start) -> io::Result<Found> {
        if let Some(exit) = read_exit(folder)? {
            return Ok(found(exit));
        }
        let alive = Pidfd::open_verified(&start.agent)?.is_some()
            || is_held(&folder.join(FOLDER).join(TREE_LOCK))?
            || start.cgroup.as_deref().is_some_and(|path| {
                Cgroup::open(Path::new(path)).is_some_and(|cgroup| cgroup.is_populated().unwrap_or(false))
            })
            || has_members(Some(&start.agent), key)?;
        if !alive {
            return Ok(Found::Gone);
        }
        Ok(self.shim_died(key, folder))
    }
}

/// An end on disk, or the proof that there was no begin.
fn found(exit: Exit) -> Found {
    match finish_of(exit) {
        RunFinish::Exited(exit) => Found::Exited(exit),
        _ => Found::NeverStarted,
    }
}

fn is_held(path: &Path) -> io::Result<bool> {
    match lock::is_held(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other,
    }
}

fn has_members(agent: Option<&Identity>, key: &RunKey) -> io::Result<bool> {
    let scope =
        tree::Scope { above: Vec::new(), within: agent.into_iter().cloned().collect(), run_id: key.run.to_string() };
    Ok(tree::members(&tree::System, scope)?.iter().any(conductor_shim::process::Stat::is_alive))
}

/// The shim whose argument is this folder.
fn find_shim(folder: &Path) -> io::Result<Option<(Pidfd, i32)>> {
    Ok(shims(|argument| argument == folder)?.into_iter().next())
}

/// The shims, rescue shims included, with a folder that is wanted.
fn shims(wanted: impl Fn(&Path) -> bool) -> io::Result<Vec<(Pidfd, i32)>> {
    let is_wanted = |pid: i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            let mut words = line.split(|byte| *byte == 0);
            let program = words.next().unwrap_or_default();
            program.ends_with(b"conductor-shim") && words.any(|word| wanted(Path::new(OsStr::from_bytes(word))))
        })
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if is_wanted(pid)
            && let Ok(pidfd) = Pidfd::open(pid)
            // Looked at again behind the pidfd: the pid may have changed hands in between.
            && is_wanted(pid)
        {
            found.push((pidfd, pid));
        }
    }
    Ok(found)
}

impl Runner {
    /// Tells the shims of runs below `root` whose folders are gone to end them. Returns how many there were.
    ///
    /// # Errors
    /// `/proc` can't be read.
    pub fn end_strays(&self, root: &Path) -> io::Result<usize> {
        let strays = shims(|folder| folder.starts_with(root) && !folder.exists())?;
        for (pidfd, _) in &strays {
            pidfd.send_signal(libc::SIGTERM)?;
        }
        Ok(strays.len())
    }
}

impl Runner {
    /// What cut a run whose record says `lost`, as far as its files show.
    #[must_use]
    pub fn cut_by(&self, folder: &Path) -> Option<Cut> {
        if let Ok(Some(exit)) = read_exit(folder) {
            return matches!(finish_of(exit), RunFinish::NeverStarted).then_some(Cut::NeverStarted);
        }
        match read_start(folder) {
            Ok(Some(start)) => (start.instance != self.0.instance).then_some(Cut::Restart),
            Ok(None) => Some(Cut::NeverStarted),
            Err(_) => None,
        }
    }
}

/// See [`Runner::cut_by`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The agent was never executed.
    NeverStarted,
    /// Machine or container has restarted since.
    Restart,
}
