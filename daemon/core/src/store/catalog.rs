//! What is known of projects, tasks and runs, in memory: what readers ask and what watchers follow.
//!
//! The supervisor is the only writer; it fills the records and the catalog gives revisions, keeps the orders and the
//! changes. Nothing is read from or written to disk, and no lock is held beyond one short call: a page costs a page.

mod changes;
mod count;
mod find;
mod list;
mod records;
mod requests;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

pub use changes::{CHANGE_LOG, Change, ChangeKind, Compacted, Object, Snapshot};
pub use find::{FindError, MAX_CANDIDATES};
pub use list::{DEFAULT_PAGE_SIZE, ListError, MAX_PAGE_SIZE, Order, Page, PageRequest, RunFilter, TaskFilter};
pub use records::{ForeignTask, ProjectRecord, TaskRecord};
pub use requests::{REQUEST_VALID, RequestEntry};

use changes::ChangeLog;
use list::{RunAt, TaskAt};
use requests::Requests;

use crate::types::{Phase, ProjectId, RunInfo, RunKey, RunStatus, TaskKey};

/// The index. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Catalog {
    inner: Arc<RwLock<Inner>>,
    revision: watch::Sender<u64>,
    epoch: u64,
}

#[derive(Debug, Default)]
struct Inner {
    projects: BTreeMap<ProjectId, Arc<ProjectRecord>>,
    /// By project, then time.
    tasks: BTreeMap<TaskKey, Arc<TaskRecord>>,
    /// By time.
    tasks_by_time: BTreeMap<TaskAt, Arc<TaskRecord>>,
    /// Those that have no end yet, by time: what `ps` shows.
    active_tasks: BTreeMap<TaskAt, Arc<TaskRecord>>,
    /// By the task whose run started them.
    children: BTreeMap<TaskKey, BTreeSet<TaskKey>>,
    /// By task, then time.
    runs: BTreeMap<RunKey, Arc<RunInfo>>,
    /// By project, then time.
    runs_by_project: BTreeMap<(ProjectId, RunAt), Arc<RunInfo>>,
    /// By time.
    runs_by_time: BTreeMap<RunAt, Arc<RunInfo>>,
    /// Those that run, by time.
    running: BTreeMap<RunAt, Arc<RunInfo>>,
    log: ChangeLog,
    requests: Requests,
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Catalog {
    /// An empty catalog of a daemon start. Revisions begin anew with it, so they mean something only with `epoch`.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self { inner: Arc::default(), revision: watch::Sender::new(0), epoch }
    }

    /// The daemon start that revisions belong to.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The revision of the latest change; 0 before any.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.read().log.revision()
    }

    /// Follows the revision: wakes at every change (several may share one wake).
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Adds or replaces a project. Its `revision` is given here and returned.
    pub fn put_project(&self, mut project: ProjectRecord) -> u64 {
        self.change(|inner| {
            project.revision = inner.log.next();
            let project = Arc::new(project);
            inner.projects.insert(project.id.clone(), Arc::clone(&project));
            inner.log.push(ChangeKind::Upsert, Object::Project(project));
        })
    }

    /// Adds or replaces a task; its `revision` and `children` are given here. A parent that gains or loses it changes
    /// too. Returns the revision of the last of these changes.
    pub fn put_task(&self, task: TaskRecord) -> u64 {
        self.change(|inner| inner.put_task(task))
    }

    /// Adds or replaces a run; returns the revision of this change.
    pub fn put_run(&self, run: RunInfo) -> u64 {
        self.change(|inner| inner.put_run(Arc::new(run)))
    }

    /// Removes a project, whose tasks must be gone.
    pub fn remove_project(&self, id: &ProjectId) -> Option<Arc<ProjectRecord>> {
        let mut removed = None;
        self.change(|inner| {
            removed = inner.projects.remove(id);
            if let Some(project) = &removed {
                inner.log.push(ChangeKind::Delete, Object::Project(Arc::clone(project)));
            }
        });
        removed
    }

    /// Removes a task with its runs.
    pub fn remove_task(&self, key: &TaskKey) -> Option<Arc<TaskRecord>> {
        let mut removed = None;
        self.change(|inner| removed = inner.remove_task(key));
        removed
    }

    /// Removes a run that never came to be.
    pub fn remove_run(&self, key: &RunKey) {
        self.change(|inner| inner.remove_run(key));
    }

    /// A project.
    #[must_use]
    pub fn project(&self, id: &ProjectId) -> Option<Arc<ProjectRecord>> {
        self.read().projects.get(id).cloned()
    }

    /// A task.
    #[must_use]
    pub fn task(&self, key: &TaskKey) -> Option<Arc<TaskRecord>> {
        self.read().tasks.get(key).cloned()
    }

    /// A run.
    #[must_use]
    pub fn run(&self, key: &RunKey) -> Option<Arc<RunInfo>> {
        self.read().runs.get(key).cloned()
    }

    /// The runs of a task, oldest first.
    #[must_use]
    pub fn runs_of(&self, task: &TaskKey) -> Vec<Arc<RunInfo>> {
        self.read().runs_of(task).cloned().collect()
    }

    /// The tasks that a task's runs started, oldest first.
    #[must_use]
    pub fn children_of(&self, task: &TaskKey) -> Vec<Arc<TaskRecord>> {
        let inner = self.read();
        let keys = inner.children.get(task).into_iter().flatten();
        keys.filter_map(|key| inner.tasks.get(key).cloned()).collect()
    }

    /// The project that is bound to a folder. (A few hundred projects at most, so a plain walk.)
    #[must_use]
    pub fn project_at(&self, path: &std::path::Path) -> Option<Arc<ProjectRecord>> {
        self.read().projects.values().find(|project| project.root.as_deref() == Some(path)).cloned()
    }

    /// Number of projects, tasks and runs.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let inner = self.read();
        (inner.projects.len(), inner.tasks.len(), inner.runs.len())
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // A panic of the one writer leaves records whole: each is replaced by one insert.
        self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes the index and wakes the watchers after the lock is released.
    fn change(&self, act: impl FnOnce(&mut Inner)) -> u64 {
        let revision = {
            let mut inner = self.write();
            act(&mut inner);
            inner.log.revision()
        };
        self.revision.send_if_modified(|seen| {
            let newer = revision > *seen;
            *seen = revision.max(*seen);
            newer
        });
        revision
    }
}

