//! One live run, watched to its end, whoever dies meanwhile.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::sync::Arc;
use std::time::Duration;

use conductor_shim::cgroup::Cgroup;
use conductor_shim::durable;
use conductor_shim::process::{self, Pidfd};
use conductor_shim::protocol::{
    Cause, EXIT_GATE_CLOSED, Exit, FOLDER, REAPED, Reaped, STOP, Start, StatusSource, VERSION,
};
use conductor_shim::tree;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader, Interest};
use tokio::net::unix::pipe;

use super::children::{Claim, wait_for};
use super::{Runner, read_exit, read_start};
use crate::types::RunKey;

/// Rescue shims that one run gets at most: whoever kills three of them does so on purpose.
const MAX_RESCUES: u32 = 3;

/// Pause before the second rescue, longer before each later one: what killed the first may pass.
const RESCUE_PAUSE: Duration = Duration::from_millis(200);

/// How long the last resort tries to end a tree: what is left then is stuck in the kernel.
const LAST_RESORT: Duration = Duration::from_secs(10);

/// How often `start.json` of an adopted shim is looked for; it is there within milliseconds of its lock.
const START_POLL: Duration = Duration::from_millis(10);

/// How long an ended agent that is nobody's zombie any more may take to show its status: its parent, init, reaps at once.
const STATUS_WAIT: Duration = Duration::from_millis(500);

/// A run with a live shim.
#[derive(Debug)]
pub struct Watched {
    key: RunKey,
    folder: PathBuf,
    /// The shim; `None`: it is dead, and the watch begins with the rescue.
    shim: Option<Arc<Pidfd>>,
    /// The shim's pid and our claim on it, if it is our child.
    child: Option<(i32, Claim)>,
    status: Option<ChildStdout>,
    /// The agent, opened while it is known to live: how its status can be learned without a shim.
    agent: Option<Pidfd>,
    /// Keeps the agent, should it become our child, from the orphans' reaper: its status is wanted.
    claim: Option<Claim>,
}

/// What [`Runner::watch`] tells on the way.
#[derive(Debug)]
pub enum WatchEvent {
    /// The agent was executed (or its shim had got as far before we came).
    Started(Box<Start>),
    /// The shim has died and a rescue shim takes its place.
    Rescuing,
}

/// How the run ended.
#[derive(Debug)]
pub enum RunFinish {
    /// Its end is on disk.
    Exited(Box<Exit>),
    /// The agent was never executed.
    NeverStarted,
    /// What happened can't be known; the reason, for people.
    Lost(String),
}

impl Watched {
    pub(super) fn spawned(
        key: RunKey,
        folder: PathBuf,
        pid: i32,
        shim: Arc<Pidfd>,
        status: Option<ChildStdout>,
        claim: Claim,
    ) -> Self {
        Self { key, folder, shim: Some(shim), child: Some((pid, claim)), status, agent: None, claim: None }
    }

    pub(super) fn adopted(key: RunKey, folder: PathBuf, shim: Option<Arc<Pidfd>>) -> Self {
        Self { key, folder, shim, child: None, status: None, agent: None, claim: None }
    }

    /// The run.
    #[must_use]
    pub fn key(&self) -> &RunKey {
        &self.key
    }
}

/// How the wait for the shim went on.
enum Waited {
    Ended,
    Line,
}

impl Runner {
    /// Watches a run to its end. `tell` is called in order and must not block.
    ///
    /// # Errors
    /// A descriptor can't be watched (too many open files), or `/proc` can't be read.
    pub async fn watch(&self, mut run: Watched, mut tell: impl FnMut(WatchEvent)) -> io::Result<RunFinish> {
        let result = self.watch_to_end(&mut run, &mut tell).await;
        self.0.shims.remove(&run.key);
        drop(run);
        // The agent of a shim that died after its last word is ours to reap.
        self.0.children.reap_orphans();
        result
    }

