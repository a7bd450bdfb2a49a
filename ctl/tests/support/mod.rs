//! A daemon with scripted answers on a Unix socket, and the real program run against it.
//!
//! It keeps no rules of the domain: a test says what is there.

#![allow(dead_code, reason = "each test file uses its own part")]

mod services;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conductor_proto::reason::DOMAIN;
use conductor_proto::v1::{
    self, Agent, BusMessage, CheckAgentsResponse, Project, Run, RunStatus, Task, TaskPhase, TaskSpec,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Longest time that a condition is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What the daemon knows. Followers look at it every few milliseconds.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
    pub(crate) tasks: Vec<Task>,
    pub(crate) runs: Vec<Run>,
    pub(crate) projects: Vec<Project>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) check: CheckAgentsResponse,
    /// Logs by run id: bytes and whether they are complete.
    pub(crate) logs: HashMap<String, (Vec<u8>, bool)>,
    /// Events by run id, and whether they are complete.
    pub(crate) events: HashMap<String, (Vec<v1::RunEvent>, bool)>,
    pub(crate) outputs: HashMap<String, String>,
    pub(crate) messages: Vec<BusMessage>,
    /// The answer to every call of this name instead of the real one.
    pub(crate) refusals: HashMap<&'static str, Status>,
    /// Calls that never answer.
    pub(crate) hang: Option<&'static str>,
    /// What came in: name of the call and its request for a `contains`.
    pub(crate) calls: Vec<(String, String)>,
    pub(crate) stopped: bool,
}

impl World {
    /// Changes a task and tells the watchers.
    pub(crate) fn put_task(&mut self, mut task: Task) {
        self.revision += 1;
        task.revision = self.revision;
        self.tasks.retain(|old| old.task_id != task.task_id);
        self.tasks.push(task);
    }

    /// Changes a run and tells the watchers.
    pub(crate) fn put_run(&mut self, mut run: Run) {
        self.revision += 1;
        run.revision = self.revision;
        self.runs.retain(|old| old.run_id != run.run_id);
        self.runs.push(run);
    }

    pub(crate) fn log(&mut self, run: &str, text: &str, end: bool) {
        let log = self.logs.entry(run.to_owned()).or_default();
        log.0.extend_from_slice(text.as_bytes());
        log.1 = end;
    }

    pub(crate) fn post(&mut self, kind: &str, body: &str) {
        let number = self.messages.len() + 1;
        self.messages.push(BusMessage {
            msg_id: format!("MSG-20260101-000000-{number:09}-PID00001-0001"),
            time: Some(at(number as i64)),
            r#type: kind.into(),
            project_id: "app".into(),
            task_id: TASK.into(),
            body: body.into(),
            ..BusMessage::default()
        });
    }
}

pub(crate) const TASK: &str = "task-20260101-000000-fix-the-failing-test";
pub(crate) const RUN: &str = "20260101-0000011234-4711-1";
pub(crate) const RUN2: &str = "20260101-0000051234-4712-2";

/// Seconds after 2026-01-01.
pub(crate) fn at(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: 1_767_225_600 + seconds, nanos: 0 }
}

pub(crate) fn task(phase: TaskPhase) -> Task {
    Task {
        project_id: "app".into(),
        task_id: TASK.into(),
        spec: Some(TaskSpec {
            agent: "claude".into(),
            mode: v1::TaskMode::Loop.into(),
            cwd: "/src/app".into(),
            max_restarts: 100,
            restart_delay: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            log_limit_bytes: 2 << 30,
            ..TaskSpec::default()
        }),
        phase: phase.into(),
        why: "attempt 1 of 100 runs".into(),
        attempt: 1,
        title: "fix the failing test".into(),
        create_time: Some(at(0)),
        update_time: Some(at(1)),
        run_count: 1,
        ..Task::default()
    }
}

pub(crate) fn ended(reason: v1::EndReason) -> Task {
    let end = v1::TaskEnd { reason: reason.into(), detail: "the agent wrote DONE".into(), time: Some(at(134)) };
    Task { end: Some(end), last_run_id: RUN.into(), why: "it has ended".into(), ..task(TaskPhase::Finished) }
}

