//! The run's leader, the agent itself: a child of this shim, or an orphan that a rescue shim watches.

use conductor_shim::durable;
use conductor_shim::process::{self, Identity, Pidfd};
use conductor_shim::protocol::{Reaped, StatusSource};
use conductor_shim::tree::{ProcessTable, System};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a rescue shim waits, after the orphan's end, for whoever reaps it to say or show its status.
const STATUS_TIME: Duration = Duration::from_secs(1);
/// Pause between two looks for that status.
const STATUS_PAUSE: Duration = Duration::from_millis(5);

/// The leader.
#[derive(Debug)]
pub(super) enum Leader {
    /// Our child. It stays a zombie until the record is written, so that its pid can't be reused before.
    Child { pid: i32, pidfd: Option<Pidfd> },
    /// Another's child, alive when the rescue began.
    Orphan { identity: Identity, pidfd: Pidfd },
    /// Dead when the rescue began, or never known. `may_be_told`: it died in this boot, so that conductord, which may
    /// be reaping it at this moment, can still say its status.
    Gone { may_be_told: bool },
}

/// How the leader ended, as far as it can be known.
#[derive(Debug, Default)]
pub(super) struct Ending {
    pub(super) status: Option<(i32, StatusSource)>,
    pub(super) user: Duration,
    pub(super) system: Duration,
    pub(super) max_rss_kib: u64,
}

impl Leader {
    /// Whether it was dead before this program looked.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }

    pub(super) fn pid(&self) -> Option<i32> {
        match self {
            Self::Child { pid, .. } => Some(*pid),
            Self::Orphan { identity, .. } => Some(identity.pid),
            Self::Gone { .. } => None,
        }
    }

    /// A descriptor that becomes readable at the leader's end; -1 where a signal alone tells.
    pub(super) fn descriptor(&self) -> RawFd {
        match self {
            Self::Child { pidfd: Some(pidfd), .. } | Self::Orphan { pidfd, .. } => pidfd.as_raw_fd(),
            Self::Child { pidfd: None, .. } | Self::Gone { .. } => -1,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        match self {
            // An error of waitid would mean that the child isn't ours: it can't be, since nobody reaps it.
            Self::Child { pid, .. } => wait_without_reaping(*pid).is_ok_and(|ending| ending.is_some()),
            Self::Orphan { identity, pidfd } => pidfd.has_ended().unwrap_or_else(|_| !process::is_alive(identity)),
            Self::Gone { .. } => true,
        }
    }

    /// SIGINT to the agent's process group.
    pub(super) fn interrupt(&self) {
        match self {
            // SAFETY: kill takes no pointers. The group's number is the pid of our unreaped child: it can't be reused.
            Self::Child { pid, .. } => unsafe {
                libc::kill(-pid, libc::SIGINT);
            },
            // Not our child: each member of the group by its verified identity.
            Self::Orphan { identity, pidfd } => {
                let group: Vec<_> = System
                    .list()
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|process| process.pgid == identity.pid && process.pid != identity.pid)
                    .collect();
                // Read while the leader lived: nobody else can have had a group of its number.
                if !pidfd.has_ended().unwrap_or(true) {
                    conductor_shim::tree::signal(&System, &group, libc::SIGINT);
                }
                // It may have ended meanwhile, which is what was wanted.
                let _ = pidfd.send_signal(libc::SIGINT);
            }
            Self::Gone { .. } => {}
        }
    }

    /// How it ended. A child's zombie stays; an orphan's status is awaited for a second. `reaped` is the file in which
    /// conductord says what it got.
    pub(super) fn ending(&self, reaped: &Path) -> Ending {
        match self {
            Self::Child { pid, .. } => wait_without_reaping(*pid).ok().flatten().unwrap_or_default(),
            Self::Orphan { pidfd, .. } => Ending { status: awaited_status(reaped, Some(pidfd)), ..Ending::default() },
            Self::Gone { may_be_told: true } => Ending { status: awaited_status(reaped, None), ..Ending::default() },
            Self::Gone { may_be_told: false } => Ending { status: told_status(reaped), ..Ending::default() },
        }
    }

    /// Lets the kernel forget the child; its pid can be reused from here on.
    pub(super) fn reap(&self) {
        if let Self::Child { pid, .. } = self {
            System.reap(*pid);
        }
    }
}

fn told_status(reaped: &Path) -> Option<(i32, StatusSource)> {
    let told: Reaped = durable::read_json(reaped).ok()?;
    Some((told.wait_status, told.source))
}

fn awaited_status(reaped: &Path, pidfd: Option<&Pidfd>) -> Option<(i32, StatusSource)> {
    let deadline = Instant::now() + STATUS_TIME;
    loop {
        if let Some(told) = told_status(reaped) {
            return Some(told);
        }
        if let Some(Ok(Some(status))) = pidfd.map(Pidfd::exit_status) {
            return Some((status, StatusSource::PidfdInfo));
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(STATUS_PAUSE);
    }
}

/// The status of an ended child, which stays a zombie. `None`: it lives.
///
/// The kernel's `waitid` has a fifth argument that the C library hides: resource usage, given also with `WNOWAIT`.
fn wait_without_reaping(pid: i32) -> io::Result<Option<Ending>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
    // SAFETY: both pointers are valid for writes of their types, for which all zeros is a value. The fields of a
    // SIGCHLD siginfo are read, which is what waitid fills in (si_pid is 0 if nothing has ended).
    unsafe {
        let result = libc::syscall(libc::SYS_waitid, libc::P_PID, pid, info.as_mut_ptr(), options, usage.as_mut_ptr());
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let (info, usage) = (info.assume_init(), usage.assume_init());
        if info.si_pid() == 0 {
            return Ok(None);
        }
        let status = match info.si_code {
            libc::CLD_EXITED => info.si_status() << 8,
            libc::CLD_DUMPED => info.si_status() | 0x80,
            _ => info.si_status(),
        };
        Ok(Some(Ending {
            status: Some((status, StatusSource::Parent)),
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
            max_rss_kib: usage.ru_maxrss.unsigned_abs(),
        }))
    }
}

/// What the children that were reaped so far have used.
pub(super) fn reaped_usage() -> Ending {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is valid for writes; all zeros is a value of the type.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    Ending {
        status: None,
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        max_rss_kib: usage.ru_maxrss.unsigned_abs(),
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
}
