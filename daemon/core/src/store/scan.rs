//! Reads the whole tree at start, in parallel: one read per project, task and run.
//!
//! A file that can't be read costs the one record that it is of; a name that is no id is counted and listed. Nothing is
//! written, no process is started, ended or signalled, and no loop policy is applied.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::foreign::{self, ForeignState, Markers};
use super::liveness::Liveness;
use super::project::{self, ReadProject};
use super::root::{run_rel, task_rel};
use super::run_info::{self, ReadRun, RunProblem};
use super::task_file::{self, TaskFile};
use super::{Root, StoreError};
use crate::types::{ProjectId, RunInfo, RunKey, RunStatus, TaskId, TaskKey};

/// Threads at least: a page cache that is cold gives its pages sooner to two.
const MIN_THREADS: usize = 2;
/// Threads at most: beyond, they wait for the same locks of the kernel.
const MAX_THREADS: usize = 8;
/// Problems that are listed; the rest are only counted.
const MAX_LISTED: usize = 1000;

/// The tree as it was read.
#[derive(Clone, Debug)]
pub struct Scan<S> {
    /// Projects, ordered by id.
    pub projects: Vec<ScannedProject>,
    /// Tasks, ordered by project, then time.
    pub tasks: Vec<ScannedTask<S>>,
    /// What is no project, task or run, or can't be listed.
    pub problems: Problems,
}

/// A project's folder.
#[derive(Clone, Debug)]
pub struct ScannedProject {
    /// Its id.
    pub id: ProjectId,
    /// What its files say.
    pub files: ReadProject,
}

/// A task's folder with its runs.
#[derive(Clone, Debug)]
pub struct ScannedTask<S> {
    /// Its key.
    pub key: TaskKey,
    /// Whose it is, and what its files say.
    pub kind: TaskKind<S>,
    /// Its runs, oldest first.
    pub runs: Vec<ScannedRun>,
}

/// Whose a task is.
#[derive(Clone, Debug)]
pub enum TaskKind<S> {
    /// Ours.
    Own(Box<TaskFile<S>>),
    /// Ours, but its file can't be read (or is newer): it is shown as `unknown` and left alone.
    Unreadable(String),
    /// Another program's: it is shown and left alone.
    Foreign {
        /// Its marker files.
        markers: Markers,
        /// Where it seems to be.
        state: ForeignState,
        /// One sentence on it.
        why: String,
    },
}

/// A run's folder.
#[derive(Clone, Debug)]
pub struct ScannedRun {
    /// Its key.
    pub key: RunKey,
    /// Its record; runs of foreign tasks as they are to be shown.
    pub info: RunInfo,
    /// Why its record tells nothing.
    pub problem: Option<RunProblem>,
    /// What of the shim's is there. Not looked for in a run that has its end or is another program's.
    pub shim: ShimFiles,
}

/// Whether the files of the shim's protocol are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShimFiles {
    /// The folder.
    pub folder: bool,
    /// `exit.json`.
    pub exit: bool,
}

impl ScannedRun {
    /// Whether it is for recovery to find out how this run ended: it is ours and has no end on disk.
    #[must_use]
    pub fn needs_recovery(&self) -> bool {
        self.shim.folder && self.info.outcome.is_none()
    }
}

/// Names and folders that were passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// How many.
    pub count: usize,
    /// The first 1,000, each a path relative to the root and a reason.
    pub listed: Vec<String>,
}

impl Problems {
    fn add(&mut self, path: &Path, reason: impl std::fmt::Display) {
        self.count += 1;
        if self.listed.len() < MAX_LISTED {
            self.listed.push(format!("{}: {reason}", path.display()));
        }
    }

    fn join(&mut self, other: Self) {
        self.count += other.count;
        let room = MAX_LISTED - self.listed.len();
        self.listed.extend(other.listed.into_iter().take(room));
    }
}

/// Reads the tree.
///
/// # Errors
/// The root itself can't be listed. Anything below it costs one record.
pub fn scan<S>(root: &Root, now: Timestamp, live: &Liveness) -> Result<Scan<S>, StoreError>
where
    S: DeserializeOwned + Send,
{
    let mut problems = Problems::default();
    let names = folders(root, Path::new(""), &mut problems)?;
    let ids: Vec<ProjectId> = ids_of(Path::new(""), names, &mut problems);
    let mut keys = Vec::new();
    let mut projects = Vec::with_capacity(ids.len());
    for id in ids {
        let rel = Path::new(id.as_str());
        match folders(root, rel, &mut problems) {
            Ok(names) => {
                let tasks: Vec<TaskId> = ids_of(rel, names, &mut problems);
                keys.extend(tasks.into_iter().map(|task| TaskKey::new(id.clone(), task)));
            }
            Err(error) => problems.add(rel, error),
        }
        projects.push(ScannedProject { files: project::read(root, &id), id });
    }
    let (mut tasks, more) = scan_tasks(root, &keys, live);
    problems.join(more);
    projects.sort_by(|a, b| a.id.cmp(&b.id));
    tasks.sort_by(|a, b| a.key.cmp(&b.key));
    judge_foreign(root, &mut tasks, now);
    Ok(Scan { projects, tasks, problems })
}

