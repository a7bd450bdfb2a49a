//! CPU time that whole process trees have used: by their cgroups, else by one walk through the process table for all.
//!
//! Says how much, not what that means. Where the system tells no CPU times (macOS), nothing is known.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use conductor_shim::cgroup::Cgroup;
use conductor_shim::process::Stat;
use conductor_shim::protocol::{Identity, Start};
use conductor_shim::tree::{ProcessTable, System};

/// Steps from a process up to its run at most; the real depth is that of shells in shells. Ends on a table that changed
/// while it was read and holds a ring.
const MAX_DEPTH: usize = 1000;

/// The tree of one run.
#[derive(Clone, Debug)]
pub struct Tree {
    cgroup: Option<PathBuf>,
    /// Shim and agent: what descends from either belongs to the run.
    roots: [Identity; 2],
    run_id: String,
}

impl Tree {
    /// The tree that a run's start record names.
    #[must_use]
    pub fn new(start: &Start, run_id: String) -> Self {
        Self {
            cgroup: start.cgroup.as_ref().map(PathBuf::from),
            roots: [start.shim.clone(), start.agent.clone()],
            run_id,
        }
    }
}

/// CPU time of each tree so far; `None` where it can't be told. It grows with the work of the tree, and falls when a
/// process ends whose parent does not wait for it.
///
/// Reads one file for a tree with a cgroup, and `/proc` once for all trees without.
#[must_use]
pub fn cpu_times(trees: &[&Tree]) -> Vec<Option<Duration>> {
    let mut times: Vec<Option<Duration>> =
        trees.iter().map(|tree| Cgroup::open(Path::new(tree.cgroup.as_deref()?))?.cpu_time().ok()).collect();
    let walked: Vec<usize> = (0..trees.len()).filter(|&index| trees[index].cgroup.is_none()).collect();
    if !walked.is_empty() && cfg!(target_os = "linux") {
        let wanted: Vec<&Tree> = walked.iter().map(|&index| trees[index]).collect();
        if let Ok(ticks) = walk(&System, &wanted) {
            for (index, ticks) in walked.into_iter().zip(ticks) {
                times[index] = Some(ticks_as_time(ticks));
            }
        }
    }
    times
}

/// Clock ticks of each tree. A process belongs to the run whose shim or agent is above it; one that was re-parented
/// away belongs to the run that its environment names.
fn walk(table: &impl ProcessTable, trees: &[&Tree]) -> io::Result<Vec<u64>> {
    let processes = table.list()?;
    let by_pid: HashMap<i32, &Stat> = processes.iter().map(|process| (process.pid, process)).collect();
    let by_run: HashMap<&[u8], usize> =
        trees.iter().enumerate().map(|(index, tree)| (tree.run_id.as_bytes(), index)).collect();
    let mut owners: HashMap<i32, Option<usize>> = HashMap::new();
    for (index, tree) in trees.iter().enumerate() {
        for root in &tree.roots {
            // Its pid may mean another process by now.
            if by_pid.get(&root.pid).is_some_and(|process| process.start_ticks == root.start_ticks) {
                owners.insert(root.pid, Some(index));
            }
        }
    }
    let mut sums = vec![0u64; trees.len()];
    for process in &processes {
        if let Some(index) = owner(table, &by_pid, &by_run, &mut owners, process) {
            sums[index] += process.user_ticks + process.system_ticks + process.waited_ticks;
        }
    }
    Ok(sums)
}

fn owner(
    table: &impl ProcessTable,
    by_pid: &HashMap<i32, &Stat>,
    by_run: &HashMap<&[u8], usize>,
    owners: &mut HashMap<i32, Option<usize>>,
    process: &Stat,
) -> Option<usize> {
    let mut path = Vec::new();
    let mut at = process;
    let found = loop {
        if let Some(known) = owners.get(&at.pid) {
            break *known;
        }
        path.push(at.pid);
        match by_pid.get(&at.ppid) {
            // An orphan: its parent is init, or conductord as a subreaper.
            _ if at.ppid <= 1 || at.ppid == table.own_pid() => {
                break table.run_id(at.pid).and_then(|id| by_run.get(id.as_slice()).copied());
            }
            Some(parent) if path.len() < MAX_DEPTH => at = parent,
            _ => break None,
        }
    };
    owners.extend(path.into_iter().map(|pid| (pid, found)));
    found
}

