//! Performing one job of one task: write, show, do, answer. The only place where the supervisor waits for disks, buses
//! and processes.

use std::sync::Arc;

use conductor_shim::failpoint;
use conductor_shim::protocol::{self, Graces};
use tokio::sync::mpsc;

use super::command::CommandError;
use super::dispatch::{Job, Message, RETRY};
use super::entry::EntryShared;
use super::idle::{IdleWatch, Looked, Notice};
use super::record::File;
use super::shared::Shared;
use super::{finalize, prepare};
use crate::bus::BusError;
use crate::ralph::{DoneMarker, Effect, Event, Interruption, PostIntent, RunEnd};
use crate::runner::{Found, LaunchError, RunFinish, StopOrder, WatchEvent, Watched};
use crate::store::{self, StoreError, task_file};
use crate::types::{MessageDraft, Outcome as RunOutcome, RunInfo, RunKey, Timestamp};

/// How long an end waits for its entries to be posted before it is shown.
const END_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// What came of a job.
#[derive(Default)]
pub(super) struct Outcome {
    /// Events for the loop, in order.
    pub(super) events: Vec<Event>,
    /// Do this again after a pause: the disk refused.
    pub(super) again: Option<Box<Job>>,
    /// The outbox is to be posted.
    pub(super) deliver: bool,
    /// The task is shown as ended.
    pub(super) ended: bool,
    /// The task's folder is gone: forget the task.
    pub(super) vanished: bool,
}

pub(super) async fn perform(
    shared: &Arc<Shared>,
    own: &Arc<EntryShared>,
    tx: &mpsc::UnboundedSender<Message>,
    mut job: Job,
) -> Outcome {
    let key = job.file.key();
    if job.persist
        && let Err(error) = persist(shared, own, &mut job).await
    {
        if !shared.root.task_dir(&key).exists() {
            tracing::error!(task = %key, "the task's folder was removed; the task is forgotten and its run ended");
            job.effects = job.file.state.run.iter().map(|_| end_of_vanished()).collect();
            effects(shared, own, tx, &job).await;
            return Outcome { vanished: true, ..Outcome::default() };
        }
        tracing::error!(task = %key, %error, "the task's state can't be written; trying again");
        for reply in job.replies.drain(..) {
            let _ = reply.send(Err(store_error(shared, &error)));
        }
        // To end something must work on a full disk too; to start something must not. The stop stays in the job, since
        // what it is to end may only come with it; a second one changes nothing.
        let all = std::mem::take(&mut job.effects);
        job.effects = all.iter().filter(|effect| matches!(effect, Effect::StopRun { .. })).cloned().collect();
        let events = effects(shared, own, tx, &job).await;
        job.effects = all;
        return Outcome { events, again: Some(Box::new(job)), ..Outcome::default() };
    }
    for intent in &job.file.state.outbox {
        if job.persist {
            own.note_recorded(&intent.key);
        }
    }
    let mut ended = false;
    if let Some(record) = job.record.take() {
        ended = !record.is_active();
        if ended && job.effects.contains(&Effect::Deliver) {
            // Whoever sees the end finds its entries, unless a bus takes none for now.
            // In a task of its own: a post that is dropped half-way may still be carried out, unseen.
            let (shared, own, file) = (Arc::clone(shared), Arc::clone(own), job.file.clone());
            let delivery = tokio::spawn(async move { deliver(&shared, &own, &file).await });
            let _ = tokio::time::timeout(END_PATIENCE, delivery).await;
        }
        shared.catalog.put_task(record);
    }
    for request in job.requests.drain(..) {
        shared.catalog.put_request(key.clone(), request, Timestamp::now());
    }
    for reply in job.replies.drain(..) {
        let answer = shared.catalog.task(&key).ok_or(CommandError::NotFound {
            what: "task",
            name: key.to_string(),
            near: Vec::new(),
        });
        let _ = reply.send(answer);
    }
    let deliver = job.effects.contains(&Effect::Deliver);
    let events = effects(shared, own, tx, &job).await;
    Outcome { events, deliver, ended, ..Outcome::default() }
}

