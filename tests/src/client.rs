//! Typed calls to the daemon that wait for their answer, so that a test reads from top to bottom.
//!
//! Each client has a connection and a small runtime of its own; threads take one each.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use conductor_proto::v1::agent_service_client::AgentServiceClient;
use conductor_proto::v1::bus_service_client::BusServiceClient;
use conductor_proto::v1::daemon_service_client::DaemonServiceClient;
use conductor_proto::v1::project_service_client::ProjectServiceClient;
use conductor_proto::v1::run_service_client::RunServiceClient;
use conductor_proto::v1::task_service_client::TaskServiceClient;
use conductor_proto::v1::usage_service_client::UsageServiceClient;
use conductor_proto::v1::watch_service_client::WatchServiceClient;
use conductor_proto::v1::{self, BusRef, RunRef, Task, TaskPhase};
use conductor_proto::{client, metadata};
use tokio_stream::StreamExt as _;
use tonic::codegen::InterceptedService;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::DEADLINE;

/// The project of tests that need but one.
pub const PROJECT: &str = "demo";

/// A channel that adds the run's token.
pub type Transport = InterceptedService<Channel, Token>;

/// Adds the token of a run to each call.
#[derive(Clone, Default)]
pub struct Token(Option<String>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = MetadataValue::try_from(format!("Bearer {token}"))
                .map_err(|_| Status::invalid_argument("the token is no header value"))?;
            request.metadata_mut().insert(metadata::AUTHORIZATION, value);
        }
        Ok(request)
    }
}

/// Why a call was refused, as a program sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// gRPC code.
    pub code: tonic::Code,
    /// `ErrorInfo.reason`; empty if the error has no details.
    pub reason: String,
    /// Field names of `BadRequest`.
    pub fields: Vec<String>,
    /// For people.
    pub message: String,
    /// Whether a `RetryInfo` came with it.
    pub retry: bool,
}

impl Refusal {
    /// Takes a status apart.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        Self {
            code: status.code(),
            reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
            fields: details
                .bad_request()
                .map(|bad| bad.field_violations.iter().map(|violation| violation.field.clone()).collect())
                .unwrap_or_default(),
            message: status.message().to_owned(),
            retry: details.retry_info().is_some(),
        }
    }
}

/// A connection to the daemon.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    transport: Transport,
}

/// A task to be submitted; `..Submit::default()` fills the rest.
#[derive(Clone, Debug, Default)]
pub struct Submit {
    /// The prompt.
    pub prompt: String,
    /// Last part of the id; empty: made by the server.
    pub slug: String,
    /// Project; empty: [`PROJECT`].
    pub project: String,
    /// The request id.
    pub request_id: String,
    /// Everything else; agent, folder and delays are filled in where they are empty.
    pub spec: v1::TaskSpec,
}

impl Client {
    /// Connects to a socket.
    ///
    /// # Errors
    /// Nobody answers a real call there.
    pub fn connect(socket: &Path) -> Result<Self> {
        Self::connect_as(socket, None)
    }

