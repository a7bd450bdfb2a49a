//! The queue of a bus and its committer.
//!
//! Posts queue up; one committer at a time takes the lock, then everything that has accumulated, writes it with one
//! `write`, makes it durable with one fdatasync, publishes it and answers. The committer is a blocking job of the
//! runtime that ends when the queue is empty, so an idle bus costs no thread. Where it has to wait for another program
//! (its lock, its unfinished entry) the job ends too, and a timer starts it again: a bus that waits holds no thread, so
//! any number of them delay no other.
//!
//! What a crash leaves behind, and what the next writer makes of it:
//!
//! | crash, or power cut | in the file | next writer |
//! | --- | --- | --- |
//! | before the write (`bus.before_append`) | nothing | nothing to do; nothing was answered |
//! | during the write | some whole entries, then a torn one | moves the torn one to `<bus>.torn-<time>`, cuts, reports; the whole ones stand, unanswered |
//! | after the write, before fdatasync (`bus.after_append`) | process: all entries; power: any prefix | as above |
//! | after fdatasync (`bus.after_sync`) | all entries, durable | nothing; callers find them by `x-key` |
//! | before the rename (`bus.before_rotate`) | the live file, whole | rotates again |
//! | after the rename (`bus.after_rotate`) | an archive, no live file | makes a live file |
//! | torn tail copied, not yet cut | the tail in both places | copies it once more, cuts |
//! | late entries of an archive appended to the live file, archive not yet cut | the entries in both places | readers see them twice; nothing is lost |
//!
//! A short or failed write, and a failed fdatasync, are cut back under the same lock and fail the whole batch. They are
//! never tried again as if nothing had happened: after a failed fdatasync the kernel has dropped the dirty pages.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::commit::{Answer, Session};
use super::error::BusError;
use super::file::{Appender, identity, look};
use super::options::{BusOptions, Durability, Posted};
use super::shared::{HubState, Shared, count};
use crate::types::MessageDraft;

/// What may wait in the queue of one bus, in units of 1 KiB: 32 MiB, far more than a disk syncs at once. A post beyond
/// it waits.
const QUEUE_UNITS: usize = 32 << 10;
/// First and longest pause between two tries for the lock: about what a batch of another process takes.
const LOCK_PAUSE: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(2));
/// Tries for a lock that all waiting buses of a hub make together in a second, about: some percent of a core. With more
/// than ten of them each pauses for longer.
const LOCK_TRIES: u32 = 5_000;
/// The longest pause there is, however many wait.
const LOCK_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Pause after a turn for whose lock we had to wait: flock has no queue, and others poll for it too.
const COURTESY: Duration = Duration::from_millis(3);
/// Pause between two looks at another program's unfinished entry.
const TORN_PAUSE: Duration = Duration::from_millis(20);
/// Bounds of the time for which a committer waits for the callers it has just answered to post again.
const GATHER: (Duration, Duration) = (Duration::from_micros(60), Duration::from_micros(500));

/// The part of that time for which it does not sleep.
const AWAKE: Duration = Duration::from_micros(150);

/// The queue and the file of one bus.
pub(super) struct Writer {
    queue: Mutex<Queue>,
    arrived: Condvar,
    room: Arc<Semaphore>,
    appender: Mutex<Option<Appender>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// A committer is at work, or will be.
    running: bool,
    /// The committer waits until so many jobs are here.
    wanted: Option<usize>,
}

/// Something for the committer.
pub(super) struct Job {
    pub(super) ask: Ask,
    since: Instant,
    _room: Option<OwnedSemaphorePermit>,
}

/// What is asked for, and whom to answer.
pub(super) enum Ask {
    Post {
        drafts: Vec<MessageDraft>,
        done: oneshot::Sender<Result<Vec<Posted>, BusError>>,
    },
    Rotate {
        done: oneshot::Sender<Result<PathBuf, BusError>>,
    },
    Repair {
        done: oneshot::Sender<Result<Option<PathBuf>, BusError>>,
    },
    /// Entries that came late to an archive are to be moved.
    Tidy,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            room: Arc::new(Semaphore::new(QUEUE_UNITS)),
            appender: Mutex::default(),
        }
    }
}

impl Job {
    /// Answers with a failure.
    pub(super) fn fail(self, error: BusError) {
        // A caller that has gone away needs no answer.
        match self.ask {
            Ask::Post { done, .. } => drop(done.send(Err(error))),
            Ask::Rotate { done } => drop(done.send(Err(error))),
            Ask::Repair { done } => drop(done.send(Err(error))),
            Ask::Tidy => {}
        }
    }

    fn messages(&self) -> u64 {
        match &self.ask {
            Ask::Post { drafts, .. } => drafts.len() as u64,
            _ => 0,
        }
    }
}

