//! The start of a run: everything durable first, then the shim.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use conductor_shim::durable;
use conductor_shim::failpoint;
use conductor_shim::process::Pidfd;
use conductor_shim::protocol::{FOLDER, SPEC, Spec};

use super::Runner;
use super::watch::Watched;
use crate::store::{self, Root, StoreError};
use crate::types::{RunInfo, RunKey};

/// Name of the file that takes what a shim says on standard error: nothing, unless it fails.
const SHIM_LOG: &str = "shim.log";

/// Variables of ours that a shim inherits: how a test reaches its failpoints. An agent gets nothing of them.
const SHIM_ENVIRONMENT: [&str; 2] = ["CONDUCTOR_FAILPOINTS", "RUST_BACKTRACE"];

/// A run that is ready to start.
#[derive(Debug)]
pub struct LaunchPlan {
    /// Its key.
    pub key: RunKey,
    /// Its folder.
    pub folder: PathBuf,
    /// What the shim is to do.
    pub spec: Spec,
    /// The secret variables of the agent, which never go to disk.
    pub secrets: Secrets,
    /// Its record, of status running.
    pub info: RunInfo,
}

/// Variables and their secret values. Its `Debug` shows names only.
#[derive(Default)]
pub struct Secrets(Vec<(String, String)>);

impl Secrets {
    /// Takes the variables with these names out of an environment.
    #[must_use]
    pub fn split_off(environment: &mut Vec<(String, String)>, names: &[String]) -> Self {
        let (secret, open) = std::mem::take(environment).into_iter().partition(|(name, _)| names.contains(name));
        *environment = open;
        Self(secret)
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    fn write(&self, mut to: impl io::Write) -> io::Result<()> {
        for (name, value) in &self.0 {
            to.write_all(format!("{name}={value}\0").as_bytes())?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Why a run did not start. Nothing of it lives.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A file could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A step failed.
    #[error("failed to {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl LaunchError {
    fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

impl Runner {
    /// Starts a run. Blocks for its durable writes. The caller must have written durably, before, that this run exists.
    ///
    /// # Errors
    /// See [`LaunchError`]; then no process of the run exists.
    pub fn launch(&self, root: &Root, plan: &LaunchPlan) -> Result<Watched, LaunchError> {
        let fail = |name| failpoint::hit(name).map_err(LaunchError::io("reach a failpoint"));
        let shim_folder = plan.folder.join(FOLDER);
        fail("daemon.start.before_spec")?;
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&shim_folder)
            .map_err(LaunchError::io("create the shim's folder"))?;
        durable::write_json(&shim_folder.join(SPEC), &plan.spec).map_err(LaunchError::io("write spec.json"))?;
        fail("daemon.start.after_spec")?;
        store::run_info::write(root, &plan.info)?;
        fail("daemon.start.after_run_info")?;
        fail("daemon.start.before_spawn")?;
        let watched =
            self.spawn_shim(&plan.key, &plan.folder, Some(&plan.secrets)).map_err(LaunchError::io("start the shim"))?;
        fail("daemon.start.after_spawn")?;
        Ok(watched)
    }

    /// Spawns a shim with the secrets of its agent, or (without) a rescue shim, for the run in `folder`.
    ///
    /// By `posix_spawn`: no `pre_exec` and no process group, so that the rate does not fall with our own size. The shim
    /// makes its session itself.
    pub(super) fn spawn_shim(
        &self,
        key: &RunKey,
        folder: &std::path::Path,
        start: Option<&Secrets>,
    ) -> io::Result<Watched> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
            .open(folder.join(FOLDER).join(SHIM_LOG))?;
        let mut command = Command::new(&self.0.shim);
        if start.is_none() {
            command.arg("--rescue");
        }
        let secrets = start.filter(|secrets| !secrets.0.is_empty());
        let stdin = if secrets.is_some() { Stdio::piped() } else { Stdio::null() };
        command.arg(folder).env_clear().stdin(stdin).stdout(Stdio::piped()).stderr(log);
        for name in SHIM_ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let (mut child, claim) = self.0.children.spawn(|| command.spawn())?;
        let pid = i32::try_from(child.id()).expect("a pid is positive and fits");
        // Our child can't be reaped by anybody else, so the pid means it.
        let pidfd = match Pidfd::open(pid) {
            Ok(pidfd) => Arc::new(pidfd),
            Err(error) => {
                // What can't be watched must not run.
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        if let (Some(secrets), Some(stdin)) = (secrets, child.stdin.take()) {
            // A shim that has died meanwhile is noticed by whoever watches it.
            let _ = secrets.write(stdin);
        }
        let status = child.stdout.take();
        if start.is_some() {
            self.0.shims.put(key, Arc::clone(&pidfd));
        }
        Ok(Watched::spawned(key.clone(), folder.to_owned(), pid, pidfd, status, claim))
    }
}
