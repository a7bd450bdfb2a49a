//! Lists in pages.
//!
//! A page token names the last object of its page and the list that it belongs to, so a page begins right after it
//! whatever was added or removed meanwhile: nothing comes twice, and nothing that stayed is left out. A page looks at
//! a bounded number of objects: a rare filter may give short pages (even empty ones) with a token for what follows.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::{Catalog, ProjectRecord, TaskRecord, token};
use crate::types::{EndReason, Phase, ProjectId, RunId, RunInfo, RunKey, RunStatus, TaskId, TaskKey};

/// Objects of a page, if the caller doesn't say.
pub const DEFAULT_PAGE_SIZE: u32 = 50;
/// Objects of a page at most; more are not refused but cut to this.
pub const MAX_PAGE_SIZE: u32 = 500;
/// Objects that one page looks at, so that a filter that nothing passes does not hold up the writer.
const MAX_LOOKED_AT: usize = 20_000;

/// Which comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// The newest.
    #[default]
    NewestFirst,
    /// The oldest.
    OldestFirst,
}

/// Which page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Objects at most; 0 for [`DEFAULT_PAGE_SIZE`], cut to [`MAX_PAGE_SIZE`].
    pub size: u32,
    /// The token of the page before; `None` for the first.
    pub token: Option<String>,
    /// Order of the list.
    pub order: Order,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Its objects.
    pub items: Vec<Arc<T>>,
    /// Asks for what follows; `None` at the end.
    pub next: Option<String>,
    /// The revision as of which it was read.
    pub revision: u64,
}

/// Which tasks. Every condition that is set must hold; of a list, one of its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TaskFilter {
    /// Of this project.
    pub project: Option<ProjectId>,
    /// Started by runs of this task.
    pub parent: Option<TaskKey>,
    /// Started by nobody's run.
    pub roots_only: bool,
    /// With something left to do.
    pub active_only: bool,
    /// In one of these phases.
    pub phases: Vec<Phase>,
    /// Ended for one of these reasons.
    pub ends: Vec<EndReason>,
    /// With this agent.
    pub agent: Option<String>,
}

/// Which runs. Every condition that is set must hold; of a list, one of its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of this project.
    pub project: Option<ProjectId>,
    /// Of this task (its project counts, not the one above).
    pub task: Option<TaskKey>,
    /// Started by this run.
    pub parent: Option<RunId>,
    /// In one of these states.
    pub statuses: Vec<RunStatus>,
    /// With this agent.
    pub agent: Option<String>,
}

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It was not made by a list.
    #[error("the page token is not one of ours")]
    BadToken,
    /// It was made by a list of another kind, filter or order.
    #[error("the page token belongs to a list with another filter or order")]
    OtherList,
}

/// From a first key to a last.
type KeyRange<K> = (Bound<K>, Bound<K>);

/// A task's place in time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskAt(TaskId, ProjectId);

impl TaskAt {
    pub(super) fn of(key: &TaskKey) -> Self {
        Self(key.task.clone(), key.project.clone())
    }
}

/// A run's place in time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RunAt(RunId, ProjectId, TaskId);

impl RunAt {
    pub(super) fn of(key: &RunKey) -> Self {
        Self(key.run.clone(), key.task.project.clone(), key.task.task.clone())
    }

    /// The place at or before which every run with this id is.
    pub(super) fn first_of(id: &RunId) -> Self {
        Self(id.clone(), "0".parse().expect("a project id"), task_bounds().0)
    }
}

impl TaskFilter {
    fn accepts(&self, task: &TaskRecord) -> bool {
        let parent = task.parent.as_ref();
        self.project.as_ref().is_none_or(|project| *project == task.key.project)
            && self.parent.as_ref().is_none_or(|key| parent.is_some_and(|parent| parent.task == *key))
            && !(self.roots_only && parent.is_some())
            && (!self.active_only || task.is_active())
            && (self.phases.is_empty() || task.phase.is_some_and(|phase| self.phases.contains(&phase)))
            && (self.ends.is_empty() || task.end.as_ref().is_some_and(|end| self.ends.contains(&end.reason)))
            && self.agent.as_ref().is_none_or(|agent| task.spec.as_ref().is_some_and(|spec| spec.agent == *agent))
    }

    /// Whether only active tasks can pass, so that their small index serves.
    fn is_active(&self) -> bool {
        self.active_only || (!self.phases.is_empty() && !self.phases.contains(&Phase::Finished))
    }
}

