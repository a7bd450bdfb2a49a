//! What the performers of one task keep between jobs: the run about to be launched, and what is known of entries.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::ralph::PostIntent;
use crate::runner::LaunchPlan;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct EntryShared {
    plan: Mutex<Option<LaunchPlan>>,
    /// Held by whoever posts: the entries of a task are posted by one at a time, in order.
    pub(super) posting: tokio::sync::Mutex<()>,
    /// By key; an entry is kept for as long as it is in the outbox.
    entries: Mutex<HashMap<String, Known>>,
}

/// What is known of an entry in the outbox.
#[derive(Clone, Debug, Default)]
struct Known {
    /// It is in the durable outbox, and so may be posted.
    recorded: bool,
    /// It may be on its bus already: look before posting.
    doubtful: bool,
    /// It is on its bus; the loop may not have heard of it.
    posted: bool,
    /// End of its bus when it was first recorded.
    position: Option<String>,
}

impl EntryShared {
    /// For a task whose entries in the outbox are all doubtful: recovery can't know what was posted.
    pub(super) fn new(recovered: HashSet<String>) -> Self {
        let known = Known { recorded: true, doubtful: true, ..Known::default() };
        let entries = recovered.into_iter().map(|key| (key, known.clone())).collect();
        Self { entries: Mutex::new(entries), ..Self::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, Known>) -> T) -> T {
        act(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is(&self, key: &str, what: impl FnOnce(&Known) -> bool) -> bool {
        self.with(|entries| entries.get(key).is_some_and(what))
    }

    fn note(&self, key: &str, what: impl FnOnce(&mut Known)) {
        self.with(|entries| what(entries.entry(key.to_owned()).or_default()));
    }

    /// Puts a plan in, and takes out the one that was there.
    pub(super) fn swap_plan(&self, plan: Option<LaunchPlan>) -> Option<LaunchPlan> {
        std::mem::replace(&mut *self.plan.lock().unwrap_or_else(PoisonError::into_inner), plan)
    }

    /// Forgets what has left the outbox. The jobs of a task come in order, so what is not in this one's outbox is in no
    /// later one's.
    pub(super) fn keep_only(&self, outbox: &[PostIntent]) {
        self.with(|entries| entries.retain(|key, _| outbox.iter().any(|intent| intent.key == *key)));
    }

    pub(super) fn is_recorded(&self, key: &str) -> bool {
        self.is(key, |known| known.recorded)
    }

    pub(super) fn note_recorded(&self, key: &str) {
        self.note(key, |known| known.recorded = true);
    }

    pub(super) fn is_posted(&self, key: &str) -> bool {
        self.is(key, |known| known.posted)
    }

    pub(super) fn note_posted(&self, key: &str) {
        self.note(key, |known| known.posted = true);
    }

    pub(super) fn is_doubtful(&self, key: &str) -> bool {
        self.is(key, |known| known.doubtful)
    }

    pub(super) fn doubt(&self, key: &str) {
        self.note(key, |known| known.doubtful = true);
    }

    pub(super) fn position(&self, key: &str) -> Option<String> {
        self.with(|entries| entries.get(key).and_then(|known| known.position.clone()))
    }

    pub(super) fn note_position(&self, key: &str, position: &str) {
        self.note(key, |known| {
            known.position.get_or_insert_with(|| position.to_owned());
        });
    }
}
