//! Linux: `/proc` and pidfds.

use super::{Identity, Instance, Stat};
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

/// Most bytes that are read of one process's environment: the kernel's own bound for arguments and environment.
const MAX_ENVIRONMENT_BYTES: u64 = 6 << 20;

/// Reads `/proc/PID/stat`.
///
/// # Errors
/// `NotFound` if there is no such process, `InvalidData` if the kernel's answer is not understood.
pub fn stat(pid: i32) -> io::Result<Stat> {
    // Longest possible line: 52 numbers of 20 digits; one read returns it whole.
    let mut buffer = [0u8; 2048];
    let length = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut buffer)).map_err(gone)?;
    parse_stat(&buffer[..length]).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unknown form of stat"))
}

/// A process that ends between open and read answers ESRCH.
fn gone(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ESRCH) => io::Error::from(io::ErrorKind::NotFound),
        _ => error,
    }
}

/// Parses a line of `/proc/PID/stat` (proc_pid_stat(5)). The name may contain anything, `)` included, so the fields
/// after it are counted from the last `)`.
#[must_use]
pub fn parse_stat(line: &[u8]) -> Option<Stat> {
    let open = line.iter().position(|&byte| byte == b'(')?;
    let close = line.iter().rposition(|&byte| byte == b')')?;
    let pid = std::str::from_utf8(line.get(..open)?).ok()?.trim().parse().ok()?;
    let name = String::from_utf8_lossy(line.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
    // Index 0 here is field 3 of the manual page.
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let ppid = fields.next()?.parse().ok()?;
    let pgid = fields.next()?.parse().ok()?;
    let sid = fields.next()?.parse().ok()?;
    let user_ticks = fields.nth(7)?.parse().ok()?;
    let system_ticks = fields.next()?.parse().ok()?;
    // The kernel shows these two as signed.
    let waited: [i64; 2] = [fields.next()?.parse().ok()?, fields.next()?.parse().ok()?];
    let waited_ticks = waited.into_iter().map(|ticks| u64::try_from(ticks).unwrap_or(0)).sum();
    let threads = fields.nth(2)?.parse().ok()?;
    let start_ticks = fields.nth(1)?.parse().ok()?;
    Some(Stat { pid, name, state, ppid, pgid, sid, threads, user_ticks, system_ticks, waited_ticks, start_ticks })
}

/// The raw wait status of a zombie, which its parent has not reaped yet. `None`: it lives, is another process, or is
/// gone; or the kernel hides the status from us (another user's process).
///
/// # Errors
/// Those of reading `/proc`, but for a process that is gone.
pub fn zombie_status(identity: &Identity) -> io::Result<Option<i32>> {
    let mut buffer = [0u8; 2048];
    let read = File::open(format!("/proc/{}/stat", identity.pid)).and_then(|mut file| file.read(&mut buffer));
    let length = match read.map_err(gone) {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let line = &buffer[..length];
    let zombie = parse_stat(line).is_some_and(|stat| stat.state == 'Z' && stat.start_ticks == identity.start_ticks);
    if !zombie {
        return Ok(None);
    }
    // Field 52, the last: `exit_code`, in the form of waitpid.
    Ok(std::str::from_utf8(line).ok().and_then(|line| line.split_ascii_whitespace().next_back()?.parse().ok()))
}

/// The environment block that `pid` was started with: `NAME=value` strings that each end in NUL. Empty for a zombie.
///
/// # Errors
/// `NotFound` if there is no such process, `PermissionDenied` for a process of another user.
pub fn environment(pid: i32) -> io::Result<Vec<u8>> {
    let mut block = Vec::new();
    let file = File::open(format!("/proc/{pid}/environ")).map_err(gone)?;
    file.take(MAX_ENVIRONMENT_BYTES).read_to_end(&mut block).map_err(gone)?;
    Ok(block)
}

/// The boot and the pid namespace of this process.
///
/// # Errors
/// Those of reading `/proc`.
pub fn instance() -> io::Result<Instance> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    let pid_namespace = std::fs::metadata("/proc/self/ns/pid")?.ino();
    Ok(Instance { boot_id, pid_namespace })
}

/// A descriptor of one process, which can't come to mean another one.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens the process that has `pid` now (Linux 5.3). Close-on-exec.
    ///
    /// # Errors
    /// `NotFound` if there is none (ESRCH), or an error of the kernel.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if descriptor < 0 {
            return Err(gone(io::Error::last_os_error()));
        }
        let descriptor = RawFd::try_from(descriptor).expect("the kernel returns descriptors as int");
        // SAFETY: the kernel has just returned it to us as a new descriptor.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Opens exactly the process `identity`, which may be a zombie. `None`: it is gone, or its pid means another one.
    ///
    /// The pidfd is opened first and the start time compared after. Were the pid reused in between, the descriptor
    /// would mean a dead process, and a signal through it would reach nobody.
    ///
    /// # Errors
    /// Those of [`Pidfd::open`] and [`stat`], except `NotFound`.
    pub fn open_verified(identity: &Identity) -> io::Result<Option<Self>> {
        let opened = Self::open(identity.pid).and_then(|pidfd| Ok((pidfd, stat(identity.pid)?)));
        match opened {
            Ok((pidfd, stat)) => Ok((stat.start_ticks == identity.start_ticks).then_some(pidfd)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends `signal` to this process. `false`: it has ended.
    ///
    /// # Errors
    /// `PermissionDenied`, or `InvalidInput` for a signal that does not exist.
    pub fn send_signal(&self, signal: i32) -> io::Result<bool> {
        // SAFETY: a null siginfo means an ordinary signal; nothing else is a pointer.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if result == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ESRCH) { Ok(false) } else { Err(error) }
    }

    /// Whether the process has ended (it may still be a zombie).
    ///
    /// # Errors
    /// Those of `poll`.
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut entry = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        loop {
            // SAFETY: `entry` is one valid pollfd.
            match unsafe { libc::poll(&raw mut entry, 1, 0) } {
                -1 => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
                count => return Ok(count > 0),
            }
        }
    }

    /// The raw wait status of the process once somebody has reaped it, whoever its parent is (Linux 6.15). `None`: it
    /// lives, is a zombie still, or this kernel doesn't say.
    ///
    /// # Errors
    /// Those of the ioctl that mean something else than these three.
    pub fn exit_status(&self) -> io::Result<Option<i32>> {
        let info = match info(self.as_fd()) {
            Ok(info) => info,
            // Older kernels: ENOTTY, EINVAL or ENOIOCTLCMD; reaped without a record: ESRCH.
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOTTY | libc::EINVAL | libc::ESRCH | libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(None),
                _ => return Err(error),
            },
        };
        Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Pidfd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// `struct pidfd_info` of linux/pidfd.h at its first published size; the size is part of the request number.
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    identifiers: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<PidfdInfo>() == 64);

/// Request bit: exit information, and in the answer: it is there.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `_IOWR(0xFF, 11, struct pidfd_info)` in the encoding that x86, arm and riscv share.
const PIDFD_GET_INFO: u32 = (3 << 30) | (64 << 16) | (0xFF << 8) | 11;

fn info(pidfd: BorrowedFd<'_>) -> io::Result<PidfdInfo> {
    let mut info = MaybeUninit::<PidfdInfo>::zeroed();
    // SAFETY: all zeros is a valid PidfdInfo; the kernel writes at most the 64 bytes that the request number names.
    unsafe {
        (*info.as_mut_ptr()).mask = PIDFD_INFO_EXIT;
        if libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, info.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(info.assume_init())
    }
}

/// Whether this kernel tells a process's exit status to a holder of its pidfd ([`Pidfd::exit_status`]), tried with a
/// child that ends at once. Cheap enough for once at a program's start, not for each run.
///
/// # Errors
/// Those of starting the child.
pub fn exit_status_supported() -> io::Result<bool> {
    let mut child = std::process::Command::new("/bin/true").spawn()?;
    let pidfd = Pidfd::open(child.id() as i32);
    child.wait()?;
    Ok(pidfd?.exit_status()?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = b"42 (a) S 1 (b) R 7 42 40 0 -1 4194560 1 2 3 4 11 12 13 14 20 0 3 0 123456 9 9";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.pid, stat.name.as_str(), stat.state), (42, "a) S 1 (b", 'R'));
        assert_eq!((stat.ppid, stat.pgid, stat.sid), (7, 42, 40));
        assert_eq!((stat.user_ticks, stat.system_ticks, stat.threads, stat.start_ticks), (11, 12, 3, 123_456));
        assert_eq!(stat.waited_ticks, 27);
    }

    #[test]
    fn no_cut_of_a_stat_line_panics() {
        let line = b"42 (a) S 1 (b) R 7 42 40 0 -1 4194560 1 2 3 4 11 12 13 14 20 0 3 0 123456 9 9";
        for end in 0..line.len() {
            let _ = parse_stat(&line[..end]);
        }
    }

    #[test]
    fn a_signal_reaches_the_verified_process_and_its_status_is_known_after_it_was_reaped() {
        let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let identity = super::super::identity(child.id() as i32).unwrap();
        let other = Identity { start_ticks: identity.start_ticks + 1, ..identity.clone() };
        assert!(Pidfd::open_verified(&other).unwrap().is_none());
        let pidfd = Pidfd::open_verified(&identity).unwrap().unwrap();
        assert!(!pidfd.has_ended().unwrap());
        assert!(pidfd.send_signal(libc::SIGKILL).unwrap());
        child.wait().unwrap();
        assert!(pidfd.has_ended().unwrap());
        assert!(!pidfd.send_signal(libc::SIGKILL).unwrap());
        if exit_status_supported().unwrap() {
            assert_eq!(pidfd.exit_status().unwrap(), Some(libc::SIGKILL));
        }
        assert!(Pidfd::open_verified(&identity).unwrap().is_none());
    }

    #[test]
    fn the_environment_of_a_process_is_the_one_it_was_started_with() {
        let mut child =
            Command::new("sleep").arg("600").env_clear().env("X", "1").env("PATH", "/usr/bin:/bin").spawn().unwrap();
        // Between fork and exec the child still shows ours.
        let block = loop {
            let block = environment(child.id() as i32).unwrap();
            if super::super::environment_value(&block, "X").is_some() {
                break block;
            }
        };
        assert_eq!(super::super::environment_value(&block, "X"), Some(&b"1"[..]));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
