//! What the archives of a bus hold, in little memory: whether an id is taken already, and where a key is.
//!
//! The first holder of an id keeps it, also if that is in an archive. An entry that we have just made has a new id, and
//! an id of our form that is younger than an archive's name is not in that archive, so nearly all entries cost nothing
//! here. For the others the newest [`COMPARED`] archives before the file are asked: each is read once, and what is kept
//! of it ([`Index::sparse`]) is at most 1.3 MiB for 64 MiB, whatever it is full of: 21 MiB a bus, and nothing as long as
//! no entry asks.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::archive;
use super::error::BusError;
use super::file::{self, identity, open_reader};
use super::format::header::Header;
use super::ids;
use super::index::{Added, Block, Index};
use super::segment::{FileId, is_legacy};
use super::walk::{Event, Mark, walk};

/// Archives before a file that its ids are compared with, and in which a recent key is looked for: 1 GiB by default.
pub(super) const COMPARED: usize = 16;

/// Summaries of the archives of one bus.
#[derive(Debug, Default)]
pub(super) struct Archives {
    /// Least recently used first.
    known: Mutex<VecDeque<Arc<Summary>>>,
}

/// One archive up to `end`.
#[derive(Debug)]
struct Summary {
    file: FileId,
    end: u64,
    index: Index,
}

/// An archive as it is listed.
#[derive(Debug)]
struct Listed {
    path: PathBuf,
    /// When it was made, as `YYYYMMDDHHMMSS`.
    made: u64,
    file: FileId,
    /// What is behind came late and will be moved.
    end: u64,
}

/// The files before one file of a bus.
pub(super) struct Earlier<'a> {
    archives: &'a Archives,
    bus: &'a Path,
    before: FileId,
    left: Option<(FileId, u64)>,
    list: OnceCell<Vec<Listed>>,
}

impl Archives {
    /// The archives of `bus` before the file `before`. `left`: the newest archive, and the size at which it was left.
    pub(super) fn earlier<'a>(&'a self, bus: &'a Path, before: FileId, left: Option<(FileId, u64)>) -> Earlier<'a> {
        Earlier { archives: self, bus, before, left, list: OnceCell::new() }
    }

    fn summary(&self, listed: &Listed) -> io::Result<Arc<Summary>> {
        // Held while an archive is read, so that two that need it read it once.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let at = known.iter().position(|it| it.file == listed.file && it.end == listed.end);
        let summary = match at.and_then(|at| known.remove(at)) {
            Some(summary) => summary,
            None => Arc::new(Summary::read(listed)?),
        };
        known.retain(|it| it.file != listed.file);
        while known.len() >= COMPARED {
            known.pop_front();
        }
        known.push_back(summary.clone());
        Ok(summary)
    }
}

impl Summary {
    fn read(listed: &Listed) -> io::Result<Self> {
        let mut index = Index::sparse();
        if let Some(file) = listed.open()? {
            walk(&file, Mark::default(), listed.end, |event| {
                if let Event::Entry { start, before, entry } = event {
                    let legacy = before.state.is_start() && is_legacy(&entry.header.id);
                    let (id, key) = (&entry.header.id, entry.header.key.as_deref());
                    index.add(Added { id, key, start, before, duplicate: false, legacy });
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(Self { file: listed.file, end: listed.end, index })
    }
}

impl Listed {
    /// Opens it; `None` if it is gone.
    fn open(&self) -> io::Result<Option<std::fs::File>> {
        let opened = open_reader(&self.path).map_err(plain)?;
        Ok(match opened {
            Some(file) if identity(&file.metadata()?) == self.file => Some(file),
            _ => None,
        })
    }

    /// The header of the first entry in `blocks` that is `wanted`.
    fn search(&self, blocks: &[Block], wanted: impl Fn(&Header) -> bool) -> io::Result<Option<Header>> {
        if blocks.is_empty() {
            return Ok(None);
        }
        let Some(file) = self.open()? else { return Ok(None) };
        let mut found = None;
        for block in blocks {
            walk(&file, block.from, block.end.unwrap_or(self.end).min(self.end), |event| match event {
                Event::Entry { entry, .. } if wanted(&entry.header) => {
                    found = Some(entry.header.clone());
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            })?;
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }
}

impl Earlier<'_> {
    /// The newest first.
    fn list(&self) -> io::Result<&[Listed]> {
        if let Some(list) = self.list.get() {
            return Ok(list);
        }
        let mut list = Vec::new();
        for path in archive::list(self.bus)? {
            let (Some((made, _)), Some(meta)) = (archive::parse(&path), file::look(&path).map_err(plain)?) else {
                continue;
            };
            let file = identity(&meta);
            if file == self.before {
                break;
            }
            let end = self.left.filter(|(left, _)| *left == file).map_or(meta.len(), |(_, at)| at.min(meta.len()));
            list.push(Listed { path, made, file, end });
        }
        list.reverse();
        list.truncate(COMPARED);
        Ok(self.list.get_or_init(|| list))
    }

    /// Whether one of them has an entry with this id.
    pub(super) fn hold(&self, id: &str) -> io::Result<bool> {
        let second = ids::key(id).map(ids::second);
        for listed in self.list()? {
            // Older ones were made before that.
            if second.is_some_and(|second| second > listed.made) {
                break;
            }
            let blocks = self.archives.summary(listed)?.index.blocks_with_id(id);
            if listed.search(&blocks, |header| header.id == id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The id of an entry with this `x-key`, if its id is not below `since`.
    pub(super) fn find_key(&self, key: &str, since: u128) -> io::Result<Option<String>> {
        for listed in self.list()? {
            if listed.made < ids::second(since) {
                break;
            }
            let blocks = self.archives.summary(listed)?.index.blocks_with_key(key, since);
            if let Some(header) = listed.search(&blocks, |header| header.key.as_deref() == Some(key))? {
                return Ok(Some(header.id));
            }
        }
        Ok(None)
    }
}

/// The cause of a failure, whose path the caller adds again.
fn plain(error: BusError) -> io::Error {
    match error {
        BusError::Io { source, .. } => {
            source.raw_os_error().map_or_else(|| io::Error::other(source.to_string()), io::Error::from_raw_os_error)
        }
        other => io::Error::other(other.to_string()),
    }
}
