//! What the modules share: a daemon with a project, and tasks from script lines.

use anyhow::{Context, Result};
use conductor_proto::v1::{EndReason, Run, Task, TaskMode, TaskSpec};
use conductor_tests::client::PROJECT;
use conductor_tests::{Client, Config, Daemon, Sandbox, Submit};

/// A daemon with the tests' configuration and the project, and a client of it.
pub(crate) fn start(sandbox: &Sandbox) -> Result<(Daemon<'_>, Client)> {
    start_with(sandbox, &Config::new(sandbox))
}

/// The same with a configuration.
pub(crate) fn start_with<'a>(sandbox: &'a Sandbox, config: &Config) -> Result<(Daemon<'a>, Client)> {
    let daemon = Daemon::start(sandbox, config)?;
    let client = daemon.client()?;
    client.create_project(PROJECT, &sandbox.work())?;
    Ok((daemon, client))
}

/// The daemon again, after its end.
pub(crate) fn again(sandbox: &Sandbox) -> Result<(Daemon<'_>, Client)> {
    let daemon = Daemon::again(sandbox)?;
    let client = daemon.client()?;
    Ok((daemon, client))
}

/// A prompt with these steps.
pub(crate) fn prompt(steps: &[&str]) -> String {
    let mut text = String::from("Do what the lines say.\n");
    for step in steps {
        text.push_str("@fake ");
        text.push_str(step);
        text.push('\n');
    }
    text
}

/// A task of the scripted agent.
pub(crate) fn script(slug: &str, steps: &[&str]) -> Submit {
    let spec = TaskSpec { agent: "fake".to_owned(), max_restarts: 20, ..TaskSpec::default() };
    Submit { prompt: prompt(steps), slug: slug.to_owned(), spec, ..Submit::default() }
}

/// The same as a single job.
pub(crate) fn once(slug: &str, steps: &[&str]) -> Submit {
    let mut submit = script(slug, steps);
    submit.spec.mode = TaskMode::Once.into();
    submit
}

/// Submits and waits for the end.
pub(crate) fn finish(client: &Client, submit: Submit) -> Result<Task> {
    let task = client.submit(submit)?;
    client.wait_task(&task.task_id)
}

/// Submits a single job, waits for its end, and returns its run.
pub(crate) fn run_once(client: &Client, steps: &[&str]) -> Result<Run> {
    let task = finish(client, once("single-job", steps))?;
    client.last_run(&task)
}

/// Why a task ended.
pub(crate) fn reason(task: &Task) -> EndReason {
    task.end.as_ref().map_or(EndReason::Unspecified, |end| end.reason())
}

/// The sentence of a task's end.
pub(crate) fn detail(task: &Task) -> String {
    task.end.as_ref().map(|end| end.detail.clone()).unwrap_or_default()
}

/// The folder of a task.
pub(crate) fn folder(sandbox: &Sandbox, task: &Task) -> std::path::PathBuf {
    sandbox.root().join(&task.project_id).join(&task.task_id)
}

/// Makes a file in the folder of a task, which a step `wait-file` waits for.
pub(crate) fn touch(sandbox: &Sandbox, task: &Task, name: &str) -> Result<()> {
    std::fs::write(folder(sandbox, task).join(name), "").context("making a file of a task")
}

/// Waits until an agent made a file in the folder of its task.
pub(crate) fn wait_file(sandbox: &Sandbox, task: &Task, name: &str) -> Result<()> {
    let path = folder(sandbox, task).join(name);
    conductor_tests::wait_until(&format!("{name} is there"), conductor_tests::DEADLINE, || path.exists())
}

/// How many times the scripted agent really ran for a task.
pub(crate) fn executions(sandbox: &Sandbox, task: &Task) -> usize {
    let text = std::fs::read_to_string(folder(sandbox, task).join("fake-attempts")).unwrap_or_default();
    text.lines().count()
}

/// The process of a run's shim, by its start record.
pub(crate) fn shim_pid(run: &Run) -> Result<i32> {
    let text = std::fs::read(std::path::Path::new(&run.folder).join("shim/start.json"))?;
    let start: serde_json::Value = serde_json::from_slice(&text)?;
    let pid = start["shim"]["pid"].as_i64().context("start.json names the shim")?;
    Ok(i32::try_from(pid)?)
}

/// Kills a process that was identified by a record of the sandbox, and waits for its end.
pub(crate) fn kill9(sandbox: &Sandbox, pid: i32) -> Result<()> {
    let found = sandbox.processes().into_iter().find(|process| process.pid == pid);
    let process = found.with_context(|| format!("process {pid} is not of this sandbox"))?;
    conductor_tests::procs::signal(&process, libc::SIGKILL);
    conductor_tests::wait_until("it is dead", conductor_tests::DEADLINE, || !conductor_tests::procs::lives(pid))
}

/// Another program that holds the lock of a bus and has stopped itself.
pub(crate) struct LockHolder(std::process::Child);

impl LockHolder {
    /// Takes the lock; returns once it is held.
    pub(crate) fn of(path: &std::path::Path) -> Result<Self> {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", r#"exec 9>>"$0"; flock 9 && echo held && kill -STOP $$"#]).arg(path);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn()?;
        let mut line = [0_u8; 5];
        let mut pipe = child.stdout.take().context("a pipe")?;
        std::io::Read::read_exact(&mut pipe, &mut line).context("the lock is not had")?;
        let pid = i32::try_from(child.id())?;
        let stopped = || conductor_tests::procs::stat(pid).is_some_and(|(state, ..)| state == 'T');
        conductor_tests::wait_until("it has stopped itself", conductor_tests::DEADLINE, stopped)?;
        Ok(Self(child))
    }

    /// Ends it, which frees the lock.
    pub(crate) fn release(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for LockHolder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