impl Writer {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the file that was kept open.
    fn take_kept(&self) -> Option<Appender> {
        self.appender.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps the file open for the next turn.
    fn keep(&self, appender: Option<Appender>) {
        *self.appender.lock().unwrap_or_else(PoisonError::into_inner) = appender;
    }

    /// Takes the first job if `wanted` says so.
    pub(super) fn take_if(&self, wanted: impl FnOnce(&Job) -> bool) -> Option<Job> {
        let mut queue = self.queue();
        if wanted(queue.jobs.front()?) { queue.jobs.pop_front() } else { None }
    }

    /// Takes jobs from the front while `wanted` says so.
    pub(super) fn take_while(&self, mut wanted: impl FnMut(&Job) -> bool) -> Vec<Job> {
        let mut queue = self.queue();
        let count = queue.jobs.iter().take_while(|job| wanted(job)).count();
        queue.jobs.drain(..count).collect()
    }

    /// Whether anything but tidying waits.
    pub(super) fn has_posts(&self) -> bool {
        self.queue().jobs.iter().any(|job| matches!(job.ask, Ask::Post { .. }))
    }
}

impl Shared {
    /// Queues drafts and waits for their answer. The order of calls is the order in the file.
    pub(super) async fn write(self: &Arc<Self>, drafts: Vec<MessageDraft>) -> Result<Vec<Posted>, BusError> {
        let units = drafts.iter().map(|draft| 1 + draft.body.len() / 1024).sum::<usize>().min(QUEUE_UNITS);
        let units = u32::try_from(units).expect("bounded by QUEUE_UNITS");
        let room = self.writer.room.clone().acquire_many_owned(units).await.map_err(|_| BusError::Closed)?;
        let (done, answer) = oneshot::channel();
        self.enqueue(Ask::Post { drafts, done }, Some(room));
        answer.await.map_err(|_| BusError::Closed)?
    }

    /// Queues something and sees to it that a committer runs.
    pub(super) fn enqueue(self: &Arc<Self>, ask: Ask, room: Option<OwnedSemaphorePermit>) {
        let mut queue = self.writer.queue();
        queue.jobs.push_back(Job { ask, since: Instant::now(), _room: room });
        if !queue.running {
            queue.running = true;
            drop(queue);
            let committer = Committer { shared: self.clone(), pause: LOCK_PAUSE.0, ended: false };
            tokio::task::spawn_blocking(move || committer.run());
        } else if queue.wanted.is_some_and(|wanted| queue.jobs.len() >= wanted) {
            queue.wanted = None;
            drop(queue);
            self.writer.arrived.notify_one();
        }
    }

