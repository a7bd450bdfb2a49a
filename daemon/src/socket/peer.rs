//! Who is at the other end of a connection, as the kernel says it, and who is let in at all.

use std::sync::Arc;

use conductor_core::supervisor::Belonging;
use conductor_core::types::RunKey;
use tokio::net::unix::UCred;

/// Where a connection was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A process outside of every run.
    Outside,
    /// A process in the tree of a run.
    Inside(RunKey),
    /// A process of a run that has ended, or one that can't be looked at: of another pid namespace, or gone already.
    Unknown,
}

/// The other end of a connection. The process is the one that connected; it may have passed the connection on.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its effective user when it connected.
    pub uid: u32,
    /// Its effective group then.
    pub gid: u32,
    /// Its pid; 0: of another pid namespace.
    pub pid: i32,
    /// Where it is.
    pub origin: Origin,
}

/// Decides whether a connection is accepted, and finds out where it comes from.
#[derive(Clone)]
pub struct Admission {
    own_uid: u32,
    run_of_process: Arc<dyn Fn(i32) -> Belonging + Send + Sync>,
}

impl Admission {
    /// Lets in the user `own_uid` and root. `run_of_process` says in which run's tree a process is; it is called while
    /// a connection is accepted and must not wait.
    pub fn new(own_uid: u32, run_of_process: impl Fn(i32) -> Belonging + Send + Sync + 'static) -> Self {
        Self { own_uid, run_of_process: Arc::new(run_of_process) }
    }

    /// The peer with these credentials; `None`: it is another user's.
    pub(super) fn admit(&self, credentials: &UCred) -> Option<Peer> {
        let uid = credentials.uid();
        if uid != self.own_uid && uid != 0 {
            return None;
        }
        let pid = credentials.pid().unwrap_or(0);
        Some(Peer { uid, gid: credentials.gid(), pid, origin: self.origin(pid) })
    }

    fn origin(&self, pid: i32) -> Origin {
        if pid <= 0 {
            return Origin::Unknown;
        }
        match (self.run_of_process)(pid) {
            Belonging::Run(run) => Origin::Inside(run),
            Belonging::Outside => Origin::Outside,
            Belonging::Unknown => Origin::Unknown,
        }
    }
}
