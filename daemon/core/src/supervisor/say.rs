//! Saying something to a task: a USER message that is posted once, also where a crash cut the request short.

use std::sync::Arc;
use std::time::Duration;

use super::Supervisor;
use super::command::{Caller, CommandError};
use super::dispatch::Command;
use super::tasks::detached;
use crate::store::TaskRecord;
use crate::store::task_file::RequestRecord;
use crate::types::{MessageDraft, MessageId, TaskKey};

/// How long a request that posts a message may be repeated.
const REPEATED: Duration = Duration::from_secs(24 * 60 * 60);

impl Supervisor {
    /// Posts a USER message to a task; with `now` its agent's turn is ended so that it reads it at once.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn say(
        &self,
        caller: &Caller,
        key: &TaskKey,
        text: String,
        now: bool,
        request_id: Option<String>,
    ) -> Result<(MessageId, Arc<TaskRecord>), CommandError> {
        let (this, caller, key) = (self.clone(), caller.clone(), key.clone());
        detached(async move { this.say_detached(&caller, &key, text, now, request_id).await }).await
    }

    async fn say_detached(
        &self,
        caller: &Caller,
        key: &TaskKey,
        text: String,
        now: bool,
        request_id: Option<String>,
    ) -> Result<(MessageId, Arc<TaskRecord>), CommandError> {
        let content = [key.to_string(), text.clone()];
        let request = self.request(request_id.as_deref(), "say", &[content[0].as_bytes(), content[1].as_bytes()])?;
        let _turn = self.turn(request.as_ref()).await;
        let record = self.own_task(key)?;
        if text.is_empty() {
            return Err(CommandError::field("text", "a text is needed"));
        }
        let repeated = self.repeated(request.as_ref())?.is_some();
        // Looked for even if the request is not known: it may have been posted right before a crash.
        let id = self.post_user_once(key, text, request.as_ref()).await?;
        if repeated {
            return Ok((id, record));
        }
        let record = match (now && record.is_active(), request) {
            (true, request) => self.command(key, Command::Interrupt { who: caller.who.clone(), request }, None).await?,
            (false, Some(request)) => {
                let file = self.load(key).await?;
                self.command(key, Command::Remember { request }, Some(file)).await?
            }
            (false, None) => record,
        };
        Ok((id, record))
    }

    /// As [`Self::post_user`]; what a request that was cut short has posted is not posted again.
    pub(super) async fn post_user_once(
        &self,
        key: &TaskKey,
        body: String,
        request: Option<&RequestRecord>,
    ) -> Result<MessageId, CommandError> {
        let marker = request.map(|request| format!("request:{}", request.id));
        if let Some(marker) = &marker
            && let Some(id) = self.0.shared.task_bus(key).find_recent_key(REPEATED, marker).await?
        {
            return Ok(id);
        }
        self.post_user(key, body, marker).await
    }

    async fn post_user(&self, key: &TaskKey, body: String, marker: Option<String>) -> Result<MessageId, CommandError> {
        let draft = MessageDraft {
            kind: "USER".to_owned(),
            project: key.project.clone(),
            task: Some(key.task.clone()),
            run: None,
            issue: None,
            parents: Vec::new(),
            links: Vec::new(),
            meta: Default::default(),
            body,
            key: marker,
        };
        Ok(self.0.shared.task_bus(key).post(draft).await?.id)
    }
}
