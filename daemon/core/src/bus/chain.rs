//! A bus as one sequence of files, archives first, and reading along it.

use std::collections::{HashSet, VecDeque};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::archive;
use super::earlier::Archives;
use super::error::BusError;
use super::file::{self, identity, open_reader};
use super::ids;
use super::options::{Page, Position};
use super::segment::{FileId, News, Segment};
use super::walk::{Event, Mark, walk};
use crate::types::{Message, MessageId};

/// Messages on a page at most.
pub(super) const MAX_PAGE: usize = 5000;
/// Bytes of entries on a page: beyond it the page ends, though it has one message at least.
pub(super) const PAGE_BYTES: u64 = 4 << 20;
/// Archives whose index is kept besides the newest one's: two readers far behind.
const CACHED: usize = 2;

/// A place in a bus. Survives rotation, since it holds the file itself.
#[derive(Clone, Debug)]
pub(super) struct Place {
    segment: Arc<Segment>,
    mark: Mark,
    /// The file took the place of another, whose messages are not news.
    known: Option<Known>,
}

/// What a reader is not shown again.
#[derive(Clone, Debug)]
struct Known {
    /// Messages that were in this file,
    old: Arc<Segment>,
    /// as far as they begin before this offset.
    until: u64,
}

impl Place {
    fn begin(segment: Arc<Segment>) -> Self {
        Self { segment, mark: Mark::default(), known: None }
    }

    /// The begin of a file that stands where `old` stood.
    fn instead_of(old: Arc<Segment>, segment: Arc<Segment>) -> Self {
        let until = segment.readable();
        Self { segment, mark: Mark::default(), known: Some(Known { old, until }) }
    }

    fn is_known(&self, start: u64, id: &MessageId) -> std::io::Result<bool> {
        match &self.known {
            Some(known) if start < known.until => known.old.held(id.as_str()),
            _ => Ok(false),
        }
    }
}

/// The files of one bus.
#[derive(Debug)]
pub(super) struct Chain {
    path: PathBuf,
    files: Mutex<Files>,
    /// Inode and size that were last published, so that a notification about our own write costs one stat.
    known_file: AtomicU64,
    known_size: AtomicU64,
    /// As in [`Files`], for a look that waits for no one.
    left: Mutex<Option<(Arc<Segment>, u64)>>,
    archives: Archives,
}

#[derive(Debug, Default)]
struct Files {
    live: Option<Arc<Segment>>,
    /// What was live before, with the size at which it was left: entries behind that came late.
    previous: Option<(Arc<Segment>, u64)>,
    cached: VecDeque<Arc<Segment>>,
}

/// What was read from a place on.
pub(super) struct Stretch {
    pub(super) messages: Vec<Message>,
    /// Where to go on; `None` as long as the bus has no file.
    pub(super) place: Option<Place>,
    pub(super) more: bool,
    pub(super) skipped: u64,
    pub(super) damaged: u64,
}

impl Stretch {
    /// There is nothing to read from `place` on.
    pub(super) fn nothing(place: Option<Place>) -> Self {
        Self { messages: Vec::new(), place, more: false, skipped: 0, damaged: 0 }
    }
}

/// What a look at the files found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Synced {
    /// There is more to read.
    pub(super) grown: bool,
    /// The archive has entries that came after its rotation.
    pub(super) late: bool,
    /// Records newly found lost.
    pub(super) lost: u64,
    /// Another program cut, rewrote or replaced the file.
    pub(super) rewritten: bool,
}

