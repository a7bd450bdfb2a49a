//! The names in a client's HPACK tables (RFC 7541, section 2.3), as far as finding `:authority` needs.
//!
//! Of an entry of the dynamic table only its size, the length of its name and whether that is `:authority` are kept.

use std::collections::VecDeque;

use super::Broken;

/// Largest dynamic table in bytes: the default of SETTINGS_HEADER_TABLE_SIZE, which the server does not raise. It also
/// bounds the entries kept here: 128.
const MAX_SIZE: u32 = 4096;
/// What an entry counts beyond its name and value.
const OVERHEAD: u32 = 32;
/// Index of `:authority` in the static table.
const AUTHORITY: u32 = 1;
/// Lengths of the names in the static table (RFC 7541, appendix A), from index 1.
const STATIC_NAMES: [u32; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4,
    4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];

/// The name of a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Name {
    /// Bytes.
    pub(super) length: u32,
    /// Whether it is `:authority`.
    pub(super) is_authority: bool,
}

/// Both tables.
#[derive(Debug)]
pub(super) struct Table {
    /// Newest first: name and size.
    entries: VecDeque<(Name, u32)>,
    size: u32,
    limit: u32,
}

impl Default for Table {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, limit: MAX_SIZE }
    }
}

impl Table {
    /// The name at an index, which is from 1.
    pub(super) fn name(&self, index: u32) -> Result<Name, Broken> {
        let place = usize::try_from(index).ok().and_then(|index| index.checked_sub(1)).ok_or(Broken)?;
        if let Some(length) = STATIC_NAMES.get(place) {
            return Ok(Name { length: *length, is_authority: index == AUTHORITY });
        }
        self.entries.get(place - STATIC_NAMES.len()).map(|(name, _)| *name).ok_or(Broken)
    }

    /// Adds an entry, for which older ones make room. One that is larger than the table empties it.
    pub(super) fn insert(&mut self, name: Name, value_length: u32) -> Result<(), Broken> {
        let size = name.length.checked_add(value_length).and_then(|sum| sum.checked_add(OVERHEAD)).ok_or(Broken)?;
        self.evict(self.limit.saturating_sub(size));
        if size <= self.limit {
            self.entries.push_front((name, size));
            self.size += size;
        }
        Ok(())
    }

    /// Changes the size of the table.
    pub(super) fn resize(&mut self, limit: u32) -> Result<(), Broken> {
        if limit > MAX_SIZE {
            return Err(Broken);
        }
        self.limit = limit;
        self.evict(limit);
        Ok(())
    }

    fn evict(&mut self, limit: u32) {
        while self.size > limit {
            let Some((_, size)) = self.entries.pop_back() else { return };
            self.size -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_move_back_as_entries_come_and_leave_when_the_table_is_full() {
        let is_authority = |table: &Table, index| table.name(index).map(|name| name.is_authority);
        let mut table = Table::default();
        let authority = table.name(AUTHORITY).expect("static");
        assert_eq!((authority.is_authority, authority.length), (true, 10));
        assert_eq!(is_authority(&table, 0), Err(Broken));
        assert_eq!(is_authority(&table, 62), Err(Broken));
        table.insert(authority, 10).expect("52 bytes");
        assert_eq!(is_authority(&table, 62), Ok(true));
        table.insert(Name { length: 4, is_authority: false }, 4008).expect("4044 bytes");
        assert_eq!((is_authority(&table, 62), is_authority(&table, 63)), (Ok(false), Ok(true)), "exactly full");
        table.insert(authority, 0).expect("42 bytes");
        assert_eq!((is_authority(&table, 62), is_authority(&table, 63)), (Ok(true), Ok(false)));
        assert_eq!(is_authority(&table, 64), Err(Broken), "the oldest is gone");
    }

    #[test]
    fn a_smaller_table_loses_the_oldest_and_one_that_is_too_large_is_refused() {
        let mut table = Table::default();
        for _ in 0..4 {
            table.insert(Name::default(), 0).expect("32 bytes");
        }
        table.resize(64).expect("smaller");
        assert!(table.name(63).is_ok() && table.name(64).is_err());
        table.insert(Name::default(), 64).expect("larger than the table: it empties it");
        assert!(table.name(62).is_err());
        assert_eq!(table.resize(MAX_SIZE + 1), Err(Broken));
    }
}
