//! Runs as processes: started through a shim, watched to their end, stopped, and found again after a crash.
//!
//! ```text
//!  launch ──► spec.json, run-info.yaml durable ──► shim spawned ──► start.json ──► Started
//!                                                      │                │
//!                                                      │ shim ends      │ shim ends
//!                                                      ▼                ▼
//!                                           exit.json? ──yes──────► Ended(exit)
//!                                                      │no
//!                                   no start.json ─────┼──► NeverStarted (the gate never opened)
//!                                                      ▼
//!                           agent's status by waitpid or pidfd ──► reaped.json ──► rescue shim ──► exit.json
//! ```
//!
//! What each death leaves behind is the table of DESIGN §5. Two rules make recovery safe:
//!
//! - A shim is spawned only after `run-info.yaml` is durable, so a run folder without it never had a process.
//! - A run that recovery declares *never started* first gets a durable `stop.json`. A shim that was spawned and is late
//!   reads it before it opens the gate, so no agent can start behind recovery's back.
//!
//! conductord reaps exactly the pids that it knows: shims that it spawned, agents that were re-parented to it, and
//! orphans of dead shims' trees ([`children`]). Nothing here decides what an end means for a loop.

mod children;
mod cpu;
mod launch;
mod recover;
mod shims;
mod stop;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conductor_shim::cgroup;
use conductor_shim::process;
use conductor_shim::protocol::{Exit, Instance, Start, Tier};

pub use children::Children;
pub use cpu::{Tree, cpu_times};
pub use launch::{LaunchError, LaunchPlan, Secrets};
pub use recover::{Cut, Found};
pub use shims::Shims;
pub use stop::{StopOrder, read_stop};
pub use watch::{RunFinish, WatchEvent, Watched};

/// Starts, watches and stops runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runner(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shim: PathBuf,
    cgroup_parent: Option<PathBuf>,
    tier_reason: String,
    instance: Instance,
    children: Children,
    shims: Shims,
    /// Numbers of stop orders are read and written by one at a time.
    orders: std::sync::Mutex<()>,
}

impl Runner {
    /// A runner that uses the shim program `shim`.
    ///
    /// Makes this process a subreaper, so that agents whose shim dies come to us, and prepares the cgroup below which
    /// runs get theirs: `use_cgroup` false means the walk tier for all.
    ///
    /// # Errors
    /// `/proc` can't be read, or the kernel refuses the subreaper.
    pub fn new(shim: PathBuf, use_cgroup: bool, root: &Path) -> io::Result<Self> {
        become_subreaper()?;
        let (cgroup_parent, tier_reason) =
            if use_cgroup { find_cgroup(root) } else { (None, "cgroup: off in the configuration".to_owned()) };
        Ok(Self(Arc::new(Inner {
            shim,
            cgroup_parent,
            tier_reason,
            instance: process::instance()?,
            children: Children::new(),
            shims: Shims::default(),
            orders: std::sync::Mutex::default(),
        })))
    }

    /// The mechanism that new runs get, and why.
    #[must_use]
    pub fn tier(&self) -> (Tier, &str) {
        let tier = if self.0.cgroup_parent.is_some() { Tier::Cgroup } else { Tier::Walk };
        (tier, &self.0.tier_reason)
    }

    /// Folder below which runs get their cgroups.
    #[must_use]
    pub fn cgroup_parent(&self) -> Option<&Path> {
        self.0.cgroup_parent.as_deref()
    }

    /// Removes the empty cgroups of runs that no shim is left to remove them for. Called once recovery knows who lives.
    pub fn sweep_cgroups(&self) {
        let Some(parent) = &self.0.cgroup_parent else { return };
        let Ok(folders) = std::fs::read_dir(parent) else { return };
        let live: Vec<String> = self.0.shims.runs().iter().map(|key| key.run.to_string()).collect();
        for folder in folders.flatten() {
            let name = folder.file_name();
            let Some(run) = name.to_str().and_then(|name| name.strip_prefix(cgroup::RUN_PREFIX)) else { continue };
            if !live.iter().any(|id| id == run) {
                // One that is populated can't be removed; whoever lives in it is a rescue shim's.
                let _ = std::fs::remove_dir(folder.path());
            }
        }
    }

    /// The shim program.
    #[must_use]
    pub fn shim_program(&self) -> &std::path::Path {
        &self.0.shim
    }

    /// The live shims.
    #[must_use]
    pub fn shims(&self) -> &Shims {
        &self.0.shims
    }

    /// The processes that conductord has started or inherited.
    #[must_use]
    pub fn children(&self) -> &Children {
        &self.0.children
    }
}

#[cfg(target_os = "linux")]
fn become_subreaper() -> io::Result<()> {
    // SAFETY: the call takes no pointers.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn become_subreaper() -> io::Result<()> {
    // There is no such thing: the agent of a dead shim goes to launchd, and its exit code is lost.
    Ok(())
}

/// One folder for all runs of this root below our own cgroup, if we may make one there.
fn find_cgroup(root: &Path) -> (Option<PathBuf>, String) {
    let own = match cgroup::own() {
        Ok(Some(own)) => own,
        Ok(None) => return (None, "no cgroup v2 hierarchy is mounted".to_owned()),
        Err(error) => return (None, format!("the own cgroup can't be found: {error}")),
    };
    let name = format!("conductor-{:08x}", crc32c::crc32c(root.as_os_str().as_encoded_bytes()));
    // A conductord that was started from inside a run of another one stays inside that run's cgroup.
    let parent = own.join(name);
    match std::fs::create_dir(&parent) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return (None, format!("no cgroup can be made in {}: {error}", own.display()));
        }
        _ => {}
    }
    if cgroup::probe(&parent) {
        let reason = format!("every run has a cgroup below {}", parent.display());
        (Some(parent), reason)
    } else {
        (None, format!("{} is not writable for us", parent.display()))
    }
}

/// Reads the end of a run, if its shim has written it.
///
/// # Errors
/// The file is there and can't be read or understood.
pub fn read_exit(run_dir: &Path) -> io::Result<Option<Exit>> {
    use conductor_shim::protocol::{EXIT, FOLDER};
    conductor_shim::durable::read_json_if_exists(&run_dir.join(FOLDER).join(EXIT))
}

/// Reads the start of a run, if its shim has written it.
///
/// # Errors
/// The file is there and can't be read or understood.
pub fn read_start(run_dir: &Path) -> io::Result<Option<Start>> {
    use conductor_shim::protocol::{FOLDER, START};
    conductor_shim::durable::read_json_if_exists(&run_dir.join(FOLDER).join(START))
}
