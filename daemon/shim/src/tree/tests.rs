//! The walk over a scripted table: what a real system does rarely, on demand.

use super::*;
use std::cell::RefCell;

const SHIM: i32 = 100;

/// A table in which a killed process becomes a zombie, its children move to the subreaper, and scripted forks happen
/// between passes.
#[derive(Default)]
struct Fake {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    processes: Vec<Stat>,
    markers: HashMap<i32, &'static str>,
    unkillable: HashSet<i32>,
    forks: Vec<Stat>,
    hidden: Vec<Stat>,
    passes: u32,
    reaped: Vec<i32>,
}

fn process(pid: i32, ppid: i32) -> Stat {
    Stat {
        waited_ticks: 0,
        pid,
        ppid,
        name: format!("p{pid}"),
        state: 'S',
        pgid: pid,
        sid: pid,
        threads: 1,
        user_ticks: 0,
        system_ticks: 0,
        start_ticks: pid as u64 * 10,
    }
}

impl Fake {
    fn with(processes: &[(i32, i32)]) -> Self {
        let fake = Self::default();
        fake.state.borrow_mut().processes = processes.iter().map(|&(pid, ppid)| process(pid, ppid)).collect();
        fake
    }
}

impl ProcessTable for Fake {
    fn list(&self) -> io::Result<Vec<Stat>> {
        let mut state = self.state.borrow_mut();
        state.passes += 1;
        let now = state.processes.clone();
        // A fork after the listing: the pass that is under way can't see it.
        if let Some(child) = state.forks.pop() {
            state.processes.push(child);
        }
        Ok(now)
    }

    fn run_id(&self, pid: i32) -> Option<Vec<u8>> {
        self.state.borrow().markers.get(&pid).map(|value| value.as_bytes().to_vec())
    }

    fn signal(&self, identity: &Identity, signal: i32) -> io::Result<bool> {
        let mut state = self.state.borrow_mut();
        if signal != libc::SIGKILL || state.unkillable.contains(&identity.pid) {
            return Ok(true);
        }
        for process in &mut state.processes {
            if process.pid == identity.pid && process.start_ticks == identity.start_ticks {
                process.state = 'Z';
            } else if process.ppid == identity.pid {
                process.ppid = SHIM;
            }
        }
        Ok(true)
    }

    fn reap(&self, pid: i32) {
        let mut state = self.state.borrow_mut();
        if state.processes.iter().any(|process| process.pid == pid && process.ppid == SHIM && !process.is_alive()) {
            state.processes.retain(|process| process.pid != pid);
            state.reaped.push(pid);
        }
    }

    fn children(&self) -> io::Result<Vec<i32>> {
        let mut state = self.state.borrow_mut();
        // A process that no listing has ever shown.
        if let Some(child) = state.hidden.pop() {
            state.processes.push(child);
        }
        Ok(state.processes.iter().filter(|process| process.ppid == SHIM).map(|process| process.pid).collect())
    }

    fn kill_child(&self, pid: i32) {
        let identity = self.stat(pid).unwrap().identity();
        self.signal(&identity, libc::SIGKILL).unwrap();
    }

    fn stat(&self, pid: i32) -> Option<Stat> {
        self.state.borrow().processes.iter().find(|process| process.pid == pid).cloned()
    }

    fn own_pid(&self) -> i32 {
        SHIM
    }
}

fn below_shim(run_id: &str) -> Finder {
    Finder::new(Scope { above: vec![SHIM], within: Vec::new(), run_id: run_id.to_owned() })
}

fn found(finder: &mut Finder, fake: &Fake) -> Vec<i32> {
    finder.members(fake).unwrap().iter().map(|process| process.pid).collect()
}

#[test]
fn members_are_descendants_and_marked_processes_with_their_children_only() {
    let fake = Fake::with(&[(1, 0), (SHIM, 1), (2, 1), (200, SHIM), (201, 200), (300, 1), (301, 300), (400, 1)]);
    fake.state.borrow_mut().markers.extend([(300, "run"), (400, "other"), (1, "run"), (SHIM, "run")]);
    assert_eq!(found(&mut below_shim("run"), &fake), [200, 201, 300, 301]);
}

#[test]
fn a_marked_pid_one_or_shim_drags_in_nothing_that_is_not_of_the_run() {
    let fake = Fake::with(&[(1, 0), (2, 1), (SHIM, 1)]);
    fake.state.borrow_mut().markers.insert(1, "run");
    assert_eq!(found(&mut below_shim("run"), &fake), [] as [i32; 0]);
}

