//! The one owner of mutable supervisor state: receives messages, asks [`crate::ralph::step`], hands out the work.
//!
//! ```text
//!  commands ──► Message ──► dispatcher ──► step(state, event) ──► Job ──► performer (one at a time per task)
//!                  ▲                                                          │ durable, published, answered
//!                  └──────── events: what the job found, what runs did ◄──────┘
//! ```
//!
//! Nothing in here waits: file work, the bus and processes are the performers' ([`super::perform`]). The jobs of one task
//! are performed one after the other, in order, so that an answer or an entry never precedes the state that it is about;
//! different tasks don't wait for each other.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use conductor_shim::protocol::Graces;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::command::CommandError;
use super::entry::EntryShared;
use super::perform;
use super::prepare::graces;
use super::queue::Queue;
use super::record::{self, File};
use super::shared::Shared;
use crate::ralph::{Context, Effect, Event, step};
use crate::store::TaskRecord;
use crate::store::task_file::RequestRecord;
use crate::types::{Outcome, Phase, RunId, RunKey, StopIntent, TaskKey, Timestamp};

/// Jobs that may wait for one task: a person who clicks, not a flood. Beyond, commands are refused.
const MAX_JOBS: usize = 256;

/// Pause before a job that the disk or a bus refused is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// What the dispatcher can be told.
pub(super) enum Message {
    /// A task is there, durably: take it over; without `recovered` also begin.
    Insert { file: Box<File>, recovered: Option<Recovered>, reply: Option<Reply> },
    /// Something happened to a task.
    Event(TaskKey, Event),
    /// The performer has done a job.
    Performed { key: TaskKey, outcome: perform::Outcome },
    /// A retry of a job is due.
    Retry(TaskKey),
    /// Entries were posted; `failed`: not all of them could be.
    Delivered { key: TaskKey, posted: Vec<String>, failed: bool },
    /// A retry of a delivery is due.
    Deliver(TaskKey),
    /// A command on a task. `file` is taken over if the task is not there: it had ended.
    Command { key: TaskKey, command: Command, file: Option<Box<File>>, reply: Reply },
    /// Answer when the task has ended.
    WaitTask { key: TaskKey, reply: oneshot::Sender<()> },
    /// Answer when no child of the task lives; meanwhile lend its slot.
    WaitChildren { key: TaskKey, reply: oneshot::Sender<()> },
    /// A waiter for children is gone.
    EndWait { key: TaskKey },
    /// Let go of a task that is to be deleted. `false`: something of it is still under way.
    Forget { key: TaskKey, reply: oneshot::Sender<bool> },
    /// The configuration has changed.
    Reconfigured,
    /// Start nothing any more; with `true` also end the live runs.
    ShutDown { stop_runs: bool, reply: oneshot::Sender<()> },
}

/// A command on one task.
pub(super) enum Command {
    /// Stop or cancel.
    Stop { intent: StopIntent, graces: Option<Graces>, keep_children: bool, request: Option<RequestRecord> },
    /// Continue.
    Resume { request: Option<RequestRecord> },
    /// End the turn, go on with what was said.
    Interrupt { who: String, request: Option<RequestRecord> },
    /// Only remember that it was asked.
    Remember { request: RequestRecord },
}

/// Where the answer goes: the record as it is published.
pub(super) type Reply = oneshot::Sender<Result<Arc<TaskRecord>, CommandError>>;

/// Work for a performer: what is durable, then what is seen, then what is done.
pub(super) struct Job {
    /// Write this first.
    pub(super) persist: bool,
    /// The task as it is after the step.
    pub(super) file: File,
    /// Show it.
    pub(super) record: Option<TaskRecord>,
    /// Do these, in order.
    pub(super) effects: Vec<Effect>,
    /// Then answer.
    pub(super) replies: Vec<Reply>,
    /// Requests to index once durable.
    pub(super) requests: Vec<RequestRecord>,
    /// Pauses for a stop among the effects.
    pub(super) graces: Graces,
}

/// What recovery knows of a task that it hands over.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Keys of entries that may be on their bus already.
    pub(super) recheck: HashSet<String>,
    /// It holds a slot: a run of it lives, or has to be judged.
    pub(super) live: bool,
}

