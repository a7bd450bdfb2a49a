//! The failure table of the design: what dies, and what is left whole.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::{EndReason, LogStream, Run, RunOutcome};
use conductor_tests::client::task_bus;
use conductor_tests::{Config, DEADLINE, Daemon, Sandbox, in_sandbox, procs, wait_until};
use tonic::Code;

use crate::common::{
    again, executions, finish, kill9, once, reason, script, shim_pid, start, start_with, touch, wait_file,
};

/// An agent that waits for a file, prints and ends with a code of its own.
const WAITING: &[&str] = &["print before", "touch up", "wait-file go", "print after", "exit 42"];

/// Where a run ends whose exit code was kept.
fn assert_kept(run: &Run) {
    assert_eq!((run.outcome(), run.exit_code), (RunOutcome::Failed, Some(42)), "{run:#?}");
}

#[test]
fn a_killed_daemon_loses_no_agent_exit_code_or_line_while_it_is_away() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(once("while-away", WAITING))?;
        let before = client.wait_running(&task.task_id)?;
        wait_file(sandbox, &task, "up")?;
        daemon.kill9()?;
        touch(sandbox, &task, "go")?;
        wait_until("the agent is gone", DEADLINE, || sandbox.stray_processes().is_empty())?;
        let (_daemon, client) = again(sandbox)?;
        let task = client.wait_task(&task.task_id)?;
        let run = client.last_run(&task)?;
        assert_kept(&run);
        assert_eq!(run.run_id, before.run_id);
        assert_eq!(client.log(&run, LogStream::Stdout, 0, false)?, b"before\nafter\n");
        assert_eq!(client.daemon_info()?.recovery.context("a summary")?.ended, 1);
        Ok(())
    });
}

#[test]
fn a_killed_daemon_adopts_live_agents_and_their_loops_go_on() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let job = client.submit(once("adopted-job", WAITING))?;
        let steps = ["post PROGRESS here", "touch up", "on-attempt 1 wait-file go", "until 3 exit 0", "done"];
        let looping = client.submit(script("adopted-loop", &steps))?;
        for task in [&job, &looping] {
            wait_file(sandbox, task, "up")?;
        }
        let pids = [client.wait_running(&job.task_id)?.pid, client.wait_running(&looping.task_id)?.pid];
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        assert_eq!(client.daemon_info()?.recovery.context("a summary")?.adopted, 2);
        assert!(pids.iter().all(|pid| procs::lives(*pid)), "the same processes go on");
        for task in [&job, &looping] {
            touch(sandbox, task, "go")?;
        }
        let job = client.wait_task(&job.task_id)?;
        assert_kept(&client.last_run(&job)?);
        let looping = client.wait_task(&looping.task_id)?;
        assert_eq!((reason(&looping), executions(sandbox, &looping)), (EndReason::Done, 3));
        let messages = client.messages(&task_bus(&looping))?;
        assert_eq!(messages.iter().filter(|message| message.r#type == "RUN_START").count(), 3, "{messages:#?}");
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_killed_shim_of_this_daemon_costs_no_exit_code() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let task = client.submit(once("shim-killed", WAITING))?;
        let run = client.wait_running(&task.task_id)?;
        wait_file(sandbox, &task, "up")?;
        kill9(sandbox, shim_pid(&run)?)?;
        touch(sandbox, &task, "go")?;
        let task = client.wait_task(&task.task_id)?;
        assert_kept(&client.last_run(&task)?);
        sandbox.assert_no_strays()
    });
}

#[test]
fn a_killed_adopted_shim_costs_the_exit_code_only_where_the_kernel_does_not_tell_it() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(once("adopted-shim", WAITING))?;
        let run = client.wait_running(&task.task_id)?;
        wait_file(sandbox, &task, "up")?;
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        kill9(sandbox, shim_pid(&run)?)?;
        touch(sandbox, &task, "go")?;
        assert_kept_or_lost(&client, sandbox, &task.task_id)
    });
}

#[test]
fn when_shim_and_daemon_are_killed_the_agent_runs_on_and_is_adopted() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(once("both-killed", WAITING))?;
        let run = client.wait_running(&task.task_id)?;
        wait_file(sandbox, &task, "up")?;
        daemon.kill9()?;
        kill9(sandbox, shim_pid(&run)?)?;
        assert!(procs::lives(run.pid), "the agent does not notice");
        let (_daemon, client) = again(sandbox)?;
        assert_eq!(client.daemon_info()?.recovery.context("a summary")?.rescued, 1);
        touch(sandbox, &task, "go")?;
        assert_kept_or_lost(&client, sandbox, &task.task_id)
    });
}

/// The code is known where the kernel has `PIDFD_GET_INFO` (Linux 6.15), else the outcome is `lost`; never a guess.
fn assert_kept_or_lost(client: &conductor_tests::Client, sandbox: &Sandbox, task: &str) -> Result<()> {
    let task = client.wait_task(task)?;
    let run = client.last_run(&task)?;
    if kernel()? >= (6, 15) {
        assert_kept(&run);
    } else {
        assert_eq!((run.outcome(), run.exit_code), (RunOutcome::Lost, None), "{run:#?}");
    }
    sandbox.assert_no_strays()
}

fn kernel() -> Result<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut parts = release.split(['.', '-']);
    let mut next = || -> Result<u32> { Ok(parts.next().context("a kernel version")?.trim().parse()?) };
    Ok((next()?, next()?))
}

