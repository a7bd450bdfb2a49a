//! The services of the scripted daemon.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use conductor_proto::reason;
use conductor_proto::v1::*;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{World, refusal};

type Answer<T> = Result<Response<T>, Status>;
type Stream<T> = ReceiverStream<Result<T, Status>>;

/// How often followers look.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Clone)]
struct Fake(Arc<Mutex<World>>);

pub(super) async fn serve(listener: tokio::net::UnixListener, world: Arc<Mutex<World>>) {
    let fake = Fake(world);
    let router = tonic::transport::Server::builder()
        .add_service(task_service_server::TaskServiceServer::new(fake.clone()))
        .add_service(run_service_server::RunServiceServer::new(fake.clone()))
        .add_service(project_service_server::ProjectServiceServer::new(fake.clone()))
        .add_service(bus_service_server::BusServiceServer::new(fake.clone()))
        .add_service(watch_service_server::WatchServiceServer::new(fake.clone()))
        .add_service(agent_service_server::AgentServiceServer::new(fake.clone()))
        .add_service(daemon_service_server::DaemonServiceServer::new(fake));
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    router.serve_with_incoming(incoming).await.expect("the fake serves");
}

impl Fake {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no test panics while it holds this")
    }

    /// Notes a call, and refuses or hangs if the script says so.
    async fn enter<T: std::fmt::Debug>(&self, name: &'static str, request: &Request<T>) -> Result<(), Status> {
        let token = request.metadata().get("authorization").map(|token| format!("{token:?} ")).unwrap_or_default();
        let hang = {
            let mut world = self.lock();
            world.calls.push((name.to_owned(), format!("{token}{:?}", request.get_ref())));
            if let Some(status) = world.refusals.get(name) {
                return Err(status.clone());
            }
            world.hang == Some(name)
        };
        if hang {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn task(&self, name: &str) -> Result<Task, Status> {
        let world = self.lock();
        let fits = |task: &&Task| task.task_id.starts_with(name) || task.task_id.ends_with(&format!("-{name}"));
        let found = world.tasks.iter().find(fits).cloned();
        found.ok_or_else(|| {
            let text = format!("no task {name:?}; did you mean {}?", super::TASK);
            refusal(Code::NotFound, reason::NOT_FOUND, &text)
        })
    }

    fn run(&self, name: &str) -> Result<Run, Status> {
        let found = self.lock().runs.iter().find(|run| run.run_id.starts_with(name)).cloned();
        found.ok_or_else(|| refusal(Code::NotFound, reason::NOT_FOUND, &format!("no run {name:?}")))
    }
}

fn ok<T>(answer: T) -> Answer<T> {
    Ok(Response::new(answer))
}

fn position(token: &str) -> usize {
    token.parse().unwrap_or(0)
}

fn page<T: Clone>(all: &[T], size: u32, token: &str) -> (Vec<T>, String) {
    let from = position(token).min(all.len());
    let size = if size == 0 { 50 } else { size as usize };
    let to = (from + size).min(all.len());
    (all[from..to].to_vec(), if to < all.len() { to.to_string() } else { String::new() })
}

#[tonic::async_trait]
impl task_service_server::TaskService for Fake {
    async fn submit_task(&self, request: Request<SubmitTaskRequest>) -> Answer<SubmitTaskResponse> {
        self.enter("SubmitTask", &request).await?;
        let request = request.into_inner();
        let mut task = super::task(TaskPhase::Queued);
        task.project_id = request.project_id;
        if let (Some(spec), Some(asked)) = (&mut task.spec, request.spec) {
            spec.agent = asked.agent;
            spec.cwd = asked.cwd;
            spec.mode = asked.mode;
        }
        task.why = "waits for a free slot".into();
        task.parent = request.parent;
        self.lock().put_task(task.clone());
        ok(SubmitTaskResponse { task: Some(task) })
    }

    async fn get_task(&self, request: Request<GetTaskRequest>) -> Answer<GetTaskResponse> {
        self.enter("GetTask", &request).await?;
        ok(GetTaskResponse { task: Some(self.task(&request.get_ref().task_id)?) })
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Answer<ListTasksResponse> {
        self.enter("ListTasks", &request).await?;
        let request = request.into_inner();
        let wanted = |task: &&Task| {
            let parent = request.parent.as_ref().map(|parent| parent.task_id.as_str());
            (request.phases.is_empty() || request.phases.contains(&task.phase))
                && parent.is_none_or(|parent| task.parent.as_ref().is_some_and(|own| own.task_id == parent))
        };
        let all: Vec<Task> = self.lock().tasks.iter().filter(wanted).cloned().collect();
        let (tasks, next_page_token) = page(&all, request.page_size, &request.page_token);
        ok(ListTasksResponse { tasks, next_page_token })
    }

    async fn get_task_prompt(&self, request: Request<GetTaskPromptRequest>) -> Answer<GetTaskPromptResponse> {
        self.enter("GetTaskPrompt", &request).await?;
        ok(GetTaskPromptResponse { prompt: "fix it\n".into() })
    }

    async fn wait_task(&self, request: Request<WaitTaskRequest>) -> Answer<WaitTaskResponse> {
        self.enter("WaitTask", &request).await?;
        loop {
            let task = self.task(&request.get_ref().task_id)?;
            if task.phase() == TaskPhase::Finished {
                return ok(WaitTaskResponse { task: Some(task) });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn wait_children(&self, request: Request<WaitChildrenRequest>) -> Answer<WaitChildrenResponse> {
        self.enter("WaitChildren", &request).await?;
        let children = self.lock().tasks.clone();
        let timed_out = children.iter().any(|task| task.end.is_none());
        ok(WaitChildrenResponse { children, timed_out })
    }

    async fn stop_task(&self, request: Request<StopTaskRequest>) -> Answer<StopTaskResponse> {
        self.enter("StopTask", &request).await?;
        let task = Task { phase: TaskPhase::Stopping.into(), ..self.task(&request.get_ref().task_id)? };
        self.lock().put_task(super::ended(EndReason::Stopped));
        ok(StopTaskResponse { task: Some(task) })
    }

    async fn cancel_task(&self, request: Request<CancelTaskRequest>) -> Answer<CancelTaskResponse> {
        self.enter("CancelTask", &request).await?;
        self.lock().put_task(super::ended(EndReason::Cancelled));
        ok(CancelTaskResponse { task: Some(self.task(&request.get_ref().task_id)?) })
    }

    async fn resume_task(&self, request: Request<ResumeTaskRequest>) -> Answer<ResumeTaskResponse> {
        self.enter("ResumeTask", &request).await?;
        ok(ResumeTaskResponse { task: Some(super::task(TaskPhase::Queued)) })
    }

    async fn delete_task(&self, request: Request<DeleteTaskRequest>) -> Answer<DeleteTaskResponse> {
        self.enter("DeleteTask", &request).await?;
        ok(DeleteTaskResponse {})
    }

    async fn say_to_task(&self, request: Request<SayToTaskRequest>) -> Answer<SayToTaskResponse> {
        self.enter("SayToTask", &request).await?;
        ok(SayToTaskResponse { msg_id: "MSG-1".into(), task: Some(self.task(&request.get_ref().task_id)?) })
    }
}

#[tonic::async_trait]
impl run_service_server::RunService for Fake {
    type StreamRunLogStream = Stream<StreamRunLogResponse>;
    type StreamRunEventsStream = Stream<StreamRunEventsResponse>;
    type ReadRunFileStream = Stream<ReadRunFileResponse>;

    async fn get_run(&self, request: Request<GetRunRequest>) -> Answer<GetRunResponse> {
        self.enter("GetRun", &request).await?;
        ok(GetRunResponse { run: Some(self.run(&request.get_ref().run_id)?) })
    }

    async fn list_runs(&self, request: Request<ListRunsRequest>) -> Answer<ListRunsResponse> {
        self.enter("ListRuns", &request).await?;
        let request = request.into_inner();
        let wanted = |run: &&Run| {
            (request.statuses.is_empty() || request.statuses.contains(&run.status))
                && (request.task_id.is_empty() || run.task_id == request.task_id)
        };
        let mut all: Vec<Run> = self.lock().runs.iter().filter(wanted).cloned().collect();
        all.sort_by_key(|run| run.attempt);
        if request.order() != ListOrder::OldestFirst {
            all.reverse();
        }
        let (runs, next_page_token) = page(&all, request.page_size, &request.page_token);
        ok(ListRunsResponse { runs, next_page_token })
    }

    async fn stop_run(&self, request: Request<StopRunRequest>) -> Answer<StopRunResponse> {
        self.enter("StopRun", &request).await?;
        let id = request.into_inner().run.unwrap_or_default().run_id;
        let run = Run { outcome: RunOutcome::Stopped.into(), ..super::run(&id, 1, RunStatus::Failed) };
        let before = self.run(&id)?;
        self.lock().put_run(run);
        ok(StopRunResponse { run: Some(before) })
    }

    async fn stream_run_log(&self, request: Request<StreamRunLogRequest>) -> Answer<Self::StreamRunLogStream> {
        self.enter("StreamRunLog", &request).await?;
        let request = request.into_inner();
        let id = request.run.clone().unwrap_or_default().run_id;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let fake = self.clone();
        let mut offset = request.offset as usize;
        if request.tail_lines > 0 {
            let log = fake.lock().logs.get(&id).cloned().unwrap_or_default().0;
            let ends: Vec<usize> =
                log.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
            let skip = ends.len().saturating_sub(request.tail_lines as usize);
            offset = if skip == 0 { 0 } else { ends[skip - 1] + 1 };
        }
        tokio::spawn(async move {
            loop {
                let (log, end) = fake.lock().logs.get(&id).cloned().unwrap_or_default();
                // Small pieces: followers must put them together.
                let data = log[offset.min(log.len())..].iter().copied().take(7).collect::<Vec<_>>();
                let last = end && offset + data.len() >= log.len();
                let empty = data.is_empty();
                let piece = StreamRunLogResponse { offset: offset as u64, data, end: last };
                offset += piece.data.len();
                if (!empty || last) && sender.send(Ok(piece)).await.is_err() {
                    return;
                }
                if last || empty && !request.follow {
                    return;
                }
                if empty {
                    tokio::time::sleep(LOOK).await;
                }
            }
        });
        ok(ReceiverStream::new(receiver))
    }

    async fn stream_run_events(&self, request: Request<StreamRunEventsRequest>) -> Answer<Self::StreamRunEventsStream> {
        self.enter("StreamRunEvents", &request).await?;
        let request = request.into_inner();
        let id = request.run.clone().unwrap_or_default().run_id;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let fake = self.clone();
        // Here a position is a number of events.
        let mut seen = request.after.map_or(0, |after| after.stdout_events as usize);
        tokio::spawn(async move {
            loop {
                let (events, end) = fake.lock().events.get(&id).cloned().unwrap_or_default();
                let next = |at: usize| EventPosition { stdout_events: at as u32 + 1, ..EventPosition::default() };
                let new: Vec<RunEvent> = (seen..events.len())
                    .take(2)
                    .map(|at| RunEvent { next: Some(next(at)), ..events[at].clone() })
                    .collect();
                seen += new.len();
                let last = end && seen == events.len();
                let empty = new.is_empty();
                let answer = StreamRunEventsResponse { events: new, end: last };
                if (!empty || last) && sender.send(Ok(answer)).await.is_err() {
                    return;
                }
                if last || empty && !request.follow {
                    return;
                }
                if empty {
                    tokio::time::sleep(LOOK).await;
                }
            }
        });
        ok(ReceiverStream::new(receiver))
    }

    async fn read_run_file(&self, request: Request<ReadRunFileRequest>) -> Answer<Self::ReadRunFileStream> {
        self.enter("ReadRunFile", &request).await?;
        let id = request.into_inner().run.unwrap_or_default().run_id;
        let text = self.lock().outputs.get(&id).cloned();
        let text = text.ok_or_else(|| refusal(Code::NotFound, reason::NOT_FOUND, "no file \"output.md\""))?;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.try_send(Ok(ReadRunFileResponse { data: text.into_bytes() })).expect("an empty queue");
        ok(ReceiverStream::new(receiver))
    }

    async fn list_run_processes(&self, request: Request<ListRunProcessesRequest>) -> Answer<ListRunProcessesResponse> {
        self.enter("ListRunProcesses", &request).await?;
        let process =
            Process { pid: 4711, parent_pid: 4700, name: "node".into(), state: "S".into(), ..Process::default() };
        ok(ListRunProcessesResponse { processes: vec![process] })
    }
}

#[tonic::async_trait]
impl project_service_server::ProjectService for Fake {
    async fn create_project(&self, request: Request<CreateProjectRequest>) -> Answer<CreateProjectResponse> {
        self.enter("CreateProject", &request).await?;
        let request = request.into_inner();
        let project = Project { project_id: request.project_id, root_path: request.root_path, ..Project::default() };
        ok(CreateProjectResponse { project: Some(project) })
    }

    async fn ensure_project(&self, request: Request<EnsureProjectRequest>) -> Answer<EnsureProjectResponse> {
        self.enter("EnsureProject", &request).await?;
        let root_path = request.into_inner().root_path;
        let project = Project { project_id: "app".into(), root_path, ..Project::default() };
        ok(EnsureProjectResponse { project: Some(project), created: true })
    }

    async fn get_project(&self, request: Request<GetProjectRequest>) -> Answer<GetProjectResponse> {
        self.enter("GetProject", &request).await?;
        let project = Project { project_id: request.into_inner().project_id, task_count: 2, ..Project::default() };
        ok(GetProjectResponse { project: Some(project) })
    }

    async fn list_projects(&self, request: Request<ListProjectsRequest>) -> Answer<ListProjectsResponse> {
        self.enter("ListProjects", &request).await?;
        ok(ListProjectsResponse { projects: self.lock().projects.clone(), next_page_token: String::new() })
    }

    async fn delete_project(&self, request: Request<DeleteProjectRequest>) -> Answer<DeleteProjectResponse> {
        self.enter("DeleteProject", &request).await?;
        ok(DeleteProjectResponse {})
    }
}

#[tonic::async_trait]
impl bus_service_server::BusService for Fake {
    type FollowMessagesStream = Stream<FollowMessagesResponse>;
    type PostMessagesStream = Stream<PostMessagesResponse>;

    async fn post_message(&self, request: Request<PostMessageRequest>) -> Answer<PostMessageResponse> {
        self.enter("PostMessage", &request).await?;
        let request = request.into_inner();
        let mut world = self.lock();
        world.post(&request.r#type, &request.body);
        let msg_id = world.messages.last().expect("just posted").msg_id.clone();
        drop(world);
        ok(PostMessageResponse { msg_id })
    }

    async fn read_messages(&self, request: Request<ReadMessagesRequest>) -> Answer<ReadMessagesResponse> {
        self.enter("ReadMessages", &request).await?;
        let request = request.into_inner();
        let all = self.lock().messages.clone();
        let from = if request.tail > 0 {
            all.len().saturating_sub(request.tail as usize)
        } else {
            all.iter().position(|message| message.msg_id == request.after).map_or(0, |at| at + 1)
        };
        let messages = all[from..].to_vec();
        let next_after = messages.last().map_or(request.after, |message| message.msg_id.clone());
        ok(ReadMessagesResponse { messages, next_after, more: false, skipped: 0 })
    }

    async fn follow_messages(&self, request: Request<FollowMessagesRequest>) -> Answer<Self::FollowMessagesStream> {
        self.enter("FollowMessages", &request).await?;
        let request = request.into_inner();
        let mut next = {
            let world = self.lock();
            let after = world.messages.iter().position(|message| message.msg_id == request.after);
            let tail = world.messages.len().saturating_sub(request.tail as usize);
            after.map_or(if request.tail > 0 { tail } else { 0 }, |at| at + 1)
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let fake = self.clone();
        tokio::spawn(async move {
            while !sender.is_closed() {
                let message = fake.lock().messages.get(next).cloned();
                match message {
                    Some(message) => {
                        next += 1;
                        let _ = sender.send(Ok(FollowMessagesResponse { message: Some(message) })).await;
                    }
                    None => tokio::time::sleep(LOOK).await,
                }
            }
        });
        ok(ReceiverStream::new(receiver))
    }

    async fn post_messages(&self, _: Request<Streaming<PostMessagesRequest>>) -> Answer<Self::PostMessagesStream> {
        Err(Status::unimplemented("not used by the program"))
    }
}

#[tonic::async_trait]
impl watch_service_server::WatchService for Fake {
    type WatchStream = Stream<WatchResponse>;

    async fn watch(&self, request: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        self.enter("Watch", &request).await?;
        let request = request.into_inner();
        let epoch = self.lock().epoch;
        if request.after_revision > 0 && request.epoch != epoch {
            return Err(refusal(Code::OutOfRange, reason::REVISION_COMPACTED, "the revision is of another epoch"));
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let fake = self.clone();
        let mut seen = request.after_revision;
        let mut marked = seen > 0;
        tokio::spawn(async move {
            while !sender.is_closed() {
                let (events, revision) = news(&fake.lock(), seen, &request.task_id);
                for (revision, event) in events {
                    let _ = sender.send(Ok(WatchResponse { revision, epoch, event: Some(event) })).await;
                }
                seen = revision;
                if !std::mem::replace(&mut marked, true) {
                    let event = watch_response::Event::Bookmark(Bookmark { snapshot_end: true });
                    let _ = sender.send(Ok(WatchResponse { revision: seen, epoch, event: Some(event) })).await;
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        ok(ReceiverStream::new(receiver))
    }
}

fn news(world: &World, seen: u64, task: &str) -> (Vec<(u64, watch_response::Event)>, u64) {
    let wanted = |id: &str, revision: u64| revision > seen && (task.is_empty() || id == task);
    let tasks = world.tasks.iter().filter(|one| wanted(&one.task_id, one.revision));
    let runs = world.runs.iter().filter(|one| wanted(&one.task_id, one.revision));
    let mut events: Vec<_> = tasks
        .map(|one| (one.revision, watch_response::Event::Task(one.clone())))
        .chain(runs.map(|one| (one.revision, watch_response::Event::Run(one.clone()))))
        .collect();
    events.sort_by_key(|(revision, _)| *revision);
    (events, world.revision)
}

#[tonic::async_trait]
impl agent_service_server::AgentService for Fake {
    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Answer<ListAgentsResponse> {
        self.enter("ListAgents", &request).await?;
        ok(ListAgentsResponse { agents: self.lock().agents.clone() })
    }

    async fn check_agents(&self, request: Request<CheckAgentsRequest>) -> Answer<CheckAgentsResponse> {
        self.enter("CheckAgents", &request).await?;
        ok(self.lock().check.clone())
    }
}

#[tonic::async_trait]
impl daemon_service_server::DaemonService for Fake {
    async fn get_daemon_info(&self, request: Request<GetDaemonInfoRequest>) -> Answer<GetDaemonInfoResponse> {
        self.enter("GetDaemonInfo", &request).await?;
        ok(GetDaemonInfoResponse {
            version: "0.1.0".into(),
            pid: 77,
            start_time: Some(super::at(0)),
            epoch: self.lock().epoch,
            root: "/home/dev/.local/state/conductor/runs".into(),
            socket: "/run/user/1000/conductor/conductor.sock".into(),
            tier: "cgroup".into(),
            tier_reason: "a v2 cgroup is delegated to us".into(),
            live_runs: 2,
            max_concurrent_runs: 16,
            recovery: Some(RecoverySummary { adopted: 2, duration_ms: 41, ..RecoverySummary::default() }),
            ..GetDaemonInfoResponse::default()
        })
    }

    async fn reload_config(&self, request: Request<ReloadConfigRequest>) -> Answer<ReloadConfigResponse> {
        self.enter("ReloadConfig", &request).await?;
        ok(ReloadConfigResponse { restart_needed: vec!["root".into()] })
    }

    async fn get_config(&self, request: Request<GetConfigRequest>) -> Answer<GetConfigResponse> {
        self.enter("GetConfig", &request).await?;
        ok(GetConfigResponse { yaml: "max_concurrent_runs: 16\n".into(), path: "/etc/conductor/conductor.yaml".into() })
    }

    async fn stop_daemon(&self, request: Request<StopDaemonRequest>) -> Answer<StopDaemonResponse> {
        self.enter("StopDaemon", &request).await?;
        self.lock().stopped = true;
        ok(StopDaemonResponse { runs_left: 2 })
    }
}