impl Inner {
    fn put_task(&mut self, mut task: TaskRecord) {
        let key = task.key.clone();
        task.children = self.children.get(&key).into_iter().flatten().cloned().collect();
        let old_parent = self.tasks.get(&key).and_then(|old| old.parent.clone());
        let parent = task.parent.clone();
        self.store_task(task);
        if old_parent != parent {
            if let Some(old) = old_parent {
                self.unlink_child(&old.task, &key);
            }
            if let Some(new) = parent
                && self.children.entry(new.task.clone()).or_default().insert(key)
            {
                self.refresh_children(&new.task);
            }
        }
    }

    fn store_task(&mut self, mut task: TaskRecord) {
        task.revision = self.log.next();
        let task = Arc::new(task);
        let at = TaskAt::of(&task.key);
        if task.is_active() {
            self.active_tasks.insert(at.clone(), Arc::clone(&task));
        } else {
            self.active_tasks.remove(&at);
        }
        self.tasks_by_time.insert(at, Arc::clone(&task));
        self.tasks.insert(task.key.clone(), Arc::clone(&task));
        self.log.push(ChangeKind::Upsert, Object::Task(task));
    }

    /// Brings a parent's list of children up to date, as a change of its own.
    fn refresh_children(&mut self, parent: &TaskKey) {
        let Some(record) = self.tasks.get(parent) else { return };
        let mut record = TaskRecord::clone(record);
        record.children = self.children.get(parent).into_iter().flatten().cloned().collect();
        self.store_task(record);
    }

    fn unlink_child(&mut self, parent: &TaskKey, child: &TaskKey) {
        let Some(list) = self.children.get_mut(parent) else { return };
        list.remove(child);
        if list.is_empty() {
            self.children.remove(parent);
        }
        self.refresh_children(parent);
    }

    fn put_run(&mut self, run: Arc<RunInfo>) {
        let key = run.key();
        let at = RunAt::of(&key);
        if run.status == RunStatus::Running {
            self.running.insert(at.clone(), Arc::clone(&run));
        } else {
            self.running.remove(&at);
        }
        self.runs_by_time.insert(at.clone(), Arc::clone(&run));
        self.runs_by_project.insert((key.task.project.clone(), at), Arc::clone(&run));
        self.runs.insert(key, Arc::clone(&run));
        self.log.push(ChangeKind::Upsert, Object::Run(run));
    }

    fn remove_task(&mut self, key: &TaskKey) -> Option<Arc<TaskRecord>> {
        let task = self.tasks.remove(key)?;
        let at = TaskAt::of(key);
        self.tasks_by_time.remove(&at);
        self.active_tasks.remove(&at);
        let runs: Vec<Arc<RunInfo>> = self.runs_of(key).cloned().collect();
        for run in runs {
            self.remove_run(&run.key());
        }
        self.requests.forget_task(key);
        self.log.push(ChangeKind::Delete, Object::Task(Arc::clone(&task)));
        if let Some(parent) = &task.parent {
            self.unlink_child(&parent.task, key);
        }
        Some(task)
    }

    fn remove_run(&mut self, key: &RunKey) {
        let Some(run) = self.runs.remove(key) else { return };
        let at = RunAt::of(key);
        self.running.remove(&at);
        self.runs_by_time.remove(&at);
        self.runs_by_project.remove(&(key.task.project.clone(), at));
        self.log.push(ChangeKind::Delete, Object::Run(run));
    }

    fn runs_of(&self, task: &TaskKey) -> impl DoubleEndedIterator<Item = &Arc<RunInfo>> {
        self.runs.range(list::task_range(task)).map(|(_, run)| run)
    }
}

/// Whether a task in this phase is done with.
fn has_ended(phase: Option<Phase>) -> bool {
    phase.is_none_or(|phase| phase == Phase::Finished)
}

#[cfg(test)]
mod tests;
