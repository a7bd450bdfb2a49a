//! One file of a bus, live or archived: what of it can be read, its index, and how it ends.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::earlier::Earlier;
use super::format::scan::{State, Tail};
use super::ids;
use super::index::{Added, Block, Index, Known};
use super::walk::{Event, Mark, walk};
use crate::types::MessageId;

/// Bytes within which the first two lines are looked for; the generation covers no more.
const GENERATION_BYTES: usize = 4096;

/// Bytes before the end of what was read that have to be the same when the file has grown: the end of an entry, with
/// its checksum or id in nearly all cases.
const SEAM_BYTES: u64 = 256;

/// Device and inode.
pub(super) type FileId = (u64, u64);

/// One file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: File,
    pub(super) id: FileId,
    /// Cut or rewritten by another program: no offset in it means anything any more.
    dead: AtomicBool,
    scan: Mutex<Scan>,
}

#[derive(Debug)]
struct Scan {
    /// Where the scan goes on.
    mark: Mark,
    /// Entries that begin before this are published; a multiple of whole entries or lines.
    readable: u64,
    /// Size at the last scan.
    size: u64,
    /// Nothing from here on may be published: it is not durable yet.
    limit: u64,
    tail: Tail<u64>,
    /// Checksum of the bytes before `readable`.
    seam: Option<u32>,
    /// Since when the file has been torn at this size.
    torn_since: Option<(u64, Instant)>,
    /// Begin of an entry that was published though it may still grow.
    provisional: Option<u64>,
    generation: Option<u32>,
    index: Index,
    lost: u64,
}

/// What a scan for news found.
pub(super) struct News {
    /// There is something to read that was not there before.
    pub(super) grown: bool,
    /// What was published is not there any more: another program cut or rewrote the file.
    pub(super) truncated: bool,
    /// Records lost, newly met.
    pub(super) lost: u64,
}

