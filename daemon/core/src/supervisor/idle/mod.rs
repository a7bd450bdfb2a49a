//! The idle limit: runs that show no sign of life are warned of and then ended.
//!
//! A sign of life is any of these since the last look:
//!
//! | sign | how it is learned | cost |
//! | --- | --- | --- |
//! | output on either stream | size of the log files ([`probe`]) | two stats |
//! | a message of the run on its task's or project's bus, through us or by its own append | [`posts`] | a stat for each bus; what is new, if it has grown |
//! | it waits for its children or for a task, by a call to us | [`IdleWatch::waiting`] | none |
//! | a pause before a retry that its stream announced last and that is not over | ends of its streams, once for each size | 64 KiB, of a quiet run |
//! | CPU time of its tree, 2 % of one CPU or more | `cpu.stat` of its cgroup, or one walk through `/proc` for all | of quiet runs |
//!
//! What can't be told counts as a sign: nobody is ended on a doubt. A run that was stopped by SIGSTOP shows none of them
//! and is idle.
//!
//! # States
//!
//! `Active` → `Warned` (after `idle_warn`) → `Acted` (after `idle_timeout`); a sign leads from `Warned` back to `Active`.
//! They are drawn in [`clock`], which decides without I/O. Time is that of `CLOCK_MONOTONIC`, which stands still while the
//! machine sleeps, and a pause between two looks counts for two periods at most, so that a frozen container or a stopped
//! conductord makes nobody idle.
//!
//! - `Warned`: one WARNING on the task's bus for each time that the run falls silent, exactly once, by the outbox in
//!   `task.yaml`; a line in the log; `idle_since` on the run.
//! - `Acted`: `stop.json` with `idle` and the sentence that becomes the run's summary, durably; then the ordinary stop
//!   sequence. The outcome is `timed_out`, and the loop goes on as after any attempt that timed out. A stop that somebody
//!   asked for before keeps its cause, and so does the idle stop if somebody asks later.
//!
//! # When conductord dies
//!
//! | in the state | leaves |
//! | --- | --- |
//! | `Active` | nothing; the clock of an adopted run begins anew, with a sign of life. The files' times can't say how long it was silent: they are of the wall clock |
//! | `Warned`, the entry not in `task.yaml` | nothing; as above, and it is warned of anew |
//! | `Warned`, the entry recorded | the entry, posted once by the next start |
//! | `Acted`, no `stop.json` | a run that goes on; as `Active` |
//! | `Acted`, `stop.json` written, the shim not told | the next start tells the shim; `timed_out` |
//! | `Acted`, the shim told | a run that ends, whoever lives; its end is judged by `exit.json` and `stop.json`: `timed_out` |
//!
//! # Cost
//!
//! One task looks at all runs. Its period is a tenth of a run's shorter limit, at most a minute; runs that are due soon
//! are looked at together. Without runs, or without limits, nothing wakes.

mod clock;
mod posts;
mod probe;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use conductor_shim::protocol::Start;
use tokio::sync::{Notify, mpsc};

use super::shared::Shared;
use crate::config::Time;
use crate::ralph::IDLE_WARNING;
use crate::types::{RunInfo, RunKey, Timestamp};

use clock::{Clock, Limits, Verdict};
use posts::{Posted, Posts};
use probe::Probe;

/// A run whose look is due within its period divided by this is looked at with the others.
const TOGETHER: u32 = 4;

/// What the one who follows a run is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// It is silent for so long that it is worth a warning.
    Warn(Silence),
    /// It has shown a sign of life after a warning.
    Alive,
    /// End it.
    Act(Silence),
}

/// How long a run has been silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    /// For people: by the wall clock of now.
    pub(super) since: Timestamp,
    length: Duration,
    limit: Option<Duration>,
}

impl Silence {
    /// The text of the warning.
    pub(super) fn warning(&self) -> String {
        let end = self.limit.map_or_else(String::new, |limit| format!("; it is ended after {}", text(limit)));
        format!("{IDLE_WARNING} of the run for {}, since {}{end}", text(self.length), whole_seconds(self.since))
    }

    /// The summary of the run that is ended.
    pub(super) fn sentence(&self) -> String {
        format!("idle: no output, message or CPU time for {}, since {}", text(self.length), whole_seconds(self.since))
    }
}