fn end_of_vanished() -> Effect {
    Effect::StopRun { who: "conductord".to_owned(), why: "the task's folder was removed".to_owned() }
}

async fn persist(shared: &Arc<Shared>, own: &EntryShared, job: &mut Job) -> Result<(), StoreError> {
    if job.effects.contains(&Effect::SetDoneAside) {
        // Before the state that would believe it.
        let (shared, file) = (Arc::clone(shared), job.file.clone());
        blocking(move || set_done_aside(&shared, &file)).await?;
    }
    locate(shared, own, &mut job.file).await;
    let now = Timestamp::now();
    job.file.requests.retain(|request| now.duration_since(request.time) <= store::catalog::REQUEST_VALID);
    let (shared, file) = (Arc::clone(shared), job.file.clone());
    blocking(move || {
        let point = |name, path: &std::path::Path| {
            failpoint::hit(name).map_err(|source| StoreError::Io { doing: "write", path: path.to_owned(), source })
        };
        let path = shared.root.task_dir(&file.key()).join(task_file::FILE);
        point("daemon.task.before_persist", &path)?;
        task_file::write(&shared.root, &file)?;
        point("daemon.task.after_persist", &path)
    })
    .await
}

/// Notes the end of its bus for every entry that is new in the outbox: before that place it can't be. What is posted by
/// now leaves the outbox, though the loop may not have heard of it.
async fn locate(shared: &Shared, own: &EntryShared, file: &mut File) {
    let key = file.key();
    own.keep_only(&file.state.outbox);
    file.state.outbox.retain(|intent| !own.is_posted(&intent.key));
    for intent in &mut file.state.outbox {
        if intent.position.is_none() {
            intent.position = own.position(&intent.key);
        }
        if intent.position.is_none()
            && let Ok(position) = shared.bus_of(&key, &intent.bus).position().await
        {
            intent.position = serde_json::to_string(&position).ok();
        }
        if let Some(position) = &intent.position {
            own.note_position(&intent.key, position);
        }
    }
}

/// Performs effects in order.
async fn effects(
    shared: &Arc<Shared>,
    own: &Arc<EntryShared>,
    tx: &mpsc::UnboundedSender<Message>,
    job: &Job,
) -> Vec<Event> {
    let key = job.file.key();
    let mut events = Vec::new();
    for effect in &job.effects {
        match effect {
            Effect::CheckDone => {
                let (shared, key) = (Arc::clone(shared), key.clone());
                events.push(Event::Checked(blocking(move || done_marker(&shared, &key)).await));
            }
            Effect::Prepare => {
                let (event, plan) = prepare::prepare(shared, &job.file).await;
                if let Some(old) = own.swap_plan(plan) {
                    prepare::discard(shared, &old.key);
                }
                events.push(event);
            }
            Effect::Launch => events.extend(launch(shared, own, tx).await),
            Effect::StopRun { who, why } => {
                if let Some(run) = &job.file.state.run {
                    let order = StopOrder { who: who.clone(), why: why.clone(), graces: job.graces };
                    stop(shared, &key.run(run.clone()), order).await;
                }
            }
            // The dispatcher's, and what `persist` has done.
            _ => {}
        }
    }
    events
}

fn done_marker(shared: &Shared, key: &crate::types::TaskKey) -> DoneMarker {
    match std::fs::symlink_metadata(shared.root.done_file(key)) {
        Ok(found) if found.is_file() => DoneMarker::Present,
        Ok(_) => DoneMarker::NotAFile,
        Err(_) => DoneMarker::Absent,
    }
}

/// A stale `DONE` is never believed: it is renamed, durably, before the task goes on.
fn set_done_aside(shared: &Shared, file: &File) -> Result<(), StoreError> {
    let done = shared.root.done_file(&file.key());
    let aside = done.with_file_name(format!("DONE.resumed-{}", file.state.ends));
    let folder = done.parent().expect("DONE lies in the task's folder");
    match std::fs::rename(&done, &aside).and_then(|()| conductor_shim::durable::fsync_dir(folder)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoreError::Io { doing: "set aside", path: done, source }),
        Ok(()) => Ok(()),
    }
}

