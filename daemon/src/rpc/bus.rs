//! `BusService`.

use std::path::PathBuf;
use std::sync::Arc;

use conductor_core::bus::{Bus, BusError};
use conductor_core::types::{MessageDraft, MessageId, ProjectId, RunId, TaskId, TaskKey};
use conductor_proto::v1;
use conductor_proto::v1::bus_service_server::BusService;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::context::{Answers, Call, Context, Line, send};
use super::requests::Requests;
use super::{error, from_proto, to_proto};
use crate::auth::Action;

/// Messages of a page where the caller does not say.
const DEFAULT_PAGE: u32 = 100;
/// Messages of a page, and of a tail, at most.
const MAX_PAGE: u32 = 1000;
/// Messages of a posting stream that are written together; at most what the bus takes at once.
const MAX_TOGETHER: usize = 512;
/// Bytes of bodies that are written together, so that 512 large messages don't pile up in memory.
const MAX_TOGETHER_BYTES: usize = 4 * 1024 * 1024;

/// The handler.
pub(super) struct Buses {
    pub(super) context: Arc<Context>,
    pub(super) requests: Requests,
}

/// A bus that a caller named.
struct Target {
    project: ProjectId,
    task: Option<TaskKey>,
    path: PathBuf,
    bus: Bus,
}

impl Target {
    fn resource(&self) -> String {
        self.task.as_ref().map_or_else(|| format!("{} (bus)", self.project), |task| format!("{task} (bus)"))
    }
}

/// A message on its way.
struct Post {
    target: Target,
    draft: MessageDraft,
}

impl Buses {
    fn begin<T>(&self, verb: &'static str, request: Request<T>) -> Result<(Call, T), Status> {
        Ok((self.context.call(verb, &request)?, request.into_inner()))
    }

    /// A bus that exists: of a project, or of a task, by default the caller's run's.
    fn target(&self, call: &Call, bus: Option<&v1::BusRef>) -> Result<Target, Status> {
        let (project, task) = bus.map_or(("", ""), |bus| (bus.project_id.as_str(), bus.task_id.as_str()));
        let supervisor = &self.context.supervisor;
        let own = call.run().map(|run| &run.task);
        let task = match (project, task, own) {
            ("", "", Some(own)) => Some(own.clone()),
            (_, "", _) => None,
            ("", task, Some(own)) => Some(call.task(own.project.as_str(), task)?),
            (project, task, _) => Some(call.task(project, task)?),
        };
        let project: ProjectId = match (&task, own) {
            (Some(task), _) => task.project.clone(),
            (None, Some(own)) if project.is_empty() => own.project.clone(),
            (None, _) => from_proto::id("bus.project_id", project)?,
        };
        if supervisor.catalog().project(&project).is_none() {
            return Err(error::not_found("project", format!("no project {project}"), &[]));
        }
        let path = match &task {
            Some(task) => supervisor.root().task_bus(task),
            None => supervisor.root().project_bus(&project),
        };
        let bus = supervisor.bus_hub().bus(&path);
        Ok(Target { project, task, path, bus })
    }

    /// Checks a message and the right to post it.
    fn post(&self, call: &Call, message: v1::PostMessageRequest) -> Result<Post, Status> {
        let target = self.target(call, message.bus.as_ref())?;
        let run: Option<RunId> = from_proto::optional_id("run_id", &message.run_id)?;
        let named = run.as_ref().map(|run| run.as_str());
        call.allow(Action::Post(&target.project, target.task.as_ref(), named))?;
        let own = call.run();
        let run = run.or_else(|| own.map(|own| own.run.clone()));
        // On a project's bus the message names the task that posts it.
        let task: Option<TaskId> =
            target.task.as_ref().map(|task| task.task.clone()).or_else(|| own.map(|own| own.task.task.clone()));
        let draft = from_proto::message(message, target.project.clone(), task, run);
        Ok(Post { target, draft })
    }
}

#[tonic::async_trait]
impl BusService for Buses {
    type FollowMessagesStream = Answers<v1::FollowMessagesResponse>;
    type PostMessagesStream = Answers<v1::PostMessagesResponse>;

