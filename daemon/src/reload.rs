//! Taking over a changed configuration: on SIGHUP, on `ReloadConfig`, and when the file changes.
//!
//! A bad file changes nothing: the last good one stays in force, and the problem is kept to be shown.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conductor_core::config::{Config, Env, Flags};
use conductor_core::supervisor::Supervisor;
use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};

/// Pause after the file changed, so that an editor that writes it in pieces is done.
const SETTLE: Duration = Duration::from_millis(200);

/// Where the configuration comes from, and what is wrong with it now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reloader {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None`: there is no file yet. A reload looks for one.
    path: Mutex<Option<PathBuf>>,
    /// A file was found that was not there at the start.
    found: Notify,
    flags: Flags,
    env: Env,
    /// Why the file is not in force; empty: it is.
    problem: Mutex<String>,
    /// One reload at a time, so that an older text never replaces a newer one.
    turn: tokio::sync::Mutex<()>,
}

impl Reloader {
    /// The file (`None`: there is none), and what overrides it.
    #[must_use]
    pub fn new(path: Option<PathBuf>, flags: Flags, env: Env) -> Self {
        let inner = Inner {
            path: Mutex::new(path),
            found: Notify::new(),
            flags,
            env,
            problem: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        self.inner.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The file; one that was made after the start is found where it would have been then.
    fn find(&self) -> Option<PathBuf> {
        if let Some(path) = self.path() {
            return Some(path);
        }
        let path = Config::find(None, &self.inner.env)?;
        info!(path = %path.display(), "a configuration was made");
        *self.inner.path.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.clone());
        self.inner.found.notify_one();
        Some(path)
    }

    /// Why the file is not in force; empty: it is.
    #[must_use]
    pub fn problem(&self) -> String {
        self.inner.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_problem(&self, problem: &str) {
        problem.clone_into(&mut self.inner.problem.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn read(&self) -> Result<Config, String> {
        let config = match self.find() {
            Some(path) => Config::load(&path, &self.inner.env),
            None => Ok(Config::default()),
        };
        config.and_then(|config| config.apply(&self.inner.flags, &self.inner.env)).map_err(|error| error.to_string())
    }

    /// Reads the file and puts it in force. Returns the keys whose change needs a restart.
    ///
    /// # Errors
    /// What is wrong with the file; nothing has changed then.
    pub async fn reload(&self, supervisor: &Supervisor) -> Result<Vec<&'static str>, String> {
        let _turn = self.inner.turn.lock().await;
        let reloader = self.clone();
        let read = tokio::task::spawn_blocking(move || reloader.read()).await;
        let read = read.unwrap_or_else(|_| Err("the daemon is ending".to_owned()));
        match read {
            Ok(config) => {
                self.set_problem("");
                let old = supervisor.config();
                let restart_needed = Config::diff_restart_needed(&old, &config);
                if *old != config {
                    info!(?restart_needed, "the configuration has changed");
                    supervisor.set_config(Arc::new(config));
                }
                Ok(restart_needed)
            }
            Err(problem) => {
                error!(%problem, "the configuration is not valid; the last good one stays in force");
                self.set_problem(&problem);
                Err(problem)
            }
        }
    }

    /// Reloads whenever the file changes, for as long as it is polled.
    pub async fn follow_file(&self, supervisor: &Supervisor) {
        let changed = Arc::new(Notify::new());
        if self.path().is_none() {
            self.inner.found.notified().await;
        }
        // Dropped with this future, which ends the watch.
        let Some(_watcher) = self.watch(Arc::clone(&changed)) else { return std::future::pending().await };
        loop {
            // First also without a notification: the file may have changed between its reading and the watch.
            // Its problem is logged and shown.
            drop(self.reload(supervisor).await);
            changed.notified().await;
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// Watches the file's folder, since editors replace the file.
    fn watch(&self, changed: Arc<Notify>) -> Option<notify::RecommendedWatcher> {
        let path = std::path::absolute(self.path()?).ok()?;
        let (folder, name) = (path.parent()?.to_owned(), path.file_name()?.to_owned());
        let handler = move |event: notify::Result<notify::Event>| {
            let concerns = event.as_ref().is_ok_and(|event| {
                !matches!(event.kind, notify::EventKind::Access(_))
                    && event.paths.iter().any(|path| path.file_name() == Some(&name))
            });
            if concerns {
                changed.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(handler).and_then(|mut watcher| {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => {
                debug!(path = %path.display(), "a change of the configuration is noticed by itself");
                Some(watcher)
            }
            Err(error) => {
                warn!(%error, "a change of the configuration is noticed on SIGHUP only");
                None
            }
        }
    }
}
