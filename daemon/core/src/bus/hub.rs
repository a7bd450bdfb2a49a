//! The interface: buses by path, and what can be done with one.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use super::blocking;
use super::chain::{MAX_PAGE, PAGE_BYTES, message};
use super::error::BusError;
use super::file;
use super::follow::Follower;
use super::format::{MAX_BODY, MAX_KIND, MAX_META_KEY};
use super::options::{BusOptions, BusStats, Page, Position, Posted};
use super::segment::Segment;
use super::shared::{HubState, Shared};
use super::walk::{Event, Mark, walk};
use super::writer::Ask;
use crate::types::{Message, MessageDraft, MessageId};

/// Drafts of one call of [`Bus::post_many`] at most: they are written at once, so they bound a batch.
pub const MAX_POST_MANY: usize = 1024;
/// Bytes of the bodies of one call at most.
const MAX_POST_BYTES: usize = 8 << 20;
/// How long a bus that nobody holds keeps its index.
const IDLE: Duration = Duration::from_secs(60);
/// Buses that nobody holds at most; each has one or two open files and a small index.
const MAX_IDLE: usize = 128;

/// All buses of one daemon. Cheap to clone; needs a tokio runtime for everything but [`Self::stats`].
#[derive(Clone)]
pub struct BusHub {
    state: Arc<HubState>,
    buses: Arc<Mutex<HashMap<PathBuf, Arc<Shared>>>>,
}

impl BusHub {
    /// A hub without buses.
    #[must_use]
    pub fn new(options: BusOptions) -> Self {
        Self { state: Arc::new(HubState::new(options)), buses: Arc::default() }
    }

    /// The bus at `path`, whether there is a file or not; nothing is touched. The same path gives the same bus. A bus
    /// that nobody holds is forgotten after a minute; it loses nothing but its index.
    #[must_use]
    pub fn bus(&self, path: &Path) -> Bus {
        // Only an empty path has no absolute form, and that fails when it is used.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut buses = self.buses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = buses.get(&path) {
            shared.touch();
            return Bus { shared: shared.clone() };
        }
        forget_idle(&mut buses);
        let shared = Arc::new(Shared::new(path.clone(), self.state.clone()));
        buses.insert(path, shared.clone());
        Bus { shared }
    }

    /// Counters of all buses together.
    #[must_use]
    pub fn stats(&self) -> BusStats {
        let open = self.buses.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        let counters = &self.state.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BusStats {
            open,
            posted: read(&counters.posted),
            bytes: read(&counters.bytes),
            batches: read(&counters.batches),
            syncs: read(&counters.syncs),
            failed: read(&counters.failed),
            lock_timeouts: read(&counters.lock_timeouts),
            torn: read(&counters.torn),
            rotations: read(&counters.rotations),
            skipped: read(&counters.skipped),
            rewritten: read(&counters.rewritten),
        }
    }

    /// New settings, from the next batch on.
    pub fn set_options(&self, options: BusOptions) {
        self.state.set_options(options);
    }
}

fn forget_idle(buses: &mut HashMap<PathBuf, Arc<Shared>>) {
    buses.retain(|_, bus| Arc::strong_count(bus) > 1 || bus.last_used().elapsed() < IDLE);
    let mut idle: Vec<_> = buses
        .iter()
        .filter(|(_, bus)| Arc::strong_count(bus) == 1)
        .map(|(path, bus)| (bus.last_used(), path.clone()))
        .collect();
    if idle.len() > MAX_IDLE {
        idle.sort();
        for (_, path) in &idle[..idle.len() - MAX_IDLE] {
            buses.remove(path);
        }
    }
}

/// One bus. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    shared: Arc<Shared>,
}

impl Bus {
    /// Where its live file is, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Posts a message. It is answered once it is as durable as the settings say. A call that is dropped may still be
    /// carried out.
    ///
    /// # Errors
    /// What is wrong with the draft (nothing is written then), or why it could not be written (nothing stays then).
    pub async fn post(&self, draft: MessageDraft) -> Result<Posted, BusError> {
        let mut posted = self.post_many(vec![draft]).await?;
        posted.pop().ok_or(BusError::Closed)
    }