    async fn post_message(
        &self,
        request: Request<v1::PostMessageRequest>,
    ) -> Result<Response<v1::PostMessageResponse>, Status> {
        let (call, request) = self.begin("PostMessage", request)?;
        let request_id = from_proto::request_id(&request.request_id)?;
        let resource = self.target(&call, request.bus.as_ref())?.resource();
        let mut line = call.line(resource, request_id.as_ref());
        let posted = async {
            let Post { target, draft } = self.post(&call, request)?;
            match request_id.clone() {
                None => target.bus.post(draft).await.map(|posted| posted.id).map_err(|error| error::bus(&error)),
                Some(id) => self.requests.once(target.path, target.bus, id, draft).await,
            }
        };
        let posted = posted.await;
        line.set(posted.as_ref().map_or_else(error::reason_of, |_| "ok".to_owned()));
        Ok(Response::new(v1::PostMessageResponse { msg_id: posted?.into() }))
    }

    async fn read_messages(
        &self,
        request: Request<v1::ReadMessagesRequest>,
    ) -> Result<Response<v1::ReadMessagesResponse>, Status> {
        let (call, request) = self.begin("ReadMessages", request)?;
        let target = self.target(&call, request.bus.as_ref())?;
        call.allow(Action::Read(&target.project))?;
        let after: Option<MessageId> = from_proto::optional_id("after", &request.after)?;
        let page = if request.tail > 0 {
            target.bus.tail(usize::try_from(request.tail.min(MAX_PAGE)).unwrap_or(0)).await
        } else {
            let size = if request.page_size == 0 { DEFAULT_PAGE } else { request.page_size.min(MAX_PAGE) };
            target.bus.read_after(after, usize::try_from(size).unwrap_or(0)).await
        };
        let page = page.map_err(|error| error::bus(&error))?;
        Ok(Response::new(v1::ReadMessagesResponse {
            messages: page.messages.into_iter().map(to_proto::message).collect(),
            next_after: page.next.map(String::from).unwrap_or(request.after),
            more: page.more,
            skipped: page.skipped,
        }))
    }

    async fn follow_messages(
        &self,
        request: Request<v1::FollowMessagesRequest>,
    ) -> Result<Response<Self::FollowMessagesStream>, Status> {
        let (call, request) = self.begin("FollowMessages", request)?;
        let target = self.target(&call, request.bus.as_ref())?;
        call.allow(Action::Read(&target.project))?;
        let mut after: Option<MessageId> = from_proto::optional_id("after", &request.after)?;
        let mut first = Vec::new();
        if request.tail > 0 {
            let count = usize::try_from(request.tail.min(MAX_PAGE)).unwrap_or(0);
            let page = target.bus.tail(count).await.map_err(|error| error::bus(&error))?;
            (first, after) = (page.messages, page.next);
        }
        // Here, so that an unknown cursor is an error of the call.
        let mut follower = target.bus.follow(after).await.map_err(|error| error::bus(&error))?;
        Ok(Response::new(call.stream(move |_, sender| async move {
            let answer = |message| v1::FollowMessagesResponse { message: Some(to_proto::message(message)) };
            for message in first {
                if !send(&sender, answer(message)).await {
                    return Ok(());
                }
            }
            loop {
                let message = follower.next().await.map_err(|error| error::bus(&error))?;
                if !send(&sender, answer(message)).await {
                    return Ok(());
                }
            }
        })))
    }

    async fn post_messages(
        &self,
        request: Request<Streaming<v1::PostMessagesRequest>>,
    ) -> Result<Response<Self::PostMessagesStream>, Status> {
        let (call, messages) = self.begin("PostMessages", request)?;
        let buses = Self { context: Arc::clone(&self.context), requests: self.requests.clone() };
        Ok(Response::new(call.stream(move |call, sender| async move { buses.post_all(call, messages, sender).await })))
    }
}

impl Buses {
    /// Posts what comes, in order; what is there at once is written at once. Ends at the first failure, after the
    /// answers to all that was posted before.
    async fn post_all(
        &self,
        call: Call,
        mut messages: Streaming<v1::PostMessagesRequest>,
        sender: mpsc::Sender<Result<v1::PostMessagesResponse, Status>>,
    ) -> Result<(), Status> {
        // One line for each bus in a row, with the number of messages: the bus itself has the rest. What is refused has
        // lines of its own.
        let mut line: Option<(PathBuf, Line, usize)> = None;
        let mut waiting: Option<Post> = None;
        loop {
            let first = match waiting.take() {
                Some(post) => post,
                None => match messages.next().await {
                    Some(message) => self.streamed(&call, message?)?,
                    None => return Ok(()),
                },
            };
            if line.as_ref().is_none_or(|(path, _, _)| *path != first.target.path) {
                line = Some((first.target.path.clone(), call.line(first.target.resource(), None), 0));
            }
            let (drafts, failed) = self.gather(&call, &first.target, first.draft, &mut messages, &mut waiting).await;
            let (posted, result) = post_in_order(&first.target.bus, drafts, &sender).await;
            if let Some((_, line, count)) = &mut line
                && posted > 0
            {
                line.add(posted);
                line.set("ok".to_owned());
                *count += posted;
            }
            if let Err(Refused { count, status }) = result {
                let own = line.take().filter(|(_, _, posted)| *posted == 0).map(|(_, line, _)| line);
                refused(own.unwrap_or_else(|| call.line(first.target.resource(), None)), count, &status);
                return Err(status);
            }
            failed?;
        }
    }

