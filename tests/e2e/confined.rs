//! Confined agents: what they may write to, what they see, and that all promises of a run hold for them too.

use anyhow::ensure;
use conductor_proto::v1::{EndReason, Permissions, RunOutcome, SubmitTaskRequest, TaskSpec};
use conductor_tests::client::task_bus;
use conductor_tests::{Config, Daemon, Refusal, Sandbox, Submit, in_sandbox};

use crate::common::{again, detail, finish, folder, once, prompt, reason, script, start_with, touch, wait_file};

fn confined(mut submit: Submit) -> Submit {
    submit.spec.permissions = Permissions::Confined.into();
    submit
}

fn config(sandbox: &Sandbox) -> Config {
    Config::new(sandbox)
}

#[test]
fn a_confined_agent_writes_to_its_folders_and_to_nothing_else() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start_with(sandbox, &config(sandbox))?;
        let outside = sandbox.path().join("home/outside");
        let tries = format!(
            "sh ! touch {0} 2>/dev/null && ! touch /etc/conductor-test 2>/dev/null && touch inside /tmp/own && \
             ! ls {1}/.conductor/secret 2>/dev/null",
            outside.display(),
            sandbox.root().display(),
        );
        let steps = [tries.as_str(), "output the answer", "post FACT from inside", "done"];
        let task = finish(&client, confined(script("confined", &steps)))?;
        ensure!(reason(&task) == EndReason::Done && task.attempt == 1, "{task:#?}");
        ensure!(!outside.exists() && sandbox.work().join("inside").exists());
        let run = client.last_run(&task)?;
        ensure!(run.permissions() == Permissions::Confined, "{run:#?}");
        let output = folder(sandbox, &task).join("runs").join(&run.run_id).join("output.md");
        ensure!(std::fs::read_to_string(output)?.trim_end() == "the answer");
        let posted = client.messages(&task_bus(&task))?;
        ensure!(
            posted.iter().any(|message| message.body == "from inside" && message.run_id == run.run_id),
            "{posted:#?}"
        );
        let shown = sandbox.ctl(&["run", "show", &run.run_id])?.ok()?;
        ensure!(shown.contains("confined"), "{shown}");
        // The same with full permissions.
        let task = finish(&client, script("free", &[&format!("sh touch {}", outside.display()), "done"]))?;
        ensure!(reason(&task) == EndReason::Done && outside.exists());
        ensure!(client.last_run(&task)?.permissions() == Permissions::Full);
        Ok(())
    });
}

#[test]
fn a_confined_agent_sees_no_process_but_its_own_and_its_exit_code_is_kept() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start_with(sandbox, &config(sandbox))?;
        let see = "sh [ $(ls /proc | grep -c '^[0-9]') -lt 8 ] && ! grep -q conductord /proc/[0-9]*/comm";
        let task = finish(&client, confined(once("sees-itself", &[see, "exit 7"])))?;
        let run = client.last_run(&task)?;
        ensure!(run.exit_code == Some(7) && run.outcome() == RunOutcome::Failed, "{run:#?}");
        Ok(())
    });
}

#[test]
fn a_confined_agent_is_stopped_with_all_that_it_left_and_survives_a_kill_of_conductord() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start_with(sandbox, &config(sandbox))?;
        let steps = ["sh setsid sleep 600 >/dev/null 2>&1 &", "touch up", "wait-file go", "done"];
        let task = client.submit(confined(script("stopped", &steps)))?;
        wait_file(sandbox, &task, "up")?;
        daemon.kill9()?;
        let (_daemon, client) = again(sandbox)?;
        let run = client.wait_running(&task.task_id)?;
        ensure!(run.permissions() == Permissions::Confined, "{run:#?}");
        let other = client.submit(confined(script("other", &["touch up", "wait-file never"])))?;
        wait_file(sandbox, &other, "up")?;
        let stopped = client.stop(&other.task_id, 2000)?;
        ensure!(client.wait_task(&stopped.task_id)?.end.is_some());
        ensure!(client.last_run(&other)?.outcome() == RunOutcome::Stopped);
        touch(sandbox, &task, "go")?;
        let task = client.wait_task(&task.task_id)?;
        ensure!(reason(&task) == EndReason::Done, "{task:#?}");
        let run = client.last_run(&task)?;
        ensure!(run.stragglers.iter().any(|left| left.name == "sleep" && left.ended), "{run:#?}");
        sandbox.assert_no_strays()
    });
}

#[test]
fn what_a_confined_agent_starts_is_confined_too() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start_with(sandbox, &config(sandbox))?;
        let outside = sandbox.path().join("home/outside");
        let child = format!("child child-one sh ! touch {} | done", outside.display());
        let steps = [child.as_str(), "sh ! conductorctl task submit --permissions full 'do it' 2>refused", "done"];
        let task = finish(&client, confined(script("parent", &steps)))?;
        ensure!(reason(&task) == EndReason::Done, "{task:#?}");
        let refused = sandbox.read("work/refused");
        ensure!(refused.contains("a confined run can't start a task that is not confined"), "{refused}");
        let child = client.task("child-one")?;
        let run = client.last_run(&child)?;
        ensure!(run.permissions() == Permissions::Confined && !outside.exists(), "{run:#?}");
        ensure!(reason(&child) == EndReason::Done, "{child:#?}");
        Ok(())
    });
}

#[test]
fn without_bubblewrap_nothing_starts_by_default_and_both_ways_out_are_named() {
    in_sandbox(|sandbox| {
        let config = config(sandbox).set("defaults.permissions", "null");
        std::fs::write(sandbox.config_path(), config.yaml())?;
        // A PATH without it.
        let bin = sandbox.path().join("bin");
        std::fs::create_dir_all(&bin)?;
        for name in ["sh", "touch"] {
            std::os::unix::fs::symlink(format!("/bin/{name}"), bin.join(name))?;
        }
        let path = bin.display().to_string();
        let mut daemon = Daemon::spawn(sandbox, &[("PATH", &path)])?;
        daemon.ready()?;
        let client = daemon.client()?;
        client.create_project(conductor_tests::client::PROJECT, &sandbox.work())?;
        let task = finish(&client, script("default", &["done"]))?;
        ensure!(reason(&task) == EndReason::NeedsAttention && task.run_count == 0, "{task:#?}");
        let words = detail(&task);
        ensure!(words.contains("apt-get install bubblewrap") && words.contains("--permissions full"), "{words}");
        let spec = TaskSpec { agent: "fake".to_owned(), permissions: 77, ..TaskSpec::default() };
        let request = SubmitTaskRequest { prompt: prompt(&["done"]), spec: Some(spec), ..SubmitTaskRequest::default() };
        let status = client.wait(client.tasks().submit_task(request)).expect_err("no such permissions");
        ensure!(Refusal::of(&status).reason == "INVALID_FIELD", "{status:?}");
        Ok(())
    });
}
