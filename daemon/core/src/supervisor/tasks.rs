//! Commands on tasks and runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use conductor_shim::protocol::Graces;
use tokio::sync::oneshot;

use super::command::{Caller, CommandError, MAX_REQUEST_ID, ResumeRequest, StopRequest, Submit};
use super::dispatch::{Command, Message, Reply};
use super::idle::IdleWatch;
use super::perform::blocking;
use super::record::File;
use super::{Supervisor, prepare, submit};
use crate::ralph::LoopState;
use crate::runner::StopOrder;
use crate::store::liveness::Liveness;
use crate::store::scan::{TaskKind, scan_task};
use crate::store::task_file::RequestRecord;
use crate::store::{ScannedTask, TaskFile, TaskRecord, task_file};
use crate::types::{IntentKind, MessageDraft, MessageId, Ownership, RunInfo, RunKey, StopIntent, TaskKey, Timestamp};

/// How long a deletion waits for the last entries of its task.
const FORGET_TIME: Duration = Duration::from_secs(5);
/// Pause between two looks.
const FORGET_POLL: Duration = Duration::from_millis(10);

/// Runs a command in a task of its own, so that a caller that goes away neither halves it nor frees its request id early.
async fn detached<T: Send + 'static>(
    command: impl Future<Output = Result<T, CommandError>> + Send + 'static,
) -> Result<T, CommandError> {
    tokio::spawn(command).await.unwrap_or(Err(CommandError::ShuttingDown))
}