struct Entry {
    file: File,
    jobs: VecDeque<Job>,
    busy: bool,
    /// The first job was refused by the disk and waits for its next try.
    retrying: bool,
    /// Entries are being posted.
    delivering: bool,
    /// More entries have come meanwhile.
    deliver_again: bool,
    timer: Option<AbortHandle>,
    graces: Option<Graces>,
    stops: u32,
    watching_children: bool,
    waiters: Vec<oneshot::Sender<()>>,
    /// Those who wait for the task's end have been told.
    told: bool,
    shared: Arc<EntryShared>,
}

impl Entry {
    /// It has ended, and nothing is left to do for it.
    fn is_quiet(&self) -> bool {
        self.file.state.is_settled() && !self.busy && !self.delivering && self.jobs.is_empty()
    }
}

/// The caller of a command: where the answer goes, and the request to remember once it is durable.
#[derive(Default)]
struct Asked {
    reply: Option<Reply>,
    request: Option<RequestRecord>,
}

struct ChildWait {
    key: TaskKey,
    reply: oneshot::Sender<()>,
}

/// Numbers that readers may see without asking the dispatcher.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    /// Milliseconds of the dispatcher's last turn since `started`.
    pub(super) heartbeat: AtomicU64,
    /// Live or starting runs.
    pub(super) runs: AtomicU64,
    /// Tasks in the queue, in order.
    pub(super) queue: Mutex<Vec<TaskKey>>,
}

pub(super) struct Dispatcher {
    shared: Arc<Shared>,
    gauges: Arc<Gauges>,
    started: Instant,
    tx: mpsc::UnboundedSender<Message>,
    rx: mpsc::UnboundedReceiver<Message>,
    entries: HashMap<TaskKey, Entry>,
    queue: Queue,
    /// Live tasks by the task whose run submitted them.
    children: HashMap<TaskKey, BTreeSet<TaskKey>>,
    waits: Vec<ChildWait>,
    ending: bool,
}

/// How often an idle dispatcher turns, so that a watchdog can tell idle from stuck.
const HEARTBEAT: Duration = Duration::from_secs(5);

impl Dispatcher {
    /// The channel is unbounded, and its content is not: commands wait for their answer and there are at most
    /// [`MAX_JOBS`] a task, a job and a live run send a handful of messages each.
    pub(super) fn new(
        shared: Arc<Shared>,
        gauges: Arc<Gauges>,
        started: Instant,
        channel: (mpsc::UnboundedSender<Message>, mpsc::UnboundedReceiver<Message>),
    ) -> Self {
        let slots = usize::try_from(shared.config().defaults.max_concurrent_runs).unwrap_or(usize::MAX);
        Self {
            shared,
            gauges,
            started,
            tx: channel.0,
            rx: channel.1,
            entries: HashMap::new(),
            queue: Queue::new(slots),
            children: HashMap::new(),
            waits: Vec::new(),
            ending: false,
        }
    }

    /// Handles what recovery has sent, before anybody can ask.
    pub(super) fn take_over(&mut self) {
        while let Ok(message) = self.rx.try_recv() {
            self.handle(message);
        }
        self.grant();
    }

    pub(super) async fn run(mut self) {
        loop {
            self.gauges
                .heartbeat
                .store(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            let message = match tokio::time::timeout(HEARTBEAT, self.rx.recv()).await {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(_) => continue,
            };
            self.handle(message);
            self.grant();
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Insert { file, recovered, reply } => self.insert(*file, recovered, reply),
            Message::Event(key, event) => {
                let proven = working_account(&event);
                self.apply(&key, event, Asked::default());
                if let Some(account) = proven {
                    self.lift(&account);
                }
            }
            Message::Performed { key, outcome } => self.performed(&key, outcome),
            Message::Retry(key) => {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.retrying = false;
                    self.pump(&key);
                }
            }
            Message::Delivered { key, posted, failed } => self.delivered(&key, posted, failed),
            Message::Deliver(key) => self.deliver(&key),
            Message::Command { key, command, file, reply } => {
                if let Some(file) = file.filter(|_| !self.entries.contains_key(&key)) {
                    self.insert(*file, None, None);
                }
                self.command(&key, command, reply);
            }
            Message::WaitTask { key, reply } => match self.entries.get_mut(&key) {
                Some(entry) if entry.file.state.phase != Phase::Finished || entry.busy || !entry.jobs.is_empty() => {
                    entry.waiters.push(reply);
                }
                _ => drop(reply.send(())),
            },
            Message::WaitChildren { key, reply } => {
                self.queue.lend(&key);
                self.waits.push(ChildWait { key: key.clone(), reply });
                self.children_changed(&key);
            }
            Message::EndWait { key } => {
                self.waits.retain(|wait| wait.key != key || !wait.reply.is_closed());
                if !self.waits.iter().any(|wait| wait.key == key) {
                    self.queue.take_back(&key);
                }
            }
            Message::Forget { key, reply } => {
                let quiet = self.entries.get(&key).is_none_or(Entry::is_quiet);
                if quiet {
                    self.entries.remove(&key);
                    self.queue.release(&key);
                }
                let _ = reply.send(quiet);
            }
            Message::Reconfigured => {
                let slots = self.shared.config().defaults.max_concurrent_runs;
                self.queue.set_slots(usize::try_from(slots).unwrap_or(usize::MAX));
            }
            Message::ShutDown { stop_runs, reply } => self.shut_down(stop_runs, reply),
        }
    }

