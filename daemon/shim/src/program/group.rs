//! The run's process tree, by whichever tier is in force: who is in it, TERM to all, kill until it is empty.

use conductor_shim::cgroup::{Cgroup, Events};
use conductor_shim::process::{self, Stat};
use conductor_shim::protocol::Tier;
use conductor_shim::tree::{self, Finder, Killed, ProcessTable, Scope, System};
use std::io;
use std::time::{Duration, Instant};

/// How long a kill is repeated before what is left is named and given up: a process that SIGKILL does not end in this
/// time sits in the kernel (state `D`), and more signals change nothing.
const KILL_TIME: Duration = Duration::from_secs(10);

/// The tree of one run.
#[derive(Debug)]
pub(super) struct Group {
    cgroup: Option<Cgroup>,
    finder: Finder,
    /// The leader while it is our child: its zombie is not reaped with the others.
    child: Option<i32>,
}

impl Group {
    /// The tree below this shim. With a cgroup, environments need not be searched: who left the cgroup still descends
    /// from the subreaping shim.
    pub(super) fn below_shim(cgroup: Option<Cgroup>, run_id: &str, child: i32) -> Self {
        let run_id = if cgroup.is_some() { String::new() } else { run_id.to_owned() };
        let above = vec![System.own_pid()];
        Self { cgroup, finder: Finder::new(Scope { above, within: Vec::new(), run_id }), child: Some(child) }
    }

    /// The tree of a dead shim: no subreaper holds it together any more.
    pub(super) fn without_shim(cgroup: Option<Cgroup>, scope: Scope) -> Self {
        Self { cgroup, finder: Finder::new(scope), child: None }
    }

    pub(super) fn tier(&self) -> Tier {
        if self.cgroup.is_some() { Tier::Cgroup } else { Tier::Walk }
    }

    pub(super) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// For `poll` with `POLLPRI`; `None` without a cgroup.
    pub(super) fn events(&self) -> Option<Events> {
        self.cgroup.as_ref()?.events().ok()
    }

    /// Every live process of the tree, the leader included while it lives.
    pub(super) fn alive(&mut self) -> io::Result<Vec<Stat>> {
        if self.is_surely_empty() {
            return Ok(Vec::new());
        }
        let mut alive: Vec<Stat> = self.finder.members(&System)?.into_iter().filter(Stat::is_alive).collect();
        for process in self.in_cgroup() {
            if !alive.iter().any(|known| known.identity() == process.identity()) {
                alive.push(process);
            }
        }
        Ok(alive)
    }

    /// With a cgroup and as a subreaper, emptiness needs no look at the whole table: the group isn't populated, and no
    /// child but the leader's zombie is there from which something could descend.
    fn is_surely_empty(&self) -> bool {
        let (Some(cgroup), Some(child)) = (&self.cgroup, self.child) else { return false };
        self.is_childless()
            && !process::stat(child).is_ok_and(|stat| stat.is_alive())
            && cgroup.is_populated().is_ok_and(|it| !it)
    }

    /// Whether no child but the leader is left. Once the leader has ended too, this proves for a subreaper that nothing
    /// lives below it, however fast it forks. Says nothing (`true`) for a tree that is not below this process.
    pub(super) fn is_childless(&self) -> bool {
        let Some(leader) = self.child else { return true };
        System.children().is_ok_and(|children| children.iter().all(|&pid| pid == leader))
    }

    /// The live processes of the cgroup. Listed before and after their identities are read: a pid that was reused in
    /// between by a stranger is in at most one of the lists.
    fn in_cgroup(&self) -> Vec<Stat> {
        let Some(cgroup) = &self.cgroup else { return Vec::new() };
        let list = || cgroup.processes().unwrap_or_default();
        let stats: Vec<Stat> = list().into_iter().filter_map(|pid| process::stat(pid).ok()).collect();
        let after = list();
        stats.into_iter().filter(|stat| stat.is_alive() && after.contains(&stat.pid)).collect()
    }

    /// SIGTERM to every process, and SIGCONT, so that a stopped one can act on it.
    pub(super) fn terminate(&mut self) {
        // A table that can't be read now is read again at the kill.
        let alive = self.alive().unwrap_or_default();
        tree::signal(&System, &alive, libc::SIGTERM);
        tree::signal(&System, &alive, libc::SIGCONT);
    }

    /// Kills everything, the leader too, until nothing is alive or [`KILL_TIME`] is over. An `Err` means that the
    /// table could not be read: nothing is known about what is left.
    pub(super) fn kill(&mut self) -> io::Result<Killed> {
        let deadline = Instant::now() + KILL_TIME;
        if self.is_surely_empty() {
            return Ok(Killed::default());
        }
        // Named first: the cgroup ends processes without saying which.
        let before = self.in_cgroup();
        if let Some(cgroup) = &self.cgroup
            && cgroup.kill().is_ok()
        {
            // Zombies don't count as populated, so nothing needs to be reaped for this to end.
            let _ = cgroup.wait_empty(KILL_TIME);
            self.reap_others();
            if self.is_surely_empty() {
                return Ok(Killed { found: before, left: Vec::new() });
            }
        }
        // The whole of the walk tier; with a cgroup, what has left it.
        let rest = deadline.saturating_duration_since(Instant::now());
        let mut killed = tree::kill(&System, &mut self.finder, self.child, rest)?;
        for process in before {
            if !killed.found.iter().any(|known| known.identity() == process.identity()) {
                killed.found.push(process);
            }
        }
        for process in self.in_cgroup() {
            if !killed.left.iter().any(|known| known.identity() == process.identity()) {
                killed.left.push(process);
            }
        }
        Ok(killed)
    }

    /// Keeps the present members in mind, for when they are re-parented (rescue only).
    pub(super) fn remember(&mut self) {
        if let Ok(members) = self.finder.members(&System) {
            self.finder.remember(&members);
        }
    }

    /// Reaps the children that have ended, each by its pid, except the leader.
    pub(super) fn reap_others(&self) {
        for pid in System.children().unwrap_or_default() {
            if Some(pid) != self.child {
                System.reap(pid);
            }
        }
    }

    /// Removes the run's cgroup folder, which is empty unless processes were kept.
    pub(super) fn remove(&self) {
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup.remove()
        {
            eprintln!("conductor-shim: removing {}: {error}", cgroup.path().display());
        }
    }
}
