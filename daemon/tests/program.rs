//! The real program: its exit codes, its signals, its words to the service manager, and its services over the socket.
//! No agent runs here, so no shim is needed.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use conductor_proto::{client, reason, v1};
use tempfile::TempDir;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with everything of one daemon.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conductord"));
        command
            .env_clear()
            .env("HOME", self.0.path())
            .env("CONDUCTOR_SHIM", "/bin/true")
            .args(["--root".as_ref(), self.path("root").as_os_str()])
            .args(["--socket".as_ref(), self.path("s.sock").as_os_str()])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn start(&self, words: &[&str]) -> Daemon<'_> {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let child = self.command(words).stderr(log).spawn().expect("starts");
        Daemon { home: self, child }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

struct Daemon<'a> {
    home: &'a Home,
    child: Child,
}

impl Daemon<'_> {
    async fn channel(&mut self) -> Channel {
        let start = Instant::now();
        loop {
            if let Ok((channel, _)) = client::connect(&[self.home.path("s.sock")]).await {
                return channel;
            }
            let ended = self.child.try_wait().expect("our child");
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "it does not answer\n{}", self.home.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("our child");
    }

    async fn ended(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "it does not end\n{}", self.home.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn reason_of(status: &Status) -> String {
    status.get_details_error_info().expect("every error has one").reason
}

#[test]
fn a_bad_configuration_is_exit_78_with_place_and_hint_and_a_good_one_is_said_to_be_valid() {
    let home = Home::new();
    let file = home.path("conductor.yaml");
    std::fs::write(&file, "agents: {}\nspeed: 9\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    for words in [&["--config", file][..], &["config", "check", "--config", file]] {
        let output = run(&mut home.command(words));
        assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
        let text = stderr(&output);
        assert!(text.contains("speed") && text.contains(":2:") && text.contains("hint: "), "{text}");
    }
    std::fs::write(file, "# nothing\n").expect("written");
    let output = run(&mut home.command(&["config", "check", "--config", file]));
    assert!(output.status.success(), "{}", stderr(&output));
    let output = run(&mut home.command(&["config", "schema"]));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(schema["properties"]["agents"].is_object());
}

#[tokio::test]
async fn a_second_daemon_on_the_root_is_exit_75_and_names_the_first() {
    let home = Home::new();
    let mut first = home.start(&[]);
    first.channel().await;
    let output = run(&mut home.command(&[]));
    assert_eq!(output.status.code(), Some(75));
    assert!(stderr(&output).contains(&format!("pid {}", first.child.id())), "{}", stderr(&output));
}

#[tokio::test]
async fn the_service_manager_hears_ready_and_stopping_and_sigterm_is_a_clean_end() {
    let home = Home::new();
    let manager = UnixDatagram::bind(home.path("notify")).expect("bound");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let heard = || {
        let mut buffer = [0; 1000];
        let count = manager.recv(&mut buffer).expect("a word in time");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let child = home.command(&[]).env("NOTIFY_SOCKET", home.path("notify")).stderr(Stdio::null()).spawn();
    let mut daemon = Daemon { home: &home, child: child.expect("starts") };
    let word = heard();
    assert!(word.contains("READY=1") && word.contains("STATUS=adopted 0"), "{word}");
    let (channel, _) = client::connect(&[home.path("s.sock")]).await.expect("READY means that it answers");
    let mut watch = v1::watch_service_client::WatchServiceClient::new(channel);
    let mut events = watch.watch(v1::WatchRequest::default()).await.expect("served").into_inner();
    assert!(events.next().await.expect("an event").expect("the snapshot's end").epoch > 0);
    daemon.signal(nix::sys::signal::SIGTERM);
    assert!(heard().contains("STOPPING=1"));
    let last = events.next().await.expect("a word").expect_err("the end");
    assert_eq!((last.code(), reason_of(&last).as_str()), (Code::Unavailable, reason::SHUTTING_DOWN));
    assert_eq!(daemon.ended().await, Some(0));
    assert!(!home.path("s.sock").exists());
}

#[tokio::test]
async fn a_socket_of_the_service_manager_is_served_and_left_in_its_place() {
    let home = Home::new();
    let path = home.path("s.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("free");
    // The shell keeps its pid for the daemon, and hands it the socket as descriptor 3.
    let mut shell = Command::new("sh");
    shell.env_clear().env("HOME", home.0.path()).env("CONDUCTOR_SHIM", "/bin/true");
    shell.args(["-c", r#"LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" --root "$1" 3<&0 </dev/null"#]);
    shell.arg(env!("CARGO_BIN_EXE_conductord")).arg(home.path("root"));
    let log = std::fs::File::create(home.path("log")).expect("a log");
    let child = shell.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener))).stderr(log).spawn().expect("starts");
    let mut daemon = Daemon { home: &home, child };
    let mut client = v1::daemon_service_client::DaemonServiceClient::new(daemon.channel().await);
    let info = client.get_daemon_info(v1::GetDaemonInfoRequest {}).await.expect("served").into_inner();
    assert_eq!(info.socket, path.display().to_string());
    daemon.signal(nix::sys::signal::SIGTERM);
    assert_eq!(daemon.ended().await, Some(0));
    assert!(path.exists(), "it is the service manager's");
}

#[tokio::test]
async fn a_changed_configuration_is_taken_over_and_a_bad_one_keeps_the_last_good_one() {
    let home = Home::new();
    let file = home.path("conductor.yaml");
    let set = |text: &str| std::fs::write(&file, text).expect("written");
    set("defaults: { max_concurrent_runs: 3 }\n");
    let mut daemon = home.start(&["--config", file.to_str().expect("UTF-8")]);
    let mut client = v1::daemon_service_client::DaemonServiceClient::new(daemon.channel().await);
    set("defaults: { max_concurrent_runs: 5 }\n");
    wait_for(&mut client, |info| info.max_concurrent_runs == 5).await;
    set("defaults: { max_concurrent_runs: many }\n");
    daemon.signal(nix::sys::signal::SIGHUP);
    let info = wait_for(&mut client, |info| !info.config_problem.is_empty()).await;
    assert_eq!(info.max_concurrent_runs, 5);
    let error = client.reload_config(v1::ReloadConfigRequest {}).await.expect_err("still bad");
    assert_eq!((error.code(), reason_of(&error).as_str()), (Code::FailedPrecondition, reason::CONFIG_INVALID));
    set("defaults: { max_concurrent_runs: 7 }\n");
    client.reload_config(v1::ReloadConfigRequest {}).await.expect("good");
    let info = wait_for(&mut client, |info| info.max_concurrent_runs == 7).await;
    assert_eq!(info.config_problem, "");
    client.stop_daemon(v1::StopDaemonRequest { stop_runs: false }).await.expect("answered before the end");
    assert_eq!(daemon.ended().await, Some(0));
    let audit = std::fs::read_to_string(home.path("root/.conductor/audit.jsonl")).expect("written");
    assert!(audit.contains(r#""verb":"ReloadConfig""#) && audit.contains(r#""result":"CONFIG_INVALID""#), "{audit}");
}

async fn wait_for(
    client: &mut v1::daemon_service_client::DaemonServiceClient<Channel>,
    is_so: impl Fn(&v1::GetDaemonInfoResponse) -> bool,
) -> v1::GetDaemonInfoResponse {
    let start = Instant::now();
    loop {
        let info = client.get_daemon_info(v1::GetDaemonInfoRequest {}).await.expect("served").into_inner();
        if is_so(&info) {
            return info;
        }
        assert!(start.elapsed() < PATIENCE, "{info:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn project(channel: &Channel, id: &str) {
    let mut projects = v1::project_service_client::ProjectServiceClient::new(channel.clone());
    let request = v1::CreateProjectRequest { project_id: id.into(), ..Default::default() };
    projects.create_project(request).await.expect("created");
}

#[tokio::test]
async fn a_watch_begins_with_a_snapshot_goes_on_with_changes_and_is_resumed_within_its_epoch() {
    let home = Home::new();
    let mut daemon = home.start(&[]);
    let channel = daemon.channel().await;
    project(&channel, "one").await;
    let mut watch = v1::watch_service_client::WatchServiceClient::new(channel.clone());
    let mut events = watch.watch(v1::WatchRequest::default()).await.expect("served").into_inner();
    let mut next = async || events.next().await.expect("goes on").expect("an event");
    let id = |event: v1::WatchResponse| match event.event {
        Some(v1::watch_response::Event::Project(project)) => project.project_id,
        other => panic!("{other:?}"),
    };
    assert_eq!(id(next().await), "one");
    let end = next().await;
    assert!(matches!(end.event, Some(v1::watch_response::Event::Bookmark(v1::Bookmark { snapshot_end: true }))));
    project(&channel, "two").await;
    assert_eq!(id(next().await), "two");
    let resume = v1::WatchRequest { after_revision: end.revision, epoch: end.epoch, ..Default::default() };
    let mut again = watch.watch(resume.clone()).await.expect("kept").into_inner();
    assert_eq!(id(again.next().await.expect("goes on").expect("an event")), "two");
    for bad in [
        v1::WatchRequest { epoch: end.epoch + 1, ..resume.clone() },
        v1::WatchRequest { after_revision: 9999, ..resume },
    ] {
        let error = watch.watch(bad).await.expect_err("not kept");
        assert_eq!((error.code(), reason_of(&error).as_str()), (Code::OutOfRange, reason::REVISION_COMPACTED));
    }
}

fn message(body: &str) -> v1::PostMessageRequest {
    let bus = v1::BusRef { project_id: "p".into(), task_id: String::new() };
    v1::PostMessageRequest { bus: Some(bus), r#type: "FACT".into(), body: body.into(), ..Default::default() }
}

#[tokio::test]
async fn messages_are_posted_once_in_order_and_followed_from_a_cursor() {
    let home = Home::new();
    let mut daemon = home.start(&[]);
    let channel = daemon.channel().await;
    project(&channel, "p").await;
    let mut bus = v1::bus_service_client::BusServiceClient::new(channel);
    let with_id = |body: &str| v1::PostMessageRequest { request_id: "r1".into(), ..message(body) };
    let first = bus.post_message(with_id("one")).await.expect("posted").into_inner().msg_id;
    let again = bus.post_message(with_id("one")).await.expect("the same").into_inner().msg_id;
    assert_eq!(first, again);
    let error = bus.post_message(with_id("other")).await.expect_err("another content");
    assert_eq!((error.code(), reason_of(&error).as_str()), (Code::AlreadyExists, reason::REQUEST_ID_REUSED));

    // A bad one in the middle: those before it are posted and answered, it is the stream's error.
    let mut stream: Vec<_> = (0..1000).map(|number| message(&number.to_string())).collect();
    stream[700].r#type = String::new();
    let stream = stream.into_iter().map(|message| v1::PostMessagesRequest { message: Some(message) });
    let mut answers = bus.post_messages(tokio_stream::iter(stream)).await.expect("served").into_inner();
    let mut posted = Vec::new();
    let error = loop {
        match answers.next().await.expect("an error comes") {
            Ok(answer) => posted.push(answer.msg_id),
            Err(error) => break error,
        }
    };
    assert_eq!((posted.len(), error.code()), (700, Code::InvalidArgument));

    let target = v1::BusRef { project_id: "p".into(), task_id: String::new() };
    let follow = v1::FollowMessagesRequest { bus: Some(target.clone()), after: first.clone(), tail: 0 };
    let followed = bus.follow_messages(follow).await.expect("a known cursor").into_inner();
    let followed: Vec<_> =
        followed.take(700).map(|answer| answer.expect("a message").message.expect("set")).collect().await;
    assert!(followed.iter().enumerate().all(|(at, message)| message.body == at.to_string()));
    assert_eq!(followed.iter().map(|message| message.msg_id.clone()).collect::<Vec<_>>(), posted);
    let tail = v1::ReadMessagesRequest { bus: Some(target.clone()), tail: 2, ..Default::default() };
    let tail = bus.read_messages(tail).await.expect("read").into_inner();
    assert_eq!(tail.messages.iter().map(|message| message.body.as_str()).collect::<Vec<_>>(), ["698", "699"]);
    let unknown = "MSG-20200101-000000-000000000-PID00001-0001";
    let unknown = v1::ReadMessagesRequest { bus: Some(target), after: unknown.into(), ..Default::default() };
    let error = bus.read_messages(unknown).await.expect_err("unknown");
    assert_eq!((error.code(), reason_of(&error).as_str()), (Code::NotFound, reason::UNKNOWN_CURSOR));
}

#[tokio::test]
async fn bad_input_names_its_field_and_touches_nothing() {
    let home = Home::new();
    let mut daemon = home.start(&[]);
    let channel = daemon.channel().await;
    let mut tasks = v1::task_service_client::TaskServiceClient::new(channel.clone());
    let mut runs = v1::run_service_client::RunServiceClient::new(channel.clone());
    let violated = |error: &Status| error.get_details_bad_request().expect("a field").field_violations[0].field.clone();
    for (project, task, field) in [("../x", "t", "project_id"), ("p", "../../x", "task_id"), ("p", "", "task_id")] {
        let request = v1::GetTaskRequest { project_id: project.into(), task_id: task.into() };
        let error = tasks.get_task(request).await.expect_err("bad");
        assert_eq!((error.code(), violated(&error).as_str()), (Code::InvalidArgument, field), "{project} {task}");
    }
    let run = v1::RunRef { project_id: "p".into(), task_id: "/etc".into(), run_id: "passwd".into() };
    let request = v1::StreamRunLogRequest { run: Some(run), ..Default::default() };
    assert_eq!(violated(&runs.stream_run_log(request).await.expect_err("bad")), "run.task_id");
    let error = tasks
        .list_tasks(v1::ListTasksRequest { page_token: "zz".into(), ..Default::default() })
        .await
        .expect_err("no token of ours");
    assert_eq!(reason_of(&error), reason::BAD_PAGE_TOKEN);
    let mut token = tonic::Request::new(v1::ListTasksRequest::default());
    token.metadata_mut().insert("authorization", "Bearer nonsense".parse().expect("ASCII"));
    let error = tasks.list_tasks(token).await.expect_err("not a token");
    assert_eq!((error.code(), reason_of(&error).as_str()), (Code::Unauthenticated, reason::TOKEN_REQUIRED));
    let entries = std::fs::read_dir(home.path("root")).expect("the root").count();
    assert_eq!(entries, 1, "only .conductor: nothing was made in {}", Path::new("root").display());
}

#[tokio::test]
async fn health_and_both_reflections_are_served() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let home = Home::new();
    let mut daemon = home.start(&[]);
    let channel = daemon.channel().await;
    for service in ["", "conductor.v1.TaskService", "conductor.v1.DaemonService"] {
        let answer = HealthClient::new(channel.clone()).check(HealthCheckRequest { service: service.into() }).await;
        assert_eq!(answer.expect("known").into_inner().status, 1, "{service}: SERVING");
    }
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answer =
        client.server_reflection_info(tokio_stream::iter([list])).await.expect("served").into_inner().next().await;
    assert!(format!("{answer:?}").contains("conductor.v1.WatchService"));
}
