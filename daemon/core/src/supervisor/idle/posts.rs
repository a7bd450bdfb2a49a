//! Who has posted to a bus since the last look, through us or by appending to the file: a sign of life.
//!
//! A stat for each bus, and a read of what is new only where the file has changed. Never writes.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::bus::{Bus, BusError, BusHub};
use crate::ralph::IDLE_WARNING;
use crate::types::{Message, MessageId};

/// One page of a bus.
const PAGE: usize = 1000;
/// Pages that one look reads at most. What floods faster hides idleness: then nobody on that bus is called idle.
const MAX_PAGES: usize = 32;

/// Places on the buses of live runs.
#[derive(Debug, Default)]
pub(super) struct Posts(HashMap<PathBuf, Place>);

#[derive(Debug)]
struct Place {
    /// Size and identity of the file when it was last read; `None`: there was none.
    seen: Option<(u64, u64)>,
    /// The last message that was looked at.
    cursor: Option<MessageId>,
}

/// Who has posted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// These runs, by their id.
    By(HashSet<String>),
    /// It can't be told: nobody may be called idle.
    Anybody,
}

impl Posts {
    /// Forgets buses that nobody needs any more.
    pub(super) fn keep_only(&mut self, needed: &HashSet<PathBuf>) {
        self.0.retain(|path, _| needed.contains(path));
    }

    /// Begins to look at a bus, from its present end on.
    pub(super) async fn begin(&mut self, hub: &BusHub, path: &Path) {
        if self.0.contains_key(path) {
            return;
        }
        let seen = mark(path);
        match end(&hub.bus(path)).await {
            Ok(cursor) => drop(self.0.insert(path.to_owned(), Place { seen, cursor })),
            Err(error) => tracing::debug!(bus = %path.display(), %error, "the bus can't be read for signs of life"),
        }
    }

    /// Who has posted to a bus since the last call.
    pub(super) async fn since(&mut self, hub: &BusHub, path: &Path) -> Posted {
        // One that could not be read so far tells nothing.
        let Some(place) = self.0.get_mut(path) else { return Posted::Anybody };
        let now = mark(path);
        if std::mem::replace(&mut place.seen, now) == now {
            return Posted::By(HashSet::new());
        }
        let bus = hub.bus(path);
        match read(&bus, &mut place.cursor).await {
            Ok(Some(runs)) => Posted::By(runs),
            other => {
                if let Err(error) = other {
                    tracing::debug!(bus = %path.display(), %error, "the bus can't be read for signs of life");
                }
                // From its end on the next time.
                match end(&bus).await {
                    Ok(cursor) => place.cursor = cursor,
                    Err(_) => drop(self.0.remove(path)),
                }
                Posted::Anybody
            }
        }
    }
}

fn mark(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.len(), found.ino()))
}

async fn end(bus: &Bus) -> Result<Option<MessageId>, BusError> {
    Ok(bus.tail(1).await?.messages.pop().map(|message| message.id))
}

/// The runs that posted behind the cursor, which moves on. `None`: there is too much to read.
async fn read(bus: &Bus, cursor: &mut Option<MessageId>) -> Result<Option<HashSet<String>>, BusError> {
    let mut runs = HashSet::new();
    for _ in 0..MAX_PAGES {
        let page = bus.read_after(cursor.clone(), PAGE).await?;
        runs.extend(page.messages.into_iter().filter(|message| !is_ours(message)).map(|message| message.run));
        *cursor = page.next.or(cursor.take());
        if !page.more {
            return Ok(Some(runs));
        }
    }
    Ok(None)
}

/// Whether conductord wrote it about the run. An agent that writes the same only hides itself.
fn is_ours(message: &Message) -> bool {
    match message.kind.as_str() {
        "RUN_START" | "RUN_STOP" | "RUN_CRASH" => true,
        "WARNING" => message.body.starts_with(IDLE_WARNING),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bus::BusOptions;
    use crate::types::{MessageDraft, RunId};

    fn draft(run: &str, kind: &str, body: &str) -> MessageDraft {
        MessageDraft {
            kind: kind.into(),
            project: "p".parse().unwrap(),
            task: None,
            run: Some(run.parse::<RunId>().unwrap()),
            issue: None,
            parents: Vec::new(),
            links: Vec::new(),
            meta: BTreeMap::new(),
            body: body.into(),
            key: None,
        }
    }

    fn by(runs: &[&str]) -> Posted {
        Posted::By(runs.iter().map(|&run| run.to_owned()).collect())
    }

    const A: &str = "20260101-0000000000-1-1";
    const B: &str = "20260101-0000000000-1-2";

    #[tokio::test]
    async fn those_who_posted_since_the_last_look_are_named_and_our_own_entries_are_not_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("BUS.md");
        let hub = BusHub::new(BusOptions::default());
        let mut posts = Posts::default();
        assert_eq!(posts.since(&hub, &path).await, Posted::Anybody, "not begun");
        posts.begin(&hub, &path).await;
        assert_eq!(posts.since(&hub, &path).await, by(&[]));
        let post = async |run, kind, body: &str| drop(hub.bus(&path).post(draft(run, kind, body)).await.unwrap());
        post(A, "PROGRESS", "here").await;
        assert_eq!(posts.since(&hub, &path).await, by(&[A]));
        assert_eq!(posts.since(&hub, &path).await, by(&[]));
        post(A, "RUN_START", "run started").await;
        post(A, "WARNING", &format!("{IDLE_WARNING} for 10m")).await;
        assert_eq!(posts.since(&hub, &path).await, by(&[]));
        post(B, "WARNING", "the disk is nearly full").await;
        assert_eq!(posts.since(&hub, &path).await, by(&[B]));
    }

    #[tokio::test]
    async fn an_entry_that_an_agent_appends_by_itself_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("BUS.md");
        let hub = BusHub::new(BusOptions::default());
        let mut posts = Posts::default();
        hub.bus(&path).post(draft(B, "FACT", "x")).await.unwrap();
        posts.begin(&hub, &path).await;
        let entry = format!(
            "\n---\nmsg_id: MSG-20260101-000000-000000001-PID00001-0001\nts: 2026-01-01T00:00:00Z\ntype: FACT\n\
             project_id: p\ntask_id: \"\"\nrun_id: {A}\n---\nby hand\n"
        );
        std::io::Write::write_all(&mut std::fs::OpenOptions::new().append(true).open(&path).unwrap(), entry.as_bytes())
            .unwrap();
        assert_eq!(posts.since(&hub, &path).await, by(&[A]));
    }

    #[tokio::test]
    async fn a_bus_that_was_rewritten_under_us_calls_nobody_idle_and_is_read_on_from_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("BUS.md");
        let hub = BusHub::new(BusOptions::default());
        let mut posts = Posts::default();
        hub.bus(&path).post(draft(A, "FACT", "x")).await.unwrap();
        posts.begin(&hub, &path).await;
        std::fs::write(&path, "").unwrap();
        assert_eq!(posts.since(&hub, &path).await, Posted::Anybody);
        hub.bus(&path).post(draft(B, "FACT", "y")).await.unwrap();
        assert_eq!(posts.since(&hub, &path).await, by(&[B]));
        posts.keep_only(&HashSet::new());
        assert_eq!(posts.since(&hub, &path).await, Posted::Anybody);
    }
}
