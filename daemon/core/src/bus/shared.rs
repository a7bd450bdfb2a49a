//! What the parts of one bus share, and what all buses of a hub share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::watch;

use super::chain::{Chain, Synced};
use super::error::BusError;
use super::options::BusOptions;
use super::watch::Watches;
use super::writer::Writer;

/// One bus.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) chain: Chain,
    pub(super) writer: Writer,
    pub(super) hub: Arc<HubState>,
    /// Grows whenever there may be something new to read.
    pub(super) revision: watch::Sender<u64>,
    used: Mutex<Instant>,
}

/// What all buses of a hub share.
pub(super) struct HubState {
    options: RwLock<Arc<BusOptions>>,
    pub(super) counters: Counters,
    pub(super) watches: Watches,
    /// Buses that wait for another program's lock.
    pub(super) waiting: AtomicUsize,
}

/// See [`super::BusStats`].
#[derive(Default)]
pub(super) struct Counters {
    pub(super) posted: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) lock_timeouts: AtomicU64,
    pub(super) torn: AtomicU64,
    pub(super) rotations: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) rewritten: AtomicU64,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl HubState {
    pub(super) fn new(options: BusOptions) -> Self {
        Self {
            options: RwLock::new(Arc::new(options)),
            counters: Counters::default(),
            watches: Watches::default(),
            waiting: AtomicUsize::new(0),
        }
    }

    pub(super) fn options(&self) -> Arc<BusOptions> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_options(&self, options: BusOptions) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }
}

impl Shared {
    pub(super) fn new(path: PathBuf, hub: Arc<HubState>) -> Self {
        Self {
            chain: Chain::new(path.clone()),
            path,
            writer: Writer::default(),
            hub,
            revision: watch::Sender::new(0),
            used: Mutex::new(Instant::now()),
        }
    }

    /// Reads what is new, counts losses and wakes followers. Blocks on the file system.
    pub(super) fn sync(self: &Arc<Self>) -> Result<(), BusError> {
        let synced = self.sync_quietly()?;
        if synced.late {
            self.tidy();
        }
        Ok(())
    }

    /// [`Self::sync`] for the committer, which does itself what late entries need.
    pub(super) fn sync_quietly(&self) -> Result<Synced, BusError> {
        let synced = self.chain.sync()?;
        count(&self.hub.counters.skipped, synced.lost);
        if synced.rewritten {
            count(&self.hub.counters.rewritten, 1);
            tracing::warn!(bus = %self.path.display(), "another program cut, rewrote or replaced a bus");
        }
        if synced.grown {
            self.publish();
        }
        Ok(synced)
    }

    /// Tells followers that there may be something new.
    pub(super) fn publish(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// Remembers that the bus is in use.
    pub(super) fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When it was last used.
    pub(super) fn last_used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