    /// Posts several messages at once, all or none, one behind the other: at most [`MAX_POST_MANY`], and 8 MiB of
    /// bodies.
    ///
    /// # Errors
    /// As [`Self::post`]; one bad draft refuses all.
    pub async fn post_many(&self, drafts: Vec<MessageDraft>) -> Result<Vec<Posted>, BusError> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        if drafts.len() > MAX_POST_MANY {
            return Err(BusError::TooLarge { what: "batch", size: drafts.len(), limit: MAX_POST_MANY });
        }
        for draft in &drafts {
            check(draft)?;
        }
        let size = drafts.iter().map(|draft| draft.body.len()).sum();
        if size > MAX_POST_BYTES {
            return Err(BusError::TooLarge { what: "sum of the bodies", size, limit: MAX_POST_BYTES });
        }
        self.shared.touch();
        self.shared.write(drafts).await
    }

    /// Up to `limit` (1 to 5,000) messages after `cursor`, or from the oldest on, archives included. A page also ends
    /// at 4 MiB. Costs what it reads.
    ///
    /// # Errors
    /// [`BusError::UnknownCursor`] if no message has that id; failures to read.
    pub async fn read_after(&self, cursor: Option<MessageId>, limit: usize) -> Result<Page, BusError> {
        self.shared.touch();
        let shared = self.shared.clone();
        blocking(move || {
            shared.sync()?;
            let place = cursor.as_ref().map(|cursor| shared.chain.locate(cursor)).transpose()?;
            let stretch = shared.chain.read(place, limit.clamp(1, MAX_PAGE), PAGE_BYTES)?;
            let next = stretch.messages.last().map(|message| message.id.clone()).or(cursor);
            let (skipped, damaged) = (stretch.skipped, stretch.damaged);
            Ok(Page { messages: stretch.messages, next, more: stretch.more, skipped, damaged })
        })
        .await
    }

    /// The newest `count` (at most 5,000) messages, oldest first, at most 4 MiB of bodies.
    ///
    /// # Errors
    /// Failures to read.
    pub async fn tail(&self, count: usize) -> Result<Page, BusError> {
        self.shared.touch();
        let shared = self.shared.clone();
        blocking(move || {
            shared.sync()?;
            shared.chain.tail(count.min(MAX_PAGE))
        })
        .await
    }

    /// Follows the bus from behind `cursor`, or from the oldest message on.
    ///
    /// # Errors
    /// As [`Self::read_after`].
    pub async fn follow(&self, cursor: Option<MessageId>) -> Result<Follower, BusError> {
        self.shared.touch();
        let (shared, last) = (self.shared.clone(), cursor.clone());
        let place = blocking(move || {
            shared.sync()?;
            cursor.as_ref().map(|cursor| shared.chain.locate(cursor)).transpose()
        })
        .await?;
        Ok(Follower::behind(self.shared.clone(), place, last))
    }

    /// Follows what is posted from now on. If another program rewrites or replaces the file, it goes on with the messages
    /// that were not there before; [`BusStats::rewritten`] counts that.
    ///
    /// # Errors
    /// Failures to read.
    pub async fn follow_new(&self) -> Result<Follower, BusError> {
        self.shared.touch();
        let shared = self.shared.clone();
        let place = blocking(move || {
            shared.sync()?;
            shared.chain.end()
        })
        .await?;
        Ok(Follower::of_new(self.shared.clone(), place))
    }

    /// The mark of the current end, for [`Self::find_key_since`].
    ///
    /// # Errors
    /// Failures to read.
    pub async fn position(&self) -> Result<Position, BusError> {
        self.shared.touch();
        let shared = self.shared.clone();
        blocking(move || {
            shared.sync()?;
            shared.chain.position()
        })
        .await
    }

    /// The first message with the `x-key` `key` behind `from`, also across rotations. If the file of `from` is gone,
    /// everything is searched.
    ///
    /// # Errors
    /// Failures to read.
    pub async fn find_key_since(&self, from: &Position, key: &str) -> Result<Option<MessageId>, BusError> {
        self.shared.touch();
        let (shared, from, key) = (self.shared.clone(), *from, key.to_owned());
        blocking(move || {
            shared.sync()?;
            shared.chain.find_key(&from, &key)
        })
        .await
    }

    /// A message with the `x-key` `key` that was posted within `age`, for requests that may be repeated. Costs a look at
    /// filters, and once a reading of the archives made within `age`; only the newest 16 of them count.
    ///
    /// # Errors
    /// Failures to read.
    pub async fn find_recent_key(&self, age: Duration, key: &str) -> Result<Option<MessageId>, BusError> {
        self.shared.touch();
        let now = Timestamp::now();
        let since = SignedDuration::try_from(age).ok().and_then(|age| now.checked_sub(age).ok());
        let (shared, key) = (self.shared.clone(), key.to_owned());
        blocking(move || {
            shared.sync()?;
            shared.chain.find_recent_key(since.unwrap_or(Timestamp::UNIX_EPOCH), &key)
        })
        .await
    }

    /// Renames the live file to an archive now; the next post makes a new one. Cursors stay valid.
    ///
    /// # Errors
    /// [`BusError::Io`] with `NotFound` if there is no file; [`BusError::LockTimeout`]; failures to rename.
    pub async fn rotate(&self) -> Result<PathBuf, BusError> {
        if !self.exists().await? {
            let error = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(BusError::io("rotate", &self.shared.path, error));
        }
        let (done, answer) = oneshot::channel();
        self.shared.enqueue(Ask::Rotate { done }, None);
        answer.await.map_err(|_| BusError::Closed)?
    }

    /// Moves an unfinished entry at the file's end away, as the first post would; run it at daemon start. The file it
    /// was moved to, if there was one. Waits out another program's grace.
    ///
    /// # Errors
    /// [`BusError::LockTimeout`]; failures to read or write.
    pub async fn repair(&self) -> Result<Option<PathBuf>, BusError> {
        if !self.exists().await? {
            return Ok(None);
        }
        let (done, answer) = oneshot::channel();
        self.shared.enqueue(Ask::Repair { done }, None);
        answer.await.map_err(|_| BusError::Closed)?
    }

    #[cfg(test)]
    pub(super) fn mute(&self) {
        self.shared.hub.watches.mute();
    }

    #[cfg(test)]
    pub(super) fn hold_notifications(&self) -> impl Drop + '_ {
        self.shared.hub.watches.hold()
    }

    async fn exists(&self) -> Result<bool, BusError> {
        let shared = self.shared.clone();
        blocking(move || file::look(&shared.path).map(|found| found.is_some())).await
    }
}