impl RunFilter {
    fn accepts(&self, run: &RunInfo) -> bool {
        self.project.as_ref().is_none_or(|project| *project == run.project_id)
            && self.task.as_ref().is_none_or(|task| task.task == run.task_id && task.project == run.project_id)
            && self.parent.as_ref().is_none_or(|parent| run.parent_run_id.as_ref() == Some(parent))
            && (self.statuses.is_empty() || self.statuses.contains(&run.status))
            && self.agent.as_ref().is_none_or(|agent| run.agent == *agent)
    }

    fn digest(&self) -> u64 {
        let statuses: Vec<u8> = self.statuses.iter().map(|status| *status as u8).collect();
        digest(&("runs", &self.project, &self.task, &self.parent, statuses, &self.agent))
    }
}

impl Catalog {
    /// A page of projects, by id (`OldestFirst` is A to Z).
    ///
    /// # Errors
    /// A token that is not of this list.
    pub fn list_projects(&self, page: &PageRequest) -> Result<Page<ProjectRecord>, ListError> {
        let list = List::new(page, digest(&"projects"))?;
        let after = list.after(|parts| match parts {
            [project] => project.parse().ok(),
            _ => None,
        })?;
        let inner = self.read();
        let found = list.walk(&inner.projects, .., after, |_| true);
        Ok(list.page(found, inner.log.revision(), |project| vec![project.id.to_string()]))
    }

    /// A page of tasks, by time.
    ///
    /// # Errors
    /// A token that is not of this list.
    pub fn list_tasks(&self, filter: &TaskFilter, page: &PageRequest) -> Result<Page<TaskRecord>, ListError> {
        let list = List::new(page, digest(&("tasks", filter)))?;
        let after = list.after(|parts| match parts {
            [project, task] => Some(TaskKey::new(project.parse().ok()?, task.parse().ok()?)),
            _ => None,
        })?;
        let inner = self.read();
        let accepts = |task: &TaskRecord| filter.accepts(task);
        let found = if let Some(parent) = &filter.parent {
            let children = inner.children.get(parent).into_iter().flatten();
            let tasks = children.filter_map(|key| inner.tasks.get(key));
            let by_time: BTreeMap<_, _> = tasks.map(|task| (TaskAt::of(&task.key), Arc::clone(task))).collect();
            list.walk(&by_time, .., after.as_ref().map(TaskAt::of), accepts)
        } else if filter.is_active() {
            list.walk(&inner.active_tasks, .., after.as_ref().map(TaskAt::of), accepts)
        } else if let Some(project) = &filter.project {
            list.walk(&inner.tasks, project_range(project), after, accepts)
        } else {
            list.walk(&inner.tasks_by_time, .., after.as_ref().map(TaskAt::of), accepts)
        };
        let parts = |task: &TaskRecord| vec![task.key.project.to_string(), task.key.task.to_string()];
        Ok(list.page(found, inner.log.revision(), parts))
    }

    /// A page of runs, by time.
    ///
    /// # Errors
    /// A token that is not of this list.
    pub fn list_runs(&self, filter: &RunFilter, page: &PageRequest) -> Result<Page<RunInfo>, ListError> {
        let list = List::new(page, filter.digest())?;
        let after = list.after(|parts| match parts {
            [project, task, run] => {
                Some(TaskKey::new(project.parse().ok()?, task.parse().ok()?).run(run.parse().ok()?))
            }
            _ => None,
        })?;
        let inner = self.read();
        let accepts = |run: &RunInfo| filter.accepts(run);
        let found = if let Some(task) = &filter.task {
            list.walk(&inner.runs, task_range(task), after, accepts)
        } else if filter.statuses == [RunStatus::Running] {
            list.walk(&inner.running, .., after.as_ref().map(RunAt::of), accepts)
        } else if let Some(project) = &filter.project {
            let after = after.map(|key| (key.task.project.clone(), RunAt::of(&key)));
            list.walk(&inner.runs_by_project, run_project_range(project), after, accepts)
        } else {
            list.walk(&inner.runs_by_time, .., after.as_ref().map(RunAt::of), accepts)
        };
        let parts = |run: &RunInfo| vec![run.project_id.to_string(), run.task_id.to_string(), run.run_id.to_string()];
        Ok(list.page(found, inner.log.revision(), parts))
    }
}

