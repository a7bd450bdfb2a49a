//! Agents that put links, pipes and nothing at all where the daemon keeps its files.

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::{EndReason, LogStream, RunFile};
use conductor_tests::client::{PROJECT, project_bus, task_bus};
use conductor_tests::{Client, DEADLINE, Sandbox, in_sandbox, wait_until};
use tonic::Code;

use crate::common::{again, detail, finish, folder, once, reason, run_once, script, start, wait_file};

/// What no answer may show.
const OUTSIDE: &str = "this text is outside of the root";

fn secret(sandbox: &Sandbox) -> Result<String> {
    let path = sandbox.path().join("outside.txt");
    std::fs::write(&path, OUTSIDE)?;
    Ok(path.display().to_string())
}

#[test]
fn a_link_in_the_place_of_a_run_file_leads_nowhere() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let secret = secret(sandbox)?;
        let link = |name: &str| format!("sh ln -sf {secret} $CONDUCTOR_RUN_FOLDER/{name}");
        let run = run_once(&client, &[&link("output.md"), &link("prompt.md"), &link("agent-stdout.txt")])?;
        for file in [RunFile::Output, RunFile::Prompt] {
            if let Ok(Some(bytes)) = client.run_file(&run, file) {
                ensure!(!String::from_utf8_lossy(&bytes).contains(OUTSIDE), "{file:?} leads outside");
            }
        }
        if let Ok(bytes) = client.log(&run, LogStream::Stdout, 0, false) {
            ensure!(!String::from_utf8_lossy(&bytes).contains(OUTSIDE), "the log leads outside");
        }
        let shown = sandbox.ctl(&["output", &run.run_id])?;
        ensure!(!shown.stdout.contains(OUTSIDE), "{shown:?}");
        assert_eq!(std::fs::read_to_string(sandbox.path().join("outside.txt"))?, OUTSIDE, "and it is as it was");
        Ok(())
    });
}

#[test]
fn a_link_in_the_place_of_a_bus_is_not_followed_by_readers_or_writers() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let outside = sandbox.path().join("outside.md");
        let entry = "---\nmsg_id: X-1\nts: 2026-01-01T00:00:00Z\ntype: FACT\nproject_id: demo\ntask_id: \"\"\nrun_id: \"\"\n---\nthis text is outside of the root\n";
        std::fs::write(&outside, entry)?;
        let replace = format!("sh ln -sf {} $CONDUCTOR_TASK_FOLDER/TASK-MESSAGE-BUS.md", outside.display());
        let task = client.submit(once("bus-link", &[&replace, "touch up"]))?;
        wait_file(sandbox, &task, "up")?;
        let read = client.messages(&task_bus(&task));
        ensure!(!format!("{read:?}").contains(OUTSIDE), "read through the link: {read:?}");
        let refused = client.post(&task_bus(&task), "FACT", "through the link");
        ensure!(refused.is_err(), "posted through the link: {refused:?}");
        assert_eq!(std::fs::read_to_string(&outside)?, entry);
        client.post(&project_bus(PROJECT), "FACT", "other buses go on")?;
        Ok(())
    });
}

#[test]
fn pipes_in_the_place_of_files_hang_nobody() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let pipe = |name: &str| format!("sh rm -f $CONDUCTOR_RUN_FOLDER/{name}; mkfifo $CONDUCTOR_RUN_FOLDER/{name}");
        let run = run_once(&client, &[&pipe("output.md"), &pipe("agent-stdout.txt"), &pipe("prompt.md")])?;
        for file in [RunFile::Output, RunFile::Prompt] {
            let read = client.run_file(&run, file);
            ensure!(read.as_ref().is_ok_and(Option::is_none) || read.is_err(), "{file:?}: {read:?}");
        }
        let _ = client.log(&run, LogStream::Stdout, 0, true);
        let steps = ["sh mkfifo $CONDUCTOR_TASK_FOLDER/DONE"];
        let task = finish(&client, script("done-pipe", &steps))?;
        assert_eq!(reason(&task), EndReason::NeedsAttention, "a DONE that is no file is an error: {task:#?}");
        let bus = "sh cd $CONDUCTOR_TASK_FOLDER; mkfifo pipe; mv -f pipe TASK-MESSAGE-BUS.md";
        let piped = client.submit(once("bus-pipe", &[bus, "touch up"]))?;
        wait_file(sandbox, &piped, "up")?;
        ensure!(client.post(&task_bus(&piped), "FACT", "into the pipe").is_err(), "a pipe is no bus");
        let other = finish(&client, script("bystander", &["done"]))?;
        assert_eq!(reason(&other), EndReason::Done, "nothing else notices");
        Ok(())
    });
}

