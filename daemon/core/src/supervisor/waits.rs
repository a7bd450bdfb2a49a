//! Waiting for the end of tasks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Supervisor;
use super::command::CommandError;
use super::dispatch::Message;
use super::idle::IdleWatch;
use crate::store::TaskRecord;
use crate::types::{RunKey, TaskKey};

impl Supervisor {
    /// Waits until a task has ended.
    ///
    /// # Errors
    /// There is no such task, or it is deleted meanwhile.
    pub async fn wait_task(&self, key: &TaskKey) -> Result<Arc<TaskRecord>, CommandError> {
        let mut changes = self.catalog().watch();
        loop {
            let record = self.task(key)?;
            if !record.is_active() {
                return Ok(record);
            }
            if record.foreign.is_none() {
                let (reply, ended) = oneshot::channel();
                self.tell(Message::WaitTask { key: key.clone(), reply });
                let _ = ended.await;
                // The dispatcher knows of the end an instant before the catalog shows it.
                if self.task(key)?.is_active() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            } else {
                changes.changed().await.map_err(|_| CommandError::ShuttingDown)?;
            }
        }
    }

    /// Waits, for a run, until no task that its task's runs submitted lives; its slot is lent meanwhile. The second value
    /// tells whether `timeout` passed first.
    ///
    /// # Errors
    /// There is no such task.
    pub async fn wait_children(
        &self,
        run: &RunKey,
        timeout: Option<Duration>,
    ) -> Result<(Vec<Arc<TaskRecord>>, bool), CommandError> {
        self.task(&run.task)?;
        let (reply, done) = oneshot::channel();
        self.tell(Message::WaitChildren { key: run.task.clone(), reply });
        // Gives the slot back also when the caller goes away.
        let _end = EndWait { supervisor: self.clone(), key: run.task.clone() };
        let _waiting = self.waiting(run);
        let timed_out = match timeout {
            None => {
                let _ = done.await;
                false
            }
            Some(limit) => tokio::time::timeout(limit, done).await.is_err(),
        };
        Ok((self.catalog().children_of(&run.task), timed_out))
    }

    /// Says that a run waits for an answer of ours for as long as the returned value lives: it is not idle.
    #[must_use]
    pub fn waiting(&self, run: &RunKey) -> impl Send + Sync + use<> {
        IdleWatch::waiting(&self.0.shared, run)
    }
}

struct EndWait {
    supervisor: Supervisor,
    key: TaskKey,
}

impl Drop for EndWait {
    fn drop(&mut self) {
        self.supervisor.tell(Message::EndWait { key: self.key.clone() });
    }
}
