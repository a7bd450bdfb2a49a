//! The open streams, so that they can be counted, and ended when the daemon ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;

/// The registry. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    open: Arc<DashMap<u64, Entry>>,
    next: Arc<AtomicU64>,
    ending: CancellationToken,
}

/// One open stream.
#[derive(Clone, Debug)]
struct Entry {
    kind: &'static str,
    who: String,
}

/// A stream's place in the registry, which it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct OpenStream {
    streams: Streams,
    number: u64,
}

impl Streams {
    /// Registers a stream.
    pub(super) fn open(&self, kind: &'static str, who: &str) -> OpenStream {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.insert(number, Entry { kind, who: who.to_owned() });
        OpenStream { streams: self.clone(), number }
    }

    /// Open streams by kind and caller, for people: `Watch × 2 (dev (uid 1000, pid 7))`.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let mut counts: BTreeMap<(&str, String), usize> = BTreeMap::new();
        for entry in self.open.iter() {
            *counts.entry((entry.kind, entry.who.clone())).or_default() += 1;
        }
        counts.into_iter().map(|((kind, who), count)| format!("{kind} × {count} ({who})")).collect()
    }

    /// Number of open streams.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// Asks all streams, present and future, to end.
    pub fn end_all(&self) {
        self.ending.cancel();
    }
}

impl OpenStream {
    /// Waits until streams are asked to end.
    pub(super) async fn ending(&self) {
        self.streams.ending.cancelled().await;
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.streams.open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_counted_by_kind_and_caller_while_they_are_open() {
        let streams = Streams::default();
        let first = streams.open("Watch", "dev");
        let _second = streams.open("Watch", "dev");
        let _third = streams.open("FollowMessages", "run 1");
        assert_eq!(streams.summary(), ["FollowMessages × 1 (run 1)", "Watch × 2 (dev)"]);
        drop(first);
        assert_eq!(streams.count(), 2);
    }
}
