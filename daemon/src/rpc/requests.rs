//! Posts that are repeated with the same request id are made once.
//!
//! Ids of this daemon start are remembered with a digest of the content; those of an earlier one are found on the bus
//! itself by the key that their message carries (their content is not compared).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_core::bus::Bus;
use conductor_core::types::{MessageDraft, MessageId};
use conductor_proto::reason;
use dashmap::DashMap;
use tokio::sync::OnceCell;
use tonic::{Code, Status};

use super::error;

/// How long an id counts.
const VALID: Duration = Duration::from_secs(24 * 60 * 60);
/// Ids that are remembered: with some 300 bytes each a few megabytes. Beyond, the oldest are looked up on the bus.
const MAX_REMEMBERED: usize = 10_000;

/// The remembered ids. Cheap to clone.
#[derive(Clone)]
pub(super) struct Requests {
    known: Arc<DashMap<(PathBuf, String), Entry>>,
    started: Instant,
}

#[derive(Clone)]
struct Entry {
    digest: u64,
    time: Instant,
    posted: Arc<OnceCell<MessageId>>,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self { known: Arc::default(), started: Instant::now() }
    }

    /// Posts a message unless a request of this id has posted it already.
    ///
    /// # Errors
    /// `REQUEST_ID_REUSED` for another content, else what the bus says.
    pub(super) async fn once(
        &self,
        path: PathBuf,
        bus: Bus,
        id: String,
        mut draft: MessageDraft,
    ) -> Result<MessageId, Status> {
        self.forget_old();
        let digest = digest(&draft);
        // With the digest, so that another content is never taken for what an earlier daemon posted.
        let key = format!("request-{id}:{digest:016x}");
        let fresh = || Entry { digest, time: Instant::now(), posted: Arc::default() };
        let known_by = (path, id.clone());
        let entry = self.known.entry(known_by.clone()).or_insert_with(fresh).clone();
        if entry.digest != digest {
            let message = format!("the request id {id:?} was used with another content");
            return Err(error::status(Code::AlreadyExists, reason::REQUEST_ID_REUSED, message));
        }
        draft.key = Some(key.clone());
        let look = self.started.elapsed() < VALID || self.known.len() >= MAX_REMEMBERED;
        // A task of its own: a caller that goes away in the middle must not leave the outcome unknown.
        let work = tokio::spawn(async move {
            let post = || async {
                if look && let Some(posted) = bus.find_recent_key(VALID, &key).await? {
                    return Ok(posted);
                }
                bus.post(draft).await.map(|posted| posted.id)
            };
            entry.posted.get_or_try_init(post).await.cloned()
        });
        let result = work.await.map_err(|_| error::shutting_down())?;
        if result.is_err() {
            // Nothing was posted, so the id is free again, also for a corrected content.
            self.known.remove_if(&known_by, |_, entry| entry.posted.get().is_none());
        }
        result.map_err(|error| error::bus(&error))
    }

    fn forget_old(&self) {
        if self.known.len() < MAX_REMEMBERED {
            return;
        }
        self.known.retain(|_, entry| entry.time.elapsed() < VALID);
        // Still full: the older half goes, in one pass for many calls.
        let mut times: Vec<Instant> = self.known.iter().map(|entry| entry.time).collect();
        if times.len() >= MAX_REMEMBERED {
            let (_, median, _) = times.select_nth_unstable(MAX_REMEMBERED / 2);
            let median = *median;
            self.known.retain(|_, entry| entry.time > median);
        }
    }
}

fn digest(draft: &MessageDraft) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&draft.kind, &draft.project, &draft.task, &draft.run, &draft.issue, &draft.meta, &draft.body).hash(&mut hasher);
    for parent in &draft.parents {
        (&parent.id, &parent.kind, &parent.meta).hash(&mut hasher);
    }
    for link in &draft.links {
        (&link.url, &link.label, &link.kind).hash(&mut hasher);
    }
    hasher.finish()
}
