//! Counting without copying.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Catalog, list};
use crate::types::{ProjectId, RunInfo, TaskKey};

impl Catalog {
    /// Tasks of a project: all of them, and those that have no end yet. Costs the project's tasks.
    #[must_use]
    pub fn task_counts(&self, project: &ProjectId) -> (usize, usize) {
        let inner = self.read();
        let all = inner.tasks.range(list::project_range(project)).count();
        let live = inner.active_tasks.values().filter(|task| task.key.project == *project).count();
        (all, live)
    }

    /// Runs of a task.
    #[must_use]
    pub fn run_count(&self, task: &TaskKey) -> usize {
        self.read().runs_of(task).count()
    }

    /// All runs, or those of a project.
    #[must_use]
    pub fn runs_in(&self, project: Option<&ProjectId>) -> Vec<Arc<RunInfo>> {
        let inner = self.read();
        let all = inner.runs.values();
        all.filter(|run| project.is_none_or(|project| run.project_id == *project)).cloned().collect()
    }

    /// A task and all tasks below it, to any depth.
    #[must_use]
    pub fn task_tree(&self, task: &TaskKey) -> Vec<TaskKey> {
        let inner = self.read();
        let mut found = vec![task.clone()];
        let mut seen: BTreeSet<&TaskKey> = BTreeSet::from([task]);
        let mut next = 0;
        while let Some(above) = found.get(next).cloned() {
            for child in inner.children.get(&above).into_iter().flatten() {
                // A damaged file must not make a ring.
                if seen.insert(child) {
                    found.push(child.clone());
                }
            }
            next += 1;
        }
        found
    }

    /// Tasks that a task's runs started and that have no end yet.
    #[must_use]
    pub fn live_children(&self, task: &TaskKey) -> usize {
        let inner = self.read();
        let keys = inner.children.get(task).into_iter().flatten();
        keys.filter(|key| inner.tasks.get(*key).is_some_and(|task| task.is_active())).count()
    }
}
