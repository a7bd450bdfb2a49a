//! Which children conductord has, so that it reaps exactly those.
//!
//! Our own children (shims, version probes) share our session or are registered here; what a dead shim leaves to us as
//! subreaper is in a session of its own and is registered by nobody: an orphan, reaped by its pid once it is a zombie.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use conductor_shim::process::{self, Identity};

/// Statuses of reaped orphans that are kept: whoever wants one asks within milliseconds of a shim's death.
const KEPT: usize = 1024;

/// The registry. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Children(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    claimed: HashSet<i32>,
    /// Orphans that were reaped before anybody had claimed them, the latest last.
    reaped: VecDeque<(Identity, i32)>,
}

/// Keeps a pid out of the orphans' reaper while somebody waits for it.
#[derive(Debug)]
pub struct Claim {
    children: Children,
    pid: i32,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.children.lock().claimed.remove(&self.pid);
    }
}

impl Children {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spawns and claims in one step, so that the reaper can't come in between.
    ///
    /// # Errors
    /// Those of `spawn`.
    pub fn spawn(
        &self,
        spawn: impl FnOnce() -> io::Result<std::process::Child>,
    ) -> io::Result<(std::process::Child, Claim)> {
        let mut registry = self.lock();
        let child = spawn()?;
        let pid = i32::try_from(child.id()).expect("a pid is positive and fits");
        registry.claimed.insert(pid);
        Ok((child, Claim { children: self.clone(), pid }))
    }

    /// Claims a process that was re-parented to us.
    #[must_use]
    pub fn claim(&self, pid: i32) -> Claim {
        self.lock().claimed.insert(pid);
        Claim { children: self.clone(), pid }
    }

    /// The wait status of an orphan that was reaped already.
    #[must_use]
    pub fn status_of(&self, identity: &Identity) -> Option<i32> {
        self.lock().reaped.iter().rev().find(|(known, _)| known == identity).map(|(_, status)| *status)
    }

    /// Reaps orphans that have ended. Cheap when there are none; called after SIGCHLD.
    pub fn reap_orphans(&self) {
        let mut registry = self.lock();
        let own_session = process::stat(std::process::id().cast_signed()).map(|stat| stat.sid);
        let Ok(own_session) = own_session else { return };
        for pid in child_pids() {
            if registry.claimed.contains(&pid) {
                continue;
            }
            match process::stat(pid) {
                Ok(stat) if stat.sid != own_session && !stat.is_alive() => {
                    if let Ok(Some(status)) = wait_for(pid) {
                        registry.reaped.push_back((stat.identity(), status));
                        if registry.reaped.len() > KEPT {
                            registry.reaped.pop_front();
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// Reaps the child `pid` if it has ended: its raw wait status. `None`: it lives, or is no child of ours.
///
/// # Errors
/// None but those that mean a bug: `waitpid` with a valid pid and WNOHANG.
pub(super) fn wait_for(pid: i32) -> io::Result<Option<i32>> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
        0 => Ok(None),
        -1 => {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) }
        }
        _ => Ok(Some(status)),
    }
}

/// Pids of our children, from every thread's list.
#[cfg(target_os = "linux")]
fn child_pids() -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn child_pids() -> Vec<i32> {
    // Nothing is re-parented to us there.
    Vec::new()
}