pub(crate) fn run(id: &str, attempt: u32, status: RunStatus) -> Run {
    let live = status == RunStatus::Running;
    let outcome = match status {
        RunStatus::Completed => v1::RunOutcome::Completed,
        RunStatus::Failed => v1::RunOutcome::Failed,
        _ => v1::RunOutcome::Unspecified,
    };
    Run {
        project_id: "app".into(),
        task_id: TASK.into(),
        run_id: id.into(),
        agent: "claude".into(),
        attempt,
        status: status.into(),
        outcome: outcome.into(),
        exit_code: (!live).then_some(i32::from(status == RunStatus::Failed)),
        pid: 4711,
        start_time: Some(at(1)),
        end_time: (!live).then(|| at(4)),
        cwd: "/src/app".into(),
        tier: "cgroup".into(),
        ..Run::default()
    }
}

pub(crate) fn agent(name: &str, installed: bool) -> Agent {
    Agent {
        name: name.into(),
        r#type: "claude".into(),
        program: format!("/usr/bin/{name}"),
        installed,
        version: "2.1.0".into(),
        login: "login dev@example.com".into(),
        ..Agent::default()
    }
}

/// An error as the daemon sends it.
pub(crate) fn refusal(code: Code, reason: &str, message: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, HashMap::<String, String>::new());
    Status::with_error_details(code, message, details)
}

/// A folder with a socket, and the daemon while it lives.
pub(crate) struct Fake {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) world: Arc<Mutex<World>>,
    server: Option<tokio::runtime::Runtime>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let world = World { epoch: 1, revision: 1, ..World::default() };
        let mut fake = Self { folder, world: Arc::new(Mutex::new(world)), server: None };
        fake.serve();
        fake
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("c.sock")
    }

    /// Begins to answer.
    pub(crate) fn serve(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let _ = std::fs::remove_file(self.socket());
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(self.socket()) }).expect("a socket");
        runtime.spawn(services::serve(listener, Arc::clone(&self.world)));
        self.server = Some(runtime);
    }

    /// As kill -9: all connections break.
    pub(crate) fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_timeout(Duration::from_secs(1));
        }
        let _ = std::fs::remove_file(self.socket());
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.world.lock().expect("no test panics while it holds this"))
    }

    /// The program, with an environment of its own.
    pub(crate) fn ctl(&self, args: &[&str]) -> Command {
        let mut command = plain_ctl(self.folder.path(), args);
        command.env("CONDUCTOR_SOCKET", self.socket());
        command
    }

    /// Runs it to its end, with nothing on standard input.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        finish(self.ctl(args))
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program with nothing of our own environment.
pub(crate) fn plain_ctl(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conductorctl"));
    command
        .args(args)
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(crate) fn finish(mut command: Command) -> Output {
    command.output().expect("the program runs")
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A program that writes to files, so that a test can look while it runs.
pub(crate) struct Live {
    child: Child,
    folder: tempfile::TempDir,
}

impl Live {
    pub(crate) fn spawn(mut command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| std::fs::File::create(folder.path().join(name)).expect("a file");
        let child = command.stdout(file("out")).stderr(file("err")).spawn().expect("the program runs");
        Self { child, folder }
    }

    pub(crate) fn out(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("out")).expect("text")
    }

    pub(crate) fn err(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("err")).expect("text")
    }

    pub(crate) fn sees(&self, text: &str) {
        let began = Instant::now();
        while !self.out().contains(text) && !self.err().contains(text) {
            assert!(began.elapsed() < PATIENCE, "no {text:?} in\n{}\n{}", self.out(), self.err());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGINT).expect("it lives");
    }

    /// Its exit code.
    pub(crate) fn ends(&mut self) -> i32 {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status.code().unwrap_or(-1);
            }
            assert!(began.elapsed() < PATIENCE, "it does not end:\n{}\n{}", self.out(), self.err());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