    /// An account works: the tasks that wait for it go on, unless it was refused again since.
    fn lift(&mut self, account: &str) {
        if self.shared.accounts.limited(account, Timestamp::now()).is_some() {
            return;
        }
        let waits = |entry: &Entry| {
            entry.file.state.phase == Phase::WaitingLimit
                && entry.file.state.limit.as_ref().is_some_and(|limit| limit.account == account)
        };
        let waiting: Vec<TaskKey> =
            self.entries.iter().filter(|(_, entry)| waits(entry)).map(|(key, _)| key.clone()).collect();
        for key in waiting {
            self.apply(&key, Event::LimitLifted, Asked::default());
        }
    }

    fn insert(&mut self, file: File, recovered: Option<Recovered>, reply: Option<Reply>) {
        let key = file.key();
        let begin = recovered.is_none();
        let recovered = recovered.unwrap_or_default();
        if recovered.live {
            self.queue.occupy(key.clone());
        }
        if file.state.phase != Phase::Finished
            && let Some(parent) = &file.spec.parent
        {
            self.children.entry(parent.task.clone()).or_default().insert(key.clone());
        }
        let entry = Entry {
            file,
            jobs: VecDeque::new(),
            busy: false,
            retrying: false,
            delivering: false,
            deliver_again: false,
            timer: None,
            graces: None,
            stops: 0,
            watching_children: false,
            waiters: Vec::new(),
            told: false,
            shared: Arc::new(EntryShared::new(recovered.recheck)),
        };
        self.entries.insert(key.clone(), entry);
        if begin {
            // A task that its parent submits while the parent is being stopped is stopped with it.
            let above = self.entries.get(&key).and_then(|entry| entry.file.spec.parent.clone());
            let intent = above.and_then(|above| self.entries.get(&above.task)?.file.state.intent.clone());
            if let Some(intent) = intent {
                let _ = self.tx.send(Message::Event(key.clone(), Event::StopAsked { intent }));
            }
            self.apply(&key, Event::Begin, Asked { reply, request: None });
        }
    }

