//! `WatchService`: a snapshot, then changes in the order of revisions, and bookmarks when idle.

use std::sync::Arc;
use std::time::Duration;

use conductor_core::store::catalog::{Change, ChangeKind, Compacted, Object};
use conductor_core::store::{ProjectRecord, TaskRecord};
use conductor_core::types::{ProjectId, RunInfo, TaskId};
use conductor_proto::v1;
use conductor_proto::v1::watch_response::Event;
use conductor_proto::v1::watch_service_server::WatchService;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::context::{Answers, Context, send};
use super::{error, from_proto, to_proto};

/// Pause after which an idle stream says where it is. Below the usual timeouts of clients and proxies.
const BOOKMARK: Duration = Duration::from_secs(15);

/// The handler.
pub(super) struct Watches(pub(super) Arc<Context>);

/// What a watcher wants to see.
struct Filter {
    project: Option<ProjectId>,
    task: Option<TaskId>,
    live_only: bool,
}

impl Filter {
    fn project(&self, project: &ProjectRecord) -> bool {
        self.task.is_none() && self.project.as_ref().is_none_or(|wanted| *wanted == project.id)
    }

    fn is_of(&self, project: &ProjectId, task: &TaskId) -> bool {
        self.project.as_ref().is_none_or(|wanted| wanted == project)
            && self.task.as_ref().is_none_or(|wanted| wanted == task)
    }

    fn task(&self, task: &TaskRecord) -> bool {
        self.is_of(&task.key.project, &task.key.task)
    }

    fn run(&self, run: &RunInfo) -> bool {
        self.is_of(&run.project_id, &run.task_id)
    }
}

#[tonic::async_trait]
impl WatchService for Watches {
    type WatchStream = Answers<v1::WatchResponse>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let call = self.0.call("Watch", &request)?;
        let request = request.into_inner();
        let filter = Filter {
            project: call.project(from_proto::optional_id("project_id", &request.project_id)?)?,
            task: from_proto::optional_id("task_id", &request.task_id)?,
            live_only: request.live_only,
        };
        if filter.task.is_some() && filter.project.is_none() {
            return Err(error::field("project_id", "a project is needed with a task"));
        }
        let catalog = self.0.supervisor.catalog();
        let resume = (request.after_revision > 0).then_some(request.after_revision);
        if let Some(asked) = resume {
            let epoch = catalog.epoch();
            let newest = catalog.revision();
            if request.epoch != epoch {
                // Revisions of another start mean nothing here.
                return Err(error::compacted(&Compacted { asked, oldest: newest, newest }, epoch));
            }
            catalog.changes_since(asked).map_err(|error| error::compacted(&error, epoch))?;
        }
        let watcher = Watcher { context: Arc::clone(&self.0), filter };
        Ok(Response::new(call.stream(move |_, sender| async move { watcher.run(resume, &sender).await })))
    }
}

struct Watcher {
    context: Arc<Context>,
    filter: Filter,
}

type Sender = mpsc::Sender<Result<v1::WatchResponse, Status>>;

impl Watcher {
    async fn run(self, resume: Option<u64>, sender: &Sender) -> Result<(), Status> {
        let catalog = self.context.supervisor.catalog();
        let mut revisions = catalog.watch();
        let mut at = match resume {
            Some(revision) => revision,
            None => match self.snapshot(sender).await {
                Some(revision) => revision,
                None => return Ok(()),
            },
        };
        loop {
            revisions.mark_unchanged();
            let changes = catalog.changes_since(at).map_err(|error| {
                // It began within what is kept, so it has fallen behind.
                error::slow_reader(format!("the reader fell behind: {error}"))
            })?;
            for change in &changes {
                at = change.revision;
                let Some(event) = self.event(change) else { continue };
                if !send(sender, self.answer(change.revision, event)).await {
                    return Ok(());
                }
            }
            if !changes.is_empty() {
                continue;
            }
            match tokio::time::timeout(BOOKMARK, revisions.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(error::shutting_down()),
                Err(_) => {
                    let bookmark = Event::Bookmark(v1::Bookmark { snapshot_end: false });
                    if !send(sender, self.answer(at, bookmark)).await {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sends everything, and returns as of which revision. `None`: the reader is gone.
    async fn snapshot(&self, sender: &Sender) -> Option<u64> {
        let catalog = self.context.supervisor.catalog();
        let snapshot = catalog.snapshot();
        let revision = snapshot.revision;
        let live = self.filter.live_only;
        // One at a time, as the reader takes them: the snapshot holds references only.
        for project in snapshot.projects.iter().filter(|project| self.filter.project(project)) {
            let event = Event::Project(to_proto::project(project, catalog));
            send(sender, self.answer(revision, event)).await.then_some(())?;
        }
        let tasks = snapshot.tasks.iter().filter(|task| self.filter.task(task) && (!live || task.is_active()));
        for task in tasks {
            send(sender, self.answer(revision, Event::Task(to_proto::task(task, &self.context.supervisor))))
                .await
                .then_some(())?;
        }
        for run in snapshot.runs.iter().filter(|run| self.filter.run(run) && !(live && run.has_ended())) {
            send(sender, self.answer(revision, Event::Run(self.context.run(run, revision)))).await.then_some(())?;
        }
        let end = Event::Bookmark(v1::Bookmark { snapshot_end: true });
        send(sender, self.answer(revision, end)).await.then_some(revision)
    }

    fn answer(&self, revision: u64, event: Event) -> v1::WatchResponse {
        v1::WatchResponse { revision, epoch: self.context.supervisor.catalog().epoch(), event: Some(event) }
    }

    /// The event of a change; `None`: it is not wanted.
    fn event(&self, change: &Change) -> Option<Event> {
        let catalog = self.context.supervisor.catalog();
        let gone = change.kind == ChangeKind::Delete;
        match &change.object {
            Object::Project(project) if self.filter.project(project) => Some(if gone {
                deleted(&project.id, "", "")
            } else {
                Event::Project(to_proto::project(project, catalog))
            }),
            Object::Task(task) if self.filter.task(task) => Some(if gone {
                deleted(&task.key.project, task.key.task.as_str(), "")
            } else {
                Event::Task(to_proto::task(task, &self.context.supervisor))
            }),
            Object::Run(run) if self.filter.run(run) => Some(if gone {
                deleted(&run.project_id, run.task_id.as_str(), run.run_id.as_str())
            } else {
                Event::Run(self.context.run(run, change.revision))
            }),
            _ => None,
        }
    }
}

fn deleted(project: &ProjectId, task: &str, run: &str) -> Event {
    Event::Deleted(v1::Deleted { project_id: project.to_string(), task_id: task.to_owned(), run_id: run.to_owned() })
}