impl Chain {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            files: Mutex::default(),
            known_file: AtomicU64::new(0),
            known_size: AtomicU64::new(u64::MAX),
            left: Mutex::default(),
            archives: Archives::default(),
        }
    }

    fn io(&self, action: &'static str) -> impl Fn(std::io::Error) -> BusError {
        let path = self.path.clone();
        move |error| BusError::io(action, &path, error)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the live file is not as it was last seen, or the newest archive has more than when it was left. Two stats.
    pub(super) fn looks_changed(&self) -> bool {
        let (inode, size) = match std::fs::symlink_metadata(&self.path) {
            Ok(meta) => (identity(&meta).1, meta.len()),
            Err(_) => (0, 0),
        };
        if self.known_file.load(Ordering::Relaxed) != inode || self.known_size.load(Ordering::Relaxed) != size {
            return true;
        }
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).clone();
        left.is_some_and(|(archive, at)| archive.file.metadata().is_ok_and(|meta| meta.len() > at))
    }

    fn set_previous(&self, files: &mut Files, previous: Option<(Arc<Segment>, u64)>) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = previous.clone();
        files.previous = previous;
    }

    /// What the newest archive has up to `size` needs no moving.
    pub(super) fn left_at(&self, archive: &Segment, size: u64) {
        let mut files = self.files();
        if let Some((segment, _)) = files.previous.take().filter(|(segment, _)| segment.id == archive.id) {
            self.set_previous(&mut files, Some((segment, size)));
        }
    }

    /// Reads what is new in a file, with an eye on those before it.
    fn refresh(&self, segment: &Segment, previous: Option<&(Arc<Segment>, u64)>) -> Result<News, BusError> {
        let left = previous.map(|(segment, at)| (segment.id, *at));
        let earlier = self.archives.earlier(&self.path, segment.id, left);
        segment.refresh(Some(&earlier)).map_err(self.io("read"))
    }

    /// Looks at the path and reads what is new.
    pub(super) fn sync(&self) -> Result<Synced, BusError> {
        let mut files = self.files();
        let mut synced = Synced::default();
        let found = file::look(&self.path)?;
        let same = matches!((&found, &files.live), (Some(meta), Some(live)) if identity(meta) == live.id);
        if !same {
            self.replace_live(&mut files, &mut synced)?;
        }
        if let Some(live) = files.live.clone() {
            let news = self.refresh(&live, files.previous.as_ref())?;
            synced.lost += news.lost;
            synced.grown |= news.grown;
            if news.truncated {
                // Cut or rewritten in place by another program: what it holds now is read anew.
                files.live = None;
                synced.rewritten = true;
                self.replace_live(&mut files, &mut synced)?;
            }
        }
        if let Some((previous, left_at)) = &files.previous {
            synced.late = previous.file.metadata().is_ok_and(|meta| meta.len() > *left_at);
        }
        let inode = files.live.as_ref().map_or(0, |live| live.id.1);
        self.known_file.store(inode, Ordering::Relaxed);
        self.known_size.store(found.map_or(0, |meta| meta.len()), Ordering::Relaxed);
        Ok(synced)
    }

    /// The live file was renamed, removed or replaced: reads it to its end and opens what stands there now.
    fn replace_live(&self, files: &mut Files, synced: &mut Synced) -> Result<(), BusError> {
        let archives = self.archives()?;
        let newest = archives.last().map(|path| file::look(path)).transpose()?.flatten().map(|meta| identity(&meta));
        if let Some(old) = files.live.take() {
            let news = self.refresh(&old, files.previous.as_ref())?;
            synced.lost += news.lost;
            synced.rewritten |= !news.truncated && old.is_unlinked();
            if !news.truncated && newest.is_none_or(|newest| newest == old.id) {
                let size = old.settled();
                old.freeze(size);
                self.set_previous(files, Some((old, size)));
            }
        }
        if let Some(path) = archives.last()
            && files.previous.as_ref().is_none_or(|(previous, _)| newest.is_some_and(|newest| newest != previous.id))
            && let Some(file) = open_reader(path)?
        {
            // It was left in a time that we did not see. What it holds by now all readers have where it stands.
            let archive = Arc::new(Segment::new(file).map_err(self.io("look at"))?);
            let size = archive.file.metadata().map_err(self.io("look at"))?.len();
            archive.freeze(size);
            self.set_previous(files, Some((archive, size)));
        }
        synced.grown = true;
        let Some(file) = open_reader(&self.path)? else { return Ok(()) };
        let live = Arc::new(Segment::new(file).map_err(self.io("look at"))?);
        synced.lost += self.refresh(&live, files.previous.as_ref())?.lost;
        files.live = Some(live);
        Ok(())
    }

    /// The live file, as of the last [`Self::sync`].
    pub(super) fn live(&self) -> Option<Arc<Segment>> {
        self.files().live.clone()
    }

    /// The newest archive that was live in our time, and the size at which it was left.
    pub(super) fn previous(&self) -> Option<(Arc<Segment>, u64)> {
        self.files().previous.clone()
    }

    /// We appended to the live file, up to `size`.
    pub(super) fn note_own(&self, size: u64) {
        self.known_size.store(size, Ordering::Relaxed);
    }

    /// The file of an archive, with its index.
    fn open(&self, path: &Path) -> Result<Option<Arc<Segment>>, BusError> {
        let Some(meta) = file::look(path)? else { return Ok(None) };
        let id = identity(&meta);
        let (known, previous) = {
            let files = self.files();
            if let Some(live) = files.live.as_ref().filter(|live| live.id == id) {
                return Ok(Some(live.clone()));
            }
            let known = files.previous.iter().map(|(segment, _)| segment).chain(&files.cached);
            (known.into_iter().find(|segment| segment.id == id).cloned(), files.previous.clone())
        };
        if let Some(segment) = known {
            self.refresh(&segment, previous.as_ref())?;
            return Ok(Some(segment));
        }
        let Some(file) = open_reader(path)? else { return Ok(None) };
        let segment = Arc::new(Segment::new(file).map_err(self.io("look at"))?);
        self.refresh(&segment, previous.as_ref())?;
        let mut files = self.files();
        files.cached.push_back(segment.clone());
        if files.cached.len() > CACHED {
            files.cached.pop_front();
        }
        Ok(Some(segment))
    }

    fn archives(&self) -> Result<Vec<PathBuf>, BusError> {
        archive::list(&self.path).map_err(self.io("list the archives of"))
    }

    /// The first place of the bus; `None` if there is no file.
    pub(super) fn begin(&self) -> Result<Option<Place>, BusError> {
        for path in self.archives()? {
            if let Some(segment) = self.open(&path)? {
                return Ok(Some(Place::begin(segment)));
            }
        }
        Ok(self.live().map(Place::begin))
    }

    /// The begin of the file after `segment`; `None` if it is the live one, or is gone from the folder with nothing
    /// behind it.
    fn after(&self, segment: &Arc<Segment>) -> Result<Option<Place>, BusError> {
        let live = self.live();
        if live.as_ref().is_some_and(|live| Arc::ptr_eq(live, segment)) {
            return Ok(None);
        }
        let live = live.filter(|live| live.id != segment.id);
        if segment.is_unlinked() {
            // Replaced by another program (or an archive that was removed): a copy of what it held is not news.
            return Ok(live.map(|live| Place::instead_of(segment.clone(), live)));
        }
        // Through the folder also from the file that was live before: others may have rotated more than once meanwhile.
        let mut passed = false;
        for path in self.archives()? {
            let Some(meta) = file::look(&path)? else { continue };
            if passed && let Some(next) = self.open(&path)? {
                return Ok(Some(Place::begin(next)));
            }
            passed |= identity(&meta) == segment.id;
        }
        // The live file is behind the last archive; an archive that was removed has only it behind.
        Ok(live.map(Place::begin))
    }

    /// Where to go on when the file of `place` was rewritten in place: at the begin of what stands there now, but for
    /// the messages that were there before.
    pub(super) fn anew(&self, place: Option<Place>) -> Option<Place> {
        let old = place?.segment;
        match self.live() {
            Some(live) if !Arc::ptr_eq(&live, &old) => Some(Place::instead_of(old, live)),
            _ => None,
        }
    }

    /// The place behind the message `cursor`. Needs a fresh [`Self::sync`].
    pub(super) fn locate(&self, cursor: &MessageId) -> Result<Place, BusError> {
        let mut tried: HashSet<FileId> = HashSet::new();
        let previous = self.previous().map(|(segment, _)| segment);
        for segment in self.live().into_iter().chain(previous) {
            if let Some(place) = self.locate_in(&segment, cursor)? {
                return Ok(place);
            }
            tried.insert(segment.id);
        }
        for path in self.archives()?.iter().rev() {
            let Some(segment) = self.open(path)? else { continue };
            if tried.insert(segment.id)
                && let Some(place) = self.locate_in(&segment, cursor)?
            {
                return Ok(place);
            }
        }
        Err(BusError::UnknownCursor(cursor.clone()))
    }

    fn locate_in(&self, segment: &Arc<Segment>, cursor: &MessageId) -> Result<Option<Place>, BusError> {
        let Some(start) = segment.find(cursor.as_str()).map_err(self.io("read"))? else { return Ok(None) };
        // Steps over the entry itself.
        let from = segment.mark_for(start);
        let walked = walk(&segment.file, from, segment.readable(), |event| match event {
            Event::Entry { start: at, .. } if at >= start => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        let mark = walked.map_err(self.io("read"))?.mark;
        Ok(Some(Place { segment: segment.clone(), mark, known: None }))
    }

    /// Reads up to `limit` messages from `place` on. Needs a fresh [`Self::sync`].
    pub(super) fn read(&self, place: Option<Place>, limit: usize, bytes: u64) -> Result<Stretch, BusError> {
        let place = match place {
            Some(place) => Some(place),
            None => self.begin()?,
        };
        let mut stretch = Stretch::nothing(place);
        let mut left = bytes;
        while let Some(place) = &mut stretch.place {
            let segment = place.segment.clone();
            if segment.is_dead() {
                return Err(BusError::Rewritten(self.path.clone()));
            }
            let mut found = Vec::new();
            let room = limit - stretch.messages.len();
            let walked = walk(&segment.file, place.mark, segment.readable(), |event| match event {
                Event::Lost(count) => {
                    stretch.skipped += count;
                    ControlFlow::Continue(())
                }
                Event::Entry { start, entry, .. } => {
                    left = left.saturating_sub((entry.end - entry.start) as u64);
                    stretch.damaged += u64::from(entry.damaged);
                    found.push((start, entry.header.clone(), entry.body.clone().into_owned()));
                    if found.len() >= room || left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                }
            });
            let walked = walked.map_err(self.io("read"))?;
            place.mark = walked.mark;
            for (start, header, body) in found {
                let id = segment.visible_id(start, &header.id).map_err(self.io("read"))?;
                if !place.is_known(start, &id).map_err(self.io("read"))? {
                    stretch.messages.push(message(id, header, body));
                }
            }
            if walked.tail.is_none() {
                stretch.more = place.mark.offset < segment.readable() || self.after(&segment)?.is_some();
                break;
            }
            match self.after(&segment)? {
                Some(next) => *place = next,
                None => break,
            }
        }
        Ok(stretch)
    }

    /// The place behind everything that is there now; `None` if there is no file.
    pub(super) fn end(&self) -> Result<Option<Place>, BusError> {
        let segment = match self.live() {
            Some(live) => live,
            None => match self.archives()?.last() {
                Some(path) => match self.open(path)? {
                    Some(segment) => segment,
                    None => return Ok(None),
                },
                None => return Ok(None),
            },
        };
        let mark = Mark { offset: segment.readable(), state: super::format::scan::State::between() };
        let mark = if mark.offset == 0 { Mark::default() } else { mark };
        Ok(Some(Place { segment, mark, known: None }))
    }

    /// The newest `count` messages.
    pub(super) fn tail(&self, count: usize) -> Result<Page, BusError> {
        let mut place = None;
        let mut wanted = count as u64;
        let archives = self.archives()?;
        let mut older = archives.iter().rev();
        let mut segment = self.live();
        while wanted > 0 {
            let Some(current) = segment.take() else {
                match older.next() {
                    Some(path) => segment = self.open(path)?,
                    None => break,
                }
                continue;
            };
            let mark = current.mark_before_last(wanted);
            place = Some(Place { mark, segment: current.clone(), known: None });
            wanted = wanted.saturating_sub(current.count());
        }
        let mut page = Page::default();
        let mut newest: VecDeque<(Message, usize)> = VecDeque::new();
        let mut bytes = 0;
        while place.is_some() && count > 0 {
            let stretch = self.read(place, MAX_PAGE, PAGE_BYTES)?;
            page.skipped += stretch.skipped;
            page.damaged += stretch.damaged;
            for message in stretch.messages {
                let size = message.body.len();
                bytes += size;
                newest.push_back((message, size));
                while newest.len() > count || (bytes as u64 > PAGE_BYTES && newest.len() > 1) {
                    bytes -= newest.pop_front().map_or(0, |(_, size)| size);
                }
            }
            place = if stretch.more { stretch.place } else { None };
        }
        page.messages = newest.into_iter().map(|(message, _)| message).collect();
        page.next = page.messages.last().map(|message| message.id.clone());
        Ok(page)
    }

    /// The mark of the current end.
    pub(super) fn position(&self) -> Result<Position, BusError> {
        let mut segments: Vec<Arc<Segment>> = self.live().into_iter().collect();
        for path in self.archives()?.iter().rev().take(1) {
            segments.extend(self.open(path)?);
        }
        for segment in segments {
            let offset = segment.readable();
            if offset > 0
                && let Some(generation) = segment.generation().map_err(self.io("read"))?
            {
                return Ok(Position { generation, offset });
            }
        }
        Ok(Position::default())
    }

    /// A message with `x-key` equal to `key` that was posted at `since` or later. Looks at filters and few blocks of the
    /// live file and of the archives made since, of which the newest [`super::earlier::COMPARED`] count.
    pub(super) fn find_recent_key(&self, since: Timestamp, key: &str) -> Result<Option<MessageId>, BusError> {
        let since = ids::first_key(since);
        let live = self.live();
        if let Some(live) = &live
            && let Some(id) = live.find_key(key, since).map_err(self.io("read"))?
        {
            return Ok(Some(id));
        }
        let left = self.previous().map(|(segment, at)| (segment.id, at));
        let earlier = self.archives.earlier(&self.path, live.map_or((0, 0), |live| live.id), left);
        let found = earlier.find_key(key, since).map_err(self.io("read"))?;
        // Only our own entries have keys, and their ids are valid.
        Ok(found.and_then(|id| id.parse().ok()))
    }

    /// The files from that with the generation `from` on, oldest first; all of them if there is none.
    fn files_from(&self, from: u32) -> Result<Vec<Arc<Segment>>, BusError> {
        let mut found: VecDeque<Arc<Segment>> = VecDeque::new();
        let is_it = |segment: &Segment| Ok(from != 0 && segment.generation().map_err(self.io("read"))? == Some(from));
        let archives = self.archives()?;
        let mut older = archives.iter().rev();
        let mut next = self.live();
        loop {
            if let Some(segment) = next.take() {
                found.push_front(segment.clone());
                if is_it(&segment)? {
                    break;
                }
            }
            // Not indexed: that would read all of it.
            let Some(path) = older.next() else { break };
            if let Some(file) = open_reader(path)? {
                let segment = Arc::new(Segment::new(file).map_err(self.io("look at"))?);
                let is_live = found.back().is_some_and(|live| live.id == segment.id);
                next = (!is_live).then_some(segment);
            }
        }
        Ok(found.into())
    }

    /// The first message with `x-key` equal to `key` behind `from`.
    pub(super) fn find_key(&self, from: &Position, key: &str) -> Result<Option<MessageId>, BusError> {
        // A file that is gone, or was rewritten, can't be told from one that never was: then everything is searched.
        let segments = self.files_from(from.generation)?;
        for (at, segment) in segments.iter().enumerate() {
            let known = at == 0 && segment.generation().map_err(self.io("read"))? == Some(from.generation);
            let is_live = self.live().is_some_and(|live| live.id == segment.id);
            let whole = || segment.file.metadata().map(|meta| meta.len()).map_err(self.io("look at"));
            let end = if is_live { segment.readable() } else { whole()? };
            let mark = match known && from.offset <= end && from.offset > 0 {
                true => Mark { offset: from.offset, state: super::format::scan::State::between() },
                false => Mark::default(),
            };
            let mut found = None;
            let walked = walk(&segment.file, mark, end, |event| match event {
                Event::Entry { start, entry, .. } if entry.header.key.as_deref() == Some(key) => {
                    found = Some((start, entry.header.id.clone()));
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            });
            walked.map_err(self.io("read"))?;
            if let Some((start, id)) = found {
                return segment.visible_id(start, &id).map(Some).map_err(self.io("read"));
            }
        }
        Ok(None)
    }
}

/// The message of an entry.
pub(super) fn message(id: MessageId, header: super::format::header::Header, body: String) -> Message {
    Message {
        id,
        time: header.time,
        kind: header.kind,
        project: header.project,
        task: header.task,
        run: header.run,
        issue: header.issue,
        parents: header.parents,
        links: header.links,
        meta: header.meta,
        body,
    }
}