async fn launch(shared: &Arc<Shared>, own: &Arc<EntryShared>, tx: &mpsc::UnboundedSender<Message>) -> Vec<Event> {
    let Some(plan) = own.swap_plan(None) else { return Vec::new() };
    let key = plan.key.clone();
    let info = plan.info.clone();
    let worker = Arc::clone(shared);
    // Before its agent can call: it is known by then.
    shared.catalog.put_run(info.clone());
    let launched = blocking(move || {
        let result = worker.runner.launch(&worker.root, &plan);
        if result.is_err() {
            // Nothing was executed: a record of a run that never was helps nobody.
            let _ = std::fs::remove_dir_all(&plan.folder);
        }
        result
    })
    .await;
    match launched {
        Ok(watched) => {
            tokio::spawn(follow(Arc::clone(shared), tx.clone(), watched, info));
            Vec::new()
        }
        Err(error) => {
            shared.catalog.remove_run(&key);
            vec![launch_failed(&key, &info, &error)]
        }
    }
}

fn launch_failed(key: &RunKey, info: &RunInfo, error: &LaunchError) -> Event {
    tracing::error!(run = %key, %error, "the run could not be started");
    Event::RunEnded(Box::new(RunEnd {
        last: crate::ralph::LastRun {
            run: info.run_id.clone(),
            outcome: RunOutcome::Lost,
            exit_code: None,
            signal: None,
            summary: Some(error.to_string()),
        },
        session: info.session_id.clone(),
        progressed: false,
        interruption: Some(Interruption::NeverStarted),
        limit: None,
        account: info.account.clone(),
        stderr_tail: String::new(),
    }))
}

/// Follows a live run to its end and tells the loop.
pub(super) async fn follow(
    shared: Arc<Shared>,
    tx: mpsc::UnboundedSender<Message>,
    watched: Watched,
    mut info: RunInfo,
) {
    match watch(&shared, &tx, watched, &mut info).await {
        Ok(finish) => end(&shared, &tx, info, finish).await,
        Err(error) => {
            // Too many open files, say. The run goes on; it is found again as a start of conductord finds it.
            tracing::error!(run = %info.run_id, %error, "the run can't be watched for now");
            follow_later(shared, tx, info).await;
        }
    }
}

/// Asks again and again what has become of a run, and follows it from there. Nothing is begun anew meanwhile.
pub(super) async fn follow_later(shared: Arc<Shared>, tx: mpsc::UnboundedSender<Message>, mut info: RunInfo) {
    let finish = loop {
        tokio::time::sleep(RETRY).await;
        let (worker, key) = (Arc::clone(&shared), info.key());
        let found = blocking(move || worker.runner.recover(&key, &worker.run_dir(&key))).await;
        let error = match found {
            Ok(Found::Alive(watched) | Found::ShimDied(watched)) => {
                match watch(&shared, &tx, watched, &mut info).await {
                    Ok(finish) => break finish,
                    Err(error) => error,
                }
            }
            Ok(Found::Exited(exit)) => break RunFinish::Exited(exit),
            Ok(Found::NeverStarted) => break RunFinish::NeverStarted,
            Ok(Found::Restarted) => break RunFinish::Lost(finalize::REBOOT.to_owned()),
            Ok(Found::Gone) => break RunFinish::Lost("its shim died and nobody saw its end".to_owned()),
            Err(error) => error,
        };
        tracing::error!(run = %info.run_id, %error, "what the run has come to can't be told yet; asking again");
    };
    end(&shared, &tx, info, finish).await;
}

