//! Requests that deleted something: what they were about is gone, so their records have a file of their own,
//! `.conductor/deletions.json`. A damaged file is an empty one: then a repeated deletion finds nothing, which is true.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use conductor_shim::durable;

use crate::store::catalog::REQUEST_VALID;
use crate::store::task_file::RequestRecord;
use crate::types::Timestamp;

/// Deletions that are remembered: with more than this in 24 hours the oldest is forgotten early.
const MAX_KEPT: usize = 1000;

/// See the module.
#[derive(Debug)]
pub(super) struct Deletions {
    path: PathBuf,
    records: Mutex<Vec<RequestRecord>>,
}

impl Deletions {
    pub(super) fn open(path: PathBuf) -> Self {
        let records = durable::read_json_if_exists(&path).unwrap_or(None).unwrap_or_default();
        Self { path, records: Mutex::new(records) }
    }

    /// What the request of this id deleted, within 24 hours. The caller compares the digests.
    pub(super) fn find(&self, id: &str, now: Timestamp) -> Option<RequestRecord> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().find(|record| record.id == id && now.duration_since(record.time) <= REQUEST_VALID).cloned()
    }

    /// Remembers a deletion, durably. Blocks.
    pub(super) fn add(&self, record: RequestRecord) -> io::Result<()> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let now = record.time;
        records.retain(|old| now.duration_since(old.time) <= REQUEST_VALID);
        if records.len() >= MAX_KEPT {
            records.remove(0);
        }
        records.push(record);
        durable::write_json(&self.path, &*records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_is_known_for_24_hours_also_after_a_restart_and_a_damaged_file_is_an_empty_one() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("deletions.json");
        let time: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        let record = RequestRecord { id: "a".into(), digest: "d".into(), verb: "delete".into(), time };
        Deletions::open(path.clone()).add(record.clone()).expect("written");
        let known = Deletions::open(path.clone());
        assert_eq!(known.find("a", time), Some(record));
        assert_eq!(known.find("b", time), None);
        assert_eq!(known.find("a", time + jiff::SignedDuration::from_hours(25)), None);
        std::fs::write(&path, "[{").expect("damaged");
        assert_eq!(Deletions::open(path).find("a", time), None);
    }
}