impl Segment {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let scan = Scan {
            mark: Mark::default(),
            readable: 0,
            size: 0,
            limit: u64::MAX,
            tail: Tail::Clean,
            seam: None,
            torn_since: None,
            provisional: None,
            generation: None,
            index: Index::default(),
            lost: 0,
        };
        Ok(Self { file, id: (meta.dev(), meta.ino()), dead: AtomicBool::new(false), scan: Mutex::new(scan) })
    }

    fn scan(&self) -> MutexGuard<'_, Scan> {
        self.scan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is new in the file. `earlier`: the files before it, whose ids are taken.
    pub(super) fn refresh(&self, earlier: Option<&Earlier<'_>>) -> io::Result<News> {
        let mut scan = self.scan();
        let size = self.file.metadata()?.len().min(scan.limit);
        if size == scan.size {
            return Ok(News { grown: false, truncated: false, lost: 0 });
        }
        if size < scan.readable || (scan.seam.is_some() && self.seam(scan.readable)? != scan.seam) {
            self.dead.store(true, Ordering::Relaxed);
            return Ok(News { grown: false, truncated: true, lost: 0 });
        }
        let (readable, lost) = (scan.readable, scan.lost);
        self.scan_to(&mut scan, size, earlier)?;
        scan.seam = self.seam(scan.readable)?;
        drop(scan);
        // While it can still be had: a file that is rewritten later is compared with it.
        self.generation()?;
        let scan = self.scan();
        Ok(News { grown: scan.readable > readable, truncated: false, lost: scan.lost - lost })
    }

    /// A checksum of the bytes before `end`.
    fn seam(&self, end: u64) -> io::Result<Option<u32>> {
        let mut buf = [0; SEAM_BYTES as usize];
        let from = end.saturating_sub(SEAM_BYTES);
        let length = self.file.read_at(&mut buf[..usize::try_from(end - from).map_err(io::Error::other)?], from)?;
        Ok((end > 0).then(|| crc32c::crc32c(&buf[..length])))
    }

    fn scan_to(&self, scan: &mut Scan, size: u64, earlier: Option<&Earlier<'_>>) -> io::Result<()> {
        let Scan { index, provisional, lost, .. } = scan;
        let mut published = *provisional;
        *provisional = None;
        let mut resume = None;
        let mut readable = scan.readable;
        let mut failed = None;
        let walked = walk(&self.file, scan.mark, size, |event| {
            match event {
                Event::Lost(count) => *lost += count,
                Event::Entry { start, before, entry } => {
                    readable = readable.max(start + (entry.end - entry.start) as u64);
                    if entry.provisional {
                        *provisional = Some(start);
                        resume = Some(before);
                    }
                    if published.take() != Some(start) {
                        let id = &entry.header.id;
                        match self.held_before(index, id, before.offset, earlier) {
                            Ok(duplicate) => {
                                let legacy = before.state.is_start() && is_legacy(id);
                                let key = entry.header.key.as_deref();
                                index.add(Added { id, key, start, before, duplicate, legacy });
                            }
                            Err(error) => {
                                failed = Some(error);
                                return ControlFlow::Break(());
                            }
                        }
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        // Whole lines that are no entries are behind the mark and as good as read.
        scan.readable = readable.max(walked.mark.offset);
        scan.mark = resume.unwrap_or(walked.mark);
        scan.size = size;
        scan.tail = walked.tail.unwrap_or_default();
        Ok(())
    }

    /// Whether an entry that begins before `end`, or one of an earlier file, has this id.
    fn held_before(&self, index: &Index, id: &str, end: u64, earlier: Option<&Earlier<'_>>) -> io::Result<bool> {
        if id.is_empty() {
            return Ok(false);
        }
        let here = match index.find(id) {
            Known::At(_) => true,
            Known::No => false,
            Known::Maybe(block) => self.find_in(index, block, end, |_, other| other == id)?.is_some(),
        };
        Ok(here || earlier.map_or(Ok(false), |earlier| earlier.hold(id))?)
    }

    /// The first entry of `block` before `end` that has the property.
    fn find_in(
        &self,
        index: &Index,
        block: Block,
        end: u64,
        matches: impl Fn(u64, &str) -> bool,
    ) -> io::Result<Option<u64>> {
        let mut found = None;
        walk(&self.file, block.from, block.end.unwrap_or(end).min(end), |event| match event {
            Event::Entry { start, entry, .. } if !index.is_duplicate(start) && matches(start, &entry.header.id) => {
                found = Some(start);
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?;
        Ok(found)
    }

    /// Where the entry with this id begins.
    pub(super) fn find(&self, id: &str) -> io::Result<Option<u64>> {
        let scan = self.scan();
        match scan.index.find(id) {
            Known::At(offset) => return Ok(Some(offset)),
            Known::Maybe(block) => {
                let found = self.find_in(&scan.index, block, scan.readable, |_, other| other == id)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            Known::No => {}
        }
        let Some((generation, offset)) = ids::parse_substitute(id) else { return Ok(None) };
        if offset >= scan.readable {
            return Ok(None);
        }
        let substituted = |start: u64, own: &str| start == offset && own.parse::<MessageId>().is_err();
        let is_entry = scan.index.is_duplicate(offset)
            || match scan.index.block_of(offset) {
                Some(block) => self.find_in(&scan.index, block, scan.readable, substituted)?.is_some(),
                None => false,
            };
        drop(scan);
        Ok((is_entry && self.generation()? == Some(generation)).then_some(offset))
    }

    /// Whether a message with this visible id is, or was, in the file. Of a file that was rewritten in place only the
    /// index is left: then an id of our form that is not younger than its youngest counts as having been there.
    pub(super) fn held(&self, id: &str) -> io::Result<bool> {
        if !self.is_dead() {
            return Ok(self.find(id)?.is_some());
        }
        let scan = self.scan();
        let substituted = || {
            let (generation, offset) = ids::parse_substitute(id)?;
            Some(scan.generation == Some(generation) && offset < scan.readable)
        };
        Ok(!matches!(scan.index.find(id), Known::No) || substituted().unwrap_or(false))
    }

    /// The visible id of an entry with this `x-key`, if its id is not below `since`.
    pub(super) fn find_key(&self, key: &str, since: u128) -> io::Result<Option<MessageId>> {
        let scan = self.scan();
        let mut found = None;
        for block in scan.index.blocks_with_key(key, since) {
            walk(&self.file, block.from, block.end.unwrap_or(scan.readable).min(scan.readable), |event| match event {
                Event::Entry { start, entry, .. } if entry.header.key.as_deref() == Some(key) => {
                    found = Some((start, entry.header.id.clone()));
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            })?;
            if found.is_some() {
                break;
            }
        }
        drop(scan);
        found.map(|(start, id)| self.visible_id(start, &id)).transpose()
    }

    /// Where whole entries end: what is appended behind it is new.
    pub(super) fn settled(&self) -> u64 {
        let scan = self.scan();
        match scan.tail {
            Tail::Torn { start, .. } => start,
            Tail::Clean => scan.size,
        }
    }

    /// The ids of entries as readers see them, for entries `(start, own id)`.
    pub(super) fn visible_id(&self, start: u64, own: &str) -> io::Result<MessageId> {
        if !self.scan().index.is_duplicate(start)
            && let Ok(id) = own.parse()
        {
            return Ok(id);
        }
        // An entry has two lines at least, or is one of the old form, whose ids are valid and doubled only by others.
        Ok(ids::substitute(self.generation()?.unwrap_or(0), start))
    }

    /// A checksum of the first two lines, which never change: the same for this file wherever it is, and another for
    /// one that takes its place. `None` while there are not two lines.
    pub(super) fn generation(&self) -> io::Result<Option<u32>> {
        let mut scan = self.scan();
        if scan.generation.is_none() {
            let mut head = vec![0; GENERATION_BYTES];
            let length = self.file.read_at(&mut head, 0)?;
            head.truncate(length);
            let mut newlines = head.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
            let end = newlines.nth(1).map(|at| at + 1).or((length == GENERATION_BYTES).then_some(length));
            scan.generation = end.map(|end| crc32c::crc32c(&head[..end]).max(1));
        }
        Ok(scan.generation)
    }

    /// Whether another program cut or rewrote it.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Whether it has no name any more.
    pub(super) fn is_unlinked(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// Up to where readers may read.
    pub(super) fn readable(&self) -> u64 {
        self.scan().readable
    }

    /// Entries in it.
    pub(super) fn count(&self) -> u64 {
        self.scan().index.count()
    }

    /// A mark from which a walk meets the entry at `start`.
    pub(super) fn mark_for(&self, start: u64) -> Mark {
        self.scan().index.mark_for(start)
    }

    /// A mark with at least `count` entries behind it.
    pub(super) fn mark_before_last(&self, count: u64) -> Mark {
        self.scan().index.mark_before_last(count)
    }

    /// How the file ends, as of the last scan, and for how long it has been torn at that size.
    pub(super) fn tail(&self) -> (Tail<u64>, std::time::Duration) {
        let mut scan = self.scan();
        let (tail, size) = (scan.tail, scan.size);
        if tail == Tail::Clean {
            scan.torn_since = None;
            return (tail, std::time::Duration::ZERO);
        }
        let since = match scan.torn_since {
            Some((at, since)) if at == size => since,
            _ => {
                let now = Instant::now();
                scan.torn_since = Some((size, now));
                now
            }
        };
        (tail, since.elapsed())
    }

    /// The torn tail was cut at `start`.
    pub(super) fn cut(&self, start: u64) {
        let mut scan = self.scan();
        scan.size = start;
        scan.tail = Tail::Clean;
        scan.torn_since = None;
    }

    /// From now on nothing at or behind `size` is published, until [`Self::unfreeze`].
    pub(super) fn freeze(&self, size: u64) {
        self.scan().limit = size;
    }

    /// Ends [`Self::freeze`]. `entries`, as `(start, id, x-key)`, are what we appended between `begin` and `end`; they are
    /// published without being read again, if the file was scanned up to `begin`.
    pub(super) fn unfreeze(&self, entries: &[(u64, &str, Option<&str>)], begin: u64, end: u64) {
        let mut scan = self.scan();
        scan.limit = u64::MAX;
        if entries.is_empty() || scan.size != begin || scan.tail != Tail::Clean {
            return;
        }
        for &(start, id, key) in entries {
            // The newline that separates entries stands before `start`.
            let before = Mark { offset: start.saturating_sub(1), state: State::between() };
            scan.index.add(Added { id, key, start, before, duplicate: false, legacy: false });
        }
        scan.provisional = None;
        scan.mark = Mark { offset: end, state: State::between() };
        scan.size = end;
        scan.readable = end;
        // A failure only means that the next look does without it.
        scan.seam = self.seam(end).ok().flatten();
    }
}

pub(super) fn is_legacy(id: &str) -> bool {
    id.starts_with("LEGACY-LINE-")
}