    fn command(&mut self, key: &TaskKey, command: Command, reply: Reply) {
        let Some(entry) = self.entries.get_mut(key) else {
            // It has ended just now, or was deleted.
            let gone = || CommandError::NotFound { what: "task", name: key.to_string(), near: Vec::new() };
            let _ = reply.send(self.shared.catalog.task(key).ok_or_else(gone));
            return;
        };
        if entry.jobs.len() >= MAX_JOBS {
            let _ = reply.send(Err(CommandError::Limit(format!("{MAX_JOBS} commands wait for the task {key}"))));
            return;
        }
        let phase = entry.file.state.phase;
        match command {
            Command::Stop { intent, graces, keep_children, request } => {
                // Somebody who asks again has waited long enough.
                let again = phase == Phase::Stopping && entry.stops > 0;
                entry.stops += 1;
                entry.graces = if again { Some(Graces { int_ms: 0, term_ms: 0 }) } else { graces };
                // The task first: its children's ends must not finish it in another way.
                self.apply(key, Event::StopAsked { intent: intent.clone() }, Asked { reply: Some(reply), request });
                if !keep_children {
                    self.stop_children(key, &intent);
                }
            }
            Command::Resume { request } if phase == Phase::WaitingLimit => {
                if let Some(limit) = &entry.file.state.limit {
                    self.shared.accounts.clear(&limit.account);
                    let shared = Arc::clone(&self.shared);
                    tokio::task::spawn_blocking(move || shared.accounts.save());
                }
                self.apply(key, Event::LimitLifted, Asked { reply: Some(reply), request });
            }
            Command::Resume { .. } if phase != Phase::Finished => {
                let text = format!("the task {key} is {}; only one that has ended can be resumed", phase.name());
                let _ = reply.send(Err(CommandError::WrongState(text)));
            }
            Command::Resume { request } => {
                entry.told = false;
                if let Some(parent) = entry.file.spec.parent.clone() {
                    self.children.entry(parent.task).or_default().insert(key.clone());
                }
                self.apply(key, Event::ResumeAsked, Asked { reply: Some(reply), request });
            }
            Command::Interrupt { who, request } => {
                entry.graces = None;
                self.apply(key, Event::InterruptAsked { who }, Asked { reply: Some(reply), request });
            }
            Command::Remember { request } => {
                self.enqueue(key, Vec::new(), Asked { reply: Some(reply), request: Some(request) });
            }
        }
    }