#[test]
fn a_remembered_process_counts_only_with_its_own_start_time() {
    let fake = Fake::with(&[(1, 0), (SHIM, 1), (500, 1), (501, 500), (600, 1)]);
    let within = vec![Identity { pid: 500, start_ticks: 5000 }, Identity { pid: 600, start_ticks: 1 }];
    let mut finder = Finder::new(Scope { above: Vec::new(), within, run_id: String::new() });
    assert_eq!(found(&mut finder, &fake), [500, 501]);
}

#[test]
fn killing_goes_on_until_nothing_was_forked_between_two_passes() {
    let fake = Fake::with(&[(1, 0), (SHIM, 1), (200, SHIM), (201, 200), (202, 201)]);
    fake.state.borrow_mut().forks = (0..5).map(|n| process(210 + n, SHIM)).collect();
    let killed = kill(&fake, &mut below_shim("run"), Some(200), Duration::from_secs(60)).unwrap();
    assert!(killed.left.is_empty());
    assert_eq!(killed.found.len(), 8);
    let state = fake.state.borrow();
    assert!(state.processes.iter().any(|process| process.pid == 200), "the leader stays a zombie");
    assert_eq!(state.reaped.len(), 7);
}

#[test]
fn a_chain_of_forks_that_no_listing_shows_is_followed_through_our_children() {
    let fake = Fake::with(&[(1, 0), (SHIM, 1), (200, SHIM)]);
    fake.state.borrow_mut().processes[2].state = 'Z';
    fake.state.borrow_mut().hidden = (0..50).map(|n| process(300 + n, SHIM)).collect();
    let killed = kill(&fake, &mut below_shim(""), Some(200), Duration::from_secs(60)).unwrap();
    assert_eq!((killed.found.len(), killed.left.len()), (50, 0));
    assert_eq!(fake.state.borrow().reaped.len(), 50);
}

#[test]
fn children_of_a_program_that_is_not_the_runs_shim_are_left_alone() {
    let fake = Fake::with(&[(1, 0), (SHIM, 1), (200, SHIM), (201, SHIM)]);
    fake.state.borrow_mut().markers.insert(201, "run");
    let scope = Scope { run_id: "run".to_owned(), ..Scope::default() };
    let killed = kill(&fake, &mut Finder::new(scope), None, Duration::from_secs(60)).unwrap();
    assert_eq!(killed.found.iter().map(|process| process.pid).collect::<Vec<_>>(), [201]);
    assert!(fake.stat(200).unwrap().is_alive());
}

#[test]
fn what_cannot_be_killed_is_named_when_the_time_is_over() {
    let fake = Fake::with(&[(1, 0), (SHIM, 1), (200, SHIM), (201, SHIM)]);
    fake.state.borrow_mut().unkillable.insert(201);
    let killed = kill(&fake, &mut below_shim("run"), None, Duration::from_millis(30)).unwrap();
    assert_eq!(killed.left.iter().map(|process| process.pid).collect::<Vec<_>>(), [201]);
    assert_eq!(killed.found.len(), 2);
}

#[test]
fn zombies_of_other_parents_are_neither_alive_nor_reaped() {
    let fake = Fake::with(&[(1, 0), (SHIM, 1), (200, SHIM), (201, 200)]);
    for process in &mut fake.state.borrow_mut().processes {
        if process.pid == 201 {
            process.state = 'Z';
        }
    }
    let members = below_shim("").members(&fake).unwrap();
    reap(&fake, &members, None);
    assert!(fake.state.borrow().reaped.is_empty());
    assert_eq!(members.iter().filter(|member| member.is_alive()).count(), 1);
}

#[test]
fn a_zombie_whose_other_threads_run_is_alive() {
    let mut zombie = process(7, 1);
    zombie.state = 'Z';
    assert!(!zombie.is_alive());
    zombie.threads = 2;
    assert!(zombie.is_alive());
}

#[test]
fn a_real_child_is_found_by_its_environment_and_killed() {
    let id = format!("tree-test-{}", std::process::id());
    let mut child = std::process::Command::new("sleep").arg("600").env(RUN_ID_VARIABLE, &id).spawn().unwrap();
    let scope = Scope { above: Vec::new(), within: Vec::new(), run_id: id };
    let pid = child.id() as i32;
    while members(&System, scope.clone()).unwrap().iter().all(|member| member.pid != pid) {
        std::thread::yield_now();
    }
    let killed = kill(&System, &mut Finder::new(scope), Some(pid), Duration::from_secs(30)).unwrap();
    assert_eq!(killed.found.iter().map(|process| process.pid).collect::<Vec<_>>(), [pid]);
    assert!(killed.left.is_empty());
    child.wait().unwrap();
}
