//! Submitting, stopping, resuming and adopting tasks, and what all commands on them share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use conductor_shim::protocol::Graces;
use tokio::sync::oneshot;

use super::command::{Caller, CommandError, ResumeRequest, StopRequest, Submit};
use super::dispatch::{Command, Message, Reply};
use super::perform::blocking;
use super::record::File;
use super::{Supervisor, prepare, submit};
use crate::ralph::LoopState;
use crate::runner::StopOrder;
use crate::store::liveness::Liveness;
use crate::store::scan::{TaskKind, scan_task};
use crate::store::task_file::RequestRecord;
use crate::store::{ScannedTask, TaskFile, TaskRecord, task_file};
use crate::types::{IntentKind, Ownership, RunInfo, RunKey, StopIntent, TaskKey, Timestamp};

/// Runs a command in a task of its own, so that a caller that goes away neither halves it nor frees its request id early.
pub(super) async fn detached<T: Send + 'static>(
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

    /// Ends a task's run and keeps it from going on: with [`IntentKind::Cancel`] for good. Returns once the wish is
    /// durable; the run may still be ending.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn end_task(
        &self,
        caller: &Caller,
        key: &TaskKey,
        stop: StopRequest,
        kind: IntentKind,
    ) -> Result<Arc<TaskRecord>, CommandError> {
        let (this, caller, key) = (self.clone(), caller.clone(), key.clone());
        detached(async move { this.end(&caller, &key, stop, kind).await }).await
    }

    async fn end(
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

    pub(super) fn task(&self, key: &TaskKey) -> Result<Arc<TaskRecord>, CommandError> {
        self.catalog().task(key).ok_or_else(|| not_found("task", key))
    }

    /// A task that commands may act on.
    pub(super) fn own_task(&self, key: &TaskKey) -> Result<Arc<TaskRecord>, CommandError> {
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

    pub(super) async fn command(
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
    pub(super) async fn load(&self, key: &TaskKey) -> Result<File, CommandError> {
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
}

pub(super) fn not_found(what: &'static str, name: &impl std::fmt::Display) -> CommandError {
    CommandError::NotFound { what, name: name.to_string(), near: Vec::new() }
}
