//! Deleting tasks, so that a repetition of the request is harmless.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::command::{Caller, CommandError};
use super::dispatch::Message;
use super::perform::blocking;
use super::tasks::detached;
use super::{Supervisor, submit};
use crate::store::task_file::RequestRecord;
use crate::types::{TaskKey, Timestamp};

/// How long a deletion waits for the last entries of its task.
const FORGET_TIME: Duration = Duration::from_secs(5);
/// Pause between two looks.
const FORGET_POLL: Duration = Duration::from_millis(10);

impl Supervisor {
    /// Deletes a task with its runs and its bus.
    ///
    /// # Errors
    /// [`CommandError::WrongState`] while anything of it lives.
    pub async fn delete_task(
        &self,
        _caller: &Caller,
        key: &TaskKey,
        request_id: Option<String>,
    ) -> Result<(), CommandError> {
        let (this, key) = (self.clone(), key.clone());
        detached(async move { this.delete(&key, request_id).await }).await
    }

    async fn delete(&self, key: &TaskKey, request_id: Option<String>) -> Result<(), CommandError> {
        let request = self.request(request_id.as_deref(), "delete", &[key.to_string().as_bytes()])?;
        let _turn = self.turn(request.as_ref()).await;
        if self.deleted(request.as_ref())? {
            return Ok(());
        }
        let record = self.own_task(key)?;
        if record.is_active() {
            return Err(CommandError::WrongState(format!("the task {key} is {}; stop it first", record.state_name())));
        }
        if let Some(child) = self.catalog().children_of(key).iter().find(|child| child.is_active()) {
            return Err(CommandError::WrongState(format!("the task {key} started {}, which lives", child.key)));
        }
        if let Some(run) = self.catalog().runs_of(key).iter().find(|run| !run.has_ended()) {
            return Err(CommandError::WrongState(format!("the run {} of the task lives", run.run_id)));
        }
        self.forget(key).await?;
        let (shared, gone) = (Arc::clone(&self.0.shared), key.clone());
        let runs = self.catalog().runs_of(key);
        blocking(move || {
            // What it used outlives it; a disk that takes no line of it keeps no task from being deleted.
            if let Err(error) = shared.ledger.keep(&gone, &runs) {
                tracing::warn!(task = %gone, %error, "what the task used can't be kept");
            }
            shared.root.remove_task(&gone)
        })
        .await
        .map_err(|error| submit::store_error(&self.0.shared, error))?;
        self.catalog().remove_task(key);
        self.remember_deletion(request).await
    }

    /// Whether a deletion is the repetition of an earlier one.
    pub(super) fn deleted(&self, request: Option<&RequestRecord>) -> Result<bool, CommandError> {
        let Some(request) = request else { return Ok(false) };
        match self.0.deletions.find(&request.id, Timestamp::now()) {
            None => Ok(false),
            Some(known) if known.digest == request.digest && known.verb == request.verb => Ok(true),
            Some(_) => Err(CommandError::RequestIdReused(request.id.clone())),
        }
    }

    pub(super) async fn remember_deletion(&self, request: Option<RequestRecord>) -> Result<(), CommandError> {
        let Some(request) = request else { return Ok(()) };
        let this = self.clone();
        let written = blocking(move || this.0.deletions.add(request)).await;
        // What was asked for is done: a disk that takes no record of it costs only the repetition.
        if let Err(error) = written {
            tracing::warn!(%error, "a deletion can't be remembered");
        }
        Ok(())
    }

    /// Makes the dispatcher let go of a task: its last entries are on their buses by then.
    async fn forget(&self, key: &TaskKey) -> Result<(), CommandError> {
        let deadline = tokio::time::Instant::now() + FORGET_TIME;
        loop {
            let (reply, forgotten) = oneshot::channel();
            self.tell(Message::Forget { key: key.clone(), reply });
            if forgotten.await.map_err(|_| CommandError::ShuttingDown)? {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                let text = format!("entries of the task {key} wait for a bus that takes none; try again later");
                return Err(CommandError::WrongState(text));
            }
            tokio::time::sleep(FORGET_POLL).await;
        }
    }
}