#[test]
fn a_done_that_is_a_link_needs_attention_and_a_done_folder_is_left_by_resume() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let link = format!("sh ln -s {} $CONDUCTOR_TASK_FOLDER/DONE", secret(sandbox)?);
        let task = finish(&client, script("done-link", &[&link]))?;
        assert_eq!(reason(&task), EndReason::NeedsAttention, "{task:#?}");
        let task = finish(&client, script("done-folder", &["on-attempt 1 done-folder", "from 2 done"]))?;
        assert_eq!(reason(&task), EndReason::NeedsAttention, "{task:#?}");
        assert!(detail(&task).contains("DONE") && detail(&task).contains("resume"), "{}", detail(&task));
        std::fs::remove_dir(folder(sandbox, &task).join("DONE"))?;
        client.resume(&task.task_id, "")?;
        let task = client.wait_task_until(&task.task_id, "done", DEADLINE, |task| reason(task) == EndReason::Done)?;
        assert_eq!(task.run_count, 2);
        Ok(())
    });
}

/// A task whose agent lives on while its folder is gone.
fn sawed_off(sandbox: &Sandbox, client: &Client) -> Result<(conductor_proto::v1::Task, i32)> {
    let up = sandbox.path().join("tmp/up");
    let step = format!("sh : > {}", up.display());
    let task = client.submit(script("sawed-off", &[&step, "wait-file never", "sleep 600000"]))?;
    wait_until("the agent is up", DEADLINE, || up.exists())?;
    let run = client.wait_running(&task.task_id)?;
    std::fs::remove_dir_all(folder(sandbox, &task)).context("removing the folder of a task")?;
    Ok((task, run.pid))
}

#[test]
fn a_run_whose_task_folder_was_removed_can_be_stopped() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let (task, pid) = sawed_off(sandbox, &client)?;
        // Whatever the answer is: what must not happen is that an agent goes on that nobody can stop.
        let answer = client.stop(&task.task_id, 200);
        wait_until("the agent is ended", DEADLINE, || !conductor_tests::procs::lives(pid))
            .with_context(|| format!("the stop was answered with {answer:?}"))?;
        sandbox.assert_no_strays()?;
        let other = finish(&client, script("bystander", &["done"]))?;
        assert_eq!(reason(&other), EndReason::Done);
        Ok(())
    });
}

#[test]
fn a_run_whose_task_folder_was_removed_while_the_daemon_was_away_does_not_run_for_ever() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let up = sandbox.path().join("tmp/up");
        let step = format!("sh : > {}", up.display());
        let task = client.submit(script("orphaned", &[&step, "sleep 600000"]))?;
        wait_until("the agent is up", DEADLINE, || up.exists())?;
        let run = client.wait_running(&task.task_id)?;
        daemon.kill9()?;
        std::fs::remove_dir_all(folder(sandbox, &task))?;
        let (_daemon, client) = again(sandbox)?;
        assert_eq!(client.task(&task.task_id).expect_err("its folder is gone").code(), Code::NotFound);
        wait_until("the agent is ended", DEADLINE, || !conductor_tests::procs::lives(run.pid))?;
        sandbox.assert_no_strays()
    });
}

#[test]
fn an_escaped_process_with_no_environment_is_still_inside_its_run() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        // It forks twice, leads a session of its own and has nothing of its run's variables: still no operator.
        let ctl = sandbox.program("conductorctl").display().to_string();
        let socket = sandbox.socket().display().to_string();
        let said = sandbox.path().join("tmp/said").display().to_string();
        let inner =
            format!("{ctl} --socket {socket} project create stolen --root /tmp > {said} 2>&1; echo $? > {said}.code");
        let inner_file = sandbox.work().join("inner.sh");
        std::fs::write(&inner_file, inner)?;
        let step = format!(
            "sh (setsid env -i /bin/sh {} &) ; while [ ! -s {said}.code ]; do sleep 0.05; done",
            inner_file.display()
        );
        let task = finish(&client, script("escaping", &[&step, "done"]))?;
        assert_eq!(reason(&task), EndReason::Done, "{task:#?}");
        let text = sandbox.read("tmp/said");
        assert_eq!(sandbox.read("tmp/said.code").trim(), "4", "denied: {text}");
        assert!(!sandbox.root().join("stolen").exists());
        Ok(())
    });
}

#[test]
fn everything_below_the_root_is_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        let task = finish(&client, script("private", &["output fine", "child kid-one done", "done"]))?;
        assert_eq!(reason(&task), EndReason::Done);
        let mut open = Vec::new();
        for (path, kind) in conductor_tests::tree::list(&sandbox.root()) {
            let mode = match std::fs::symlink_metadata(sandbox.root().join(&path)) {
                Ok(found) => found.permissions().mode(),
                // A temporary file of the task's last entries.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            // Files that the agent itself made have the mode that it gave them.
            if kind == 'd' && mode & 0o077 != 0 {
                open.push(format!("{path} {:o}", mode & 0o7777));
            }
        }
        ensure!(open.is_empty(), "folders that others can look into: {open:#?}");
        let mode = sandbox.root().metadata()?.permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        Ok(())
    });
}