    /// One step of a task's loop.
    fn apply(&mut self, key: &TaskKey, event: Event, asked: Asked) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if self.ending && matches!(event, Event::Prepared { .. }) {
            // Nothing starts any more; the task is found queued by the next start.
            return;
        }
        let folder = self.shared.root.task_dir(key).display().to_string();
        let cx = Context {
            key,
            spec: &entry.file.spec,
            folder: &folder,
            backoff: self.shared.backoff(),
            now: Timestamp::now(),
            jitter: jitter(),
        };
        let before = entry.file.state.phase;
        let (state, effects) = step(&entry.file.state, event, cx);
        let unchanged = state == entry.file.state;
        entry.file.state = state;
        if unchanged && effects.is_empty() && asked.reply.is_none() {
            return;
        }
        let after = entry.file.state.phase;
        if before == Phase::Stopping && after != Phase::Stopping {
            entry.stops = 0;
        }
        self.bookkeeping(key, &effects);
        self.enqueue(key, effects, asked);
    }

    /// The effects that only change what the dispatcher keeps.
    fn bookkeeping(&mut self, key: &TaskKey, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::RequestSlot => {
                    let Some(entry) = self.entries.get_mut(key) else { return };
                    // The first wait keeps the place that was written when the task was submitted.
                    if entry.file.state.attempt > 0 || entry.file.state.queue_order == 0 {
                        entry.file.state.queue_order = self.queue.next_order(Timestamp::now());
                    }
                    self.queue.request(key.clone(), entry.file.state.queue_order);
                }
                Effect::ReleaseSlot => self.queue.release(key),
                Effect::Arm(delay) => self.arm(key, *delay),
                Effect::Disarm => {
                    if let Some(timer) = self.entries.get_mut(key).and_then(|entry| entry.timer.take()) {
                        timer.abort();
                    }
                }
                Effect::WatchChildren => {
                    if let Some(entry) = self.entries.get_mut(key) {
                        entry.watching_children = true;
                    }
                    let live = self.live_children(key);
                    let _ = self.tx.send(Message::Event(key.clone(), Event::Children { live }));
                }
                Effect::StopChildren(intent) => self.stop_children(key, intent),
                _ => {}
            }
        }
    }

    fn arm(&mut self, key: &TaskKey, delay: Duration) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let (tx, task) = (self.tx.clone(), key.clone());
        let timer = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = tx.send(Message::Event(task, Event::Timer));
        });
        if let Some(old) = entry.timer.replace(timer.abort_handle()) {
            old.abort();
        }
    }

    fn enqueue(&mut self, key: &TaskKey, mut effects: Vec<Effect>, asked: Asked) {
        let config = self.shared.config();
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(request) = asked.request.clone() {
            entry.file.requests.push(request);
            if !effects.contains(&Effect::Persist) {
                effects.insert(0, Effect::Persist);
            }
        }
        let file = entry.file.clone();
        let mut job = Job {
            persist: effects.contains(&Effect::Persist),
            record: Some(record::task(&file, Timestamp::now())),
            file,
            effects,
            replies: asked.reply.into_iter().collect(),
            requests: asked.request.into_iter().collect(),
            graces: entry.graces.unwrap_or_else(|| graces(&config)),
        };
        if entry.retrying
            && let Some(refused) = entry.jobs.pop_front()
        {
            // The newer state holds the older one. Tried at once: a stop must not wait for a full disk.
            job.persist = true;
            job.effects.splice(0..0, refused.effects);
            job.requests.splice(0..0, refused.requests);
            entry.retrying = false;
        }
        entry.jobs.push_back(job);
        self.pump(key);
    }

    /// Gives the performer its next job.
    fn pump(&mut self, key: &TaskKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.busy || entry.retrying {
            return;
        }
        let Some(job) = entry.jobs.pop_front() else { return };
        entry.busy = true;
        let (shared, own, tx, key) =
            (Arc::clone(&self.shared), Arc::clone(&entry.shared), self.tx.clone(), key.clone());
        tokio::spawn(async move {
            let outcome = perform::perform(&shared, &own, &tx, job).await;
            let _ = tx.send(Message::Performed { key, outcome });
        });
    }

    fn performed(&mut self, key: &TaskKey, outcome: perform::Outcome) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.busy = false;
        if outcome.vanished {
            return self.vanish(key);
        }
        let tell = outcome.ended && !std::mem::replace(&mut entry.told, true);
        if let Some(mut job) = outcome.again {
            // What was queued behind it holds the newer state: one job is left.
            for newer in entry.jobs.drain(..) {
                job.effects.extend(newer.effects);
                job.file = newer.file;
                job.record = newer.record;
                job.replies.extend(newer.replies);
                job.requests.extend(newer.requests);
                job.graces = newer.graces;
            }
            entry.jobs.push_front(*job);
            entry.retrying = true;
            self.later(Message::Retry(key.clone()));
        }
        if outcome.deliver {
            self.deliver(key);
        }
        if tell {
            self.child_ended(key);
        }
        for event in outcome.events {
            self.apply(key, event, Asked::default());
        }
        self.pump(key);
        self.settle(key);
    }

    fn later(&self, message: Message) {
        let tx = self.tx.clone();
        tokio::spawn(async move {
            tokio::time::sleep(RETRY).await;
            let _ = tx.send(message);
        });
    }

    /// Posts what the outbox holds; one delivery at a time for each task.
    fn deliver(&mut self, key: &TaskKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if std::mem::replace(&mut entry.delivering, true) {
            entry.deliver_again = true;
            return;
        }
        let (shared, own, tx) = (Arc::clone(&self.shared), Arc::clone(&entry.shared), self.tx.clone());
        let (file, key) = (entry.file.clone(), key.clone());
        tokio::spawn(async move {
            let (posted, failed) = perform::deliver(&shared, &own, &file).await;
            let _ = tx.send(Message::Delivered { key, posted, failed });
        });
    }

    fn delivered(&mut self, key: &TaskKey, posted: Vec<String>, failed: bool) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.delivering = false;
        let again = std::mem::take(&mut entry.deliver_again);
        for posted in posted {
            self.apply(key, Event::Posted { key: posted }, Asked::default());
        }
        if failed {
            self.later(Message::Deliver(key.clone()));
        } else if again {
            self.deliver(key);
        }
        self.settle(key);
    }

    /// The task's folder was removed by somebody: nothing of it can be kept.
    fn vanish(&mut self, key: &TaskKey) {
        self.child_ended(key);
        self.entries.remove(key);
        self.queue.release(key);
        self.shared.catalog.remove_task(key);
    }

    /// A task that has ended and has nothing left to do is only on disk and in the catalog.
    fn settle(&mut self, key: &TaskKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.busy || entry.delivering || !entry.jobs.is_empty() || entry.file.state.phase != Phase::Finished {
            return;
        }
        // Prepared, and then the task ended.
        if let Some(plan) = entry.shared.swap_plan(None) {
            let shared = Arc::clone(&self.shared);
            tokio::task::spawn_blocking(move || super::prepare::discard(&shared, &plan.key));
        }
        for waiter in entry.waiters.drain(..) {
            let _ = waiter.send(());
        }
        if entry.file.state.outbox.is_empty() {
            self.entries.remove(key);
            self.queue.release(key);
        }
    }

    /// Starts whoever may start now.
    fn grant(&mut self) {
        if !self.ending {
            loop {
                let entries = &self.entries;
                let ancestors = |key: &TaskKey| ancestors(entries, key);
                let Some(key) = self.queue.next(ancestors) else { break };
                self.apply(&key, Event::SlotGranted, Asked::default());
            }
        }
        self.gauges.runs.store(self.queue.held() as u64, Ordering::Relaxed);
        let mut shown = self.gauges.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !(shown.is_empty() && self.queue.waiting().next().is_none()) {
            *shown = self.queue.waiting().cloned().collect();
        }
    }

    fn live_children(&self, key: &TaskKey) -> Vec<String> {
        self.children.get(key).into_iter().flatten().map(|child| child.task.to_string()).collect()
    }

    /// Does to all tasks below one what is being done to it, also below those that have ended.
    fn stop_children(&mut self, key: &TaskKey, intent: &StopIntent) {
        let mut open = vec![key.clone()];
        let mut seen = BTreeSet::new();
        while let Some(above) = open.pop() {
            let known = self.shared.catalog.children_of(&above);
            let mut below: BTreeSet<TaskKey> = known.iter().map(|child| child.key.clone()).collect();
            below.extend(self.children.get(&above).into_iter().flatten().cloned());
            for child in below {
                if !seen.insert(child.clone()) {
                    continue;
                }
                let why =
                    if intent.why.is_empty() { format!("its parent {above} is stopped") } else { intent.why.clone() };
                let intent = StopIntent { why, ..intent.clone() };
                self.apply(&child, Event::StopAsked { intent }, Asked::default());
                open.push(child);
            }
        }
    }

    fn child_ended(&mut self, key: &TaskKey) {
        let Some(parent) = self.entries.get(key).and_then(|entry| entry.file.spec.parent.clone()) else { return };
        if let Some(children) = self.children.get_mut(&parent.task) {
            children.remove(key);
            if children.is_empty() {
                self.children.remove(&parent.task);
            }
        }
        self.children_changed(&parent.task);
    }

    fn children_changed(&mut self, parent: &TaskKey) {
        let live = self.live_children(parent);
        if live.is_empty() {
            let (done, left) = std::mem::take(&mut self.waits).into_iter().partition(|wait| wait.key == *parent);
            self.waits = left;
            for wait in done {
                let _ = wait.reply.send(());
                self.queue.take_back(parent);
            }
        }
        if self.entries.get(parent).is_some_and(|entry| entry.watching_children) {
            self.apply(parent, Event::Children { live }, Asked::default());
        }
    }

    fn shut_down(&mut self, stop_runs: bool, reply: oneshot::Sender<()>) {
        self.ending = true;
        for entry in self.entries.values_mut() {
            if let Some(timer) = entry.timer.take() {
                timer.abort();
            }
        }
        if stop_runs {
            let live: Vec<(RunKey, RunId)> = self
                .entries
                .iter()
                .filter_map(|(key, entry)| entry.file.state.run.clone().map(|run| (key.run(run.clone()), run)))
                .collect();
            for (key, _) in live {
                perform::stop_in_background(
                    &self.shared,
                    key,
                    "conductord",
                    "conductord is ending",
                    graces(&self.shared.config()),
                );
            }
        }
        let _ = reply.send(());
    }
}

/// The account that a run which completed has used.
fn working_account(event: &Event) -> Option<String> {
    let Event::RunEnded(end) = event else { return None };
    (end.last.outcome == Outcome::Completed).then(|| end.account.clone()).flatten()
}

/// Tasks above one, nearest first.
fn ancestors(entries: &HashMap<TaskKey, Entry>, key: &TaskKey) -> Vec<TaskKey> {
    let mut above = Vec::new();
    let mut at = key.clone();
    while let Some(parent) = entries.get(&at).and_then(|entry| entry.file.spec.parent.as_ref()) {
        // The depth of tasks is bounded where they are submitted; a damaged file must not make a ring.
        if above.contains(&parent.task) {
            break;
        }
        at = parent.task.clone();
        above.push(at.clone());
    }
    above
}

/// Chance from the hasher's random keys: enough to keep crashing tasks from restarting in step.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    // The 53 bits that a double holds exactly.
    (random >> 11) as f64 / (1_u64 << 53) as f64
}