#[test]
fn a_run_that_vanished_with_all_its_processes_is_lost_and_its_loop_goes_on() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(script("vanished", &["from 2 done", "from 2 exit 0", "touch up", "sleep 600000"]))?;
        let run = client.wait_running(&task.task_id)?;
        wait_file(sandbox, &task, "up")?;
        daemon.kill9()?;
        kill9(sandbox, shim_pid(&run)?)?;
        kill9(sandbox, run.pid)?;
        let (_daemon, client) = again(sandbox)?;
        let task = client.wait_task(&task.task_id)?;
        let runs = client.task_runs(&task)?;
        // Where its zombie still waits to be reaped by pid 1, even its signal is known; an exit code never is.
        let known = runs[0].outcome() == RunOutcome::Signaled && runs[0].signal == libc::SIGKILL;
        assert!(known || runs[0].outcome() == RunOutcome::Lost, "{:#?}", runs[0]);
        assert_eq!(runs[0].exit_code, None);
        assert_eq!(reason(&task), EndReason::Done);
        Ok(())
    });
}

#[test]
fn an_agent_killed_by_somebody_is_recorded_as_signaled() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let task = client.submit(once("agent-killed", WAITING))?;
        let run = client.wait_running(&task.task_id)?;
        wait_file(sandbox, &task, "up")?;
        kill9(sandbox, run.pid)?;
        let run = client.last_run(&client.wait_task(&task.task_id)?)?;
        assert_eq!((run.outcome(), run.signal), (RunOutcome::Signaled, libc::SIGKILL));
        Ok(())
    });
}

#[test]
fn sigterm_to_the_daemon_leaves_agents_running_and_says_so() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let task = client.submit(once("left-running", WAITING))?;
        let run = client.wait_running(&task.task_id)?;
        let status = daemon.terminate()?;
        ensure!(status.success(), "conductord ended with {status}");
        assert!(procs::lives(run.pid));
        let log = sandbox.read("conductord-1.log");
        assert!(log.contains("run") && (log.contains("left") || log.contains("go on")), "it says what it left:\n{log}");
        let (_daemon, client) = again(sandbox)?;
        touch(sandbox, &task, "go")?;
        assert_kept(&client.last_run(&client.wait_task(&task.task_id)?)?);
        Ok(())
    });
}

#[test]
fn with_on_shutdown_stop_sigterm_stops_the_runs_and_their_loops_go_on_later() {
    in_sandbox(|sandbox| {
        let config = Config::new(sandbox).set("on_shutdown", "stop");
        let (daemon, client) = start_with(sandbox, &config)?;
        let steps = ["from 2 done", "from 2 exit 0", "touch up", "sleep 600000"];
        let task = client.submit(script("goes-on-later", &steps))?;
        wait_file(sandbox, &task, "up")?;
        daemon.terminate()?;
        sandbox.assert_no_strays()?;
        let (_daemon, client) = again(sandbox)?;
        assert_eq!(reason(&client.wait_task(&task.task_id)?), EndReason::Done);
        Ok(())
    });
}

#[test]
fn a_second_daemon_on_the_root_ends_with_75_and_names_the_holder() {
    in_sandbox(|sandbox| {
        let (daemon, _client) = start(sandbox)?;
        let mut second = Daemon::spawn(sandbox, &[])?;
        let status = second.wait_end(DEADLINE)?;
        assert_eq!(status.code(), Some(75), "{}", second.log_text());
        assert!(second.log_text().contains(&daemon.pid().to_string()), "{}", second.log_text());
        daemon.client()?.daemon_info()?;
        Ok(())
    });
}

#[test]
fn a_stale_socket_is_replaced() {
    in_sandbox(|sandbox| {
        let (daemon, _client) = start(sandbox)?;
        daemon.kill9()?;
        assert!(sandbox.socket().exists(), "a killed daemon leaves its socket");
        again(sandbox)?;
        Ok(())
    });
}

/// A small tmpfs; dropping it unmounts it. `None` where mounting is not allowed.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&path).ok()?;
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs"]).arg(&path).output().ok()?.status;
        status.success().then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy"]).arg(&self.0).output();
    }
}

#[test]
fn on_a_full_disk_agents_run_on_starts_are_refused_and_exits_are_recorded() {
    in_sandbox(|sandbox| {
        // Needs root; elsewhere the failpoint tests with ENOSPC stand for it.
        let Some(disk) = SmallDisk::mount(sandbox.path().join("state")) else { return Ok(()) };
        let (daemon, client) = start(sandbox)?;
        // Its prints fail for want of space, which it ignores; its exit code must be kept.
        let task = client.submit(once("on-full-disk", &["touch up", "wait-file /nowhere/never", "exit 42"]))?;
        let run = client.wait_running(&task.task_id)?;
        wait_file(sandbox, &task, "up")?;
        let filler = disk.0.join("filler");
        let _ = std::fs::write(&filler, vec![0_u8; 8 << 20]);
        let refused = client.submit(once("refused", &["print never"])).expect_err("there is no space");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        let refused = client.post(&task_bus(&task), "FACT", &"x".repeat(100_000)).expect_err("there is no space");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert!(procs::lives(run.pid), "the agent runs on");
        kill9(sandbox, run.pid)?;
        let exit = std::path::Path::new(&run.folder).join("shim/exit.json");
        wait_until("the exit is recorded", DEADLINE, || {
            std::fs::read(&exit).is_ok_and(|text| String::from_utf8_lossy(&text).contains("\"signal\":9"))
        })?;
        std::fs::remove_file(&filler)?;
        let task = client.wait_task(&task.task_id)?;
        assert_eq!(client.last_run(&task)?.signal, libc::SIGKILL);
        let after = finish(&client, once("accepted", &["print again"]))?;
        assert_eq!(reason(&after), EndReason::Done, "with space again everything works");
        drop(client);
        daemon.terminate()?;
        Ok(())
    });
}
