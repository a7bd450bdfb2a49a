//! Who is at the other end of a connection, as the kernel says it, and who is let in at all.

use std::io;
use std::sync::{Arc, OnceLock};

use conductor_core::supervisor::Belonging;
use conductor_core::types::RunKey;
use tokio::net::UnixStream;

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
    name: OnceLock<String>,
}

impl Peer {
    pub(crate) fn new(uid: u32, gid: u32, pid: i32, origin: Origin) -> Self {
        Self { uid, gid, pid, origin, name: OnceLock::new() }
    }

    /// Name of its user, for people. The first call looks into the user database.
    #[must_use]
    pub fn user(&self) -> &str {
        self.name.get_or_init(|| {
            let user = nix::unistd::User::from_uid(self.uid.into()).ok().flatten();
            user.map_or_else(|| "user".to_owned(), |user| user.name)
        })
    }
}

/// Decides whether a connection is accepted, and finds out where it comes from.
#[derive(Clone)]
pub struct Admission {
    own_uid: u32,
    group: Option<u32>,
    run_of_process: Arc<dyn Fn(i32) -> Belonging + Send + Sync>,
}

impl Admission {
    /// Lets in the user `own_uid` and root. `run_of_process` says in which run's tree a process is; it is called while
    /// a connection is accepted and must not wait.
    pub fn new(own_uid: u32, run_of_process: impl Fn(i32) -> Belonging + Send + Sync + 'static) -> Self {
        Self { own_uid, group: None, run_of_process: Arc::new(run_of_process) }
    }

    /// Lets in the members of a group too.
    #[must_use]
    pub fn with_group(self, group: Option<u32>) -> Self {
        Self { group, ..self }
    }

    /// The peer at the other end, or the uid of one who is not let in.
    ///
    /// # Errors
    /// The kernel does not say who it is.
    pub(super) fn admit(&self, socket: &UnixStream) -> io::Result<Result<Peer, u32>> {
        let credentials = socket.peer_cred()?;
        let (uid, gid) = (credentials.uid(), credentials.gid());
        let is_member = |group| group == gid || peer_groups(socket).contains(&group);
        if uid != self.own_uid && uid != 0 && !self.group.is_some_and(is_member) {
            return Ok(Err(uid));
        }
        let pid = credentials.pid().unwrap_or(0);
        Ok(Ok(Peer::new(uid, gid, pid, self.origin(pid))))
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

/// The further groups that the process had when it connected, as the kernel keeps them with the connection: what the
/// group database says by now does not matter.
#[cfg(target_os = "linux")]
fn peer_groups(socket: &UnixStream) -> Vec<u32> {
    use std::os::fd::AsRawFd as _;

    /// Groups that are asked for first; more are asked for again with the length that the kernel names.
    const USUAL: usize = 64;
    let mut groups: Vec<libc::gid_t> = vec![0; USUAL];
    for _ in 0..2 {
        let Ok(mut bytes) = libc::socklen_t::try_from(size_of_val(&groups[..])) else { return Vec::new() };
        // SAFETY: the buffer is as long as said, and of a type that any bytes are.
        let result = unsafe {
            let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERGROUPS);
            libc::getsockopt(socket.as_raw_fd(), level, option, groups.as_mut_ptr().cast(), &raw mut bytes)
        };
        groups.resize(bytes as usize / size_of::<libc::gid_t>(), 0);
        if result == 0 {
            return groups;
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::ERANGE) {
            break;
        }
    }
    Vec::new()
}

/// Elsewhere only the effective group is known.
#[cfg(not(target_os = "linux"))]
fn peer_groups(_: &UnixStream) -> Vec<u32> {
    Vec::new()
}
