//! Changes of projects, tasks and runs, resumed by revision.

use conductor_proto::reason;
use conductor_proto::v1::watch_response::Event;
use conductor_proto::v1::{Deleted, Run, Task, WatchRequest, WatchResponse};
use tonic::Streaming;

use crate::connect::Daemon;
use crate::errors::{self, Failure};

const ACTION: &str = "watch for changes";

/// One change.
#[derive(Debug)]
pub(crate) enum Change {
    /// A task is there or has changed.
    Task(Box<Task>),
    /// A run is there or has changed.
    Run(Box<Run>),
    /// Something is gone.
    Deleted(Deleted),
    /// All that there is was sent.
    Complete,
    /// A new snapshot begins: what it does not hold is gone.
    Again,
}

/// Watches until it is dropped.
pub(crate) struct Watcher {
    daemon: Daemon,
    request: WatchRequest,
    open: Option<Streaming<WatchResponse>>,
}

impl Watcher {
    /// All projects if `project` is empty, all tasks if `task` is; with `live_only` without what has ended before.
    pub(crate) fn new(daemon: &Daemon, project: &str, task: &str, live_only: bool) -> Self {
        let request = WatchRequest {
            project_id: project.to_owned(),
            task_id: task.to_owned(),
            after_revision: 0,
            epoch: 0,
            live_only,
        };
        Self { daemon: daemon.clone(), request, open: None }
    }

    /// The next change.
    pub(crate) async fn next(&mut self) -> Result<Change, Failure> {
        loop {
            let Some(stream) = &mut self.open else {
                if let Some(change) = self.connect().await? {
                    return Ok(change);
                }
                continue;
            };
            match stream.message().await {
                Ok(Some(response)) => {
                    if let Some(change) = self.take(response) {
                        return Ok(change);
                    }
                }
                Ok(None) => {
                    self.open = None;
                    self.daemon.outage.lost(ACTION, None).await?;
                }
                Err(status) => {
                    self.open = None;
                    if let Some(change) = self.broken(status).await? {
                        return Ok(change);
                    }
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<Option<Change>, Failure> {
        match Box::pin(self.daemon.watch().watch(self.request.clone())).await {
            Ok(response) => {
                self.daemon.outage.over();
                self.open = Some(response.into_inner());
                Ok(None)
            }
            Err(status) => self.broken(status).await,
        }
    }

    async fn broken(&mut self, status: tonic::Status) -> Result<Option<Change>, Failure> {
        if errors::reason_of(&status).as_deref() == Some(reason::REVISION_COMPACTED) {
            self.request.after_revision = 0;
            self.request.epoch = 0;
            return Ok(Some(Change::Again));
        }
        self.daemon.outage.lost(ACTION, Some(status)).await?;
        Ok(None)
    }

    fn take(&mut self, response: WatchResponse) -> Option<Change> {
        let bookmark = matches!(response.event, Some(Event::Bookmark(_)));
        // Revisions of a snapshot are in no order: only its end is a place to resume from.
        if bookmark || self.request.after_revision > 0 {
            self.request.after_revision = self.request.after_revision.max(response.revision);
            self.request.epoch = response.epoch;
        }
        match response.event? {
            Event::Task(task) => Some(Change::Task(Box::new(task))),
            Event::Run(run) => Some(Change::Run(Box::new(run))),
            Event::Deleted(deleted) => Some(Change::Deleted(deleted)),
            Event::Bookmark(bookmark) => bookmark.snapshot_end.then_some(Change::Complete),
            Event::Project(_) => None,
        }
    }
}
