//! The start of conductord: what the disk says, and what the runs have come to meanwhile.
//!
//! Order: scan → every run without an end is looked at, in parallel and without waiting → the catalog is filled → every
//! task of ours that is not settled is taken over, queued ones in their order. Only then does the caller open the
//! socket. Foreign tasks are shown and left alone: nothing of theirs is swept, signalled or written.
//!
//! Idempotent: a crash in the middle of a recovery is recovered from in the same way.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;

use super::dispatch::{self, Message};
use super::finalize::{self, REBOOT};
use super::perform;
use super::record::{self, File};
use super::shared::Shared;
use super::submit::STAGING;
use crate::ralph::{Event, Interruption, LastRun, LoopState, RunEnd};
use crate::runner::{Found, RunFinish, Watched};
use crate::store::liveness::Liveness;
use crate::store::run_info::RunProblem;
use crate::store::scan::TaskKind;
use crate::store::{ProjectRecord, Scan, ScannedRun, ScannedTask, StoreError, TaskRecord, scan};
use crate::types::{Outcome, RunId, RunInfo, TaskKey, Timestamp};

type Scanned = ScannedTask<LoopState>;

/// Threads that look at runs: each look is a few system calls on a warm cache.
const PROBES: usize = 4;

/// Problems that are told; a tree with more has one cause.
const MAX_PROBLEMS: usize = 100;

/// What a start found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoverySummary {
    /// Live runs that go on.
    pub adopted: u32,
    /// Runs that had ended meanwhile, with their exit known.
    pub ended: u32,
    /// Runs whose shim had died and whose tree lived.
    pub rescued: u32,
    /// Runs whose end can't be known.
    pub lost: u32,
    /// Milliseconds from the scan's start to the end of recovery.
    pub duration_ms: u64,
}

/// The result, for `daemon info`.
#[derive(Clone, Debug, Default)]
pub(super) struct Recovered {
    pub(super) summary: RecoverySummary,
    pub(super) problems: Vec<String>,
}

/// Work that recovery has found and that nobody has to wait for: to be begun once the daemon is ready.
pub(super) type Later = Vec<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// A run that has no end on disk, with what became of it.
struct Probed {
    run: ScannedRun,
    found: io::Result<Found>,
}

/// Recovers. Blocks for reading the tree; must be called inside the runtime, since live runs are watched from here on.
pub(super) fn recover(
    shared: &Arc<Shared>,
    tx: &mpsc::UnboundedSender<Message>,
) -> Result<(Recovered, Later), StoreError> {
    let begun = Instant::now();
    shared.root.empty_trash()?;
    let _ = std::fs::remove_dir_all(shared.root.conductor_file(STAGING));
    let now = Timestamp::now();
    let scan: Scan<LoopState> = scan(&shared.root, now, &Liveness::default())?;
    for project in &scan.projects {
        shared.catalog.put_project(ProjectRecord::from(project));
    }
    let mut probed = probe(shared, &scan.tasks);
    let mut recovered = Recovered { problems: scan.problems.listed.clone(), ..Recovered::default() };
    let mut files = Vec::new();
    for run in scan.tasks.iter().flat_map(|task| &task.runs) {
        if let Some(problem) = &run.problem
            && recovered.problems.len() < MAX_PROBLEMS
        {
            recovered.problems.push(format!("{}: {problem}", run.key));
        }
    }
    for task in scan.tasks {
        fill_catalog(shared, &task, &probed, now);
        if let TaskKind::Own(file) = task.kind {
            for request in &file.requests {
                shared.catalog.put_request(file.key(), request.clone(), now);
            }
            let file = *file;
            let runs = probed.remove(&file.key()).unwrap_or_default();
            if !file.state.is_settled() || !runs.is_empty() {
                files.push((file, runs, task.runs));
            }
        }
    }
    // The queue's order is that of the places on disk.
    files.sort_by_key(|(file, _, _)| file.state.queue_order);
    let mut later = Later::new();
    // All of them first, so that a parent that begins sees its children.
    for (file, ..) in &files {
        let recovered = dispatch::Recovered {
            recheck: file.state.outbox.iter().map(|intent| intent.key.clone()).collect(),
            live: file.state.run.is_some(),
        };
        let _ = tx.send(Message::Insert { file: Box::new(file.clone()), recovered: Some(recovered), reply: None });
    }
    for (file, runs, all) in files {
        take_over(shared, tx, &file, runs, &all, &mut recovered.summary, &mut later);
    }
    shared.runner.sweep_cgroups();
    recovered.summary.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok((recovered, later))
}

