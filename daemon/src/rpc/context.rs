//! What all handlers share, and what each call begins with: who calls, whether they may, and the audit line.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use conductor_core::supervisor::{Caller, Supervisor};
use conductor_core::types::{ProjectId, RunInfo, RunKey, TaskKey, Timestamp};
use conductor_proto::{metadata, v1};
use tokio::sync::{OnceCell, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use super::error;
use super::file_watch::FileWatch;
use super::streams::{OpenStream, Streams};
use super::to_proto;
use crate::audit::{Audit, Record};
use crate::auth::{Action, Identity, Scope, identify};
use crate::reload::Reloader;
use crate::socket::Peer;

/// Items of a stream that wait for its reader; the handler waits with the next one.
pub(super) const STREAM_QUEUE: usize = 64;

/// The answer of a streaming call.
pub(super) type Answers<T> = ReceiverStream<Result<T, Status>>;

/// What handlers share.
pub struct Context {
    /// The one that does everything.
    pub supervisor: Supervisor,
    /// The record of changes.
    pub audit: Audit,
    /// Open streams.
    pub streams: Streams,
    /// Wakes the followers of logs.
    pub files: FileWatch,
    /// The configuration's way in.
    pub reloader: Reloader,
    /// Where the socket is.
    pub socket: PathBuf,
    /// When this daemon was started.
    pub started: Timestamp,
    /// Ends the daemon when it is cancelled.
    pub end: CancellationToken,
    /// Number of runs that go on, once the supervisor was shut down.
    pub runs_left: OnceCell<u32>,
}

impl Context {
    /// Shuts the supervisor down, once: a second call waits for the first and changes nothing. Returns the runs that
    /// go on.
    pub async fn shut_down(&self, stop_runs: bool) -> u32 {
        *self.runs_left.get_or_init(|| self.supervisor.shutdown(stop_runs)).await
    }

    /// Begins a call: finds out who it is.
    pub(super) fn call<T>(self: &Arc<Self>, verb: &'static str, request: &Request<T>) -> Result<Call, Status> {
        let internal = || error::status(Code::Internal, conductor_proto::reason::INTERNAL, "the peer is not known");
        let peer = Arc::clone(request.extensions().get::<Arc<Peer>>().ok_or_else(internal)?);
        let authorization = request.metadata().get(metadata::AUTHORIZATION).map(|value| value.to_str().unwrap_or(""));
        let identity = identify(&peer, authorization, |token| self.supervisor.run_token_holder(token))
            .map_err(|error| error::identity(&error))?;
        Ok(Call { context: Arc::clone(self), verb, peer, identity })
    }

    /// A run with its folder and the sizes of its logs so far.
    pub(super) fn run(&self, run: &RunInfo, revision: u64) -> v1::Run {
        let folder = self.supervisor.root().run_dir(&run.key());
        let size = |name: &str| folder.join(name).symlink_metadata().map_or(0, |meta| meta.len());
        let sizes = if run.has_ended() { (0, 0) } else { (size(super::log::STDOUT), size(super::log::STDERR)) };
        to_proto::run(run, folder.display().to_string(), sizes, revision)
    }
}

/// One call.
pub(super) struct Call {
    pub(super) context: Arc<Context>,
    verb: &'static str,
    peer: Arc<Peer>,
    pub(super) identity: Identity,
}

impl Call {
    pub(super) fn caller(&self) -> &Caller {
        &self.identity.caller
    }

    /// The run from inside which the call came.
    pub(super) fn run(&self) -> Option<&RunKey> {
        match &self.identity.scope {
            Scope::Operator => None,
            Scope::Run(run) => Some(run),
        }
    }

    /// Checks a right to see something.
    pub(super) fn allow(&self, action: Action<'_>) -> Result<(), Status> {
        self.identity.scope.allow(action, self.context.supervisor.catalog()).map_err(|error| error::denied(&error))
    }

    /// The project to look in: the one asked for, else the only one that the caller sees, else all.
    pub(super) fn project(&self, asked: Option<ProjectId>) -> Result<Option<ProjectId>, Status> {
        match asked {
            Some(project) => self.allow(Action::Read(&project)).map(|()| Some(project)),
            None => Ok(self.identity.scope.project().cloned()),
        }
    }

    /// The task that an id, a beginning of one, or a slug names, among those that the caller sees.
    pub(super) fn task(&self, project: &str, task: &str) -> Result<TaskKey, Status> {
        if task.is_empty() {
            return Err(error::field("task_id", "a task is needed"));
        }
        if task.contains('/') {
            return Err(error::field("task_id", format!("{task:?} is not an id, a beginning of one, or a slug")));
        }
        let project = self.project(super::from_proto::optional_id("project_id", project)?)?;
        let found = self.context.supervisor.catalog().find_task(task, project.as_ref());
        found.map(|task| task.key.clone()).map_err(|error| error::find("task", &error))
    }

    /// Makes a change, if it is allowed, and records it either way.
    pub(super) async fn change<T>(
        &self,
        action: Action<'_>,
        resource: impl std::fmt::Display,
        request_id: Option<&String>,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        self.make(action, resource, request_id, work, |_| None).await
    }

    /// As [`Self::change`], for what has its name only once it is made.
    pub(super) async fn make<T>(
        &self,
        action: Action<'_>,
        resource: impl std::fmt::Display,
        request_id: Option<&String>,
        work: impl Future<Output = Result<T, Status>>,
        name: impl Fn(&T) -> Option<String>,
    ) -> Result<T, Status> {
        let mut line = self.line(resource, request_id);
        let result = match self.allow(action) {
            Ok(()) => work.await,
            Err(denied) => Err(denied),
        };
        if let Some(name) = result.as_ref().ok().and_then(name) {
            line.rename(name);
        }
        line.set(result.as_ref().map_or_else(error::reason_of, |_| "ok".to_owned()));
        result
    }

    /// An audit line that is written when it is dropped.
    pub(super) fn line(&self, resource: impl std::fmt::Display, request_id: Option<&String>) -> Line {
        let record = Record {
            time: Timestamp::now(),
            who: self.caller().who.clone(),
            uid: self.peer.uid,
            pid: self.peer.pid,
            run: self.run().map(ToString::to_string),
            verb: self.verb,
            resource: resource.to_string(),
            request_id: request_id.cloned(),
            result: "abandoned".to_owned(),
            count: None,
        };
        Line { audit: self.context.audit.clone(), record: Some(record) }
    }

    /// Starts a stream: `work` sends its items and ends it. A reader that goes away ends the work.
    pub(super) fn stream<T, F>(self, work: impl FnOnce(Self, mpsc::Sender<Result<T, Status>>) -> F) -> Answers<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
        let open: OpenStream = self.context.streams.open(self.verb, &self.caller().who);
        let work = work(self, sender.clone());
        tokio::spawn(async move {
            let result = tokio::select! {
                result = work => result,
                () = open.ending() => Err(error::shutting_down()),
                () = sender.closed() => return,
            };
            if let Err(status) = result {
                // Waits for a slow reader to come to it; one that is gone does not hear it.
                drop(sender.send(Err(status)).await);
            }
        });
        ReceiverStream::new(receiver)
    }
}

/// An audit line in the making.
pub(super) struct Line {
    audit: Audit,
    record: Option<Record>,
}

impl Line {
    pub(super) fn set(&mut self, result: String) {
        if let Some(record) = &mut self.record {
            record.result = result;
        }
    }

    fn rename(&mut self, resource: String) {
        if let Some(record) = &mut self.record {
            record.resource = resource;
        }
    }

    pub(super) fn add(&mut self, count: usize) {
        if let Some(record) = &mut self.record {
            record.count = Some(record.count.unwrap_or(0) + count as u64);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.audit.record(record);
        }
    }
}

/// Sends an item; waits for room. `false`: the reader is gone.
pub(super) async fn send<T>(sender: &mpsc::Sender<Result<T, Status>>, item: T) -> bool {
    sender.send(Ok(item)).await.is_ok()
}