/// The runs of a task.
pub(super) fn task_range(task: &TaskKey) -> KeyRange<RunKey> {
    let (first, last) = run_bounds();
    (Bound::Included(task.run(first)), Bound::Included(task.run(last)))
}

pub(super) fn project_range(project: &ProjectId) -> KeyRange<TaskKey> {
    let (first, last) = task_bounds();
    let key = |task| TaskKey::new(project.clone(), task);
    (Bound::Included(key(first)), Bound::Included(key(last)))
}

fn run_project_range(project: &ProjectId) -> KeyRange<(ProjectId, RunAt)> {
    let ((first_task, last_task), (first, last)) = (task_bounds(), run_bounds());
    let key = |run, task| (project.clone(), RunAt(run, project.clone(), task));
    (Bound::Included(key(first, first_task)), Bound::Included(key(last, last_task)))
}

/// Ids that no other comes before or after.
fn task_bounds() -> (TaskId, TaskId) {
    let first = "task-00000101-000000-0-0".parse().expect("a task id");
    let last = format!("task-99991231-235960-{}", "z".repeat(50)).parse().expect("a task id");
    (first, last)
}

/// Ids that no other comes before or after.
fn run_bounds() -> (RunId, RunId) {
    let first = "00000101-0000000000-0-0".parse().expect("a run id");
    let last = "99991231-2359609999-9999999999-9999999999".parse().expect("a run id");
    (first, last)
}

fn digest(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// One list: its size, its order, and what its tokens say.
struct List {
    size: usize,
    order: Order,
    digest: u64,
    token: Option<String>,
}

struct Found<T> {
    items: Vec<Arc<T>>,
    /// The object after which the next page begins.
    last: Option<Arc<T>>,
}

impl List {
    fn new(page: &PageRequest, filter: u64) -> Result<Self, ListError> {
        let size = if page.size == 0 { DEFAULT_PAGE_SIZE } else { page.size.min(MAX_PAGE_SIZE) };
        let digest = digest(&(filter, page.order));
        let token = page.token.as_deref().filter(|token| !token.is_empty());
        let token = token.map(|token| token::read(token, digest)).transpose()?;
        Ok(Self { size: usize::try_from(size).unwrap_or(usize::MAX), order: page.order, digest, token })
    }

    /// The key after which the page begins.
    fn after<K>(&self, read: impl Fn(&[&str]) -> Option<K>) -> Result<Option<K>, ListError> {
        let Some(token) = &self.token else { return Ok(None) };
        let parts: Vec<&str> = token.split('/').collect();
        read(&parts).map(Some).ok_or(ListError::BadToken)
    }

    fn walk<K: Ord + Clone, T>(
        &self,
        map: &BTreeMap<K, Arc<T>>,
        range: impl RangeBounds<K>,
        after: Option<K>,
        accepts: impl Fn(&T) -> bool,
    ) -> Found<T> {
        let (mut start, mut end) = (range.start_bound().cloned(), range.end_bound().cloned());
        if let Some(after) = after {
            if !range.contains(&after) {
                return Found { items: Vec::new(), last: None };
            }
            match self.order {
                Order::OldestFirst => start = Bound::Excluded(after),
                Order::NewestFirst => end = Bound::Excluded(after),
            }
        }
        let values = map.range((start, end)).map(|(_, value)| value);
        match self.order {
            Order::OldestFirst => self.collect(values, accepts),
            Order::NewestFirst => self.collect(values.rev(), accepts),
        }
    }

    fn collect<'a, T: 'a>(&self, values: impl Iterator<Item = &'a Arc<T>>, accepts: impl Fn(&T) -> bool) -> Found<T> {
        let mut items: Vec<Arc<T>> = Vec::new();
        let mut last = None;
        for (looked_at, value) in values.enumerate() {
            let fits = accepts(value);
            if looked_at == MAX_LOOKED_AT || (fits && items.len() == self.size) {
                return Found { items, last };
            }
            if fits {
                items.push(Arc::clone(value));
            }
            last = Some(Arc::clone(value));
        }
        Found { items, last: None }
    }

    fn page<T>(&self, found: Found<T>, revision: u64, parts: impl Fn(&T) -> Vec<String>) -> Page<T> {
        let next = found.last.map(|last| token::write(self.digest, &parts(&last).join("/")));
        Page { items: found.items, next, revision }
    }
}