    /// Has late entries moved soon.
    pub(super) fn tidy(self: &Arc<Self>) {
        let waiting = self.writer.queue().jobs.iter().any(|job| matches!(job.ask, Ask::Tidy));
        if !waiting {
            self.enqueue(Ask::Tidy, None);
        }
    }
}

/// Answers what a turn with the lock has done; says how many it served.
fn answer(shared: &Shared, session: Result<Session, BusError>) -> usize {
    match session {
        Ok(Session::Served(answers)) => {
            let served = answers.len();
            answers.into_iter().for_each(Answer::send);
            served
        }
        Ok(Session::Moved | Session::Unfinished) => 0,
        // The file can't be worked on at all: nobody who waits has better prospects.
        Err(error) => {
            for job in shared.writer.take_while(|_| true) {
                count(&shared.hub.counters.failed, job.messages());
                job.fail(error.clone());
            }
            0
        }
    }
}

/// Counts one bus that waits for another program.
struct Waiting(Arc<HubState>);

impl Waiting {
    fn new(hub: Arc<HubState>) -> Self {
        hub.waiting.fetch_add(1, Ordering::Relaxed);
        Self(hub)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The one that writes. If it is dropped before its end (by a panic, or by a runtime that shuts down before it ran),
/// those who wait are told, and the next post starts another.
struct Committer {
    shared: Arc<Shared>,
    /// Pause before the next try for a lock that another program holds.
    pause: Duration,
    ended: bool,
}

/// What came of a try for the lock.
enum Locked {
    Yes(Appender),
    /// Another program has it.
    Held,
    /// Nobody waits any more.
    Over,
}

impl Drop for Committer {
    fn drop(&mut self) {
        if !self.ended {
            let jobs: Vec<Job> = {
                let mut queue = self.shared.writer.queue();
                queue.running = false;
                queue.jobs.drain(..).collect()
            };
            for job in jobs {
                job.fail(BusError::Closed);
            }
        }
    }
}

impl Committer {
    fn run(mut self) {
        let shared = &self.shared.clone();
        loop {
            let options = shared.hub.options();
            let began = Instant::now();
            let contended = self.pause > LOCK_PAUSE.0;
            let mut rest = contended.then_some(COURTESY);
            match self.lock(&options) {
                Locked::Yes(mut appender) => {
                    self.pause = LOCK_PAUSE.0;
                    let session = shared.session(&mut appender, &options);
                    appender.unlock();
                    let keep = !matches!(session, Ok(Session::Moved));
                    shared.writer.keep(keep.then_some(appender));
                    if matches!(session, Ok(Session::Unfinished)) {
                        rest = Some(TORN_PAUSE);
                        self.expire(options.lock_timeout);
                    }
                    let served = answer(shared, session);
                    if rest.is_none() && served > 0 && options.durability != Durability::Always {
                        self.gather(served, began.elapsed());
                    }
                }
                Locked::Held => rest = Some(self.next_pause()),
                Locked::Over => {}
            }
            let mut queue = shared.writer.queue();
            if queue.jobs.is_empty() {
                queue.running = false;
                self.ended = true;
                return;
            }
            drop(queue);
            if let Some(rest) = rest {
                return self.resume_after(rest);
            }
        }
    }

    /// Goes on after `rest`, without a thread meanwhile.
    fn resume_after(self, rest: Duration) {
        tokio::spawn(async move {
            let waiting = Waiting::new(self.shared.hub.clone());
            tokio::time::sleep(rest).await;
            drop(waiting);
            tokio::task::spawn_blocking(move || self.run());
        });
    }

    /// How long to wait for a lock that is held. Grows, and with the number of buses that wait.
    fn next_pause(&mut self) -> Duration {
        let waiting = u32::try_from(self.shared.hub.waiting.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let shared_out = (Duration::from_secs(1) / LOCK_TRIES).saturating_mul(waiting).min(LOCK_PAUSE_MAX);
        self.pause = (self.pause * 2).min(LOCK_PAUSE.1);
        self.pause.max(shared_out)
    }

    /// Waits a little for those who were just answered, so that callers that post one message after the other share
    /// syncs. Nobody waits longer for it than half a batch takes.
    fn gather(&self, served: usize, took: Duration) {
        let window = (took / 2).clamp(GATHER.0, GATHER.1);
        let deadline = Instant::now() + window;
        let wanted = served + self.shared.writer.queue().jobs.len();
        if wanted == 1 {
            return;
        }
        // To be woken costs as much as all the rest of this wait, so it begins awake.
        let awake = Instant::now() + window.min(AWAKE);
        while Instant::now() < awake {
            if self.shared.writer.queue().jobs.len() >= wanted {
                return;
            }
            std::thread::yield_now();
        }
        let mut queue = self.shared.writer.queue();
        if queue.jobs.len() >= wanted {
            return;
        }
        queue.wanted = Some(wanted);
        while queue.wanted.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue = match self.shared.writer.arrived.wait_timeout(queue, left) {
                Ok((queue, _)) => queue,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        queue.wanted = None;
    }

    /// Opens and locks the file that stands at the path. Never waits.
    fn lock(&self, options: &BusOptions) -> Locked {
        let shared = &self.shared;
        let failed = |error| {
            answer(shared, Err(error));
            Locked::Over
        };
        let mut held = shared.writer.take_kept();
        loop {
            let appender = match held.take() {
                Some(appender) => appender,
                None => match Appender::open(&shared.path) {
                    Ok(appender) => appender,
                    Err(error) => return failed(error),
                },
            };
            match appender.try_lock() {
                Ok(true) => match look(&shared.path) {
                    Ok(Some(meta)) if identity(&meta) == appender.id => return Locked::Yes(appender),
                    // Renamed, removed or replaced since it was opened: the lock of another file is of no use.
                    Ok(_) => drop(appender),
                    Err(error) => return failed(error),
                },
                Ok(false) => {
                    shared.writer.keep(Some(appender));
                    return if self.expire(options.lock_timeout) { Locked::Held } else { Locked::Over };
                }
                Err(error) => return failed(BusError::io("lock", &shared.path, error)),
            }
        }
    }

    /// Fails those who have waited for `limit`; says whether any are left.
    fn expire(&self, limit: Duration) -> bool {
        let shared = &self.shared;
        for job in shared.writer.take_while(|job| job.since.elapsed() >= limit) {
            count(&shared.hub.counters.lock_timeouts, 1);
            count(&shared.hub.counters.failed, job.messages());
            let waited = job.since.elapsed();
            job.fail(BusError::LockTimeout { path: shared.path.clone(), waited });
        }
        !shared.writer.queue().jobs.is_empty()
    }
}