    /// The same with the token of a run.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_as(socket: &Path, token: Option<&str>) -> Result<Self> {
        let client = Self::lazy(socket, token)?;
        match client.daemon_info() {
            Ok(_) => Ok(client),
            Err(status) if token.is_some() && status.code() == tonic::Code::PermissionDenied => Ok(client),
            Err(status) => Err(status).context("asking the daemon what it is"),
        }
    }

    /// Connects without a first call.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn lazy(socket: &Path, token: Option<&str>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (channel, _) = runtime.block_on(client::connect(&[socket.to_owned()]))?;
        let transport = InterceptedService::new(channel, Token(token.map(str::to_owned)));
        Ok(Self { runtime, transport })
    }

    /// A client without generated code, for requests that no generated client makes.
    #[must_use]
    pub fn grpc(&self) -> tonic::client::Grpc<Transport> {
        tonic::client::Grpc::new(self.transport.clone())
    }

    /// Waits for a call's answer.
    ///
    /// # Errors
    /// What the call says.
    pub fn wait<T>(&self, call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
        self.runtime.block_on(call).map(tonic::Response::into_inner)
    }

    /// Takes the next message of a stream; `None` at its end.
    ///
    /// # Errors
    /// The stream's error, or nothing came in time.
    pub fn next<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>> {
        let next = async { tokio::time::timeout(DEADLINE, stream.next()).await };
        match self.runtime.block_on(next).context("nothing came over the stream")? {
            None => Ok(None),
            Some(item) => Ok(Some(item?)),
        }
    }

    /// The generated clients, for calls that have no helper here.
    #[must_use]
    pub fn tasks(&self) -> TaskServiceClient<Transport> {
        TaskServiceClient::new(self.transport.clone()).max_decoding_message_size(client::MAX_MESSAGE)
    }

    /// See [`Client::tasks`].
    #[must_use]
    pub fn runs(&self) -> RunServiceClient<Transport> {
        RunServiceClient::new(self.transport.clone()).max_decoding_message_size(client::MAX_MESSAGE)
    }

    /// See [`Client::tasks`].
    #[must_use]
    pub fn bus(&self) -> BusServiceClient<Transport> {
        BusServiceClient::new(self.transport.clone()).max_decoding_message_size(client::MAX_MESSAGE)
    }

    /// See [`Client::tasks`].
    #[must_use]
    pub fn projects(&self) -> ProjectServiceClient<Transport> {
        ProjectServiceClient::new(self.transport.clone())
    }

    /// See [`Client::tasks`].
    #[must_use]
    pub fn watch(&self) -> WatchServiceClient<Transport> {
        WatchServiceClient::new(self.transport.clone()).max_decoding_message_size(client::MAX_MESSAGE)
    }

    /// See [`Client::tasks`].
    #[must_use]
    pub fn daemon(&self) -> DaemonServiceClient<Transport> {
        DaemonServiceClient::new(self.transport.clone())
    }

    /// See [`Client::tasks`].
    #[must_use]
    pub fn agents(&self) -> AgentServiceClient<Transport> {
        AgentServiceClient::new(self.transport.clone())
    }

    /// See [`Client::tasks`].
    #[must_use]
    pub fn usage(&self) -> UsageServiceClient<Transport> {
        UsageServiceClient::new(self.transport.clone())
    }

    /// What the daemon says of itself.
    ///
    /// # Errors
    /// The call's.
    pub fn daemon_info(&self) -> Result<v1::GetDaemonInfoResponse, Status> {
        self.wait(self.daemon().get_daemon_info(v1::GetDaemonInfoRequest {}))
    }

    /// Makes a project unless it is there.
    ///
    /// # Errors
    /// The call's.
    pub fn create_project(&self, id: &str, root: &Path) -> Result<(), Status> {
        let request = v1::CreateProjectRequest {
            project_id: id.to_owned(),
            root_path: root.display().to_string(),
            request_id: String::new(),
        };
        match self.wait(self.projects().create_project(request)) {
            Err(status) if status.code() != tonic::Code::AlreadyExists => Err(status),
            _ => Ok(()),
        }
    }

    /// Submits a task.
    ///
    /// # Errors
    /// The call's.
    pub fn submit(&self, submit: Submit) -> Result<Task, Status> {
        let request = v1::SubmitTaskRequest {
            project_id: if submit.project.is_empty() { PROJECT.to_owned() } else { submit.project },
            slug: submit.slug,
            prompt: submit.prompt,
            spec: Some(submit.spec),
            request_id: submit.request_id,
            ..v1::SubmitTaskRequest::default()
        };
        self.wait(self.tasks().submit_task(request))?.task.ok_or_else(|| Status::internal("no task in the answer"))
    }

    /// A task as it is now.
    ///
    /// # Errors
    /// The call's.
    pub fn task(&self, id: &str) -> Result<Task, Status> {
        let request = v1::GetTaskRequest { project_id: String::new(), task_id: id.to_owned() };
        self.wait(self.tasks().get_task(request))?.task.ok_or_else(|| Status::internal("no task in the answer"))
    }

    /// Waits until a task has ended.
    ///
    /// # Errors
    /// It does not end in time; its state is in the message.
    pub fn wait_task(&self, id: &str) -> Result<Task> {
        self.wait_task_for(id, DEADLINE)
    }

    /// The same with a deadline.
    ///
    /// # Errors
    /// As [`Client::wait_task`].
    pub fn wait_task_for(&self, id: &str, deadline: Duration) -> Result<Task> {
        self.wait_task_until(id, "finished", deadline, |task| task.phase() == TaskPhase::Finished)
    }

    /// Waits until a task is as `condition` says.
    ///
    /// # Errors
    /// It does not become so in time; its state is in the message.
    pub fn wait_task_until(
        &self,
        id: &str,
        what: &str,
        deadline: Duration,
        condition: impl Fn(&Task) -> bool,
    ) -> Result<Task> {
        let start = Instant::now();
        loop {
            let task = self.task(id)?;
            if condition(&task) {
                return Ok(task);
            }
            if start.elapsed() > deadline {
                bail!("task {id} is not {what} after {deadline:?}: {task:#?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The runs of a task, oldest first.
    ///
    /// # Errors
    /// The call's.
    pub fn task_runs(&self, task: &Task) -> Result<Vec<v1::Run>, Status> {
        let request = v1::ListRunsRequest {
            project_id: task.project_id.clone(),
            task_id: task.task_id.clone(),
            order: v1::ListOrder::OldestFirst.into(),
            page_size: 500,
            ..v1::ListRunsRequest::default()
        };
        Ok(self.wait(self.runs().list_runs(request))?.runs)
    }

    /// One run of a task, newest first in doubt.
    ///
    /// # Errors
    /// There is none, or the call's.
    pub fn last_run(&self, task: &Task) -> Result<v1::Run> {
        self.task_runs(task)?.pop().with_context(|| format!("task {} has no run", task.task_id))
    }

    /// Waits until a task has a live run with a known pid.
    ///
    /// # Errors
    /// It has none in time.
    pub fn wait_running(&self, id: &str) -> Result<v1::Run> {
        let start = Instant::now();
        loop {
            let task = self.task(id)?;
            if task.phase() == TaskPhase::Running {
                let run = self.task_runs(&task)?.pop();
                if let Some(run) = run.filter(|run| run.pid > 0 && run.run_id == task.current_run_id) {
                    return Ok(run);
                }
            }
            if start.elapsed() > DEADLINE {
                bail!("task {id} does not run after {DEADLINE:?}: {task:#?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every message of a bus from the beginning.
    ///
    /// # Errors
    /// The call's.
    pub fn messages(&self, bus: &BusRef) -> Result<Vec<v1::BusMessage>, Status> {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let request =
                v1::ReadMessagesRequest { bus: Some(bus.clone()), after: after.clone(), tail: 0, page_size: 1000 };
            let page = self.wait(self.bus().read_messages(request))?;
            found.extend(page.messages);
            after = page.next_after;
            if !page.more {
                return Ok(found);
            }
        }
    }

    /// Posts a message and returns its id.
    ///
    /// # Errors
    /// The call's.
    pub fn post(&self, bus: &BusRef, kind: &str, body: &str) -> Result<String, Status> {
        let request = v1::PostMessageRequest {
            bus: Some(bus.clone()),
            r#type: kind.to_owned(),
            body: body.to_owned(),
            ..v1::PostMessageRequest::default()
        };
        Ok(self.wait(self.bus().post_message(request))?.msg_id)
    }

    /// A log of a run from `offset`, to its end now or, with `follow`, to the end of the run.
    ///
    /// # Errors
    /// The call's, or a chunk whose offset does not follow the one before.
    pub fn log(&self, run: &v1::Run, stream: v1::LogStream, offset: u64, follow: bool) -> Result<Vec<u8>> {
        let request =
            v1::StreamRunLogRequest { run: Some(run_ref(run)), stream: stream.into(), offset, tail_lines: 0, follow };
        let mut chunks = self.wait(self.runs().stream_run_log(request))?;
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next(&mut chunks)? {
            let expected = offset + bytes.len() as u64;
            if !chunk.data.is_empty() && chunk.offset != expected {
                bail!("a chunk begins at {} where {expected} was next", chunk.offset);
            }
            bytes.extend_from_slice(&chunk.data);
        }
        Ok(bytes)
    }

    /// A file of a run; `None` if there is none.
    ///
    /// # Errors
    /// The call's.
    pub fn run_file(&self, run: &v1::Run, file: v1::RunFile) -> Result<Option<Vec<u8>>> {
        let request = v1::ReadRunFileRequest { run: Some(run_ref(run)), file: file.into() };
        let mut chunks = match self.wait(self.runs().read_run_file(request)) {
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next(&mut chunks)? {
            bytes.extend_from_slice(&chunk.data);
        }
        Ok(Some(bytes))
    }

    /// Stops a task with graces of some milliseconds.
    ///
    /// # Errors
    /// The call's.
    pub fn stop(&self, id: &str, grace_ms: i32) -> Result<Task, Status> {
        let grace = Some(millis(grace_ms));
        let request = v1::StopTaskRequest {
            task_id: id.to_owned(),
            reason: "a test asked for it".to_owned(),
            int_grace: grace,
            term_grace: grace,
            ..v1::StopTaskRequest::default()
        };
        self.wait(self.tasks().stop_task(request))?.task.ok_or_else(|| Status::internal("no task in the answer"))
    }

    /// Resumes a task.
    ///
    /// # Errors
    /// The call's.
    pub fn resume(&self, id: &str, message: &str) -> Result<Task, Status> {
        let request = v1::ResumeTaskRequest {
            task_id: id.to_owned(),
            message: message.to_owned(),
            ..v1::ResumeTaskRequest::default()
        };
        self.wait(self.tasks().resume_task(request))?.task.ok_or_else(|| Status::internal("no task in the answer"))
    }
}

/// The reference to a run.
#[must_use]
pub fn run_ref(run: &v1::Run) -> RunRef {
    RunRef { project_id: run.project_id.clone(), task_id: run.task_id.clone(), run_id: run.run_id.clone() }
}

/// The bus of a task.
#[must_use]
pub fn task_bus(task: &Task) -> BusRef {
    BusRef { project_id: task.project_id.clone(), task_id: task.task_id.clone() }
}

/// The bus of a project.
#[must_use]
pub fn project_bus(project: &str) -> BusRef {
    BusRef { project_id: project.to_owned(), task_id: String::new() }
}

/// A duration of the wire.
#[must_use]
pub fn millis(count: i32) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::from(count / 1000), nanos: (count % 1000) * 1_000_000 }
}