    /// Checks a message of a stream. One that is refused gets a line of its own.
    fn streamed(&self, call: &Call, message: v1::PostMessagesRequest) -> Result<Post, Status> {
        let Some(message) = message.message else {
            let status = error::field("message", "a message is needed");
            refused(call.line("(no bus)", None), 1, &status);
            return Err(status);
        };
        let bus = message.bus.clone();
        let post = if message.request_id.is_empty() {
            self.post(call, message)
        } else {
            Err(error::field("message.request_id", "not in a stream: use PostMessage"))
        };
        post.inspect_err(|status| {
            // As it was named, where it names none: that may be why it is refused.
            let named = || bus.as_ref().map_or(String::new(), |bus| format!("{}/{}", bus.project_id, bus.task_id));
            let resource = self.target(call, bus.as_ref()).map_or_else(|_| named(), |target| target.resource());
            refused(call.line(resource, None), 1, status);
        })
    }

    /// Takes what has come already for the same bus. The second value is what ends the stream afterwards.
    async fn gather(
        &self,
        call: &Call,
        target: &Target,
        first: MessageDraft,
        messages: &mut Streaming<v1::PostMessagesRequest>,
        waiting: &mut Option<Post>,
    ) -> (Vec<MessageDraft>, Result<(), Status>) {
        let mut bytes = first.body.len();
        let mut drafts = vec![first];
        while drafts.len() < MAX_TOGETHER && bytes < MAX_TOGETHER_BYTES {
            let next = tokio::select! {
                biased;
                next = messages.next() => next,
                () = std::future::ready(()) => break,
            };
            let Some(next) = next else { break };
            match next.and_then(|message| self.streamed(call, message)) {
                Ok(post) if post.target.path == target.path => {
                    bytes += post.draft.body.len();
                    drafts.push(post.draft);
                }
                Ok(post) => {
                    *waiting = Some(post);
                    break;
                }
                Err(status) => return (drafts, Err(status)),
            }
        }
        (drafts, Ok(()))
    }
}

/// Messages that were not posted, and why.
struct Refused {
    count: usize,
    status: Status,
}

impl Refused {
    fn new(count: usize, error: &BusError) -> Self {
        Self { count, status: error::bus(error) }
    }
}

/// Records what was refused.
fn refused(mut line: Line, count: usize, status: &Status) {
    line.add(count);
    line.set(error::reason_of(status));
}

/// Posts together; if that is refused, one after the other, so that those before the bad one are kept. How many were
/// posted, and what was refused.
async fn post_in_order(
    bus: &Bus,
    drafts: Vec<MessageDraft>,
    sender: &mpsc::Sender<Result<v1::PostMessagesResponse, Status>>,
) -> (usize, Result<(), Refused>) {
    let is_about_one = |error: &BusError| {
        matches!(
            error,
            BusError::TooLarge { .. }
                | BusError::InvalidUtf8
                | BusError::EmptyKind
                | BusError::InvalidKind(_)
                | BusError::ReservedMeta(_)
                | BusError::InvalidMetaKey(_)
        )
    };
    let count = drafts.len();
    let copies = drafts.clone();
    match bus.post_many(drafts).await {
        Ok(posted) => {
            for posted in posted {
                // A reader that has gone does not undo what was posted.
                if !send(sender, v1::PostMessagesResponse { msg_id: posted.id.into() }).await {
                    break;
                }
            }
        }
        Err(error) if count > 1 && is_about_one(&error) => {
            for (done, draft) in copies.into_iter().enumerate() {
                match bus.post(draft).await {
                    Ok(posted) => {
                        send(sender, v1::PostMessagesResponse { msg_id: posted.id.into() }).await;
                    }
                    Err(error) => return (done, Err(Refused::new(1, &error))),
                }
            }
        }
        // A failure of the bus is that of all that were to be written.
        Err(error) => return (0, Err(Refused::new(count, &error))),
    }
    (count, Ok(()))
}
