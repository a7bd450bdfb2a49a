//! Where ids are in one file, in little memory.
//!
//! Ids of our form carry their time, and a file's ids nearly always grow. So an id that is larger than all before it is
//! not stored at all: a checkpoint every [`BLOCK`] bytes says which ids can be behind it, and finding one means to scan
//! one block. Only other ids (not of our form, or out of order) are stored, 16 bytes each. With the default rotation
//! (64 MiB) that is at most 160 KiB of checkpoints a file, and for a file full of foreign ids about 10 MiB.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};

use super::format::scan::State;
use super::ids;
use super::walk::Mark;

/// Bytes between checkpoints: what one look-up reads, in some tens of microseconds.
pub(super) const BLOCK: u64 = 16 << 10;

#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    mark: Mark,
    /// The largest key before it.
    max: u128,
    /// How many entries are before it.
    count: u64,
}

/// Part of a file, in which an id is if it is anywhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) from: Mark,
    /// Where the next block begins; `None`: the last one.
    pub(super) end: Option<u64>,
}

/// The ids of one file.
#[derive(Debug, Default)]
pub(super) struct Index {
    checkpoints: Vec<Checkpoint>,
    max: u128,
    count: u64,
    odd: HashMap<u64, u64>,
    duplicates: BTreeSet<u64>,
    hasher: RandomState,
    /// Entries of the old, single-line form end here.
    legacy_end: u64,
}

/// What is known of an id.
pub(super) enum Known {
    /// Its entry begins here.
    At(u64),
    /// If anywhere, then in this block.
    Maybe(Block),
    /// It is not in the file.
    No,
}

impl Index {
    /// Entries so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Looks for an id.
    pub(super) fn find(&self, id: &str) -> Known {
        if let Some(offset) = self.odd.get(&self.hasher.hash_one(id)) {
            return Known::At(*offset);
        }
        let Some(key) = ids::key(id).filter(|key| *key <= self.max) else { return Known::No };
        // The first checkpoint has max 0, and keys are larger than 0.
        let next = self.checkpoints.partition_point(|checkpoint| checkpoint.max < key);
        match next.checked_sub(1) {
            Some(at) => Known::Maybe(Block {
                from: self.checkpoints[at].mark,
                end: self.checkpoints.get(next).map(|checkpoint| checkpoint.mark.offset),
            }),
            None => Known::No,
        }
    }

    /// Adds an entry that begins at `start`, with the mark before it. `duplicate`: another holds its id.
    pub(super) fn add(&mut self, id: &str, start: u64, before: Mark, duplicate: bool, legacy: bool) {
        let due = self.checkpoints.last().is_none_or(|last| before.offset >= last.mark.offset + BLOCK);
        if due && (self.checkpoints.is_empty() || !legacy) {
            let mark = if self.checkpoints.is_empty() {
                Mark::default()
            } else {
                Mark { offset: before.offset, state: State::between() }
            };
            self.checkpoints.push(Checkpoint { mark, max: self.max, count: self.count });
        }
        if legacy {
            self.legacy_end = start + 1;
        }
        self.count += 1;
        if duplicate {
            self.duplicates.insert(start);
            return;
        }
        match ids::key(id) {
            Some(key) if key > self.max => self.max = key,
            _ if id.is_empty() => {}
            _ => {
                self.odd.insert(self.hasher.hash_one(id), start);
            }
        }
    }

    /// Whether the entry at `start` has an id that an earlier one holds.
    pub(super) fn is_duplicate(&self, start: u64) -> bool {
        self.duplicates.contains(&start)
    }

    /// A mark from which a scan meets the entry at `start`.
    pub(super) fn mark_for(&self, start: u64) -> Mark {
        if start < self.legacy_end { Mark::default() } else { Mark { offset: start, state: State::between() } }
    }

    /// The block in which `offset` lies.
    pub(super) fn block_of(&self, offset: u64) -> Option<Block> {
        let next = self.checkpoints.partition_point(|checkpoint| checkpoint.mark.offset <= offset);
        let at = next.checked_sub(1)?;
        let end = self.checkpoints.get(next).map(|checkpoint| checkpoint.mark.offset);
        Some(Block { from: self.checkpoints[at].mark, end })
    }

    /// A mark with at least `count` entries behind it, as near to the end as checkpoints allow.
    pub(super) fn mark_before_last(&self, count: u64) -> Mark {
        let wanted = self.count.saturating_sub(count);
        let next = self.checkpoints.partition_point(|checkpoint| checkpoint.count <= wanted);
        next.checked_sub(1).map_or_else(Mark::default, |at| self.checkpoints[at].mark)
    }
}