impl Supervisor {
    /// Submits a task: durable when this returns, and begun.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn submit(&self, caller: &Caller, task: Submit) -> Result<Arc<TaskRecord>, CommandError> {
        let spec = format!("{:?}", task.spec);
        let place = format!("{:?}/{:?}/{:?}", task.project, task.task, task.slug);
        let content = [spec.as_bytes(), place.as_bytes(), task.prompt.as_bytes()];
        let request = self.request(task.request_id.as_deref(), "submit", &content)?;
        let shared = Arc::clone(&self.0.shared);
        let caller = caller.clone();
        let this = self.clone();
        detached(async move {
            let _turn = this.turn(request.as_ref()).await;
            if let Some(done) = this.repeated(request.as_ref())? {
                return Ok(done);
            }
            let checked = submit::check(&shared, &caller, task, request.clone())?;
            let writer = Arc::clone(&shared);
            let file = blocking(move || submit::write(&writer, checked)).await?;
            if let Some(request) = request {
                shared.catalog.put_request(file.key(), request, Timestamp::now());
            }
            let (reply, answer) = oneshot::channel();
            this.tell(Message::Insert { file: Box::new(file), recovered: None, reply: Some(reply) });
            answer.await.unwrap_or(Err(CommandError::ShuttingDown))
        })
        .await
    }

    /// Ends a task's run and keeps it from going on. Returns once the wish is durable; the run may still be ending.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn stop_task(
        &self,
        caller: &Caller,
        key: &TaskKey,
        stop: StopRequest,
    ) -> Result<Arc<TaskRecord>, CommandError> {
        let (this, caller, key) = (self.clone(), caller.clone(), key.clone());
        detached(async move { this.end_task(&caller, &key, stop, IntentKind::Stop).await }).await
    }

    /// As [`Supervisor::stop_task`], for good.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn cancel_task(
        &self,
        caller: &Caller,
        key: &TaskKey,
        stop: StopRequest,
    ) -> Result<Arc<TaskRecord>, CommandError> {
        let (this, caller, key) = (self.clone(), caller.clone(), key.clone());
        detached(async move { this.end_task(&caller, &key, stop, IntentKind::Cancel).await }).await
    }

    async fn end_task(
        &self,
        caller: &Caller,
        key: &TaskKey,
        stop: StopRequest,
        kind: IntentKind,
    ) -> Result<Arc<TaskRecord>, CommandError> {
        let verb = if kind == IntentKind::Stop { "stop" } else { "cancel" };
        let request = self.request(stop.request_id.as_deref(), verb, &[key.to_string().as_bytes()])?;
        let _turn = self.turn(request.as_ref()).await;
        if let Some(done) = self.repeated(request.as_ref())? {
            return Ok(done);
        }
        let record = self.own_task(key)?;
        if !record.is_active() {
            // What has ended is stopped already; a cancel of it would only change its name.
            return Ok(record);
        }
        let intent = StopIntent { kind, who: caller.who.clone(), why: stop.reason, time: Timestamp::now() };
        let graces = self.graces(stop.int_grace, stop.term_grace);
        self.command(key, Command::Stop { intent, graces, keep_children: stop.keep_children, request }, None).await
    }

    /// Continues a task that has ended; adopts a foreign one.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn resume_task(
        &self,
        caller: &Caller,
        key: &TaskKey,
        resume: ResumeRequest,
    ) -> Result<Arc<TaskRecord>, CommandError> {
        let (this, caller, key) = (self.clone(), caller.clone(), key.clone());
        detached(async move { this.resume(&caller, &key, resume).await }).await
    }

    async fn resume(
        &self,
        caller: &Caller,
        key: &TaskKey,
        resume: ResumeRequest,
    ) -> Result<Arc<TaskRecord>, CommandError> {
        let content = [key.to_string(), format!("{:?}{:?}", resume.message, resume.adopt)];
        let content = [content[0].as_bytes(), content[1].as_bytes()];
        let request = self.request(resume.request_id.as_deref(), "resume", &content)?;
        let _turn = self.turn(request.as_ref()).await;
        if let Some(done) = self.repeated(request.as_ref())? {
            return Ok(done);
        }
        let record = self.task(key)?;
        if record.foreign.is_some() {
            return self.adopt(caller, key, resume, request).await;
        }
        if resume.adopt.is_some() {
            return Err(CommandError::field("adopt_spec", "the task is ours already; its spec is fixed"));
        }
        let record = self.own_task(key)?;
        // One that waits for a usage limit may be told to try now.
        if record.is_active() && record.phase != Some(crate::types::Phase::WaitingLimit) {
            let phase = record.state_name();
            return Err(CommandError::WrongState(format!(
                "the task {key} is {phase}; only one that has ended, or waits for a usage limit, can be resumed"
            )));
        }
        if record.end.as_ref().is_some_and(|end| end.reason == crate::types::EndReason::Cancelled) {
            return Err(CommandError::WrongState(format!("the task {key} was cancelled, which is final")));
        }
        if let Some(text) = resume.message.filter(|text| !text.is_empty()) {
            self.post_user_once(key, text, request.as_ref()).await?;
        }
        let file = self.load(key).await?;
        self.command(key, Command::Resume { request }, Some(file)).await
    }

    /// Makes a foreign task ours: its TASK.md is the prompt, a `DONE` that is there is set aside.
    async fn adopt(
        &self,
        caller: &Caller,
        key: &TaskKey,
        resume: ResumeRequest,
        request: Option<RequestRecord>,
    ) -> Result<Arc<TaskRecord>, CommandError> {
        // As it is now, not as it was at our start.
        let (shared, looked_at) = (Arc::clone(&self.0.shared), key.clone());
        let scanned: ScannedTask<LoopState> =
            blocking(move || scan_task(&shared.root, &looked_at, Timestamp::now(), &Liveness::default()).0).await;
        let is_foreign = matches!(scanned.kind, TaskKind::Foreign { .. });
        if !is_foreign || scanned.runs.iter().any(|run| !run.info.has_ended()) {
            return Err(CommandError::WrongState(format!("another program works on the task {key}")));
        }
        let project_root = self.catalog().project(&key.project).and_then(|project| project.root.clone());
        let last_cwd = self.catalog().runs_of(key).last().and_then(|run| run.cwd.clone()).map(PathBuf::from);
        let folder = project_root.or(last_cwd).or_else(|| Some(self.root().task_dir(key)));
        let draft = resume.adopt.unwrap_or_default();
        let mut spec = submit::spec(&self.0.shared, draft, folder.as_deref())?;
        spec.title = key.task.slug().to_owned();
        let now = Timestamp::now();
        // As after an end: the resume below sets DONE aside and begins anew.
        let mut state = LoopState::new(0);
        state.phase = crate::types::Phase::Finished;
        state.end = Some(crate::types::End {
            reason: crate::types::EndReason::Stopped,
            detail: format!("adopted by {}", caller.who),
            time: now,
        });
        let file: File = TaskFile::new(key.clone(), now, spec, state);
        let shared = Arc::clone(&self.0.shared);
        let written = file.clone();
        blocking(move || task_file::write(&shared.root, &written))
            .await
            .map_err(|error| submit::store_error(&self.0.shared, error))?;
        if let Some(text) = resume.message.filter(|text| !text.is_empty()) {
            self.post_user_once(key, text, request.as_ref()).await?;
        }
        self.command(key, Command::Resume { request }, Some(file)).await
    }

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
    async fn post_user_once(
        &self,
        key: &TaskKey,
        body: String,
        request: Option<&RequestRecord>,
    ) -> Result<MessageId, CommandError> {
        let marker = request.map(|request| format!("request:{}", request.id));
        if let Some(marker) = &marker
            && let Some(id) = self.0.shared.task_bus(key).find_key_since(&Default::default(), marker).await?
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

    /// Ends a run; its task's loop goes on.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn stop_run(
        &self,
        caller: &Caller,
        run: &RunKey,
        stop: StopRequest,
    ) -> Result<Arc<RunInfo>, CommandError> {
        let info = self.catalog().run(run).ok_or_else(|| not_found("run", run))?;
        if info.ownership == Ownership::External || self.task(&run.task)?.foreign.is_some() {
            return Err(CommandError::Foreign(run.task.clone()));
        }
        if info.has_ended() {
            return Ok(info);
        }
        let config = self.config();
        let graces = self.graces(stop.int_grace, stop.term_grace).unwrap_or_else(|| prepare::graces(&config));
        let order = StopOrder { who: caller.who.clone(), why: stop.reason, graces };
        let (shared, key) = (Arc::clone(&self.0.shared), run.clone());
        let folder = shared.run_dir(run);
        blocking(move || shared.runner.stop(&key, &folder, &order))
            .await
            .map_err(|source| submit::io_error(&self.0.shared, "ask the run to stop", source))?;
        Ok(self.catalog().run(run).unwrap_or(info))
    }

    fn task(&self, key: &TaskKey) -> Result<Arc<TaskRecord>, CommandError> {
        self.catalog().task(key).ok_or_else(|| not_found("task", key))
    }

    /// A task that commands may act on.
    fn own_task(&self, key: &TaskKey) -> Result<Arc<TaskRecord>, CommandError> {
        let record = self.task(key)?;
        if record.foreign.is_some() {
            return Err(CommandError::Foreign(key.clone()));
        }
        match &record.problem {
            Some(problem) => {
                Err(CommandError::WrongState(format!("the record of the task {key} can't be read: {problem}")))
            }
            None => Ok(record),
        }
    }

    async fn command(
        &self,
        key: &TaskKey,
        command: Command,
        file: Option<File>,
    ) -> Result<Arc<TaskRecord>, CommandError> {
        let (reply, answer): (Reply, _) = oneshot::channel();
        self.tell(Message::Command { key: key.clone(), command, file: file.map(Box::new), reply });
        answer.await.unwrap_or(Err(CommandError::ShuttingDown))
    }

    /// The file of a task, for the dispatcher to take over if it has let go of the task.
    async fn load(&self, key: &TaskKey) -> Result<File, CommandError> {
        let (shared, wanted) = (Arc::clone(&self.0.shared), key.clone());
        let file: Option<File> = blocking(move || task_file::read(&shared.root, &wanted))
            .await
            .map_err(|error| submit::store_error(&self.0.shared, error))?;
        file.ok_or_else(|| not_found("task", key))
    }

    fn graces(&self, int: Option<Duration>, term: Option<Duration>) -> Option<Graces> {
        if int.is_none() && term.is_none() {
            return None;
        }
        let configured = prepare::graces(&self.config());
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Some(Graces { int_ms: int.map_or(configured.int_ms, millis), term_ms: term.map_or(configured.term_ms, millis) })
    }

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
    fn repeated(&self, request: Option<&RequestRecord>) -> Result<Option<Arc<TaskRecord>>, CommandError> {
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

struct EndWait {
    supervisor: Supervisor,
    key: TaskKey,
}

impl Drop for EndWait {
    fn drop(&mut self) {
        self.supervisor.tell(Message::EndWait { key: self.key.clone() });
    }
}

pub(super) fn not_found(what: &'static str, name: &impl std::fmt::Display) -> CommandError {
    CommandError::NotFound { what, name: name.to_string(), near: Vec::new() }
}
