//! From start to a natural end, with the real program: what reaches the agent, what is recorded, what can't start.

mod support;

use conductor_shim::protocol::*;
use conductor_shim::{durable, lock};
use support::{Run, SmallDisk, tiers, wait_for};

#[test]
fn a_run_keeps_its_exit_code_and_every_byte_of_output() {
    for tier in tiers() {
        let run = Run::script("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo oops >&2; exit 42")
            .with(|spec| spec.cgroup_parent = tier.clone());
        let mut shim = run.start();
        let pid = shim.wait_started();
        let exit = shim.ended();
        let expected: String = (0..2000).map(|i| format!("line {i}\n")).collect();
        assert_eq!(run.stdout(), expected);
        assert_eq!(run.text("agent-stderr.txt"), "oops\n");
        assert_eq!((exit.code, exit.signal, exit.wait_status), (Some(42), None, Some(42 << 8)));
        assert_eq!(exit.source, Some(StatusSource::Parent));
        assert_eq!((exit.stdout_bytes, exit.stderr_bytes), (expected.len() as u64, 5));
        assert_eq!((exit.cause, exit.tree_empty, exit.rescued), (Cause::Natural, true, false));
        assert_eq!(exit.tier, if tier.is_some() { Tier::Cgroup } else { Tier::Walk });
        assert_eq!(exit.stragglers, []);
        assert_eq!(exit.run_id, run.spec.run_id);
        assert!(exit.max_rss_kib > 0);
        let start = run.start_record();
        assert_eq!((start.agent.pid, start.pgid), (pid, pid));
        assert_eq!(start.cgroup.is_some(), tier.is_some());
    }
}

#[test]
fn a_fatal_signal_of_the_agent_is_recorded_as_such() {
    let exit = Run::script("kill -SEGV $$").start().ended();
    assert_eq!((exit.code, exit.signal), (None, Some(libc::SIGSEGV)));
    assert_eq!(exit.cause, Cause::Natural);
}

#[test]
fn cpu_time_of_the_leader_and_of_its_children_is_counted() {
    let exit = Run::script(
        "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; (i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done)",
    )
    .start()
    .ended();
    assert!(exit.user_ms + exit.system_ms > 0, "{exit:?}");
}

#[test]
fn the_agent_gets_a_clean_process() {
    let run = Run::python(
        "import os, signal\n\
         print(os.getsid(0) == os.getpid() == os.getpgid(0))\n\
         print([s for s in range(1, 65) if s not in (9, 19, 32, 33) and signal.getsignal(s) == signal.SIG_IGN\n\
                and s not in (signal.SIGPIPE, signal.SIGXFSZ)])\n\
         print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))\n\
         status = dict(l.split(':', 1) for l in open('/proc/self/status'))\n\
         print(sorted(int(f) for f in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + f)))\n\
         print(sorted(os.environ))\n\
         print(os.getcwd() == os.path.realpath(os.environ['OUT']))",
    );
    run.start().ended();
    let expected = "True\n[]\n[]\n[0, 1, 2, 200]\n";
    let output = run.stdout();
    assert!(output.starts_with(expected), "{output} {}", run.text("agent-stderr.txt"));
    assert!(output.ends_with("True\n") && output.contains("'CONDUCTOR_RUN_ID', "), "{output}");
    assert!(!output.contains("HOME"), "the environment is not inherited: {output}");
}

#[test]
fn a_broken_pipe_ends_a_tool_of_the_agent_as_usual() {
    let run = Run::script("grep SigIgn /proc/self/status");
    run.start().ended();
    assert_eq!(run.stdout().trim(), "SigIgn:\t0000000000000000");
}

#[test]
fn the_prompt_is_the_standard_input() {
    let run = Run::script("cat");
    std::fs::write(run.file("prompt.md"), "do it").unwrap();
    let stdin = run.file("prompt.md").to_str().unwrap().to_owned();
    let run = run.with(|spec| spec.stdin = Some(stdin));
    run.start().ended();
    assert_eq!(run.stdout(), "do it");
}

#[test]
fn a_start_that_fails_says_at_which_step_and_why() {
    let missing = |spec: &mut Spec, file: &str| spec.argv = vec![format!("{}/{file}", spec.cwd)];
    type Change<'a> = &'a dyn Fn(&mut Spec);
    let cases: [(&str, i32, Change); 7] = [
        ("exec", libc::ENOENT, &|spec| missing(spec, "none")),
        ("exec", libc::EACCES, &|spec| spec.argv = vec![format!("{}/shim/spec.json", spec.cwd)]),
        ("chdir", libc::ENOENT, &|spec| spec.cwd.push_str("/none")),
        ("stdin", libc::ENOENT, &|spec| spec.stdin = Some("/none".to_owned())),
        ("stdout", libc::ENOENT, &|spec| spec.stdout = "/none/x".to_owned()),
        ("argv", libc::EINVAL, &|spec| spec.argv.clear()),
        ("argv", libc::EINVAL, &|spec| spec.argv.push("a\0b".to_owned())),
    ];
    for (step, errno, change) in cases {
        let run = Run::script("true").with(change);
        let mut shim = run.start();
        assert_eq!(shim.status_line(), format!("failed {step} {errno}\n"));
        let exit = shim.ended();
        assert_eq!(exit.cause, Cause::SpawnFailed { step: step.to_owned(), errno });
        assert_eq!((exit.wait_status, exit.code, exit.signal, exit.source), (None, None, None, None));
        assert!(exit.tree_empty);
    }
}