fn text(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Time::millis(if millis >= 1000 { millis / 1000 * 1000 } else { millis }).to_string()
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The runs that are looked at. One for a supervisor.
#[derive(Debug, Default)]
pub(super) struct IdleWatch {
    registry: Mutex<Registry>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Registry {
    runs: HashMap<RunKey, Entry>,
    /// Calls in progress in which a run waits for its children or for a task.
    waits: HashMap<RunKey, u32>,
    /// When the next look is made; `None`: not before a run comes.
    next: Option<Instant>,
    /// Tells the entries of one run apart that come after each other.
    generation: u64,
}

impl Registry {
    /// When the next look is due.
    fn next(&mut self) -> Option<Instant> {
        self.next = self.runs.values().filter(|entry| entry.probe.is_some()).filter_map(|entry| entry.due).min();
        self.next
    }

    /// Whether a look that is due then would be missed by a watch that sleeps.
    fn is_earlier(&self, due: Option<Instant>) -> bool {
        due.is_some_and(|due| self.next.is_none_or(|next| due < next))
    }
}

#[derive(Debug)]
struct Entry {
    generation: u64,
    clock: Clock,
    due: Option<Instant>,
    /// `None`: it is being looked at.
    probe: Option<Probe>,
    buses: [PathBuf; 2],
    /// A sign of life that came by itself.
    alive: bool,
    limit: Option<Duration>,
    tell: mpsc::UnboundedSender<Notice>,
}

/// A run that is being looked at, until this is dropped.
pub(super) struct Looked {
    shared: Arc<Shared>,
    key: RunKey,
    generation: u64,
    notices: mpsc::UnboundedReceiver<Notice>,
}

impl Looked {
    /// The next notice. Cancel-safe.
    pub(super) async fn notice(&mut self) -> Notice {
        match self.notices.recv().await {
            Some(notice) => notice,
            // The registry holds the sender for as long as this lives.
            None => std::future::pending().await,
        }
    }

    /// The end could not be asked for: a later look tries again.
    pub(super) fn try_again(&self) {
        let mut registry = self.shared.idle.lock();
        if let Some(entry) = registry.runs.get_mut(&self.key).filter(|entry| entry.generation == self.generation) {
            entry.clock.try_again();
            entry.due = Some(Instant::now() + entry.clock.period());
        }
        drop(registry);
        // A watch that sleeps longer than that is told.
        self.shared.idle.changed.notify_one();
    }
}

impl Drop for Looked {
    fn drop(&mut self) {
        let mut registry = self.shared.idle.lock();
        if registry.runs.get(&self.key).is_some_and(|entry| entry.generation == self.generation) {
            registry.runs.remove(&self.key);
        }
    }
}

/// A call in which a run waits, until this is dropped.
pub(super) struct Waiting {
    shared: Arc<Shared>,
    key: RunKey,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut registry = self.shared.idle.lock();
        if let Some(count) = registry.waits.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                registry.waits.remove(&self.key);
            }
        }
        // What it waited for is there: it has something to do again.
        if let Some(entry) = registry.runs.get_mut(&self.key) {
            entry.alive = true;
        }
    }
}

impl IdleWatch {
    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to look at a run that has started. `None`: it has no limit.
    pub(super) fn begin(shared: &Arc<Shared>, info: &RunInfo, start: &Start) -> Option<Looked> {
        let limits = Limits { warn: info.limits.idle_warn, act: info.limits.idle_timeout };
        let clock = Clock::new(limits, Instant::now())?;
        let key = info.key();
        let adapter = shared.agents().get(&info.agent).cloned();
        let (tell, notices) = mpsc::unbounded_channel();
        let mut registry = shared.idle.lock();
        registry.generation += 1;
        let generation = registry.generation;
        let entry = Entry {
            generation,
            due: clock.next(),
            clock,
            probe: Some(Probe::new(info, start, adapter)),
            buses: [shared.root.task_bus(&key.task), shared.root.project_bus(&key.task.project)],
            alive: false,
            limit: limits.act,
            tell,
        };
        let wake = registry.is_earlier(entry.due);
        registry.runs.insert(key.clone(), entry);
        drop(registry);
        if wake {
            shared.idle.changed.notify_one();
        }
        Some(Looked { shared: Arc::clone(shared), key, generation, notices })
    }

    /// A run waits for us, by a call that lasts as long as the returned value: it is not idle.
    pub(super) fn waiting(shared: &Arc<Shared>, run: &RunKey) -> Waiting {
        *shared.idle.lock().waits.entry(run.clone()).or_default() += 1;
        Waiting { shared: Arc::clone(shared), key: run.clone() }
    }
}

/// A run in the hands of a look.
struct Taken {
    key: RunKey,
    generation: u64,
    probe: Probe,
    buses: [PathBuf; 2],
    alive: bool,
}

/// Looks at runs for ever.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut posts = Posts::default();
    loop {
        let next = shared.idle.lock().next();
        match next {
            None => shared.idle.changed.notified().await,
            Some(due) if due > Instant::now() => tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                // A run with a shorter limit may have come.
                () = shared.idle.changed.notified() => {}
            },
            Some(_) => look(&shared, &mut posts).await,
        }
    }
}

