//! The supervisor: everything that Conductor does, behind one handle.
//!
//! | part | what |
//! | --- | --- |
//! | [`Supervisor`] | what callers use: reads from the catalog, commands that answer once they are durable |
//! | `dispatch` | the one owner of mutable state; waits for nothing |
//! | `perform` | writes, posts, starts and stops; one job at a time for each task |
//! | `confine` | what a run may write to |
//! | `check` | what would keep a run from starting |
//! | `prepare`, `finalize` | the begin and the end of a run |
//! | `submit` | a new task, whole or not at all |
//! | `tasks`, `projects` | the commands |
//! | `idle` | runs without a sign of life |
//! | `recover` | what a start of conductord finds |
//! | `accounts` | which accounts take no work for now |
//! | `usage` | what agents used, added up |
//! | `queue` | slots, and who waits for one |
//! | `tokens`, `origin` | which run a call comes from |
//!
//! All futures here are cancel-safe: a caller that goes away neither undoes nor halves what it asked for.

mod accounts;
mod check;
mod command;
mod confine;
mod delete;
mod deletions;
mod dispatch;
mod entry;
mod finalize;
mod idle;
mod inspect;
mod origin;
mod perform;
mod prepare;
mod projects;
mod queue;
mod record;
mod recover;
mod requests;
mod say;
mod shared;
mod submit;
mod tasks;
mod tokens;
mod usage;
mod views;
mod waits;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use conductor_shim::protocol::Tier;
use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};

use crate::agents::Host;
use crate::agents::confine::Trial;
use crate::bus::BusHub;
use crate::config::{CgroupMode, Config};
use crate::runner::Runner;
use crate::store::{Catalog, IdSource, Root, StoreError};
use crate::types::{RunKey, RunStatus, TaskKey, Timestamp};

pub use accounts::AccountTrouble;
pub use check::{AgentCheck, CheckReport, CheckRequest};
pub use command::{Caller, CommandError, MAX_PROMPT, MAX_REQUEST_ID, ResumeRequest, SpecDraft, StopRequest, Submit};
pub use inspect::{AgentInfo, ProcessInfo};
pub use origin::Belonging;
pub use recover::RecoverySummary;
pub use usage::{UsageGroup, UsageQuery, UsageReport, UsageRow};

use accounts::Accounts;
use deletions::Deletions;
use dispatch::{Dispatcher, Gauges, Message};
use idle::IdleWatch;
use recover::Recovered;
use shared::{Settings, Shared, bus_options};
use tokens::Tokens;
use usage::Ledger;

/// How long a shutdown that stops the runs waits for them beyond the pauses of their stop.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(15);

/// How often a shutdown looks whether the runs are gone.
const SHUTDOWN_POLL: Duration = Duration::from_millis(20);

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("epoch", &self.0.epoch).finish_non_exhaustive()
    }
}

struct Inner {
    shared: Arc<Shared>,
    gauges: Arc<Gauges>,
    started: Instant,
    tx: mpsc::UnboundedSender<Message>,
    recovered: Recovered,
    epoch: u64,
    /// One at a time for each request id, so that a repetition waits for the first.
    requests: DashMap<String, Arc<tokio::sync::Mutex<()>>>,
    /// One at a time asks the agents' programs for their versions: they may hang for 10 s each.
    probing: tokio::sync::Mutex<()>,
    deletions: Deletions,
}

/// What a supervisor is made of.
#[derive(Debug)]
pub struct Options {
    /// The root, whose daemon lock the caller holds.
    pub root: Root,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The socket that agents are told.
    pub socket: PathBuf,
    /// The shim program.
    pub shim: PathBuf,
}

/// Why there is no supervisor.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system failed.
    #[error("failed to {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
}

/// Numbers for `daemon info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs that hold a slot.
    pub live_runs: u32,
    /// Slots.
    pub max_concurrent_runs: u32,
    /// Tasks that wait for one.
    pub queued_tasks: u32,
}

