//! What the performers of one task keep between jobs: the run about to be launched, and what is known of entries.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::runner::LaunchPlan;

/// Entries of one task that are remembered as posted, the oldest forgotten first. An outbox holds a handful, since each
/// run adds three and the next run waits for them to be offered.
const REMEMBERED: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct EntryShared {
    plan: Mutex<Option<LaunchPlan>>,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// May be on their bus already: look before posting.
    doubtful: HashSet<String>,
    /// Are in the durable outbox, and so may be posted.
    recorded: VecDeque<String>,
    /// Are on their bus; the loop may not have heard of it.
    posted: VecDeque<String>,
    /// End of their bus when they were first recorded.
    positions: VecDeque<(String, String)>,
}

impl EntryShared {
    /// For a task whose entries in the outbox are all doubtful: recovery can't know what was posted.
    pub(super) fn new(doubtful: HashSet<String>) -> Self {
        let recorded = doubtful.iter().cloned().collect();
        Self { plan: Mutex::default(), entries: Mutex::new(Entries { doubtful, recorded, ..Entries::default() }) }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a plan in, and takes out the one that was there.
    pub(super) fn swap_plan(&self, plan: Option<LaunchPlan>) -> Option<LaunchPlan> {
        std::mem::replace(&mut *self.plan.lock().unwrap_or_else(PoisonError::into_inner), plan)
    }

    pub(super) fn is_recorded(&self, key: &str) -> bool {
        self.entries().recorded.iter().any(|known| known == key)
    }

    pub(super) fn note_recorded(&self, key: &str) {
        let mut entries = self.entries();
        if !entries.recorded.iter().any(|known| known == key) {
            entries.recorded.push_back(key.to_owned());
            if entries.recorded.len() > REMEMBERED {
                entries.recorded.pop_front();
            }
        }
    }

    pub(super) fn is_posted(&self, key: &str) -> bool {
        self.entries().posted.iter().any(|known| known == key)
    }

    pub(super) fn note_posted(&self, key: &str) {
        let mut entries = self.entries();
        entries.doubtful.remove(key);
        entries.positions.retain(|(known, _)| known != key);
        entries.posted.push_back(key.to_owned());
        if entries.posted.len() > REMEMBERED {
            entries.posted.pop_front();
        }
    }

    pub(super) fn is_doubtful(&self, key: &str) -> bool {
        self.entries().doubtful.contains(key)
    }

    pub(super) fn doubt(&self, key: &str) {
        self.entries().doubtful.insert(key.to_owned());
    }

    pub(super) fn position(&self, key: &str) -> Option<String> {
        self.entries().positions.iter().find(|(known, _)| known == key).map(|(_, position)| position.clone())
    }

    pub(super) fn note_position(&self, key: &str, position: &str) {
        let mut entries = self.entries();
        if !entries.positions.iter().any(|(known, _)| known == key) {
            entries.positions.push_back((key.to_owned(), position.to_owned()));
            if entries.positions.len() > REMEMBERED {
                entries.positions.pop_front();
            }
        }
    }
}
