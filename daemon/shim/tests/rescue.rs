//! Runs whose shim was killed: a rescue shim watches or sweeps, and says what it knows.

#![expect(clippy::unwrap_used, reason = "a helper of tests may unwrap as a test does")]

mod support;

use conductor_shim::process::{self, exit_status_supported};
use conductor_shim::protocol::*;
use conductor_shim::{durable, tree};
use support::{Run, Shim, SmallDisk, adopt_orphans, reap_adopted, tiers, wait_for};

/// Starts the run, waits for `$OUT/ready`, and kills the shim.
fn orphaned(run: &Run) -> Identity {
    adopt_orphans();
    let mut shim = run.start();
    shim.wait_started();
    wait_for("the agent", || run.file("ready").exists());
    let agent = run.start_record().agent;
    reap_adopted(agent.clone());
    shim.kill_nine();
    agent
}

/// A rescue shim that has begun to watch.
fn rescued(run: &Run) -> Shim<'_> {
    let mut shim = run.rescue();
    assert!(shim.status_line().starts_with("started "));
    shim
}

const UNTIL_GO: &str = "touch $OUT/ready; while [ ! -e $OUT/go ]; do sleep 0.01; done";

fn assert_status(exit: &Exit, status: i32) {
    if exit_status_supported().unwrap() {
        assert_eq!((exit.wait_status, exit.source), (Some(status), Some(StatusSource::PidfdInfo)), "{exit:?}");
    } else {
        assert_eq!((exit.wait_status, exit.source), (None, None));
    }
    assert!(exit.rescued);
}

#[test]
fn an_agent_that_outlives_its_shim_keeps_its_code_and_output() {
    for tier in tiers() {
        let run = Run::script(&format!("{UNTIL_GO}; setsid sleep 600 & echo bye; exit 5"))
            .with(|spec| spec.cgroup_parent = tier.clone());
        orphaned(&run);
        assert!(run.tree_lock_is_held());
        let shim = rescued(&run);
        std::fs::write(run.file("go"), "").unwrap();
        let exit = shim.ended();
        assert_status(&exit, 5 << 8);
        assert_eq!((run.stdout().as_str(), exit.cause), ("bye\n", Cause::Natural));
        assert_eq!(exit.tier, if tier.is_some() { Tier::Cgroup } else { Tier::Walk });
        assert_eq!(exit.stragglers.len(), 1);
    }
}

#[test]
fn a_rescue_shim_obeys_stops_as_the_first_would() {
    for tier in tiers() {
        let run = Run::script(&format!("trap 'echo int; exit 9' INT; setsid sleep 600 & {UNTIL_GO}"))
            .with(|spec| spec.cgroup_parent = tier.clone());
        orphaned(&run);
        let shim = rescued(&run);
        run.write_stop(1, 60_000, 60_000);
        shim.signal(libc::SIGUSR1);
        let exit = shim.ended();
        assert_status(&exit, 9 << 8);
        assert_eq!(run.stdout(), "int\n");
        assert_eq!(exit.cause, Cause::Stop { who: "tester".to_owned(), why: "because".to_owned() });
    }
}

#[test]
fn a_stop_that_the_dead_shim_had_begun_is_carried_out() {
    let run = Run::script(&format!("trap '' INT TERM; {UNTIL_GO}"));
    run.write_stop(0, 0, 0);
    orphaned(&run);
    run.write_stop(1, 50, 50);
    let exit = run.rescue().ended();
    assert_status(&exit, libc::SIGKILL);
    assert!(matches!(exit.cause, Cause::Stop { .. }));
}

#[test]
fn term_and_limits_hold_under_a_rescue_shim_too() {
    let run = Run::script(&format!("trap '' INT TERM; {UNTIL_GO}"))
        .with(|spec| spec.graces = Graces { int_ms: 20, term_ms: 20 });
    orphaned(&run);
    let shim = rescued(&run);
    shim.signal(libc::SIGTERM);
    assert_status(&shim.ended(), libc::SIGKILL);

    let run = Run::script(UNTIL_GO).with(|spec| spec.wall_time_ms = Some(1500));
    orphaned(&run);
    let exit = run.rescue().ended();
    assert_eq!(exit.cause, Cause::WallTime);
    assert!(exit.elapsed_ms == 0 || exit.elapsed_ms >= 1400, "{exit:?}");
}

#[test]
fn an_agent_that_died_with_its_shim_is_swept_at_once_with_the_status_that_conductord_got() {
    for tier in tiers() {
        let run = Run::script(&format!("setsid sleep 600 & {UNTIL_GO}")).with(|spec| {
            spec.cgroup_parent = tier.clone();
            spec.exit_grace_ms = 600_000;
        });
        let agent = orphaned(&run);
        let pidfd = process::Pidfd::open_verified(&agent).unwrap().unwrap();
        pidfd.send_signal(libc::SIGKILL).unwrap();
        wait_for("the agent to be gone", || process::stat(agent.pid).is_err());
        let told = Reaped { version: VERSION, wait_status: libc::SIGKILL, source: StatusSource::Subreaper };
        durable::write_json(&run.shim_path(REAPED), &told).unwrap();
        let exit = run.rescue().ended();
        assert_eq!((exit.signal, exit.source), (Some(libc::SIGKILL), Some(StatusSource::Subreaper)));
        assert!(exit.rescued && exit.tree_empty && exit.stragglers.iter().any(|straggler| straggler.name == "sleep"));
    }
}

