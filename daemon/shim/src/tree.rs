//! The processes of one run, found and ended without a cgroup: the walk tier.
//!
//! A process belongs to a run if it descends from one of the run's processes, or if the environment that it was
//! started with carries the run's id, or if it descends from such a one. The first rule finds what has cleared its
//! environment, the second what has been re-parented away. Whoever does both while no subreaping shim lives, escapes;
//! only a cgroup holds that one ([`crate::cgroup`]).

use crate::process::{self, Identity, RUN_ID_VARIABLE, Stat};
use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

/// First pause between two passes of [`kill`]; it doubles up to [`LONGEST_PAUSE`]. A killed process usually needs less.
const FIRST_PAUSE: Duration = Duration::from_micros(500);
/// Longest pause between two passes of [`kill`]: what waits longer is stuck in the kernel, and 20 ms is still prompt.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// Passes that must find nothing before a tree counts as empty: one pass can miss a process that is forked during it.
const EMPTY_PASSES: u32 = 2;

/// Rounds of [`end_children`] in one pass: enough to outrun a chain of forks, too few to keep the deadline waiting.
const CHILD_ROUNDS: u32 = 1000;

/// What the walk needs of the operating system; a test puts a scripted one in its place.
pub trait ProcessTable {
    /// Every process that is visible, zombies included.
    ///
    /// # Errors
    /// Those of reading the table as a whole; a process that vanishes meanwhile is left out.
    fn list(&self) -> io::Result<Vec<Stat>>;

    /// The value of `CONDUCTOR_RUN_ID` in the environment that this process was started with.
    fn run_id(&self, pid: i32) -> Option<Vec<u8>>;

    /// Sends a signal to exactly this process. `false`: it is gone.
    ///
    /// # Errors
    /// That it may not be signalled.
    fn signal(&self, identity: &Identity, signal: i32) -> io::Result<bool>;

    /// Reaps the zombie `pid` if it is a child of ours.
    fn reap(&self, pid: i32);

    /// Our own pid.
    fn own_pid(&self) -> i32;

    /// Our children now, zombies included, oldest first. If it names only children that have ended, nothing at all
    /// lives below a subreaper: every live process hangs on a live parent.
    ///
    /// # Errors
    /// Those of asking the kernel.
    fn children(&self) -> io::Result<Vec<i32>>;

    /// Kills the child `pid`, which is ours and not reaped, so that its pid means no other.
    fn kill_child(&self, pid: i32);

    /// What the table says about one process, zombies included.
    fn stat(&self, pid: i32) -> Option<Stat>;
}

