//! kill -9 of the shim at every named point: no agent runs unrecorded, and a rescue shim ends every run honestly.

#![expect(clippy::unwrap_used, reason = "a helper of tests may unwrap as a test does")]
#![cfg(feature = "failpoints")]

mod support;

use conductor_shim::failpoint;
use conductor_shim::process::{Pidfd, exit_status_supported};
use conductor_shim::protocol::*;
use conductor_shim::{durable, lock};
use std::os::unix::process::ExitStatusExt;
use support::{Run, Shim, adopt_orphans, reap_adopted, tiers, wait_for};

/// Points at which the gate is still shut.
fn is_before_the_gate(name: &str) -> bool {
    name.starts_with("shim.start.") && name != "shim.start.after_gate"
}

/// Starts a run whose shim dies at `action`, helps it to get there, and holds the agent's pidfd as conductord does.
fn killed_at<'run>(run: &'run Run, action: &str, stop: bool) -> (Shim<'run>, Option<Pidfd>) {
    adopt_orphans();
    let mut shim = run.start_with(&[("CONDUCTOR_FAILPOINTS", action)]);
    let mut pidfd = None;
    let mut told = false;
    wait_for("the shim to die", || {
        if pidfd.is_none() && run.shim_path(START).exists() {
            let agent = run.start_record().agent;
            pidfd = Pidfd::open_verified(&agent).unwrap();
            reap_adopted(agent);
        }
        if !told && run.file("ready").exists() {
            told = true;
            if stop {
                run.write_stop(1, 100, 100);
                shim.signal(libc::SIGUSR1);
            } else {
                std::fs::write(run.file("go"), "").unwrap();
            }
        }
        shim.child.try_wait().unwrap().is_some()
    });
    assert_eq!(shim.status().signal(), Some(libc::SIGKILL), "{action}: {}", run.text("shim-stderr.txt"));
    (shim, pidfd)
}

/// What conductord does when a shim has died: starts a rescue shim, and says the agent's status when it gets it.
fn rescue(run: &Run, pidfd: Option<&Pidfd>) -> Exit {
    let mut shim = run.rescue();
    if let Some(pidfd) = pidfd.filter(|_| exit_status_supported().unwrap()) {
        wait_for("the agent's status", || {
            if let Some(wait_status) = pidfd.exit_status().unwrap() {
                let told = Reaped { version: VERSION, wait_status, source: StatusSource::PidfdInfo };
                durable::write_json(&run.shim_path(REAPED), &told).unwrap();
                return true;
            }
            shim.child.try_wait().unwrap().is_some()
        });
    }
    shim.ended()
}

fn agent() -> Run {
    Run::script(
        "trap '' INT TERM; touch $OUT/effect; setsid sleep 600 & touch $OUT/ready\n\
         while [ ! -e $OUT/go ]; do sleep 0.01; done; exit 7",
    )
}

fn check(name: &str, tier: Option<String>) {
    let stop = name.starts_with("shim.stop.");
    let run = agent().with(|spec| spec.cgroup_parent = tier);
    let (shim, pidfd) = killed_at(&run, &format!("{name}=kill"), stop);
    if is_before_the_gate(name) {
        wait_for("the agent's side to end", || !lock::is_held(&run.shim_path(TREE_LOCK)).unwrap());
        assert!(!run.file("effect").exists(), "{name}: an agent ran before it was recorded");
        assert!(!run.shim_path(EXIT).exists());
    } else {
        let over = ["shim.exit.after_sweep", "shim.exit.before_exit_json", "shim.stop.after_kill"].contains(&name);
        let known = over || run.shim_path(EXIT).exists() || run.tree_lock_is_held();
        assert!(known, "{name}: nothing says that the run is alive or over");
    }
    drop(shim);
    // An agent that waits for it ends by itself under the rescue shim.
    if !stop {
        std::fs::write(run.file("go"), "").unwrap();
    }
    let recorded = run.shim_path(EXIT).exists();
    let exit = rescue(&run, pidfd.as_ref());
    assert!(exit.tree_empty, "{name}: {exit:?}");
    assert_eq!(exit.rescued, !recorded, "{name}");
    if !is_before_the_gate(name) && exit_status_supported().unwrap() {
        let expected = if stop { libc::SIGKILL } else { 7 << 8 };
        assert_eq!(exit.wait_status, Some(expected), "{name}: {exit:?}");
    }
    if is_before_the_gate(name) {
        assert!(matches!(exit.code, None | Some(EXIT_GATE_CLOSED)), "{name}: {exit:?}");
    }
    run.assert_nothing_is_left();
}

fn points(prefix: &str) -> impl Iterator<Item = &'static str> {
    failpoint::NAMES.iter().copied().filter(move |name| name.starts_with(prefix))
}

#[test]
fn a_shim_killed_at_any_point_of_the_start_leaves_no_unrecorded_agent() {
    for tier in tiers() {
        points("shim.start.").for_each(|name| check(name, tier.clone()));
    }
}

#[test]
fn a_shim_killed_at_any_point_of_the_exit_loses_no_code() {
    for tier in tiers() {
        points("shim.exit.").for_each(|name| check(name, tier.clone()));
    }
}

#[test]
fn a_shim_killed_at_any_point_of_a_stop_still_stops_the_run() {
    for tier in tiers() {
        points("shim.stop.").for_each(|name| check(name, tier.clone()));
    }
}

#[test]
fn a_shim_killed_inside_a_durable_write_leaves_the_old_file_or_the_new() {
    // The first pass through these points is start.json's, the second exit.json's.
    for time in [1, 2] {
        for name in points("durable.") {
            let run = agent();
            let (shim, pidfd) = killed_at(&run, &format!("{name}=kill:{time}"), false);
            drop(shim);
            if time == 1 {
                wait_for("the agent's side to end", || !lock::is_held(&run.shim_path(TREE_LOCK)).unwrap());
                assert!(!run.file("effect").exists(), "{name}");
            }
            let exit = rescue(&run, pidfd.as_ref());
            if time == 2 && exit_status_supported().unwrap() {
                assert_eq!(exit.code, Some(7), "{name}");
            }
            run.assert_nothing_is_left();
        }
    }
}

#[test]
fn an_error_at_any_point_of_the_start_is_a_recorded_failure_without_an_agent() {
    for name in points("shim.start.").filter(|name| is_before_the_gate(name)) {
        let run = agent();
        let mut shim = run.start_with(&[("CONDUCTOR_FAILPOINTS", &format!("{name}=err:EMFILE"))]);
        assert_eq!(shim.status_line(), format!("failed failpoint {}\n", libc::EMFILE));
        let code = shim.code();
        // Before the lock the run may be another shim's, so nothing is written.
        let recorded = !["shim.start.before_setsid", "shim.start.after_lock"].contains(&name);
        assert_eq!(code, i32::from(!recorded), "{name}");
        assert_eq!(run.shim_path(EXIT).exists(), recorded, "{name}");
        assert!(!run.file("effect").exists(), "{name}");
        run.assert_nothing_is_left();
    }
}
