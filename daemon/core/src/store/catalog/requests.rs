//! Requests that were carried out, by id: how a repeated request is recognised.
//!
//! The records themselves lie in the `task.yaml` of what they made, so they survive a restart; this is their index. It
//! does not judge a request: a digest that differs is told to the caller.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};

use super::Catalog;
use crate::store::task_file::RequestRecord;
use crate::types::TaskKey;

/// How long a request id counts.
pub const REQUEST_VALID: SignedDuration = SignedDuration::from_hours(24);
/// Requests that are kept: more than one a second for a day. Beyond, the oldest is forgotten early.
const MAX_REQUESTS: usize = 100_000;

/// What a request made or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestEntry {
    /// The task.
    pub task: TaskKey,
    /// The request as it is recorded.
    pub record: RequestRecord,
}

#[derive(Debug, Default)]
pub(super) struct Requests {
    by_id: HashMap<String, RequestEntry>,
    by_time: BTreeSet<(Timestamp, String)>,
}

impl Requests {
    fn add(&mut self, task: TaskKey, record: RequestRecord, now: Timestamp) {
        self.forget_old(now);
        if is_old(record.time, now) {
            return;
        }
        let at = (record.time, record.id.clone());
        if let Some(old) = self.by_id.insert(record.id.clone(), RequestEntry { task, record }) {
            self.by_time.remove(&(old.record.time, old.record.id));
        }
        self.by_time.insert(at);
        if self.by_id.len() > MAX_REQUESTS {
            self.forget_first();
        }
    }

    fn forget_old(&mut self, now: Timestamp) {
        while self.by_time.first().is_some_and(|(time, _)| is_old(*time, now)) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, id)) = self.by_time.pop_first() {
            self.by_id.remove(&id);
        }
    }

    pub(super) fn forget_task(&mut self, task: &TaskKey) {
        let by_time = &mut self.by_time;
        self.by_id.retain(|id, entry| {
            let keep = entry.task != *task;
            if !keep {
                by_time.remove(&(entry.record.time, id.clone()));
            }
            keep
        });
    }
}

fn is_old(time: Timestamp, now: Timestamp) -> bool {
    now.duration_since(time) > REQUEST_VALID
}

impl Catalog {
    /// Remembers a request, once the file that holds its record is durable. One that is over 24 hours old is not kept.
    pub fn put_request(&self, task: TaskKey, record: RequestRecord, now: Timestamp) {
        self.write().requests.add(task, record, now);
    }

    /// What the request of this id made, within 24 hours. The caller compares the digests.
    #[must_use]
    pub fn request(&self, id: &str, now: Timestamp) -> Option<RequestEntry> {
        self.read().requests.by_id.get(id).filter(|entry| !is_old(entry.record.time, now)).cloned()
    }
}