impl Supervisor {
    /// Recovers what the root holds and begins to work. Blocks for reading the tree; call it inside the runtime.
    ///
    /// # Errors
    /// The root can't be read or written, or the kernel refuses what runs need.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let started = Instant::now();
        let io = |doing| move |source| StartError::Io { doing, source };
        let root = options.root;
        let epoch = root.bump_epoch(Timestamp::now())?;
        let use_cgroup = options.config.cgroup == CgroupMode::Auto;
        let runner = Runner::new(options.shim, use_cgroup, root.path()).map_err(io("prepare for runs"))?;
        let tokens = Tokens::open(&root.conductor_file("secret")).map_err(io("read the root's secret"))?;
        let host = Arc::new(Host::current());
        let shared = Arc::new(Shared {
            idle: IdleWatch::default(),
            trial: Trial::default(),
            accounts: Accounts::open(root.conductor_file("accounts.yaml")),
            ledger: Ledger::open(root.conductor_file("usage-deleted.jsonl")),
            catalog: Catalog::new(epoch),
            buses: BusHub::new(bus_options(&options.config.bus)),
            ids: IdSource::new(Arc::new(Timestamp::now), std::process::id()),
            root,
            runner,
            tokens,
            socket: options.socket,
            settings: Settings::new(options.config, &host),
            host,
        });
        let deletions = Deletions::open(shared.root.conductor_file("deletions.json"));
        let gauges = Arc::new(Gauges::default());
        let (tx, rx) = mpsc::unbounded_channel();
        let (recovered, later) = recover::recover(&shared, &tx)?;
        let mut dispatcher = Dispatcher::new(Arc::clone(&shared), Arc::clone(&gauges), started, (tx.clone(), rx));
        dispatcher.take_over();
        tokio::spawn(dispatcher.run());
        // What lives is watched from its descriptors on, a moment later: none of it keeps callers waiting.
        tokio::spawn(async move { later.into_iter().for_each(|work| drop(tokio::spawn(work))) });
        tokio::spawn(idle::watch(Arc::clone(&shared)));
        tokio::spawn(reap_orphans(shared.runner.children().clone()));
        let worker = Arc::clone(&shared);
        tokio::task::spawn_blocking(move || end_strays(&worker));
        Ok(Self(Arc::new(Inner {
            shared,
            gauges,
            started,
            tx,
            recovered,
            epoch,
            requests: DashMap::new(),
            probing: tokio::sync::Mutex::default(),
            deletions,
        })))
    }

    /// What readers ask.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.0.shared.catalog
    }

    /// The buses.
    #[must_use]
    pub fn bus_hub(&self) -> &BusHub {
        &self.0.shared.buses
    }

    /// The tree of files.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.0.shared.root
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.0.shared.config()
    }

    /// Puts another configuration in force. Runs that live keep what they were started with.
    pub fn set_config(&self, config: Arc<Config>) {
        self.0.shared.set_config(config);
        self.tell(Message::Reconfigured);
    }

    /// Numbers.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let queued = self.0.gauges.queue.lock().unwrap_or_else(PoisonError::into_inner).len();
        Counts {
            live_runs: u32::try_from(self.0.gauges.runs.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            max_concurrent_runs: self.config().defaults.max_concurrent_runs,
            queued_tasks: u32::try_from(queued).unwrap_or(u32::MAX),
        }
    }

    /// A task's place in the queue from 1; 0: it does not wait.
    #[must_use]
    pub fn queue_position(&self, key: &TaskKey) -> u32 {
        let queue = self.0.gauges.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let place = queue.iter().position(|waiting| waiting == key);
        place.map_or(0, |place| u32::try_from(place + 1).unwrap_or(u32::MAX))
    }

    /// What the start found.
    #[must_use]
    pub fn recovery(&self) -> RecoverySummary {
        self.0.recovered.summary
    }

    /// Files that can't be read, each with its reason.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.0.recovered.problems
    }

    /// How process trees of new runs are found and ended, and why so.
    #[must_use]
    pub fn tier(&self) -> (Tier, String) {
        let (tier, reason) = self.0.shared.runner.tier();
        (tier, reason.to_owned())
    }

    /// Number of starts on this root.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// When the dispatcher last turned: within seconds also when nothing happens.
    #[must_use]
    pub fn heartbeat(&self) -> Instant {
        self.0.started + Duration::from_millis(self.0.gauges.heartbeat.load(Ordering::Relaxed))
    }

    /// The live run that a token belongs to.
    #[must_use]
    pub fn run_token_holder(&self, token: &str) -> Option<RunKey> {
        let key = self.0.shared.tokens.verify(token)?;
        let run = self.catalog().run(&key)?;
        (run.status == RunStatus::Running).then_some(key)
    }

    /// Where a process belongs. Looks into `/proc`.
    #[must_use]
    pub fn run_of_process(&self, pid: i32) -> Belonging {
        let shared = &self.0.shared;
        let (cgroups, root) = (shared.runner.cgroup_parent(), shared.root.path());
        origin::Marks { catalog: &shared.catalog, cgroups, root }.belonging(pid)
    }

    /// Starts nothing any more. With `stop_runs` the live runs are ended, without a stop intent: their loops go on at the
    /// next start. Returns the number of runs that are left alive.
    pub async fn shutdown(&self, stop_runs: bool) -> u32 {
        let (reply, done) = oneshot::channel();
        self.tell(Message::ShutDown { stop_runs, reply });
        let _ = done.await;
        if stop_runs {
            let config = self.config();
            let patience = config.stop.int_grace.get() + config.stop.term_grace.get() + SHUTDOWN_MARGIN;
            let deadline = tokio::time::Instant::now() + patience;
            while self.live_runs() > 0 && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(SHUTDOWN_POLL).await;
            }
        }
        u32::try_from(self.live_runs()).unwrap_or(u32::MAX)
    }

    fn live_runs(&self) -> usize {
        self.0.shared.runner.shims().count()
    }

    fn tell(&self, message: Message) {
        // The dispatcher ends with the process: a message to nobody is one that nobody waits for.
        let _ = self.0.tx.send(message);
    }
}

/// Ends the shims of runs whose folders were removed while no conductord was there: nobody else knows of them.
fn end_strays(shared: &Shared) {
    match shared.runner.end_strays(shared.root.path()) {
        Ok(0) => {}
        Ok(count) => tracing::warn!(count, "runs without a folder were told to end"),
        Err(error) => tracing::warn!(%error, "shims without a folder can't be looked for"),
    }
}

/// Reaps what dead shims leave to us, whenever a child changes state.
async fn reap_orphans(children: crate::runner::Children) {
    let Ok(mut signals) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child()) else {
        tracing::error!("SIGCHLD can't be received; orphans of dead shims stay zombies");
        return;
    };
    while signals.recv().await.is_some() {
        children.reap_orphans();
    }
}