#[test]
fn a_status_that_nobody_knows_stays_unknown() {
    let run = Run::script(UNTIL_GO);
    let agent = orphaned(&run);
    process::Pidfd::open_verified(&agent).unwrap().unwrap().send_signal(libc::SIGKILL).unwrap();
    wait_for("the agent to be gone", || process::stat(agent.pid).is_err());
    let exit = run.rescue().ended();
    assert_eq!((exit.wait_status, exit.source, exit.code, exit.signal), (None, None, None, None));
}

#[test]
fn a_daemon_without_our_environment_is_remembered_while_the_agent_lives() {
    let run = Run::script(&format!("env -i setsid /bin/sleep 600 & {UNTIL_GO}; exit 0"));
    orphaned(&run);
    let shim = rescued(&run);
    let scope = tree::Scope { within: vec![run.start_record().agent], ..tree::Scope::default() };
    let mut sleeper = None;
    wait_for("the daemon", || {
        let members = tree::members(&tree::System, scope.clone()).unwrap();
        sleeper = members.into_iter().find(|member| member.name == "sleep" && member.pgid == member.pid);
        sleeper.is_some()
    });
    // A look of the rescue shim's comes each second; the agent ends after one that saw the daemon.
    std::thread::sleep(std::time::Duration::from_millis(1300));
    std::fs::write(run.file("go"), "").unwrap();
    let exit = shim.ended();
    assert!(!process::is_alive(&sleeper.unwrap().identity()), "{exit:?}");
}

#[test]
fn a_stranger_with_the_recorded_pid_is_never_touched() {
    let mut stranger = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let mut identity = process::identity(stranger.id() as i32).unwrap();
    let instance = process::instance().unwrap();
    let other_boot = Instance { boot_id: "00000000-0000-0000-0000-000000000000".to_owned(), ..instance.clone() };
    for instance in [instance, other_boot] {
        identity.start_ticks += u64::from(instance == process::instance().unwrap());
        let run = Run::script("true");
        durable::write_json(&run.shim_path(SPEC), &run.spec).unwrap();
        let start = Start {
            version: VERSION,
            instance,
            shim: Identity { pid: 1, start_ticks: 0 },
            pgid: identity.pid,
            agent: identity.clone(),
            cgroup: None,
            time: "2026-01-01T00:00:00.000000000Z".to_owned(),
        };
        durable::write_json(&run.shim_path(START), &start).unwrap();
        run.write_stop(1, 0, 0);
        let exit = run.rescue().ended();
        assert_eq!(exit.wait_status, None);
        assert!(stranger.try_wait().unwrap().is_none(), "the stranger was ended");
        identity = process::identity(stranger.id() as i32).unwrap();
    }
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_run_that_never_came_to_a_start_record_is_recorded_without_a_status() {
    let run = Run::script("touch $OUT/effect");
    durable::write_json(&run.shim_path(SPEC), &run.spec).unwrap();
    let exit = run.rescue().ended();
    assert_eq!((exit.wait_status, exit.rescued, exit.tree_empty), (None, true, true));
    assert!(!run.file("effect").exists());
}

#[test]
fn a_run_with_a_record_is_left_as_it_is_and_a_live_shim_is_not_disturbed() {
    let run = Run::script(&format!("{UNTIL_GO}; exit 3"));
    let mut shim = run.start();
    shim.wait_started();
    assert_eq!(run.rescue().code(), EXIT_LOCKED);
    std::fs::write(run.file("go"), "").unwrap();
    let exit = shim.ended();
    assert_eq!(run.rescue().ended(), exit);
    assert_eq!((exit.code, exit.rescued), (Some(3), false));
}

#[test]
fn a_rescue_on_a_full_disk_writes_into_the_space_that_the_dead_shim_had_reserved() {
    let Some(disk) = SmallDisk::mount() else { return };
    let script = "head -c 4000000 /dev/zero; touch $OUT/ready; while :; do sleep 0.01; done";
    let run = Run::in_folder(disk.folder(), &["/bin/sh", "-c", script]);
    let mut shim = run.start();
    shim.wait_started();
    let agent = run.start_record().agent;
    let mut number = 0;
    wait_for("the disk to be full", || {
        number += 1;
        std::fs::write(run.file(&format!("more-{number}")), vec![0u8; 4096]).is_err()
    });
    reap_adopted(agent.clone());
    shim.kill_nine();
    let shim = rescued(&run);
    shim.signal(libc::SIGTERM);
    assert_eq!(
        shim.ended().cause,
        Cause::Stop { who: "SIGTERM".to_owned(), why: "the shim was told to end".to_owned() }
    );
}
