//! Agents that leave something behind, by accident or on purpose.

mod support;

use conductor_shim::protocol::*;
use support::{Run, tiers, wait_for};

const DAEMON: &str = "import os, sys, time\n\
    def daemon(clear):\n\
    \x20   r, w = os.pipe()\n\
    \x20   if os.fork() == 0:\n\
    \x20       os.setsid()\n\
    \x20       if os.fork() == 0:\n\
    \x20           os.setsid()\n\
    \x20           argv = ['/bin/sleep', '600']\n\
    \x20           os.set_inheritable(w, False)\n\
    \x20           os.execve(argv[0], argv, {} if clear else os.environ)\n\
    \x20       os._exit(0)\n\
    \x20   os.close(w)\n\
    \x20   os.read(r, 1)\n\
    \x20   os.wait()\n";

#[test]
fn a_daemon_left_behind_by_a_double_fork_is_ended_and_named() {
    for tier in tiers() {
        let run =
            Run::python(&format!("{DAEMON}daemon(False)\nsys.exit(5)")).with(|spec| spec.cgroup_parent = tier.clone());
        let exit = run.start().ended();
        assert_eq!((exit.code, exit.tree_empty), (Some(5), true));
        let names: Vec<_> =
            exit.stragglers.iter().map(|straggler| (straggler.name.as_str(), straggler.ended)).collect();
        assert_eq!(names, [("sleep", true)]);
    }
}

#[test]
fn a_daemon_that_has_cleared_its_environment_is_found_as_a_descendant() {
    for tier in tiers() {
        let run = Run::python(&format!("{DAEMON}daemon(True)")).with(|spec| spec.cgroup_parent = tier.clone());
        let exit = run.start().ended();
        assert_eq!((exit.stragglers.len(), exit.tree_empty), (1, true));
        let pid = exit.stragglers[0].pid;
        assert!(conductor_shim::process::stat(pid).is_err(), "pid {pid} lives");
    }
}

#[test]
fn what_ends_within_the_grace_is_not_killed() {
    for tier in tiers() {
        let run = Run::script("(sleep 0.2; echo done) & exit 0").with(|spec| {
            spec.exit_grace_ms = 30_000;
            spec.cgroup_parent = tier.clone();
        });
        let exit = run.start().ended();
        assert_eq!(run.stdout(), "done\n");
        assert_eq!(exit.stdout_bytes, 5);
        assert!(exit.stragglers.iter().all(|straggler| straggler.ended) && !exit.stragglers.is_empty());
    }
}

#[test]
fn a_grandchild_that_holds_the_output_does_not_hold_the_run() {
    let run = Run::script("sleep 600 & exec sh -c 'echo bye; exit 1'");
    let exit = run.start().ended();
    assert_eq!((exit.code, run.stdout().as_str()), (Some(1), "bye\n"));
}

#[test]
fn a_tree_of_two_hundred_is_ended_and_sixty_four_are_named() {
    for tier in tiers() {
        let run =
            Run::script("i=0; while [ $i -lt 200 ]; do setsid sleep 600 & i=$((i+1)); done; exit 0").with(|spec| {
                spec.exit_grace_ms = 0;
                spec.cgroup_parent = tier.clone();
            });
        let exit = run.start().ended();
        assert!(exit.tree_empty);
        assert_eq!(exit.stragglers.len(), 65);
        assert_eq!(exit.stragglers[64].pid, 0);
        assert!(exit.stragglers[64].name.ends_with(" more"));
    }
}

#[test]
fn processes_that_keep_forking_are_ended() {
    for tier in tiers() {
        // Each generation lives for a moment only, in a session of its own; 4 lines of descent.
        let run = Run::python(
            "import os, sys, time\n\
             for n in range(4):\n\
             \x20   if os.fork() == 0:\n\
             \x20       for generation in range(100000):\n\
             \x20           if os.fork(): os._exit(0)\n\
             \x20           os.setsid()\n\
             \x20       os._exit(0)\n\
             time.sleep(0.05)\n",
        )
        .with(|spec| {
            spec.exit_grace_ms = 0;
            spec.cgroup_parent = tier.clone();
        });
        assert!(run.start().ended().tree_empty);
    }
}

#[test]
fn zombies_of_the_tree_are_reaped_while_the_agent_runs() {
    let run = Run::script(
        "i=0; while [ $i -lt 20 ]; do (sleep 0.01 &); i=$((i+1)); done; touch $OUT/ready; while [ ! -e $OUT/go ]; do sleep 0.02; done",
    );
    let mut shim = run.start();
    let leader = shim.wait_started();
    wait_for("the agent", || run.file("ready").exists());
    let id = shim.child.id();
    wait_for("the orphans to be reaped", || {
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.trim() == leader.to_string()
    });
    std::fs::write(run.file("go"), "").unwrap();
    shim.ended();
}

#[test]
fn the_policies_report_and_keep_leave_the_rest_alone() {
    for tier in tiers() {
        for policy in [OnExit::Report, OnExit::Keep] {
            let run = Run::script("setsid sleep 600 & exit 0").with(|spec| {
                spec.on_exit = policy;
                spec.cgroup_parent = tier.clone();
            });
            let exit = run.start().ended();
            assert!(!exit.tree_empty);
            let named = exit.stragglers.iter().filter(|straggler| !straggler.ended).count();
            assert_eq!(named, usize::from(policy == OnExit::Report));
            assert_eq!(run.marked_processes().len(), 1);
            // SAFETY: no pointers; a process of this test's run, found a moment ago by its own id.
            unsafe { libc::kill(run.marked_processes()[0].pid, libc::SIGKILL) };
            wait_for("the rest to end", || run.marked_processes().is_empty());
            if let Some(group) = run.start_record().cgroup {
                wait_for("the group to be removable", || std::fs::remove_dir(&group).is_ok());
            }
        }
    }
}

#[test]
fn an_agent_may_make_cgroups_of_its_own_below_its_run() {
    let Some(Some(parent)) = tiers().pop() else { return };
    let run =
        Run::script("mkdir -p $GROUP/a/b && echo $$ > $GROUP/a/b/cgroup.procs && setsid sleep 600 & sleep 0.1; exit 0")
            .with(|spec| {
                let group = format!("{parent}/conductor-run-{}", spec.run_id);
                spec.env.push(("GROUP".to_owned(), group));
                spec.cgroup_parent = Some(parent);
            });
    assert!(run.start().ended().tree_empty);
}

#[test]
fn without_a_usable_cgroup_the_run_falls_back_to_the_walk() {
    let run = Run::script("exit 2").with(|spec| spec.cgroup_parent = Some("/tmp".to_owned()));
    let exit = run.start().ended();
    assert_eq!((exit.code, exit.tier), (Some(2), Tier::Walk));
}
