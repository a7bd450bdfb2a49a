//! The real conductord in a sandbox: started, waited for, killed and started again.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{Client, Config, DEADLINE, Sandbox, wait_until};

/// A running conductord. Dropping it kills it; the sandbox then ends what it left.
pub struct Daemon<'a> {
    sandbox: &'a Sandbox,
    child: Child,
    log: PathBuf,
    ended: bool,
}

impl<'a> Daemon<'a> {
    /// Writes the configuration, starts the daemon and waits until it answers.
    ///
    /// # Errors
    /// It ended, or did not answer in time; its log is in the message.
    pub fn start(sandbox: &'a Sandbox, config: &Config) -> Result<Self> {
        std::fs::write(sandbox.config_path(), config.yaml())?;
        Self::again(sandbox)
    }

    /// Starts the daemon with the configuration that is there and waits until it answers.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn again(sandbox: &'a Sandbox) -> Result<Self> {
        let mut daemon = Self::spawn(sandbox, &[])?;
        daemon.ready()?;
        Ok(daemon)
    }

    /// Starts the daemon with active failpoints (`name=action;…`) and waits until it answers or ends, as it may.
    ///
    /// # Errors
    /// It can't be started.
    pub fn with_failpoints(sandbox: &'a Sandbox, failpoints: &str) -> Result<Self> {
        Self::spawn(sandbox, &[("CONDUCTOR_FAILPOINTS", failpoints)])
    }

    /// Starts the daemon with further variables and does not wait.
    ///
    /// # Errors
    /// It can't be started.
    pub fn spawn(sandbox: &'a Sandbox, variables: &[(&str, &str)]) -> Result<Self> {
        let number = (1..).find(|n| !log_path(sandbox, *n).exists()).context("a free log name")?;
        let log = log_path(sandbox, number);
        let file = File::create(&log)?;
        let mut command = sandbox.command(sandbox.program("conductord"));
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        for (name, value) in variables {
            command.env(name, value);
        }
        let child = command.spawn().context("starting conductord")?;
        Ok(Self { sandbox, child, log, ended: false })
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// It ended or did not answer in time; its log is in the message.
    pub fn ready(&mut self) -> Result<()> {
        let mut status = None;
        let waited = wait_until("conductord answers", DEADLINE, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some() || Client::connect(&self.sandbox.socket()).is_ok()
        });
        if let Some(status) = status {
            self.ended = true;
            bail!("conductord ended at its start: {status}\n{}", self.log_text());
        }
        waited.with_context(|| self.log_text())
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// A new connection to it, as a person on this machine.
    ///
    /// # Errors
    /// It does not answer.
    pub fn client(&self) -> Result<Client> {
        Client::connect(&self.sandbox.socket()).with_context(|| self.log_text())
    }

    /// What it logged so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        format!("--- {} ---\n{text}", self.log.display())
    }

    /// Ends it as a power cut would, and waits for its end.
    ///
    /// # Errors
    /// It had ended before.
    pub fn kill9(mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "conductord had ended before the kill\n{}", self.log_text());
        self.child.kill()?;
        self.child.wait()?;
        self.ended = true;
        Ok(())
    }

    /// Sends SIGTERM and waits for its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM);
        self.wait_end(DEADLINE)
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes no pointers; the child is not reaped yet, so that its pid is its own.
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn wait_end(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let mut status = None;
        wait_until("conductord ends", deadline, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })
        .with_context(|| self.log_text())?;
        self.ended = true;
        status.context("the wait found a status")
    }

    /// Whether it was ended by SIGKILL, as a failpoint does it; `None` while it lives.
    #[must_use]
    pub fn died_of_kill(&mut self) -> Option<bool> {
        let status = self.child.try_wait().ok().flatten()?;
        self.ended = true;
        Some(status.signal() == Some(libc::SIGKILL))
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn log_path(sandbox: &Sandbox, number: u32) -> PathBuf {
    sandbox.path().join(format!("conductord-{number}.log"))
}