/// Looks at every run of ours that has no end, in parallel.
fn probe(shared: &Arc<Shared>, tasks: &[Scanned]) -> HashMap<TaskKey, Vec<Probed>> {
    let work: Vec<&ScannedRun> = tasks
        .iter()
        .filter(|task| matches!(task.kind, TaskKind::Own(_)))
        .flat_map(|task| {
            task.runs
                .iter()
                .filter(|run| (run.needs_recovery() && !is_newer(run)) || run.problem == Some(RunProblem::Missing))
        })
        .collect();
    let found: Mutex<HashMap<TaskKey, Vec<Probed>>> = Mutex::default();
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        for chunk in work.chunks(work.len().div_ceil(PROBES).max(1)) {
            let (found, runtime) = (&found, runtime.clone());
            scope.spawn(move || {
                let _inside = runtime.enter();
                for run in chunk {
                    let outcome = shared.runner.recover(&run.key, &shared.run_dir(&run.key));
                    let probed = Probed { run: (*run).clone(), found: outcome };
                    let mut all = found.lock().unwrap_or_else(PoisonError::into_inner);
                    all.entry(run.key.task.clone()).or_default().push(probed);
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A record of a newer version is shown as unknown and left alone.
fn is_newer(run: &ScannedRun) -> bool {
    matches!(run.problem, Some(RunProblem::Newer(_)))
}

fn fill_catalog(shared: &Shared, task: &Scanned, probed: &HashMap<TaskKey, Vec<Probed>>, now: Timestamp) {
    let scanned = TaskRecord::from_scan(task);
    shared.catalog.put_task(match &task.kind {
        TaskKind::Own(file) => TaskRecord { updated: scanned.updated, ..record::task(file, now) },
        _ => scanned,
    });
    let open = probed.get(&task.key);
    for run in &task.runs {
        // Runs that are looked at come with what they have come to.
        if !open.is_some_and(|open| open.iter().any(|probed| probed.run.key == run.key)) {
            shared.catalog.put_run(run.info.clone());
        }
    }
}

/// Hands a task to the dispatcher, with the fate of its open runs.
fn take_over(
    shared: &Arc<Shared>,
    tx: &mpsc::UnboundedSender<Message>,
    file: &File,
    runs: Vec<Probed>,
    all: &[ScannedRun],
    summary: &mut RecoverySummary,
    later: &mut Later,
) {
    let key = file.key();
    let current = file.state.run.clone();
    // Every run that is there and has no end is looked at, but for one whose folder is not whole.
    let seen = current.as_ref().is_some_and(|run| {
        runs.iter().any(|probed| probed.run.key.run == *run)
            || all.iter().any(|scanned| scanned.key.run == *run && scanned.info.outcome.is_some())
    });
    let recorded = current.as_ref().and_then(|run| all.iter().find(|scanned| scanned.key.run == *run));
    let _ = tx.send(Message::Event(key.clone(), Event::Begin));
    for probed in runs {
        open_run(shared, tx, probed, current.as_ref(), summary, later);
    }
    // The run's own end is durable, the loop's answer to it was not.
    if let Some(done) = recorded.filter(|run| run.info.outcome.is_some()) {
        let end = finalize::recorded_end(shared, &done.info);
        let _ = tx.send(Message::Event(key.clone(), Event::RunEnded(Box::new(end))));
        summary.ended += 1;
    }
    if let (Some(run), false) = (current, seen) {
        // Written down, and never made: not even its folder is there.
        let _ = tx.send(Message::Event(key, never_made(run)));
    }
}

fn open_run(
    shared: &Arc<Shared>,
    tx: &mpsc::UnboundedSender<Message>,
    probed: Probed,
    current: Option<&RunId>,
    summary: &mut RecoverySummary,
    later: &mut Later,
) {
    let Probed { run, found } = probed;
    let key = run.key.clone();
    let is_current = current == Some(&key.run);
    let finish = match found {
        Ok(Found::Alive(watched)) => {
            summary.adopted += 1;
            return watch(shared, tx, watched, run.info, later);
        }
        Ok(Found::ShimDied(watched)) => {
            summary.rescued += 1;
            return watch(shared, tx, watched, run.info, later);
        }
        Ok(Found::NeverStarted) if run.problem == Some(RunProblem::Missing) => {
            // Only prepared: nothing was executed, and nothing durable refers to its content.
            if is_only_prepared(&shared.run_dir(&key)) {
                let _ = std::fs::remove_dir_all(shared.run_dir(&key));
            } else {
                shared.catalog.put_run(run.info);
            }
            if is_current {
                let _ = tx.send(Message::Event(key.task, never_made(key.run)));
            }
            return;
        }
        Ok(Found::Exited(exit)) => {
            summary.ended += 1;
            RunFinish::Exited(exit)
        }
        Ok(Found::NeverStarted) => RunFinish::NeverStarted,
        Ok(Found::Restarted) => RunFinish::Lost(REBOOT.to_owned()),
        Ok(Found::Gone) => RunFinish::Lost("its shim died and nobody saw its end".to_owned()),
        Err(error) => {
            // Something of it may live: nothing is begun anew until that is known.
            tracing::warn!(run = %key, %error, "what the run has come to can't be told yet; asking again");
            shared.catalog.put_run(run.info.clone());
            later.push(Box::pin(perform::follow_later(Arc::clone(shared), tx.clone(), run.info)));
            return;
        }
    };
    if matches!(finish, RunFinish::Lost(_)) {
        summary.lost += 1;
    }
    shared.catalog.put_run(run.info.clone());
    let (shared, tx) = (Arc::clone(shared), tx.clone());
    later.push(Box::pin(async move { perform::end(&shared, &tx, run.info, finish).await }));
}

/// Whether a run's folder holds nothing but what is made before a run is recorded.
fn is_only_prepared(folder: &std::path::Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().all(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name == "shim" || name == "prompt.md" || name.ends_with(".tmp")
    })
}

fn watch(
    shared: &Arc<Shared>,
    tx: &mpsc::UnboundedSender<Message>,
    watched: Watched,
    info: RunInfo,
    later: &mut Later,
) {
    shared.catalog.put_run(info.clone());
    later.push(Box::pin(perform::follow(Arc::clone(shared), tx.clone(), watched, info)));
}

fn never_made(run: RunId) -> Event {
    let summary = Some("conductord ended before the run was made".to_owned());
    let last = LastRun { run, outcome: Outcome::Lost, exit_code: None, signal: None, summary };
    Event::RunEnded(Box::new(RunEnd {
        last,
        session: None,
        progressed: false,
        interruption: Some(Interruption::NeverStarted),
        limit: None,
        account: None,
        stderr_tail: String::new(),
    }))
}