    async fn watch_to_end(&self, run: &mut Watched, tell: &mut impl FnMut(WatchEvent)) -> io::Result<RunFinish> {
        self.until_shim_ends(run, tell, true).await?;
        for rescues in 0..=MAX_RESCUES {
            if let Some(exit) = blocking({
                let folder = run.folder.clone();
                move || read_exit(&folder)
            })
            .await?
            {
                return Ok(finish_of(exit));
            }
            let start = match read_start(&run.folder) {
                Ok(Some(start)) => start,
                Ok(None) => return Ok(RunFinish::NeverStarted),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.end_tree(run, None).await?;
                    return Ok(RunFinish::Lost(format!("start.json is damaged, and its shim is dead: {error}")));
                }
                Err(error) => return Err(error),
            };
            if rescues == MAX_RESCUES {
                self.end_tree(run, Some(start)).await?;
                break;
            }
            if rescues > 0 {
                tokio::time::sleep(RESCUE_PAUSE * rescues).await;
            }
            tell(WatchEvent::Rescuing);
            self.rescue(run, &start, tell).await?;
        }
        Ok(RunFinish::Lost("its shims were killed again and again; what was left of it was ended".to_owned()))
    }

    /// Waits for the shim, telling of the start when it comes.
    async fn until_shim_ends(
        &self,
        run: &mut Watched,
        tell: &mut impl FnMut(WatchEvent),
        announce: bool,
    ) -> io::Result<()> {
        let Some(shim) = run.shim.clone() else {
            if announce {
                self.announce(run, tell)?;
            }
            return Ok(());
        };
        let shim = watch_pidfd(SharedPidfd(shim))?;
        if announce {
            match run.status.take() {
                Some(status) => {
                    let mut lines = BufReader::new(pipe::Receiver::from_owned_fd(OwnedFd::from(status))?);
                    let mut line = String::new();
                    let waited = tokio::select! {
                        // The line first: a short run's shim has ended by the time we look.
                        biased;
                        read = lines.read_line(&mut line) => { read?; Waited::Line }
                        ended = shim.readable() => { ended?.retain_ready(); Waited::Ended }
                    };
                    if matches!(waited, Waited::Line) && line.starts_with("started ") {
                        self.announce(run, tell)?;
                    }
                }
                None => {
                    while !self.announce(run, tell)? {
                        tokio::select! {
                            ended = shim.readable() => { ended?.retain_ready(); break; }
                            () = tokio::time::sleep(START_POLL) => {}
                        }
                    }
                }
            }
        }
        shim.readable().await?.retain_ready();
        if let Some((pid, claim)) = run.child.take() {
            wait_for(pid)?;
            drop(claim);
        }
        Ok(())
    }

    /// Tells of the start once `start.json` is there, and takes hold of the agent.
    fn announce(&self, run: &mut Watched, tell: &mut impl FnMut(WatchEvent)) -> io::Result<bool> {
        let Some(start) = read_start(&run.folder)? else { return Ok(false) };
        run.claim = Some(self.0.children.claim(start.agent.pid));
        run.agent = Pidfd::open_verified(&start.agent)?;
        tell(WatchEvent::Started(Box::new(start)));
        Ok(true)
    }

    /// The shim is dead and has left no `exit.json`: learns the agent's status if it can, and lets a rescue shim do the
    /// rest.
    async fn rescue(&self, run: &mut Watched, start: &Start, tell: &mut impl FnMut(WatchEvent)) -> io::Result<()> {
        if start.instance != self.0.instance {
            return Ok(());
        }
        let agent = match run.agent.take() {
            Some(agent) => Some(agent),
            None => Pidfd::open_verified(&start.agent)?,
        };
        let Some(agent) = agent else {
            if let Some(status) = self.0.children.status_of(&start.agent) {
                write_status(run, status, StatusSource::Subreaper).await?;
            }
            return self.run_rescue_shim(run, tell).await;
        };
        // As long as the claim lives, only we reap the agent, if it has become our child.
        if run.claim.is_none() {
            run.claim = Some(self.0.children.claim(start.agent.pid));
        }
        if agent.has_ended()? {
            record_status(run, start, &agent).await?;
            return self.run_rescue_shim(run, tell).await;
        }
        let mut rescued = self.spawn_rescue(run).await?;
        let watched = watch_pidfd(agent)?;
        let mut recorded = false;
        {
            let shim = self.until_shim_ends(&mut rescued, tell, false);
            tokio::pin!(shim);
            loop {
                tokio::select! {
                    ended = &mut shim => { ended?; break; }
                    ended = watched.readable(), if !recorded => {
                        ended?.retain_ready();
                        record_status(run, start, watched.get_ref()).await?;
                        recorded = true;
                    }
                }
            }
        }
        run.agent = Some(watched.into_inner());
        Ok(())
    }

    /// The last resort: nobody is left to end the tree but we.
    async fn end_tree(&self, run: &Watched, start: Option<Start>) -> io::Result<()> {
        let run_id = run.key.run.to_string();
        let left = blocking(move || {
            let cgroup = start.as_ref().and_then(|start| Cgroup::open(Path::new(start.cgroup.as_deref()?)));
            if let Some(cgroup) = cgroup {
                cgroup.kill()?;
                cgroup.wait_empty(LAST_RESORT)?;
                let _ = cgroup.remove();
            }
            let scope =
                tree::Scope { above: Vec::new(), within: start.into_iter().map(|start| start.agent).collect(), run_id };
            tree::kill(&tree::System, &mut tree::Finder::new(scope), None, LAST_RESORT)
        })
        .await?;
        if !left.left.is_empty() {
            tracing::error!(run = %run.key, left = ?left.left, "processes of the run can't be ended");
        }
        Ok(())
    }

    async fn run_rescue_shim(&self, run: &Watched, tell: &mut impl FnMut(WatchEvent)) -> io::Result<()> {
        let mut rescued = self.spawn_rescue(run).await?;
        self.until_shim_ends(&mut rescued, tell, false).await
    }

    /// Spawns a rescue shim. It is signalled only once it has said that it listens; before, a signal would end it.
    async fn spawn_rescue(&self, run: &Watched) -> io::Result<Watched> {
        tracing::warn!(run = %run.key, "the shim has died; a rescue shim takes its place");
        self.0.shims.remove(&run.key);
        let mut rescued = self.spawn_shim(&run.key, &run.folder, None)?;
        if let Some(status) = rescued.status.take() {
            let mut lines = BufReader::new(pipe::Receiver::from_owned_fd(OwnedFd::from(status))?);
            // A line, or the end of a shim that has died already.
            lines.read_line(&mut String::new()).await?;
        }
        if let Some(pidfd) = &rescued.shim {
            self.0.shims.put(&run.key, Arc::clone(pidfd));
            // An order that came while nobody listened.
            if run.folder.join(FOLDER).join(STOP).exists() {
                self.0.shims.signal(&run.key, libc::SIGUSR1)?;
            }
        }
        Ok(rescued)
    }
}

