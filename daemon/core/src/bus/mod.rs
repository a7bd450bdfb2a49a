//! The file-based message bus: appending with group commit, reading by cursor, following, rotation.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`hub`] | the interface: buses by path, their calls |
//! | [`writer`], [`commit`] | queue and committer; what happens under the lock |
//! | [`follow`], [`watch`] | followers; learning of other programs' entries |
//! | [`chain`] | archives and live file as one sequence, cursors |
//! | [`segment`], [`index`], [`walk`] | one file: what is readable, where ids are, scanning through a window |
//! | [`earlier`] | what archives hold: ids that are taken, recent keys |
//! | [mod@file], [`archive`] | file system calls; names beside the bus |
//! | [mod@format] | the bytes: pure functions |
//!
//! The bus knows no tasks or runs: it takes drafts and gives messages. The format and the guarantees are in
//! `docs/bus.md`, what each crash leaves behind in [`writer`].

mod archive;
mod chain;
mod commit;
mod earlier;
mod error;
mod file;
mod follow;
mod format;
mod hub;
mod ids;
mod index;
mod options;
mod segment;
mod shared;
mod walk;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

pub use error::BusError;
pub use follow::Follower;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use format::fuzzing;
pub use format::{MAX_BODY, MAX_HEADER, MAX_KIND, MAX_META_KEY};
pub use hub::{Bus, BusHub, MAX_POST_MANY, Stats, read_file};
pub use options::{BusOptions, BusStats, Durability, Page, Position, Posted};

/// Runs work that blocks on the file system off the runtime's own threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BusError> + Send + 'static,
) -> Result<T, BusError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime is going down, or the work panicked, which is logged where it happened.
        Err(_) => Err(BusError::Closed),
    }
}
