//! What a run without an end on disk has come to, found at a start of conductord. Never waits.

use std::io;
use std::path::Path;
use std::sync::Arc;

use conductor_shim::cgroup::Cgroup;
use conductor_shim::lock;
use conductor_shim::process::Pidfd;
use conductor_shim::protocol::{Exit, FOLDER, Graces, Identity, SHIM_LOCK, SPEC, Start, TREE_LOCK};
use conductor_shim::tree;

use super::stop::write_order;
use super::watch::Watched;
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
    /// Finds out. Idempotent; sends no signal.
    ///
    /// # Errors
    /// A file of the shim can't be read, or `/proc` can't.
    pub fn recover(&self, key: &RunKey, folder: &Path) -> io::Result<Found> {
        if let Some(exit) = read_exit(folder)? {
            return Ok(Found::Exited(Box::new(exit)));
        }
        let shim_folder = folder.join(FOLDER);
        // The shim is spawned after its spec is durable.
        if !shim_folder.join(SPEC).exists() {
            return Ok(Found::NeverStarted);
        }
        let start = read_start(folder)?;
        if start.as_ref().is_some_and(|start| start.instance != self.0.instance) {
            return Ok(Found::Restarted);
        }
        if is_held(&shim_folder.join(SHIM_LOCK))? {
            return self.adopt(key, folder, start);
        }
        match read_start(folder)? {
            Some(start) => self.without_shim(key, folder, &start),
            None => self.before_start(key, folder),
        }
    }

    /// The lock is held: its holder is the shim in charge. `start` is `start.json` as it was read before; it is written
    /// once, so that only an absent one may have come meanwhile.
    fn adopt(&self, key: &RunKey, folder: &Path, start: Option<Start>) -> io::Result<Found> {
        let start = match start {
            Some(start) => Some(start),
            None => read_start(folder)?,
        };
        let holder = match start {
            Some(start) => Pidfd::open_verified(&start.shim)?.map(|pidfd| (pidfd, start.shim.pid)),
            None => None,
        };
        // A shim before its start.json, or a rescue shim: found by its command line.
        let holder = match holder {
            Some(holder) => Some(holder),
            None => find_shim(folder)?,
        };
        match holder {
            Some((pidfd, _)) => {
                let pidfd = Arc::new(pidfd);
                self.0.shims.put(key, Arc::clone(&pidfd));
                Ok(Found::Alive(Watched::adopted(key.clone(), folder.to_owned(), Some(pidfd))))
            }
            // It has ended between the two looks.
            None => match read_exit(folder)? {
                Some(exit) => Ok(Found::Exited(Box::new(exit))),
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
            let found = self.adopt(key, folder, None)?;
            // It may have looked for the order just before it was written.
            if read_start(folder)?.is_some() {
                self.0.shims.signal(key, libc::SIGUSR1)?;
            }
            return Ok(found);
        }
        Ok(Found::NeverStarted)
    }

    /// The shim has started an agent and is dead.
    fn without_shim(&self, key: &RunKey, folder: &Path, start: &Start) -> io::Result<Found> {
        if let Some(exit) = read_exit(folder)? {
            return Ok(Found::Exited(Box::new(exit)));
        }
        let alive = Pidfd::open_verified(&start.agent)?.is_some()
            || is_held(&folder.join(FOLDER).join(TREE_LOCK))?
            || start.cgroup.as_deref().is_some_and(|path| {
                Cgroup::open(Path::new(path)).is_some_and(|cgroup| cgroup.is_populated().unwrap_or(false))
            })
            || has_members(&start.agent, key)?;
        if !alive {
            return Ok(Found::Gone);
        }
        Ok(Found::ShimDied(Watched::adopted(key.clone(), folder.to_owned(), None)))
    }
}

fn is_held(path: &Path) -> io::Result<bool> {
    match lock::is_held(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other,
    }
}

fn has_members(agent: &Identity, key: &RunKey) -> io::Result<bool> {
    let scope = tree::Scope { above: Vec::new(), within: vec![agent.clone()], run_id: key.run.to_string() };
    Ok(tree::members(&tree::System, scope)?.iter().any(conductor_shim::process::Stat::is_alive))
}

/// The shim whose argument is this folder.
fn find_shim(folder: &Path) -> io::Result<Option<(Pidfd, i32)>> {
    use std::os::unix::ffi::OsStrExt;
    let wanted = folder.as_os_str().as_bytes();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let is_it = |pid: i32| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                let mut words = line.split(|byte| *byte == 0);
                let program = words.next().unwrap_or_default();
                program.ends_with(b"conductor-shim") && words.any(|word| word == wanted)
            })
        };
        if is_it(pid)
            && let Ok(pidfd) = Pidfd::open(pid)
            // Looked at again behind the pidfd: the pid may have changed hands in between.
            && is_it(pid)
        {
            return Ok(Some((pidfd, pid)));
        }
    }
    Ok(None)
}