/// An agent's side that saw its gate close ends with a code of its own: the shim died before it opened the gate.
pub(super) fn finish_of(exit: Exit) -> RunFinish {
    let closed = exit.rescued && exit.code == Some(EXIT_GATE_CLOSED) && exit.cause == Cause::Natural;
    if closed { RunFinish::NeverStarted } else { RunFinish::Exited(Box::new(exit)) }
}

/// Writes `reaped.json` with the ended agent's status, if there is a way to it.
async fn record_status(run: &Watched, start: &Start, agent: &Pidfd) -> io::Result<()> {
    let pid = start.agent.pid;
    let ours = process::stat(pid).is_ok_and(|stat| stat.ppid == std::process::id().cast_signed());
    let status = if ours {
        wait_for(pid)?.map(|status| (status, StatusSource::Subreaper))
    } else {
        let patience = tokio::time::Instant::now() + STATUS_WAIT;
        loop {
            if let Some(status) = process::zombie_status(&start.agent)? {
                break Some((status, StatusSource::Zombie));
            }
            match agent.exit_status()? {
                Some(status) => break Some((status, StatusSource::PidfdInfo)),
                None if tokio::time::Instant::now() >= patience => break None,
                None => tokio::time::sleep(START_POLL).await,
            }
        }
    };
    match status {
        Some((wait_status, source)) => write_status(run, wait_status, source).await,
        None => Ok(()),
    }
}

async fn write_status(run: &Watched, wait_status: i32, source: StatusSource) -> io::Result<()> {
    let path = run.folder.join(FOLDER).join(REAPED);
    blocking(move || durable::write_json(&path, &Reaped { version: VERSION, wait_status, source })).await
}

/// Registers a pidfd with the event loop: it becomes readable when its process ends.
fn watch_pidfd<T: std::os::fd::AsRawFd>(pidfd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: both types that come here own their descriptor, give the same one each time and keep it open until they
    // are dropped, which is after the registration.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(io::Error::from)
}

/// Runs file work away from the event loop.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A pidfd that the event loop watches while a stop may signal through it.
#[derive(Debug)]
struct SharedPidfd(Arc<Pidfd>);

impl std::os::fd::AsRawFd for SharedPidfd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}
