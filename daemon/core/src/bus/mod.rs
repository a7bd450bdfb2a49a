//! The file-based message bus.
mod error;
mod options;

pub use error::BusError;
pub use options::{BusOptions, BusStats, Durability, Page, Position, Posted};

use crate::types::{Message, MessageDraft, MessageId};
use std::path::{Path, PathBuf};

/// All buses of one daemon. Cheap to clone.
#[derive(Clone)]
pub struct BusHub {}
impl BusHub {
    /// A hub without buses.
    #[must_use]
    pub fn new(_options: BusOptions) -> Self {
        unimplemented!()
    }
    /// The bus at `path`.
    #[must_use]
    pub fn bus(&self, _path: &Path) -> Bus {
        unimplemented!()
    }
    /// Counters.
    #[must_use]
    pub fn stats(&self) -> BusStats {
        unimplemented!()
    }
    /// New settings.
    pub fn set_options(&self, _options: BusOptions) {
        unimplemented!()
    }
}
/// One bus. Cheap to clone.
#[derive(Clone)]
pub struct Bus {}
#[allow(clippy::unused_async)]
impl Bus {
    /// Posts one message.
    pub async fn post(&self, _draft: MessageDraft) -> Result<Posted, BusError> {
        unimplemented!()
    }
    /// Posts several, all or none.
    pub async fn post_many(&self, _drafts: Vec<MessageDraft>) -> Result<Vec<Posted>, BusError> {
        unimplemented!()
    }
    /// Reads after a cursor.
    pub async fn read_after(&self, _cursor: Option<MessageId>, _limit: usize) -> Result<Page, BusError> {
        unimplemented!()
    }
    /// The newest messages.
    pub async fn tail(&self, _count: usize) -> Result<Page, BusError> {
        unimplemented!()
    }
    /// Follows.
    pub async fn follow(&self, _cursor: Option<MessageId>) -> Result<Follower, BusError> {
        unimplemented!()
    }
    /// The end.
    pub async fn position(&self) -> Result<Position, BusError> {
        unimplemented!()
    }
    /// Looks for a key.
    pub async fn find_key_since(&self, _from: &Position, _key: &str) -> Result<Option<MessageId>, BusError> {
        unimplemented!()
    }
    /// Rotates now.
    pub async fn rotate(&self) -> Result<PathBuf, BusError> {
        unimplemented!()
    }
    /// Repairs a torn tail; the file it was moved to.
    pub async fn repair(&self) -> Result<Option<PathBuf>, BusError> {
        unimplemented!()
    }
}
/// A stream of messages.
pub struct Follower {}
#[allow(clippy::unused_async)]
impl Follower {
    /// The next message; cancel-safe.
    pub async fn next(&mut self) -> Result<Message, BusError> {
        unimplemented!()
    }
}
