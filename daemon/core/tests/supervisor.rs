//! The engine with real shims and small shell agents, without a socket: every path of a task through its files.
//!
//! The shim's binary must have been built before (`cargo build -p conductor-shim`; `make test` does).

#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use conductor_core::config::{AgentConfig, AgentKind, CgroupMode, Config};
use conductor_core::store::{DaemonLock, Root, TaskRecord};
use conductor_core::supervisor::{
    Belonging, Caller, Options, ResumeRequest, SpecDraft, StopRequest, Submit, Supervisor,
};
use conductor_core::types::{EndReason, IntentKind, Mode, Outcome, Phase, ProjectId, Timestamp};

struct World {
    supervisor: Supervisor,
    folder: tempfile::TempDir,
    _lock: DaemonLock,
}

fn shim() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let path = exe.parent().unwrap().parent().unwrap().join("conductor-shim");
    assert!(path.exists(), "{} is missing: run `cargo build -p conductor-shim` first", path.display());
    path
}

fn caller() -> Caller {
    Caller { who: "test".into(), run: None }
}

impl World {
    fn new(script: &str, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("agent.sh");
        std::fs::write(&program, format!("#!/bin/sh\nset -u\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut config = Config::default();
        let mut agent = AgentConfig::new(AgentKind::Command);
        agent.program = Some(program.display().to_string());
        config.agents.insert("sh".into(), agent);
        config.defaults.agent = Some("sh".into());
        config.defaults.permissions = Some(conductor_core::types::Permissions::Full);
        config.defaults.restart_delay = conductor_core::config::Time::millis(20);
        config.backoff.base = conductor_core::config::Time::millis(20);
        change(&mut config);
        Self::start(folder, config)
    }

    fn start(folder: tempfile::TempDir, config: Config) -> Self {
        let root = Root::open(folder.path().join("runs")).unwrap();
        let lock = root.lock_daemon(Timestamp::now()).unwrap();
        let options = Options { root, config: Arc::new(config), socket: folder.path().join("s"), shim: shim() };
        let supervisor = Supervisor::start(options).unwrap();
        Self { supervisor, folder, _lock: lock }
    }

    async fn submit(&self, prompt: &str, change: impl FnOnce(&mut Submit)) -> Arc<TaskRecord> {
        let project: ProjectId = "demo".parse().unwrap();
        if self.supervisor.catalog().project(&project).is_none() {
            let root = Some(self.folder.path().to_owned());
            self.supervisor.create_project(&caller(), project.clone(), root, None).await.unwrap();
        }
        let mut submit = Submit { project: Some(project), prompt: prompt.into(), ..Submit::default() };
        change(&mut submit);
        self.supervisor.submit(&caller(), submit).await.unwrap()
    }

    async fn ended(&self, task: &TaskRecord) -> Arc<TaskRecord> {
        let wait = self.supervisor.wait_task(&task.key);
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the task ends in time").unwrap()
    }

    fn task_dir(&self, task: &TaskRecord) -> PathBuf {
        self.supervisor.root().task_dir(&task.key)
    }

    async fn bodies(&self, task: &TaskRecord) -> Vec<(String, String)> {
        let bus = self.supervisor.bus_hub().bus(&self.supervisor.root().task_bus(&task.key));
        let page = bus.read_after(None, 1000).await.unwrap();
        page.messages.into_iter().map(|m| (m.kind, m.body.lines().next().unwrap_or_default().to_owned())).collect()
    }
}

async fn until(what: &str, mut ready: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if ready() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited 10 s for {what}");
}

fn reason(task: &TaskRecord) -> EndReason {
    task.end.as_ref().expect("it has ended").reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_restarted_until_its_agent_writes_done() {
    let world = World::new(
        r#"echo "attempt $CONDUCTOR_ATTEMPT"; [ "$CONDUCTOR_ATTEMPT" = 3 ] && touch "$JRUN_TASK_FOLDER/DONE"; exit 0"#,
        |_| {},
    );
    let task = world.submit("Please do it", |_| {}).await;
    assert_eq!(task.key.task.slug(), "please-do-it");
    let task = world.ended(&task).await;
    assert_eq!((reason(&task), task.attempts), (EndReason::Done, 3), "{}", task.why);
    let runs = world.supervisor.catalog().runs_of(&task.key);
    assert_eq!(runs.len(), 3);
    for (n, run) in runs.iter().enumerate() {
        assert_eq!((run.outcome, run.exit_code, run.attempt as usize), (Some(Outcome::Completed), 0, n + 1));
        assert_eq!(std::fs::read_to_string(run.output_path.as_ref().unwrap()).unwrap(), format!("attempt {}\n", n + 1));
        assert_eq!(run.previous_run_id, n.checked_sub(1).map(|before| runs[before].run_id.clone()));
    }
    until("the last entry", || world.supervisor.bus_hub().stats().posted >= 11).await;
    let kinds: Vec<_> = world.bodies(&task).await.into_iter().map(|(kind, body)| format!("{kind} {body}")).collect();
    let one = |n| {
        [
            format!("INFO starting root agent (restart #{n})"),
            "RUN_START run started".into(),
            "RUN_STOP run stopped with code 0".into(),
        ]
    };
    let mut expected: Vec<String> = (0..3).flat_map(one).collect();
    expected.push("INFO task completed (DONE marker present, no active children)".into());
    assert_eq!(kinds, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashing_single_job_reports_its_code_and_the_tail_of_its_errors() {
    let world = World::new("echo boom >&2; exit 7", |_| {});
    let task =
        world.submit("x y z", |submit| submit.spec = SpecDraft { mode: Mode::Once, ..SpecDraft::default() }).await;
    let task = world.ended(&task).await;
    assert_eq!(reason(&task), EndReason::MaxRestarts);
    assert!(task.why.contains("exit code 7: boom"), "{}", task.why);
    let run = &world.supervisor.catalog().runs_of(&task.key)[0];
    assert_eq!((run.outcome, run.exit_code), (Some(Outcome::Failed), 7));
    until("the crash entry", || world.supervisor.bus_hub().stats().posted >= 5).await;
    assert!(world.bodies(&task).await.contains(&("RUN_CRASH".into(), "run stopped with code 7".into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_leaves_no_process_and_a_resume_continues_the_attempt() {
    let world = World::new(
        r#"[ -e "$JRUN_TASK_FOLDER/go" ] && touch "$JRUN_TASK_FOLDER/DONE" && exit 0
setsid sleep 1000 & trap '' INT; sleep 1001 & wait; wait; wait"#,
        |config| config.stop.int_grace = conductor_core::config::Time::millis(200),
    );
    for tier in [CgroupMode::Auto, CgroupMode::Off] {
        let _ = tier;
    }
    let task = world.submit("work for long", |_| {}).await;
    let run = {
        let catalog = world.supervisor.catalog().clone();
        let key = task.key.clone();
        until("a live run", || catalog.runs_of(&key).iter().any(|run| run.pid != 0)).await;
        catalog.runs_of(&key)[0].clone()
    };
    let pid = run.pid;
    assert!(world.supervisor.processes(&run.key()).await.unwrap().len() >= 2);
    assert_eq!(world.supervisor.run_of_process(pid), Belonging::Run(run.key()));
    assert_eq!(world.supervisor.run_of_process(1), Belonging::Outside);
    let stop = StopRequest { reason: "enough".into(), ..StopRequest::default() };
    let stopping = world.supervisor.end_task(&caller(), &task.key, stop, IntentKind::Stop).await.unwrap();
    assert_eq!(stopping.phase, Some(Phase::Stopping));
    let stopped = world.ended(&task).await;
    assert_eq!(reason(&stopped), EndReason::Stopped);
    // The leader is reaped right after its end was recorded.
    for _ in 0..500 {
        if world.supervisor.processes(&run.key()).await.unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(world.supervisor.processes(&run.key()).await.unwrap().is_empty());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    let info = world.supervisor.catalog().run(&run.key()).unwrap();
    assert_eq!(info.outcome, Some(Outcome::Stopped));
    assert_eq!(info.stop_reason.as_deref(), Some("test: enough"));
    std::fs::write(world.task_dir(&task).join("go"), "").unwrap();
    let resume = ResumeRequest { message: Some("go on now".into()), ..ResumeRequest::default() };
    world.supervisor.resume_task(&caller(), &task.key, resume).await.unwrap();
    let done = world.ended(&task).await;
    assert_eq!((reason(&done), done.attempts), (EndReason::Done, 1), "a stopped attempt goes on");
    let runs = world.supervisor.catalog().runs_of(&task.key);
    let prompt = std::fs::read_to_string(runs[1].prompt_path.as_ref().unwrap()).unwrap();
    assert!(prompt.contains("Continue working on the following:") && prompt.contains("go on now"), "{prompt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_shim_costs_neither_the_exit_code_nor_the_sweep() {
    for mode in [CgroupMode::Auto, CgroupMode::Off] {
        let world = World::new(
            r#"setsid sleep 1000 & while [ ! -e "$JRUN_TASK_FOLDER/go" ]; do sleep 0.02; done; touch "$JRUN_TASK_FOLDER/DONE"; exit 42"#,
            |config| config.cgroup = mode,
        );
        let task = world.submit("survive the shim", |_| {}).await;
        let catalog = world.supervisor.catalog().clone();
        let key = task.key.clone();
        until("a live run", || catalog.runs_of(&key).iter().any(|run| run.pid != 0)).await;
        let run = catalog.runs_of(&key)[0].clone();
        let start = conductor_core::runner::read_start(&world.supervisor.root().run_dir(&run.key())).unwrap().unwrap();
        let pidfd = conductor_shim::process::Pidfd::open_verified(&start.shim).unwrap().unwrap();
        pidfd.send_signal(libc::SIGKILL).unwrap();
        until("the shim's end", || pidfd.has_ended().unwrap()).await;
        std::fs::write(world.task_dir(&task).join("go"), "").unwrap();
        let done = world.ended(&task).await;
        assert_eq!(reason(&done), EndReason::Done);
        let info = catalog.run(&run.key()).unwrap();
        assert_eq!((info.outcome, info.exit_code), (Some(Outcome::Failed), 42), "{mode:?} {info:?}");
        assert!(world.supervisor.processes(&run.key()).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_kept_and_the_queue_is_first_in_first_out() {
    let world = World::new(
        r#"while [ ! -e "$JRUN_TASK_FOLDER/../go" ]; do sleep 0.02; done; touch "$JRUN_TASK_FOLDER/DONE""#,
        |config| config.defaults.max_concurrent_runs = 1,
    );
    let first = world.submit("first task", |_| {}).await;
    let second = world.submit("second task", |_| {}).await;
    let third = world.submit("third task", |_| {}).await;
    until("positions", || world.supervisor.queue_position(&third.key) == 2).await;
    assert_eq!(world.supervisor.queue_position(&second.key), 1);
    assert_eq!(world.supervisor.counts().live_runs, 1);
    std::fs::write(world.task_dir(&first).join("../go"), "").unwrap();
    for task in [&first, &second, &third] {
        assert_eq!(reason(&*world.ended(task).await), EndReason::Done);
    }
    let started = |task: &TaskRecord| world.supervisor.catalog().runs_of(&task.key)[0].start_time;
    assert!(started(&first) < started(&second) && started(&second) < started(&third));
}