#[test]
fn a_stop_before_the_start_record_keeps_the_agent_from_running() {
    for tier in tiers() {
        let run = Run::script("touch $OUT/effect").with(|spec| spec.cgroup_parent = tier.clone());
        run.write_stop(1, 0, 0);
        let exit = run.start().ended();
        assert!(!run.file("effect").exists());
        assert_eq!(exit.cause, Cause::Stop { who: "tester".to_owned(), why: "because".to_owned() });
        assert_eq!(exit.code, Some(EXIT_GATE_CLOSED));
    }
}

#[test]
fn a_second_shim_of_a_run_gives_up_with_111_and_touches_nothing() {
    let run = Run::script("touch $OUT/effect");
    let held = lock::try_exclusive(&run.shim_path(SHIM_LOCK)).unwrap().unwrap();
    assert_eq!(run.start().code(), EXIT_LOCKED);
    assert!(!run.file("effect").exists() && !run.shim_path(EXIT).exists());
    drop(held);
    assert_eq!(run.start().ended().code, Some(0));
}

#[test]
fn a_run_is_not_started_twice() {
    let run = Run::script("echo once");
    run.start().ended();
    assert_eq!(run.start().code(), EXIT_STARTED_BEFORE);
    assert_eq!(run.stdout(), "once\n");
}

#[test]
fn a_specification_of_a_newer_version_or_without_sense_is_refused() {
    let run = Run::script("true").with(|spec| spec.version = VERSION + 1);
    let mut shim = run.start();
    assert!(shim.status_line().starts_with("failed spec_version "));
    assert_eq!(shim.code(), 1);
    std::fs::write(run.shim_path(SPEC), "{").unwrap();
    assert_eq!(run.rescue().code(), 1);
}

#[test]
fn keys_of_a_newer_daemon_are_ignored() {
    let run = Run::script("exit 3");
    let mut value = serde_json::to_value(&run.spec).unwrap();
    value["later"] = serde_json::json!({"x": 1});
    durable::write_json(&run.shim_path(SPEC), &value).unwrap();
    // The shim is started by hand, since `start` would write the specification anew.
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_conductor-shim"))
        .arg(run.folder.path())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(run.exit().code, Some(3));
}

#[test]
fn the_tree_lock_is_held_by_the_tree_and_not_by_the_shim() {
    let run = Run::script("sleep 600 & exec sleep 600");
    let mut shim = run.start();
    let pid = shim.wait_started();
    assert!(run.tree_lock_is_held());
    let own = std::fs::read_dir(format!("/proc/{}/fd", shim.child.id())).unwrap();
    let locks = own.filter(|fd| std::fs::read_link(fd.as_ref().unwrap().path()).unwrap().ends_with(TREE_LOCK)).count();
    assert_eq!(locks, 0);
    assert!(std::fs::read_link(format!("/proc/{pid}/fd/{TREE_LOCK_FD}")).unwrap().ends_with(TREE_LOCK));
    run.write_stop(1, 0, 0);
    shim.signal(libc::SIGUSR1);
    shim.ended();
}

#[test]
fn signals_that_a_terminal_sends_do_not_end_the_shim() {
    let run = Run::script("while [ ! -e $OUT/go ]; do sleep 0.01; done; exit 5");
    let mut shim = run.start();
    shim.wait_started();
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE] {
        shim.signal(signal);
    }
    std::fs::write(run.file("go"), "").unwrap();
    assert_eq!(shim.ended().code, Some(5));
}

#[test]
fn a_run_on_a_disk_that_fills_up_still_gets_its_exit_record() {
    let Some(disk) = SmallDisk::mount() else { return };
    let run =
        Run::in_folder(disk.folder(), &["/bin/sh", "-c", "head -c 4000000 /dev/zero; echo $? > /dev/null; exit 7"]);
    let mut shim = run.start();
    let code = shim.code();
    let full = std::fs::write(run.file("more"), vec![0u8; 65_536]).is_err();
    let exit = run.shim_path(EXIT).exists().then(|| run.exit());
    drop(shim);
    assert!(full, "the disk was not full, so the test shows nothing");
    assert_eq!((code, exit.unwrap().code), (0, Some(7)));
}

#[test]
fn many_runs_at_once_keep_their_own_codes() {
    let runs: Vec<Run> = (0..16).map(|code| Run::script(&format!("exit {code}"))).collect();
    let shims: Vec<_> = runs.iter().map(Run::start).collect();
    for (code, shim) in shims.into_iter().enumerate() {
        assert_eq!(shim.ended().code, Some(code as i32));
    }
}

#[test]
fn the_run_folder_may_vanish_without_leaving_processes() {
    let run = Run::script("sleep 600 & rm -rf $OUT/shim; exit 0");
    let mut shim = run.start();
    assert_eq!(shim.code(), 1);
    wait_for("the tree to end", || run.marked_processes().is_empty());
}
