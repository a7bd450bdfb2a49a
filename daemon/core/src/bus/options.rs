//! Settings of the buses, and the small values that their calls answer with.

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::{Message, MessageId};

/// What a post waits for before it is answered and published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The page cache: survives the end of conductord, not that of the machine.
    None,
    /// An fdatasync that everything which was posted meanwhile shares.
    #[default]
    Batch,
    /// An fdatasync of its own for each call.
    Always,
}

/// How all buses of a hub behave. Changes take effect with the next batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusOptions {
    /// What a post waits for.
    pub durability: Durability,
    /// How long a post waits for the lock (10 s, as conductor-loop does).
    pub lock_timeout: Duration,
    /// How long an unfinished entry of another program is left alone (5 s).
    pub foreign_torn_grace: Duration,
    /// Size in bytes from which the next batch goes to a new file (64 MiB); `None`: never by itself.
    pub rotate_bytes: Option<u64>,
    /// How often a followed file is looked at where notifications fail (1 s).
    pub stat_interval: Duration,
}

impl Default for BusOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Batch,
            lock_timeout: Duration::from_secs(10),
            foreign_torn_grace: Duration::from_secs(5),
            rotate_bytes: Some(64 << 20),
            stat_interval: Duration::from_secs(1),
        }
    }
}

/// The answer to a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The message's id, which is also a cursor.
    pub id: MessageId,
    /// Where its entry begins in the file that was live then, in bytes.
    pub offset: u64,
    /// Its time.
    pub time: Timestamp,
}

/// Some messages in the order of the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages, oldest first.
    pub messages: Vec<Message>,
    /// Cursor for the next read: the last message's id, else the cursor that was given.
    pub next: Option<MessageId>,
    /// Whether there are more already.
    pub more: bool,
    /// Records lost to damage in the part that was read.
    pub skipped: u64,
    /// Messages among [`Self::messages`] whose checksum does not hold: shown as far as they can be read.
    pub damaged: u64,
}

/// A mark in a bus, which survives rotation and restarts. Order is not defined on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which file: a checksum of its first two lines; 0 for "before everything".
    pub generation: u32,
    /// Bytes from that file's begin.
    pub offset: u64,
}

/// Counters of all buses of a hub since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BusStats {
    /// Buses with state in memory now.
    pub open: u64,
    /// Messages written and answered.
    pub posted: u64,
    /// Bytes appended.
    pub bytes: u64,
    /// Batches written.
    pub batches: u64,
    /// fdatasync calls of batches.
    pub syncs: u64,
    /// Messages refused because a write, sync or lock failed.
    pub failed: u64,
    /// Posts that ran into the lock's timeout.
    pub lock_timeouts: u64,
    /// Unfinished entries that were moved away.
    pub torn: u64,
    /// Files rotated.
    pub rotations: u64,
    /// Records lost to damage, as met by scans.
    pub skipped: u64,
    /// Times that another program cut, rewrote or replaced a file, as far as it was noticed.
    pub rewritten: u64,
}