async fn watch(
    shared: &Arc<Shared>,
    tx: &mpsc::UnboundedSender<Message>,
    watched: Watched,
    info: &mut RunInfo,
) -> std::io::Result<RunFinish> {
    let (tell, mut told) = mpsc::unbounded_channel();
    let watch = shared.runner.watch(watched, move |event| drop(tell.send(event)));
    tokio::pin!(watch);
    let mut looked = None;
    let finish = loop {
        tokio::select! {
            biased;
            Some(event) = told.recv() => {
                if let WatchEvent::Started(start) = &event {
                    looked = IdleWatch::begin(shared, info, start);
                }
                started(shared, tx, info, event).await;
            }
            finish = &mut watch => break finish,
            notice = next_notice(&mut looked) => {
                if let Err(error) = idle_notice(shared, tx, info, notice).await
                    && let Some(looked) = &looked
                {
                    tracing::error!(run = %info.key(), %error, "the idle run can't be asked to stop; trying again");
                    looked.try_again();
                }
            }
        }
    };
    while let Ok(event) = told.try_recv() {
        started(shared, tx, info, event).await;
    }
    finish
}

async fn next_notice(looked: &mut Option<Looked>) -> Notice {
    match looked {
        Some(looked) => looked.notice().await,
        None => std::future::pending().await,
    }
}

/// Warns of an idle run, takes that back, or asks it to stop.
async fn idle_notice(
    shared: &Arc<Shared>,
    tx: &mpsc::UnboundedSender<Message>,
    info: &mut RunInfo,
    notice: Notice,
) -> std::io::Result<()> {
    let key = info.key();
    match notice {
        Notice::Warn(silence) => {
            let body = silence.warning();
            tracing::warn!(run = %key, "{body}");
            info.idle_since = Some(silence.since);
            shared.catalog.put_run(info.clone());
            let warned = Event::IdleWarned { run: key.run, since: silence.since, body };
            let _ = tx.send(Message::Event(key.task, warned));
            Ok(())
        }
        Notice::Alive => {
            tracing::info!(run = %key, "the run shows signs of life again");
            info.idle_since = None;
            shared.catalog.put_run(info.clone());
            Ok(())
        }
        Notice::Act(silence) => {
            let why = silence.sentence();
            tracing::warn!(run = %key, "the run is ended; {why}");
            info.idle_since.get_or_insert(silence.since);
            shared.catalog.put_run(info.clone());
            let order = StopOrder { who: "conductord".to_owned(), why, graces: prepare::graces(&shared.config()) };
            let (worker, folder) = (Arc::clone(shared), shared.run_dir(&key));
            blocking(move || worker.runner.stop_idle(&key, &folder, &order)).await
        }
    }
}

async fn started(shared: &Arc<Shared>, tx: &mpsc::UnboundedSender<Message>, info: &mut RunInfo, event: WatchEvent) {
    let WatchEvent::Started(start) = event else { return };
    let key = info.key();
    let known = info.pid == start.agent.pid && info.tier.is_some();
    info.pid = start.agent.pid;
    info.pgid = start.pgid;
    info.tier = Some(if start.cgroup.is_some() { "cgroup" } else { "walk" }.to_owned());
    let (worker, record) = (Arc::clone(shared), info.clone());
    let write = move || {
        // A run that is over already is written once, with its end.
        let over = worker.run_dir(&record.key()).join(protocol::FOLDER).join(protocol::EXIT).exists();
        if known || over { Ok(()) } else { store::run_info::write(&worker.root, &record) }
    };
    if let Err(error) = blocking(write).await {
        tracing::warn!(run = %key, %error, "the run's pid could not be recorded; start.json has it");
    }
    shared.catalog.put_run(info.clone());
    let _ = tx.send(Message::Event(key.task, Event::Started { run: key.run }));
}

