//! Request ids: who comes first with one, and what it has made already.

use std::sync::Arc;

use super::command::{CommandError, MAX_REQUEST_ID};
use super::{Supervisor, submit};
use crate::store::TaskRecord;
use crate::store::task_file::RequestRecord;
use crate::types::Timestamp;

impl Supervisor {
    pub(super) fn request(
        &self,
        id: Option<&str>,
        verb: &str,
        content: &[&[u8]],
    ) -> Result<Option<RequestRecord>, CommandError> {
        if let Some(id) = id.filter(|id| id.len() > MAX_REQUEST_ID) {
            let problem = format!("{} bytes; at most {MAX_REQUEST_ID} are taken", id.len());
            return Err(CommandError::field("request_id", problem));
        }
        Ok(submit::request(id, verb, content))
    }

    /// The turn of a request id: a repetition that comes meanwhile waits for it.
    pub(super) async fn turn(&self, request: Option<&RequestRecord>) -> Option<Turn> {
        let id = request?.id.clone();
        let lock = Arc::clone(self.0.requests.entry(id.clone()).or_default().value());
        let guard = lock.lock_owned().await;
        Some(Turn { supervisor: self.clone(), id, guard: Some(guard) })
    }

    /// What an earlier request of this id has made.
    pub(super) fn repeated(&self, request: Option<&RequestRecord>) -> Result<Option<Arc<TaskRecord>>, CommandError> {
        let Some(request) = request else { return Ok(None) };
        match self.catalog().request(&request.id, Timestamp::now()) {
            None => Ok(None),
            Some(entry) if entry.record.digest == request.digest && entry.record.verb == request.verb => {
                self.task(&entry.task).map(Some)
            }
            Some(_) => Err(CommandError::RequestIdReused(request.id.clone())),
        }
    }
}

/// Holds a request id until the request is answered.
pub(super) struct Turn {
    supervisor: Supervisor,
    id: String,
    guard: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        // Nobody else waits: the id needs no lock any more.
        self.supervisor.0.requests.remove_if(&self.id, |_, lock| Arc::strong_count(lock) == 1);
    }
}