/// Looks at all runs that are due.
async fn look(shared: &Arc<Shared>, posts: &mut Posts) {
    let (taken, needed) = take(shared);
    posts.keep_only(&needed);
    let measured = tokio::task::spawn_blocking(move || {
        let mut taken = taken;
        let mut probes: Vec<&mut Probe> = taken.iter_mut().map(|run| &mut run.probe).collect();
        let alive = probe::look(&mut probes);
        for (run, alive) in taken.iter_mut().zip(alive) {
            run.alive |= alive;
        }
        taken
    });
    let Ok(mut taken) = measured.await else {
        // It panicked, which is logged where it happened; those runs are not looked at any more.
        tracing::error!("the idle limit of some runs is not in force any more");
        return;
    };
    for bus in taken.iter().flat_map(|run| run.buses.clone()).collect::<HashSet<_>>() {
        posts.begin(&shared.buses, &bus).await;
    }
    let quiet: HashSet<PathBuf> = taken.iter().filter(|run| !run.alive).flat_map(|run| run.buses.clone()).collect();
    for bus in quiet {
        heard(shared, &mut taken, &bus, &posts.since(&shared.buses, &bus).await);
    }
    judge(shared, taken);
}

/// Takes the probes of those that are due, and names the buses of all runs.
fn take(shared: &Shared) -> (Vec<Taken>, HashSet<PathBuf>) {
    let now = Instant::now();
    let mut registry = shared.idle.lock();
    let Registry { runs, waits, .. } = &mut *registry;
    let needed = runs.values().flat_map(|entry| entry.buses.clone()).collect();
    let mut taken = Vec::new();
    for (key, entry) in runs {
        let soon = now + entry.clock.period() / TOGETHER;
        if entry.due.is_some_and(|due| due <= soon)
            && let Some(probe) = entry.probe.take()
        {
            let alive = std::mem::take(&mut entry.alive) || waits.contains_key(key);
            entry.due = None;
            let (key, buses) = (key.clone(), entry.buses.clone());
            taken.push(Taken { key, generation: entry.generation, probe, buses, alive });
        }
    }
    (taken, needed)
}

/// Notes who has posted; the runs that are not being looked at hear of it at their next look.
fn heard(shared: &Shared, taken: &mut [Taken], bus: &PathBuf, posted: &Posted) {
    let is_one = |run: &RunKey| match posted {
        Posted::Anybody => true,
        Posted::By(runs) => runs.contains(run.run.as_str()),
    };
    for run in taken.iter_mut().filter(|run| run.buses.contains(bus)) {
        run.alive |= is_one(&run.key);
    }
    if *posted == Posted::By(HashSet::new()) {
        return;
    }
    for (key, entry) in &mut shared.idle.lock().runs {
        if entry.probe.is_some() && entry.buses.contains(bus) {
            entry.alive |= is_one(key);
        }
    }
}

/// Moves the clocks on and tells what follows.
fn judge(shared: &Shared, taken: Vec<Taken>) {
    let now = Instant::now();
    let mut registry = shared.idle.lock();
    for run in taken {
        // It may have ended meanwhile.
        let Some(entry) = registry.runs.get_mut(&run.key).filter(|entry| entry.generation == run.generation) else {
            continue;
        };
        entry.probe = Some(run.probe);
        let verdict = entry.clock.look(now, run.alive || std::mem::take(&mut entry.alive));
        entry.due = entry.clock.next();
        let length = entry.clock.quiet();
        let wall = Timestamp::now();
        let silence = Silence { since: wall.checked_sub(length).unwrap_or(wall), length, limit: entry.limit };
        let notice = match verdict {
            None => continue,
            Some(Verdict::Warn) => Notice::Warn(silence),
            Some(Verdict::Alive) => Notice::Alive,
            Some(Verdict::Act) => Notice::Act(silence),
        };
        let _ = entry.tell.send(notice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read_says_how_long_since_when_and_what_follows() {
        let silence = Silence {
            since: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            length: Duration::from_millis(600_250),
            limit: Some(Duration::from_secs(1800)),
        };
        assert_eq!(
            silence.warning(),
            "no sign of life of the run for 10m, since 2026-01-02T03:04:05Z; it is ended after 30m"
        );
        assert_eq!(silence.sentence(), "idle: no output, message or CPU time for 10m, since 2026-01-02T03:04:05Z");
        let endless = Silence { limit: None, length: Duration::from_millis(250), ..silence };
        assert_eq!(endless.warning(), "no sign of life of the run for 250ms, since 2026-01-02T03:04:05Z");
    }
}
