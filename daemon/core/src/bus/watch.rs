//! Learning that another program wrote to a followed bus: file notifications on its folder, one watcher for a hub,
//! and a stat every [`super::BusOptions::stat_interval`] for what those miss (overflow, network file systems, folders
//! that did not exist yet). Buses that nobody follows are not watched; reading looks at the file anyway.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::archive::{self, folder};
use super::shared::{HubState, Shared};

/// What a hub watches.
#[derive(Default)]
pub(super) struct Watches {
    followed: Arc<Followed>,
    /// Never locked by the notification thread, which the watcher's calls wait for.
    watcher: Mutex<Folders>,
}

#[derive(Default)]
struct Followed {
    buses: Mutex<HashMap<PathBuf, (Weak<Shared>, usize)>>,
}

#[derive(Default)]
struct Folders {
    watcher: Option<RecommendedWatcher>,
    /// How many followed buses are in a folder, and whether it is being watched.
    folders: HashMap<PathBuf, (usize, bool)>,
    ticking: bool,
    /// Notifications don't come.
    #[cfg(test)]
    muted: bool,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Followed {
    fn all(&self) -> Vec<Arc<Shared>> {
        guard(&self.buses).values().filter_map(|(bus, _)| bus.upgrade()).collect()
    }

    fn notice(&self, event: notify::Result<notify::Event>) {
        let poked = match event {
            Ok(event) if event.need_rescan() => self.all(),
            Ok(event) if event.kind.is_access() => return,
            Ok(event) => {
                let buses = guard(&self.buses);
                // An archive may still get entries of programs that had it open.
                let bus = |path: &PathBuf| buses.get(path).or_else(|| buses.get(&archive::parse(path)?.1));
                event.paths.iter().filter_map(|path| bus(path)?.0.upgrade()).collect()
            }
            Err(_) => self.all(),
        };
        for bus in poked {
            bus.poke();
        }
    }
}

impl Shared {
    /// Wakes followers if the files are not as they were last read.
    fn poke(&self) {
        if self.chain.looks_changed() {
            self.publish();
        }
    }
}

impl Folders {
    /// Watches a folder, or gives up in silence: the stat is there for that.
    fn watch(&mut self, path: &Path, followed: &Arc<Followed>) -> bool {
        #[cfg(test)]
        if self.muted {
            return false;
        }
        if self.watcher.is_none() {
            let followed = Arc::downgrade(followed);
            let made = notify::recommended_watcher(move |event| {
                if let Some(followed) = followed.upgrade() {
                    followed.notice(event);
                }
            });
            match made {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => {
                    tracing::debug!(%error, "no file notifications; buses are looked at by stat");
                    return false;
                }
            }
        }
        self.watcher.as_mut().is_some_and(|watcher| watcher.watch(path, RecursiveMode::NonRecursive).is_ok())
    }
}

/// Someone follows this bus, as long as it lives.
pub(super) struct Interest {
    shared: Arc<Shared>,
}

impl Interest {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let watches = &shared.hub.watches;
        let first = {
            let mut buses = guard(&watches.followed.buses);
            let entry = buses.entry(shared.path.clone()).or_insert_with(|| (Arc::downgrade(&shared), 0));
            entry.0 = Arc::downgrade(&shared);
            entry.1 += 1;
            entry.1 == 1
        };
        let mut folders = guard(&watches.watcher);
        if first {
            let path = folder(&shared.path).to_owned();
            let known = folders.folders.get(&path).copied();
            let watched = known.is_some_and(|(_, watched)| watched) || folders.watch(&path, &watches.followed);
            folders.folders.insert(path, (known.map_or(1, |(count, _)| count + 1), watched));
        }
        if !folders.ticking {
            folders.ticking = true;
            tokio::spawn(tick(shared.hub.clone()));
        }
        drop(folders);
        Self { shared }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let watches = &self.shared.hub.watches;
        {
            let mut buses = guard(&watches.followed.buses);
            let Some(entry) = buses.get_mut(&self.shared.path) else { return };
            entry.1 -= 1;
            if entry.1 > 0 {
                return;
            }
            buses.remove(&self.shared.path);
        }
        let mut folders = guard(&watches.watcher);
        let path = folder(&self.shared.path);
        let Some((count, watched)) = folders.folders.get_mut(path) else { return };
        *count -= 1;
        if *count == 0 {
            let watched = *watched;
            folders.folders.remove(path);
            if watched && let Some(watcher) = &mut folders.watcher {
                // A folder that is gone has no watch any more.
                let _ = watcher.unwatch(path);
            }
        }
    }
}

/// Looks at every followed bus, one task for the hub, until nobody follows.
async fn tick(hub: Arc<HubState>) {
    loop {
        tokio::time::sleep(hub.options().stat_interval).await;
        let again = hub.clone();
        let looked = tokio::task::spawn_blocking(move || again.watches.look()).await;
        if !looked.unwrap_or(false) {
            return;
        }
    }
}

#[cfg(test)]
impl Watches {
    /// From now on there are no notifications.
    pub(super) fn mute(&self) {
        guard(&self.watcher).muted = true;
    }

    /// Stops the thread that gets the notifications at the next one, until the guard is dropped.
    pub(super) fn hold(&self) -> impl Drop + '_ {
        guard(&self.followed.buses)
    }
}

impl Watches {
    /// Whether there is still anything to look at.
    fn look(&self) -> bool {
        for bus in self.followed.all() {
            bus.poke();
        }
        let mut folders = guard(&self.watcher);
        let missing: Vec<PathBuf> =
            folders.folders.iter().filter(|(_, (_, watched))| !watched).map(|(path, _)| path.clone()).collect();
        for path in missing {
            if folders.watch(&path, &self.followed)
                && let Some(entry) = folders.folders.get_mut(&path)
            {
                entry.1 = true;
            }
        }
        folders.ticking = !folders.folders.is_empty();
        folders.ticking
    }
}
