//! Wakes followers of a file when it changes: by notifications of the system, with a slower look as the fallback.
//!
//! One watcher serves all; a file is watched as long as somebody follows it. Nothing is read here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tracing::debug;

/// How often a file is looked at where notifications can't be had.
const WITHOUT_NOTIFICATIONS: Duration = Duration::from_millis(250);
/// How often it is looked at otherwise: some file systems (network, FUSE) take the watch and never notify.
const WITH_NOTIFICATIONS: Duration = Duration::from_secs(1);

/// All watched files. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct FileWatch {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Made for the first follower; also the lock under which watches come and go.
    watcher: Mutex<Option<RecommendedWatcher>>,
    files: Arc<DashMap<PathBuf, watch::Sender<()>>>,
}

/// One follower of one file.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Arc<Inner>,
    path: PathBuf,
    /// `None`: there are no notifications for this file.
    changes: Option<watch::Receiver<()>>,
}

impl FileWatch {
    /// Follows a file. Changes from now on wake the follower.
    pub(super) fn follow(&self, path: &Path) -> Watched {
        let changes = self.inner.subscribe(path).inspect_err(|error| debug!(%error, "no notifications")).ok();
        Watched { inner: Arc::clone(&self.inner), path: path.to_owned(), changes }
    }
}

impl Inner {
    fn subscribe(&self, path: &Path) -> notify::Result<watch::Receiver<()>> {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = self.files.get(path) {
            return Ok(sender.subscribe());
        }
        if watcher.is_none() {
            let files = Arc::clone(&self.files);
            *watcher = Some(notify::recommended_watcher(move |event| wake(&files, event))?);
        }
        if let Some(watcher) = watcher.as_mut() {
            watcher.watch(path, RecursiveMode::NonRecursive)?;
        }
        let (sender, receiver) = watch::channel(());
        self.files.insert(path.to_owned(), sender);
        Ok(receiver)
    }
}

fn wake(files: &DashMap<PathBuf, watch::Sender<()>>, event: notify::Result<notify::Event>) {
    match event {
        Ok(event) if !event.need_rescan() => {
            for path in &event.paths {
                if let Some(sender) = files.get(path) {
                    sender.send_replace(());
                }
            }
        }
        // Notifications were lost: everybody looks.
        _ => files.iter().for_each(|sender| drop(sender.send_replace(()))),
    }
}

impl Watched {
    /// Waits until the file may have changed. It may also wake without a change. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        match &mut self.changes {
            Some(changes) => drop(tokio::time::timeout(WITH_NOTIFICATIONS, changes.changed()).await),
            None => {
                tokio::time::sleep(WITHOUT_NOTIFICATIONS).await;
                // The file may have been made meanwhile.
                self.changes = self.inner.subscribe(&self.path).ok();
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut watcher = self.inner.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if self.changes.take().is_none() {
            return;
        }
        let last = self.inner.files.remove_if(&self.path, |_, sender| sender.receiver_count() == 0);
        if let (Some(_), Some(watcher)) = (last, watcher.as_mut()) {
            if let Err(error) = watcher.unwatch(&self.path) {
                debug!(%error, "the file is gone already");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn every_follower_wakes_and_the_last_one_ends_the_watch() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut file = std::fs::File::create(&path).expect("made");
        let files = FileWatch::default();
        let (mut one, mut two) = (files.follow(&path), files.follow(&path));
        assert!(one.changes.is_some(), "the system notifies");
        file.write_all(b"x").expect("written");
        tokio::join!(one.changed(), two.changed());
        drop(one);
        assert_eq!(files.inner.files.len(), 1);
        drop(two);
        assert_eq!(files.inner.files.len(), 0);
    }

    #[tokio::test]
    async fn a_file_that_comes_later_is_looked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("later");
        let mut follower = FileWatch::default().follow(&path);
        assert!(follower.changes.is_none());
        std::fs::write(&path, "x").expect("written");
        follower.changed().await;
        assert!(follower.changes.is_some());
    }
}
