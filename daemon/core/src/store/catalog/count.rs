//! Counting without copying.

use super::{Catalog, list};
use crate::types::{ProjectId, TaskKey};

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

    /// Tasks that a task's runs started and that have no end yet.
    #[must_use]
    pub fn live_children(&self, task: &TaskKey) -> usize {
        let inner = self.read();
        let keys = inner.children.get(task).into_iter().flatten();
        keys.filter(|key| inner.tasks.get(*key).is_some_and(|task| task.is_active())).count()
    }
}