fn ticks_as_time(ticks: u64) -> Duration {
    // SAFETY: sysconf takes no pointers.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
    Duration::from_millis(ticks.saturating_mul(1000) / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Table(Vec<Stat>, HashMap<i32, &'static str>);

    impl ProcessTable for Table {
        fn list(&self) -> io::Result<Vec<Stat>> {
            Ok(self.0.clone())
        }
        fn run_id(&self, pid: i32) -> Option<Vec<u8>> {
            self.1.get(&pid).map(|id| id.as_bytes().to_vec())
        }
        fn signal(&self, _: &Identity, _: i32) -> io::Result<bool> {
            unreachable!("nothing is signalled")
        }
        fn reap(&self, _: i32) {}
        fn own_pid(&self) -> i32 {
            50
        }
        fn children(&self) -> io::Result<Vec<i32>> {
            Ok(Vec::new())
        }
        fn kill_child(&self, _: i32) {}
        fn stat(&self, pid: i32) -> Option<Stat> {
            self.0.iter().find(|process| process.pid == pid).cloned()
        }
    }

    /// A process that has used `10^n` ticks, so that a sum tells who was counted.
    fn process(pid: i32, ppid: i32, n: u32) -> Stat {
        Stat {
            pid,
            name: "a".into(),
            state: 'S',
            ppid,
            pgid: pid,
            sid: pid,
            threads: 1,
            user_ticks: 10_u64.pow(n),
            system_ticks: 0,
            waited_ticks: 0,
            start_ticks: 7,
        }
    }

    fn tree(shim: i32, agent: i32, run_id: &str) -> Tree {
        let root = |pid| Identity { pid, start_ticks: 7 };
        Tree { cgroup: None, roots: [root(shim), root(agent)], run_id: run_id.into() }
    }

    #[test]
    fn every_process_counts_for_the_run_above_it_and_orphans_for_the_run_that_they_name() {
        let processes = vec![
            process(1, 0, 9),
            process(50, 1, 9),
            process(60, 50, 0), // shim of a
            process(61, 60, 1), // agent of a
            process(62, 61, 2), // tool below it
            process(63, 60, 3), // re-parented to the shim
            process(64, 1, 4),  // re-parented to init, names a
            process(65, 64, 5), // below that one
            process(70, 50, 0), // shim of b
            process(71, 70, 1), // agent of b
            process(80, 1, 8),  // somebody else's
            process(81, 80, 8),
        ];
        let (a, b) = (tree(60, 61, "a"), tree(70, 71, "b"));
        let table = Table(processes, HashMap::from([(64, "a"), (80, "c")]));
        assert_eq!(walk(&table, &[&a, &b]).unwrap(), [111_111, 11]);
        // The pid of a shim that has died is another process's now.
        let mut reused = tree(80, 71, "b");
        reused.roots[0].start_ticks = 8;
        assert_eq!(walk(&table, &[&reused]).unwrap(), [10]);
    }

    #[test]
    fn a_ring_in_the_table_ends() {
        let table = Table(vec![process(8, 9, 0), process(9, 8, 0)], HashMap::new());
        assert_eq!(walk(&table, &[&tree(2, 3, "a")]).unwrap(), [0]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_works_uses_time_and_one_that_sleeps_hardly_any() {
        use std::process::Command;
        let start = |script: &str| {
            let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            let identity = conductor_shim::process::identity(child.id().cast_signed()).unwrap();
            let tree = Tree { cgroup: None, roots: [identity.clone(), identity], run_id: "none".into() };
            (child, tree)
        };
        let (mut busy, busy_tree) = start("while :; do :; done");
        let (mut quiet, quiet_tree) = start("sleep 600");
        let measure = || cpu_times(&[&busy_tree, &quiet_tree]);
        while measure()[0].unwrap() < Duration::from_millis(200) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(measure()[1].unwrap() < Duration::from_millis(100));
        for child in [&mut busy, &mut quiet] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
