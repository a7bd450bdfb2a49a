//! Accepting connections, within bounds, through every passing failure.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use nix::errno::Errno;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};

use super::{Admission, Listener, PeerStream};

/// Connections at the same time. Each agent's client holds one for as long as a call takes, so 500 agents fit twice;
/// with a descriptor each they stay well below the usual hard limit of descriptors.
pub const MAX_CONNECTIONS: usize = 1024;
/// Connections of one process at the same time: one that floods the socket leaves room for everybody else.
pub const MAX_CONNECTIONS_OF_PROCESS: usize = 128;
/// Accepted connections that wait for the server to take them.
const HANDOVER: usize = 16;
/// Pause after a failure for want of descriptors or memory, which only time heals.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Pause between two lines in the log on the same trouble.
const QUIET: Duration = Duration::from_secs(30);

/// A connection's place among the open ones.
#[derive(Debug)]
pub(super) struct Place {
    processes: Arc<DashMap<i32, usize>>,
    pid: i32,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn take(processes: &Arc<DashMap<i32, usize>>, pid: i32, permit: OwnedSemaphorePermit) -> Option<Self> {
        let mut count = processes.entry(pid).or_insert(0);
        if *count >= MAX_CONNECTIONS_OF_PROCESS {
            return None;
        }
        *count += 1;
        drop(count);
        Some(Self { processes: Arc::clone(processes), pid, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut count) = self.processes.get_mut(&self.pid) {
            *count -= 1;
        }
        self.processes.remove_if(&self.pid, |_, count| *count == 0);
    }
}

/// A line in the log at most every [`QUIET`].
#[derive(Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= QUIET);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

/// Accepts connections until the stream is dropped. Never ends by itself; no item is an error.
///
/// # Errors
/// The socket can't be made non-blocking or registered with the runtime.
pub fn accept(listener: &Listener, admission: Admission) -> io::Result<ReceiverStream<io::Result<PeerStream>>> {
    let socket = listener.socket().try_clone()?;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UnixListener::from_std(socket)?;
    let (sender, receiver) = mpsc::channel(HANDOVER);
    tokio::spawn(async move {
        tokio::select! {
            () = accept_all(&socket, &admission, &sender) => {}
            () = sender.closed() => {}
        }
    });
    Ok(ReceiverStream::new(receiver))
}

async fn accept_all(
    listener: &tokio::net::UnixListener,
    admission: &Admission,
    sender: &mpsc::Sender<io::Result<PeerStream>>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let processes = Arc::new(DashMap::new());
    let (mut full, mut failing, mut refusing) = (Seldom::default(), Seldom::default(), Seldom::default());
    loop {
        if places.available_permits() == 0 && full.is_due() {
            warn!(limit = MAX_CONNECTIONS, "all connections are in use; new ones wait");
        }
        let Ok(permit) = Arc::clone(&places).acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                if is_exhausted(&error) {
                    if failing.is_due() {
                        warn!(%error, "no connection can be accepted for now");
                    }
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                } else {
                    debug!(%error, "a connection ended before it was accepted");
                }
                continue;
            }
        };
        match admit(socket, admission, &processes, permit) {
            Ok(stream) => {
                if sender.send(Ok(stream)).await.is_err() {
                    return;
                }
            }
            Err(reason) if refusing.is_due() => warn!(%reason, "a connection was refused"),
            Err(_) => {}
        }
    }
}

fn admit(
    socket: UnixStream,
    admission: &Admission,
    processes: &Arc<DashMap<i32, usize>>,
    permit: OwnedSemaphorePermit,
) -> Result<PeerStream, String> {
    let peer = admission.admit(&socket).map_err(|error| format!("no credentials: {error}"))?;
    let peer = peer.map_err(|uid| format!("uid {uid} is neither the daemon's nor root nor in socket_group"))?;
    let pid = peer.pid;
    let place = Place::take(processes, pid, permit)
        .ok_or_else(|| format!("process {pid} has {MAX_CONNECTIONS_OF_PROCESS} connections already"))?;
    Ok(PeerStream::new(socket, peer, Some(place)))
}

fn is_exhausted(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}
