//! conductord: the core behind a Unix socket.
//!
//! [`run`] is the whole daemon; [`open`] takes the root before anything else is touched. What Conductor does is in
//! `conductor_core`; here are the socket, rights, the gRPC services, the audit file and the service manager.

pub mod audit;
pub mod auth;
pub mod logging;
pub mod reload;
pub mod rpc;
pub mod service;
pub mod socket;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use conductor_core::config::{Config, OnShutdown};
use conductor_core::store::{DaemonLock, Root, StoreError};
use conductor_core::supervisor::{Options, StartError, Supervisor};
use conductor_core::types::Timestamp;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use audit::Audit;
use reload::Reloader;
use rpc::{Context, FileWatch, Health, Streams};
use socket::{Admission, Listener, accept};

/// How long open calls have to end once the daemon ends.
const DRAIN: Duration = Duration::from_secs(5);

/// A root that is ours alone.
#[derive(Debug)]
pub struct Opened {
    root: Root,
    lock: DaemonLock,
}

/// Opens the root and locks it, creating what is missing.
///
/// # Errors
/// [`StoreError::Locked`] if another conductord holds it; else what the file system says.
pub fn open(root: &std::path::Path) -> Result<Opened, StoreError> {
    let root = Root::open(root)?;
    let lock = root.lock_daemon(Timestamp::now())?;
    Ok(Opened { root, lock })
}

/// What a daemon is made of.
#[derive(Debug)]
pub struct Parts {
    /// The configuration in force.
    pub config: Config,
    /// Where it comes from.
    pub reloader: Reloader,
    /// The root.
    pub opened: Opened,
    /// The socket.
    pub listener: Listener,
    /// The group whose members may use it too.
    pub group: Option<u32>,
    /// The shim program.
    pub shim: PathBuf,
}

/// Why the daemon ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The supervisor did not start.
    #[error("failed to start: {0}")]
    Start(#[from] StartError),
    /// A part of the daemon could not be set up.
    #[error("failed to {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The server failed.
    #[error("the server failed: {0}")]
    Server(#[from] tonic::transport::Error),
    /// The descriptors of the services are damaged.
    #[error("the reflection of the services failed: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// How the daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Runs that go on; the next start adopts them.
    pub runs_left: u32,
}

/// What happens from outside while the daemon runs.
pub struct Signals<S> {
    /// Asks the daemon to end.
    pub shutdown: S,
    /// Asks it to read its configuration again, each time.
    pub reload: tokio::sync::mpsc::Receiver<()>,
}

/// The daemon: recovers, serves until it is asked to end, and ends within bounds.
///
/// # Errors
/// See [`RunError`].
pub async fn run(parts: Parts, mut signals: Signals<impl Future<Output = ()>>) -> Result<Ended, RunError> {
    let io = |action| move |source| RunError::Io { action, source };
    let Opened { root, lock } = parts.opened;
    let audit = Audit::start(root.conductor_file("audit.jsonl")).map_err(io("start the audit file's writer"))?;
    let socket = parts.listener.path().to_owned();
    let options = Options { root, config: Arc::new(parts.config), socket: socket.clone(), shim: parts.shim };
    // Reads the whole tree, before anything is answered.
    let supervisor = Supervisor::start(options)?;
    let uid = nix::unistd::geteuid();
    let context = Arc::new(Context {
        supervisor: supervisor.clone(),
        audit: audit.clone(),
        streams: Streams::default(),
        files: FileWatch::default(),
        reloader: parts.reloader,
        socket,
        started: Timestamp::now(),
        end: CancellationToken::new(),
        runs_left: OnceCell::new(),
    });
    let processes = supervisor.clone();
    let admission = Admission::new(uid.as_raw(), move |pid| processes.run_of_process(pid)).with_group(parts.group);
    let incoming = accept(&parts.listener, admission).map_err(io("listen"))?;
    let drained = CancellationToken::new();
    let (health, server) = rpc::serve(Arc::clone(&context), incoming, drained.clone().cancelled_owned()).await?;
    let mut server = tokio::spawn(server);
    let status = greet(&supervisor);
    service::ready(&status);
    tokio::select! {
        () = signals.shutdown => {}
        () = context.end.cancelled() => {}
        () = service::feed_watchdog(&supervisor) => {}
        () = context.reloader.follow_file(&supervisor) => {}
        () = reload_when_asked(&context, &mut signals.reload) => {}
        ended = &mut server => return Err(server_ended(ended)),
    }
    let runs_left = end(&context, &health, &drained, server).await;
    drop(parts.listener);
    let finished = tokio::task::spawn_blocking(move || audit.finish());
    if tokio::time::timeout(DRAIN, finished).await.is_err() {
        warn!("the last lines of the audit file could not be written");
    }
    drop(lock);
    Ok(Ended { runs_left })
}

fn server_ended(ended: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>) -> RunError {
    match ended {
        Ok(Err(error)) => RunError::Server(error),
        Ok(Ok(())) => RunError::Io { action: "go on serving", source: std::io::Error::other("it ended by itself") },
        Err(panic) => RunError::Io { action: "go on serving", source: std::io::Error::other(panic) },
    }
}

/// Says what was found.
fn greet(supervisor: &Supervisor) -> String {
    let found = supervisor.recovery();
    let (_, tier) = supervisor.tier();
    info!(
        root = %supervisor.root().path().display(),
        epoch = supervisor.epoch(),
        adopted = found.adopted,
        ended = found.ended,
        rescued = found.rescued,
        lost = found.lost,
        recovery_ms = found.duration_ms,
        %tier,
        "ready"
    );
    format!("adopted {}, ended {}, rescued {}, lost {}", found.adopted, found.ended, found.rescued, found.lost)
}

async fn reload_when_asked(context: &Context, asked: &mut tokio::sync::mpsc::Receiver<()>) {
    while asked.recv().await.is_some() {
        // Its problem is logged and shown.
        drop(context.reloader.reload(&context.supervisor).await);
    }
    std::future::pending().await
}

/// Ends in order: nobody is sent here any more, nothing new starts, streams end, the rest has a moment.
async fn end(
    context: &Arc<Context>,
    health: &Health,
    drained: &CancellationToken,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
) -> u32 {
    let stop_runs = context.supervisor.config().on_shutdown == OnShutdown::Stop || std::process::id() == 1;
    let what =
        if stop_runs { "the runs are stopped; their loops go on at the next start" } else { "runs that live go on" };
    info!(streams = ?context.streams.summary(), "ending: {what}");
    service::stopping(what);
    health.set(false).await;
    let runs_left = context.shut_down(stop_runs).await;
    context.streams.end_all();
    drained.cancel();
    let abort = server.abort_handle();
    if tokio::time::timeout(DRAIN, server).await.is_err() {
        warn!(open = context.streams.count(), "open calls are cut off");
        abort.abort();
    }
    info!(runs_left, "ended; runs that are left go on and are adopted by the next start");
    runs_left
}