/// Reads one task's folder, for one that was adopted or changed from outside.
#[must_use]
pub fn scan_task<S>(root: &Root, key: &TaskKey, now: Timestamp, live: &Liveness) -> (ScannedTask<S>, Problems)
where
    S: DeserializeOwned + Send,
{
    let mut problems = Problems::default();
    let mut tasks = [read_task(root, key, live, &mut problems)];
    judge_foreign(root, &mut tasks, now);
    let [task] = tasks;
    (task, problems)
}

fn scan_tasks<S>(root: &Root, keys: &[TaskKey], live: &Liveness) -> (Vec<ScannedTask<S>>, Problems)
where
    S: DeserializeOwned + Send,
{
    let threads = std::thread::available_parallelism().map_or(MIN_THREADS, usize::from);
    let threads = threads.clamp(MIN_THREADS, MAX_THREADS).min(keys.len().max(1));
    let next = AtomicUsize::new(0);
    let all = Mutex::new((Vec::with_capacity(keys.len()), Problems::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut tasks = Vec::new();
                let mut problems = Problems::default();
                while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                    tasks.push(read_task(root, key, live, &mut problems));
                }
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.0.append(&mut tasks);
                all.1.join(problems);
            });
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn read_task<S>(root: &Root, key: &TaskKey, live: &Liveness, problems: &mut Problems) -> ScannedTask<S>
where
    S: DeserializeOwned,
{
    let kind = match task_file::read(root, key) {
        Ok(Some(file)) => TaskKind::Own(Box::new(file)),
        Ok(None) => {
            TaskKind::Foreign { markers: foreign::markers(root, key), state: ForeignState::Unknown, why: String::new() }
        }
        Err(error) => TaskKind::Unreadable(error.to_string()),
    };
    let rel = task_rel(key).join("runs");
    let mut runs = match folders(root, &rel, problems) {
        Ok(names) => ids_of(&rel, names, problems),
        Err(error) => {
            if !error.is_not_found() {
                problems.add(&rel, error);
            }
            Vec::new()
        }
    };
    runs.sort();
    let runs = runs.into_iter().map(|run| read_run(root, key.run(run), &kind, live)).collect();
    ScannedTask { key: key.clone(), kind, runs }
}

fn read_run<S>(root: &Root, key: RunKey, task: &TaskKind<S>, live: &Liveness) -> ScannedRun {
    let ReadRun { mut info, problem } = run_info::read(root, &key);
    let mut shim = ShimFiles::default();
    if let TaskKind::Foreign { markers, .. } = task {
        foreign::reconcile(&mut info, markers.done, live);
    } else if info.outcome.is_none() {
        let folder = run_rel(&key).join(conductor_shim::protocol::FOLDER);
        shim.folder = super::confined::open_folder(root.fd(), &folder).is_ok();
        shim.exit = shim.folder && root.has_file(folder.join(conductor_shim::protocol::EXIT)).unwrap_or(false);
        if !shim.folder && info.status == RunStatus::Running {
            // An adopted task keeps the runs that another program made.
            foreign::reconcile(&mut info, root.is_done(&key.task).unwrap_or(false), live);
        }
    }
    ScannedRun { key, info, problem, shim }
}

/// Says where the foreign tasks are. Dependencies are looked up on disk: few tasks have any.
fn judge_foreign<S>(root: &Root, tasks: &mut [ScannedTask<S>], now: Timestamp) {
    for task in tasks {
        let TaskKind::Foreign { markers, state, why } = &mut task.kind else { continue };
        let project = &task.key.project;
        let is_done = |name: &str| {
            let key = name.parse().map(|id| TaskKey::new(project.clone(), id));
            key.is_ok_and(|key| root.is_done(&key).unwrap_or(false))
        };
        (*state, *why) = foreign::state(markers, task.runs.iter().map(|run| &run.info), now, is_done);
    }
}

/// Names of the folders in a folder beneath the root. Links to folders are problems; files are not looked at.
fn folders(root: &Root, rel: &Path, problems: &mut Problems) -> Result<Vec<OsString>, StoreError> {
    let failed = |error| StoreError::io("list", rel, error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.path().join(rel)).map_err(failed)? {
        // A listing that breaks off in the middle gives what it gave.
        let Ok(entry) = entry.map_err(|error| problems.add(rel, error)) else { break };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => names.push(entry.file_name()),
            Ok(kind) if kind.is_symlink() => problems.add(&rel.join(entry.file_name()), "a symbolic link, passed over"),
            Ok(_) => {}
            Err(error) => problems.add(&rel.join(entry.file_name()), error),
        }
    }
    Ok(names)
}

/// The names that are ids. Hidden folders and those that begin with `_` belong to programs and are no mistake.
fn ids_of<Id: std::str::FromStr<Err = crate::types::IdError>>(
    rel: &Path,
    names: Vec<OsString>,
    problems: &mut Problems,
) -> Vec<Id> {
    let mut ids = Vec::with_capacity(names.len());
    for name in names {
        let text = name.to_string_lossy();
        match text.parse() {
            Ok(id) => ids.push(id),
            Err(_) if text.starts_with(['.', '_']) => {}
            Err(error) => problems.add(&rel.join(&name), error),
        }
    }
    ids
}

#[cfg(test)]
mod tests;