/// Refuses what may not be written. Sizes of headers are checked when they are made.
fn check(draft: &MessageDraft) -> Result<(), BusError> {
    let printable = |text: &str| !text.chars().any(char::is_control);
    if draft.kind.trim().is_empty() {
        return Err(BusError::EmptyKind);
    }
    if !printable(&draft.kind) || draft.kind.chars().count() > MAX_KIND {
        return Err(BusError::InvalidKind(draft.kind.chars().take(MAX_KIND).collect()));
    }
    if draft.body.len() > MAX_BODY {
        return Err(BusError::TooLarge { what: "body", size: draft.body.len(), limit: MAX_BODY });
    }
    for key in draft.meta.keys() {
        if key.starts_with("x-") {
            return Err(BusError::ReservedMeta(key.clone()));
        }
    }
    for key in draft.meta.keys().chain(draft.parents.iter().flat_map(|parent| parent.meta.keys())) {
        if key.is_empty() || key.len() > MAX_META_KEY || !printable(key) {
            return Err(BusError::InvalidMetaKey(key.chars().take(MAX_META_KEY).collect()));
        }
    }
    Ok(())
}

/// What [`read_file`] met besides messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records lost to damage.
    pub skipped: u64,
    /// Messages whose checksum did not hold.
    pub damaged: u64,
    /// Bytes of an unfinished entry at the end.
    pub torn_bytes: u64,
}

/// Reads one file at once, for tools and tests. A missing file has no messages.
///
/// # Errors
/// [`BusError::Symlink`], [`BusError::NotRegular`], failures to read.
pub fn read_file(path: &Path) -> Result<(Vec<Message>, Stats), BusError> {
    let failed = |error| BusError::io("read", path, error);
    let mut stats = Stats::default();
    let mut messages = Vec::new();
    let Some(file) = file::open_reader(path)? else { return Ok((messages, stats)) };
    let segment = Segment::new(file).map_err(failed)?;
    segment.refresh(None).map_err(failed)?;
    let size = segment.file.metadata().map_err(failed)?.len();
    let mut found = Vec::new();
    let walked = walk(&segment.file, Mark::default(), segment.readable(), |event| {
        match event {
            Event::Lost(count) => stats.skipped += count,
            Event::Entry { start, entry, .. } => {
                stats.damaged += u64::from(entry.damaged);
                found.push((start, entry.header.clone(), entry.body.clone().into_owned()));
            }
        }
        ControlFlow::Continue(())
    });
    walked.map_err(failed)?;
    for (start, header, body) in found {
        messages.push(message(segment.visible_id(start, &header.id).map_err(failed)?, header, body));
    }
    stats.torn_bytes = match segment.tail().0 {
        super::format::scan::Tail::Torn { start, .. } => size.saturating_sub(start),
        super::format::scan::Tail::Clean => 0,
    };
    Ok((messages, stats))
}
