//! Where ids are in one file, in little memory.
//!
//! Ids of our form carry their time, and a file's ids nearly always grow. So an id that is larger than all before it is
//! not stored at all: a checkpoint every [`BLOCK`] bytes says which ids can be behind it, and finding one means to scan
//! one block. Only other ids (not of our form, or out of order) are stored, 16 bytes each. With the default rotation
//! (64 MiB) that is at most 300 KiB of checkpoints a file, and for a file full of foreign ids about 10 MiB.
//!
//! Each block with such ids, or with `x-key`s, also has a filter of 256 bytes that says which of them it can hold: at
//! most 1 MiB a file. With the filters alone ([`Index::sparse`]) an id is found by a look at few blocks.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};

use super::format::scan::State;
use super::ids;
use super::walk::Mark;

/// Bytes between checkpoints: what one look-up reads, in some tens of microseconds.
pub(super) const BLOCK: u64 = 16 << 10;

/// Bits set for one entry of a filter. With 80 ids in 16 KiB, which is as dense as entries get, one look-up in 10,000
/// reads a block in vain.
const PROBES: u32 = 6;

/// Which hashes a block can hold: never misses one, and seldom names one too many.
#[derive(Debug, Default)]
struct Filter([u64; 32]);

impl Filter {
    fn bits(hash: u64) -> impl Iterator<Item = (usize, u64)> {
        let (first, step) = (hash as u32, (hash >> 32) as u32 | 1);
        (0..PROBES).map(move |probe| {
            let bit = first.wrapping_add(step.wrapping_mul(probe)) % 2048;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    fn insert(&mut self, hash: u64) {
        Self::bits(hash).for_each(|(word, bit)| self.0[word] |= bit);
    }

    fn may_hold(&self, hash: u64) -> bool {
        Self::bits(hash).all(|(word, bit)| self.0[word] & bit != 0)
    }
}

#[derive(Debug)]
struct Checkpoint {
    mark: Mark,
    /// The largest key before it.
    max: u128,
    /// How many entries are before it.
    count: u64,
    /// The keys, and the ids that are not in order, in the block behind it.
    filter: Option<Box<Filter>>,
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
    /// Ids that are not in order are in the filters alone.
    sparse: bool,
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

/// An entry to be added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Added<'a> {
    pub(super) id: &'a str,
    /// Its `x-key`.
    pub(super) key: Option<&'a str>,
    /// Where it begins.
    pub(super) start: u64,
    /// The mark before it.
    pub(super) before: Mark,
    /// Another entry holds its id.
    pub(super) duplicate: bool,
    /// It has the old, single-line form.
    pub(super) legacy: bool,
}

impl Index {
    /// An index that does not grow with the number of ids, but can only be asked by [`Self::blocks_with_id`] and
    /// [`Self::blocks_with_key`].
    pub(super) fn sparse() -> Self {
        Self { sparse: true, ..Self::default() }
    }

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
            Some(at) => Known::Maybe(self.block(at)),
            None => Known::No,
        }
    }

    /// Adds the entry behind all that were added.
    pub(super) fn add(&mut self, added: Added<'_>) {
        let Added { id, key, start, before, duplicate, legacy } = added;
        let due = self.checkpoints.last().is_none_or(|last| before.offset >= last.mark.offset + BLOCK);
        if due && (self.checkpoints.is_empty() || !legacy) {
            let mark = if self.checkpoints.is_empty() {
                Mark::default()
            } else {
                Mark { offset: before.offset, state: State::between() }
            };
            self.checkpoints.push(Checkpoint { mark, max: self.max, count: self.count, filter: None });
        }
        if legacy {
            self.legacy_end = start + 1;
        }
        self.count += 1;
        if let Some(key) = key {
            self.filter(self.hash_of_key(key));
        }
        if duplicate {
            self.duplicates.insert(start);
            return;
        }
        match ids::key(id) {
            Some(key) if key > self.max => self.max = key,
            _ if id.is_empty() => {}
            _ => {
                let hash = self.hasher.hash_one(id);
                self.filter(hash);
                if !self.sparse {
                    self.odd.insert(hash, start);
                }
            }
        }
    }

    /// Notes a hash for the last block.
    fn filter(&mut self, hash: u64) {
        if let Some(last) = self.checkpoints.last_mut() {
            last.filter.get_or_insert_default().insert(hash);
        }
    }

    fn hash_of_key(&self, key: &str) -> u64 {
        self.hasher.hash_one(("x-key", key))
    }

    fn block(&self, at: usize) -> Block {
        Block { from: self.checkpoints[at].mark, end: self.checkpoints.get(at + 1).map(|next| next.mark.offset) }
    }

    fn blocks_with(&self, hash: u64) -> impl Iterator<Item = usize> {
        let holds = move |checkpoint: &Checkpoint| checkpoint.filter.as_ref().is_some_and(|it| it.may_hold(hash));
        self.checkpoints.iter().enumerate().filter(move |(_, checkpoint)| holds(checkpoint)).map(|(at, _)| at)
    }

    /// The blocks in which an id is, if it is anywhere.
    pub(super) fn blocks_with_id(&self, id: &str) -> Vec<Block> {
        let mut blocks: Vec<Block> = self.blocks_with(self.hasher.hash_one(id)).map(|at| self.block(at)).collect();
        if let Some(key) = ids::key(id).filter(|key| *key <= self.max) {
            let next = self.checkpoints.partition_point(|checkpoint| checkpoint.max < key);
            blocks.extend(next.checked_sub(1).map(|at| self.block(at)));
        }
        blocks
    }

    /// The blocks in which an `x-key` is, if an entry has it whose id is not below `since`.
    pub(super) fn blocks_with_key(&self, key: &str, since: u128) -> Vec<Block> {
        let young = |at: usize| self.checkpoints.get(at + 1).is_none_or(|next| next.max >= since);
        self.blocks_with(self.hash_of_key(key)).filter(|at| young(*at)).map(|at| self.block(at)).collect()
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
        next.checked_sub(1).map(|at| self.block(at))
    }

    /// A mark with at least `count` entries behind it, as near to the end as checkpoints allow.
    pub(super) fn mark_before_last(&self, count: u64) -> Mark {
        let wanted = self.count.saturating_sub(count);
        let next = self.checkpoints.partition_point(|checkpoint| checkpoint.count <= wanted);
        next.checked_sub(1).map_or_else(Mark::default, |at| self.checkpoints[at].mark)
    }
}