/// The table of the running system.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl ProcessTable for System {
    fn list(&self) -> io::Result<Vec<Stat>> {
        let mut processes = Vec::new();
        for pid in pids()? {
            match process::stat(pid) {
                Ok(stat) => processes.push(stat),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(processes)
    }

    fn run_id(&self, pid: i32) -> Option<Vec<u8>> {
        let block = process::environment(pid).ok()?;
        process::environment_value(&block, RUN_ID_VARIABLE).map(<[u8]>::to_vec)
    }

    #[cfg(target_os = "linux")]
    fn signal(&self, identity: &Identity, signal: i32) -> io::Result<bool> {
        match process::Pidfd::open_verified(identity)? {
            Some(pidfd) => pidfd.send_signal(signal),
            None => Ok(false),
        }
    }

    /// Without pidfds the identity is checked immediately before; the moment between stays open.
    #[cfg(not(target_os = "linux"))]
    fn signal(&self, identity: &Identity, signal: i32) -> io::Result<bool> {
        if !process::identity(identity.pid).is_ok_and(|now| now == *identity) {
            return Ok(false);
        }
        // SAFETY: kill takes no pointers.
        if unsafe { libc::kill(identity.pid, signal) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ESRCH) { Ok(false) } else { Err(error) }
    }

    fn reap(&self, pid: i32) {
        // SAFETY: a null status pointer is allowed. One pid by name: never another child's status.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
    }

    fn own_pid(&self) -> i32 {
        std::process::id() as i32
    }

    fn children(&self) -> io::Result<Vec<i32>> {
        // The kernel's own list of this thread's children, each step taken under its lock. A child that is added or
        // removed meanwhile can't hide another that stays; the shim has one thread, so these are all.
        if let Ok(text) = std::fs::read_to_string("/proc/thread-self/children") {
            return Ok(text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect());
        }
        let own = self.own_pid();
        Ok(self.list()?.into_iter().filter(|process| process.ppid == own).map(|process| process.pid).collect())
    }

    fn kill_child(&self, pid: i32) {
        // SAFETY: kill takes no pointers.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }

    fn stat(&self, pid: i32) -> Option<Stat> {
        process::stat(pid).ok()
    }
}

#[cfg(target_os = "linux")]
fn pids() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

#[cfg(target_os = "macos")]
fn pids() -> io::Result<Vec<i32>> {
    let mut pids = vec![0i32; 16_384];
    let size = i32::try_from(pids.len() * size_of::<i32>()).expect("64 KiB fit");
    // SAFETY: `pids` has the size announced.
    let count = unsafe { libc::proc_listallpids(pids.as_mut_ptr().cast(), size) };
    if count < 0 {
        return Err(io::Error::last_os_error());
    }
    pids.truncate(count as usize);
    Ok(pids)
}

/// Which processes to look for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Processes whose descendants belong to the run, and which don't belong to it themselves: the shim.
    pub above: Vec<i32>,
    /// Processes that belong to the run, with their descendants: the agent, and what was seen below it.
    pub within: Vec<Identity>,
    /// The run's id; empty: don't look into environments.
    pub run_id: String,
}

/// Finds the members of one run, again and again; remembers whose environments it has read.
#[derive(Debug, Default)]
pub struct Finder {
    scope: Scope,
    /// Command name and answer: exec changes the environment, and with it, nearly always, the name.
    marked: HashMap<(i32, u64), (String, bool)>,
}

impl Finder {
    /// A finder for this scope.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self { scope, marked: HashMap::new() }
    }

    /// What is looked for.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Adds processes to those that belong to the run for sure, so that they are found when re-parented away.
    pub fn remember(&mut self, members: &[Stat]) {
        self.scope.within.retain(process::is_alive);
        for member in members {
            let identity = member.identity();
            if !self.scope.within.contains(&identity) {
                self.scope.within.push(identity);
            }
        }
    }

    /// The members now, zombies included, in the order of the table. Never this process, never pid 1.
    ///
    /// # Errors
    /// Those of [`ProcessTable::list`].
    pub fn members(&mut self, table: &dyn ProcessTable) -> io::Result<Vec<Stat>> {
        let processes = table.list()?;
        let mut children: HashMap<i32, Vec<usize>> = HashMap::new();
        for (index, process) in processes.iter().enumerate() {
            children.entry(process.ppid).or_default().push(index);
        }
        let mut open: Vec<usize> =
            self.scope.above.iter().filter_map(|pid| children.get(pid)).flatten().copied().collect();
        for (index, process) in processes.iter().enumerate() {
            if self.scope.within.contains(&process.identity()) || self.is_marked(table, process) {
                open.push(index);
            }
        }
        self.forget_all_but(&processes);
        let mut found = HashSet::new();
        while let Some(index) = open.pop() {
            let process = &processes[index];
            if process.pid == table.own_pid() || process.pid <= 1 || !found.insert(index) {
                continue;
            }
            open.extend(children.get(&process.pid).into_iter().flatten());
        }
        let mut index = 0..processes.len();
        Ok(processes.into_iter().filter(|_| index.next().is_some_and(|index| found.contains(&index))).collect())
    }

    fn is_marked(&mut self, table: &dyn ProcessTable, process: &Stat) -> bool {
        if self.scope.run_id.is_empty() {
            return false;
        }
        let key = (process.pid, process.start_ticks);
        if let Some((name, known)) = self.marked.get(&key)
            && *name == process.name
        {
            return *known;
        }
        let marked = table.run_id(process.pid).is_some_and(|value| value == self.scope.run_id.as_bytes());
        self.marked.insert(key, (process.name.clone(), marked));
        marked
    }

    fn forget_all_but(&mut self, processes: &[Stat]) {
        if self.marked.len() > 2 * processes.len() {
            let live: HashSet<_> = processes.iter().map(|process| (process.pid, process.start_ticks)).collect();
            self.marked.retain(|key, _| live.contains(key));
        }
    }
}

