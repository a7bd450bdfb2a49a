//! The shim's signals: three are read from a descriptor, four are ignored, the rest keep their default.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::time::Duration;

/// What came since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    /// SIGCHLD: children have ended.
    pub(super) children: bool,
    /// SIGUSR1: stop.json is new.
    pub(super) reread: bool,
    /// SIGTERM, that many times (signals of one kind that are pending together count once).
    pub(super) terminate: u32,
}

/// The descriptor of blocked signals.
#[derive(Debug)]
pub(super) struct Signals {
    file: File,
}

impl Signals {
    /// Blocks CHLD, USR1 and TERM and reads them from here on; ignores HUP, INT, QUIT and PIPE.
    pub(super) fn take_over() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set before anything reads it; the descriptor returned is new and ours.
        unsafe {
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE] {
                libc::signal(signal, libc::SIG_IGN);
            }
            // An inherited "ignore" would make the kernel reap the leader by itself.
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGCHLD, libc::SIGUSR1, libc::SIGTERM] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            // SETMASK, not BLOCK: what the parent had blocked is not blocked here.
            if libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let descriptor = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self { file: File::from_raw_fd(descriptor) })
        }
    }

    /// Takes what is pending, without waiting.
    pub(super) fn drain(&mut self) -> io::Result<Pending> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut pending = Pending::default();
        let mut buffer = [0u8; SIZE * 4];
        loop {
            match self.file.read(&mut buffer) {
                Ok(length) => {
                    for record in buffer[..length].chunks_exact(SIZE) {
                        // ssi_signo is the first field.
                        let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]) as i32;
                        match number {
                            libc::SIGCHLD => pending.children = true,
                            libc::SIGUSR1 => pending.reread = true,
                            _ => pending.terminate += 1,
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(pending),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Waits until one of `descriptors` is ready (`POLLIN`, or `POLLPRI` where marked), or the time is over.
pub(super) fn wait(descriptors: &[(RawFd, i16)], limit: Option<Duration>) {
    let mut entries = [libc::pollfd { fd: -1, events: 0, revents: 0 }; 4];
    for (entry, &(fd, events)) in entries.iter_mut().zip(descriptors) {
        *entry = libc::pollfd { fd, events, revents: 0 };
    }
    // Rounded up, so that a deadline is over when poll returns; at most 24 days, which the caller's loop extends.
    let milliseconds =
        limit.map_or(-1, |limit| i32::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
    // SAFETY: `entries` is an array of that many pollfds; entries with fd -1 are skipped by the kernel. An error
    // (EINTR, ENOMEM) is a wake-up like another: the caller looks at everything after each one.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, milliseconds) };
}