/// Records the end of a run, however long the disk refuses, and tells the loop.
pub(super) async fn end(shared: &Arc<Shared>, tx: &mpsc::UnboundedSender<Message>, info: RunInfo, finish: RunFinish) {
    let key = info.key();
    let finish = Arc::new(finish);
    let (record, end) = loop {
        let (worker, record, finish) = (Arc::clone(shared), info.clone(), Arc::clone(&finish));
        match blocking(move || finalize::finalize(&worker, &record, &finish)).await {
            Ok(done) => break done,
            Err(error) => {
                // The run's folder was removed under it, or its record is a newer program's: nothing can be written.
                if !shared.run_dir(&key).exists() || !matches!(error, StoreError::Io { .. }) {
                    tracing::warn!(run = %key, %error, "the run's end can't be recorded");
                    break finalize::unrecorded(&info, &error);
                }
                tracing::error!(run = %key, %error, "the run's end can't be written; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    if shared.catalog.task(&key.task).is_some() {
        shared.catalog.put_run(record);
    }
    let _ = tx.send(Message::Event(key.task, Event::RunEnded(Box::new(end))));
}

async fn stop(shared: &Arc<Shared>, run: &RunKey, order: StopOrder) {
    let (worker, key) = (Arc::clone(shared), run.clone());
    let folder = shared.run_dir(run);
    if let Err(error) = blocking(move || worker.runner.stop(&key, &folder, &order)).await {
        tracing::error!(run = %run, %error, "the run can't be asked to stop");
    }
}

/// Asks a run to stop without waiting for the file work.
pub(super) fn stop_in_background(shared: &Arc<Shared>, run: RunKey, who: &str, why: &str, graces: Graces) {
    let order = StopOrder { who: who.to_owned(), why: why.to_owned(), graces };
    let shared = Arc::clone(shared);
    tokio::spawn(async move { stop(&shared, &run, order).await });
}

/// Posts what the durable outbox holds, in order; the keys that are on their bus now, and whether one could not be posted.
/// Must be awaited to its end, since a dropped post may still be carried out. Not a part of the jobs: a bus that another program has locked must not keep a task from being stopped.
pub(super) async fn deliver(shared: &Arc<Shared>, own: &EntryShared, file: &File) -> (Vec<String>, bool) {
    let _turn = own.posting.lock().await;
    let mut posted = Vec::new();
    for intent in &file.state.outbox {
        if own.is_posted(&intent.key) {
            posted.push(intent.key.clone());
            continue;
        }
        if intent.when_started || !own.is_recorded(&intent.key) {
            break;
        }
        if failpoint::hit("daemon.post.after_intent").is_err() {
            return (posted, true);
        }
        match post_once(shared, own, file, intent).await {
            Ok(()) => {
                let _ = failpoint::hit("daemon.post.after_append");
                own.note_posted(&intent.key);
                posted.push(intent.key.clone());
            }
            Err(error) if !shared.folder_of(&file.key(), &intent.bus).exists() => {
                tracing::warn!(task = %file.key(), %error, "the folder of a bus is gone; an entry for it is dropped");
                own.note_posted(&intent.key);
                posted.push(intent.key.clone());
            }
            Err(error) => {
                tracing::warn!(task = %file.key(), %error, key = intent.key, "an entry can't be posted; trying again");
                return (posted, true);
            }
        }
    }
    (posted, false)
}

async fn post_once(shared: &Shared, own: &EntryShared, file: &File, intent: &PostIntent) -> Result<(), BusError> {
    let key = file.key();
    let bus = shared.bus_of(&key, &intent.bus);
    let doubtful = own.is_doubtful(&intent.key);
    // From here on it may be there, also if nobody waits for the answer.
    own.doubt(&intent.key);
    if doubtful {
        let position = intent.position.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let position = position.unwrap_or_default();
        if bus.find_key_since(&position, &intent.key).await?.is_some() {
            return Ok(());
        }
    }
    let draft = MessageDraft {
        kind: intent.kind.clone(),
        project: key.project.clone(),
        task: Some(key.task.clone()),
        run: intent.run.clone(),
        issue: None,
        parents: Vec::new(),
        links: Vec::new(),
        meta: std::collections::BTreeMap::new(),
        body: intent.body.clone(),
        key: Some(intent.key.clone()),
    };
    bus.post(draft).await.map(drop)
}

fn store_error(shared: &Shared, error: &StoreError) -> CommandError {
    if error.is_disk_full() {
        return CommandError::DiskFull { path: shared.root.path().to_owned() };
    }
    CommandError::Io { action: "write the task's state".to_owned(), source: std::io::Error::other(error.to_string()) }
}

/// Runs file work on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