/// The members of a run now; see [`Finder::members`].
///
/// # Errors
/// Those of [`ProcessTable::list`].
pub fn members(table: &dyn ProcessTable, scope: Scope) -> io::Result<Vec<Stat>> {
    Finder::new(scope).members(table)
}

/// Sends `signal` to every live member, each verified. Returns how many it reached.
pub fn signal(table: &dyn ProcessTable, members: &[Stat], signal: i32) -> usize {
    let alive = members.iter().filter(|member| member.is_alive());
    // A member that may not be signalled stays, and is named as left over by whoever waits for emptiness.
    alive.filter(|member| table.signal(&member.identity(), signal).unwrap_or(false)).count()
}

/// What a [`kill`] met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Killed {
    /// Every live process that it found, in the order of finding.
    pub found: Vec<Stat>,
    /// Those that could not be ended in time; empty: the tree is empty.
    pub left: Vec<Stat>,
}

/// Kills every member until two passes in a row find none alive, or `limit` is over. Zombies that are our children are
/// reaped by pid; `keep` (the leader) is never reaped.
///
/// Where all our descendants belong to the run ([`Scope::above`] names us), its children are also ended one by one in
/// a tight loop, and a pass counts as empty only if no child but `keep` is left: processes that fork and end faster
/// than the table is read are in no listing, but at every moment one of them is our child.
///
/// # Errors
/// Those of [`ProcessTable::list`] and [`ProcessTable::children`].
pub fn kill(table: &dyn ProcessTable, finder: &mut Finder, keep: Option<i32>, limit: Duration) -> io::Result<Killed> {
    let deadline = Instant::now() + limit;
    let mut result = Killed::default();
    let mut seen = HashSet::new();
    let mut empty_passes = 0;
    let mut pause = FIRST_PAUSE;
    let owns_descendants = finder.scope.above.contains(&table.own_pid());
    loop {
        // Our children first: that takes microseconds, the whole table milliseconds.
        let mut met = if owns_descendants { end_children(table, keep)? } else { Vec::new() };
        let members = finder.members(table)?;
        let alive: Vec<Stat> = members.iter().filter(|member| member.is_alive()).cloned().collect();
        signal(table, &alive, libc::SIGKILL);
        reap(table, &members, keep);
        met.extend(alive);
        result.found.extend(met.iter().filter(|process| seen.insert((process.pid, process.start_ticks))).cloned());
        if met.is_empty() {
            empty_passes += 1;
            if empty_passes == EMPTY_PASSES {
                return Ok(result);
            }
            continue;
        }
        empty_passes = 0;
        if Instant::now() >= deadline {
            result.left = finder.members(table)?.into_iter().filter(Stat::is_alive).collect();
            return Ok(result);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Kills and reaps our children, and what is re-parented to us thereby, without a pause, for a bounded number of
/// rounds. `keep` is killed too, but not reaped. Returns those that it met; empty: no
/// child was there but the zombie `keep`.
fn end_children(table: &dyn ProcessTable, keep: Option<i32>) -> io::Result<Vec<Stat>> {
    let mut met: Vec<Stat> = Vec::new();
    if let Some(leader) = keep.and_then(|keep| table.stat(keep)).filter(Stat::is_alive) {
        table.kill_child(leader.pid);
        met.push(leader);
    }
    for _ in 0..CHILD_ROUNDS {
        let children = table.children()?;
        let mut others = children.into_iter().filter(|&pid| Some(pid) != keep).peekable();
        if others.peek().is_none() {
            break;
        }
        for pid in others {
            // First the signal, then the questions: a child that forks and ends must not get a head start. Until it is
            // reaped it answers.
            table.kill_child(pid);
            if let Some(stat) = table.stat(pid)
                && !met.iter().any(|known| known.identity() == stat.identity())
            {
                met.push(stat);
            }
            table.reap(pid);
        }
    }
    Ok(met)
}

/// Reaps the zombies among `members` that are our children, except `keep`.
pub fn reap(table: &dyn ProcessTable, members: &[Stat], keep: Option<i32>) {
    for member in members {
        if member.ppid == table.own_pid() && !member.is_alive() && Some(member.pid) != keep {
            table.reap(member.pid);
        }
    }
}

#[cfg(test)]
#[path = "tree/tests.rs"]
mod tests;
