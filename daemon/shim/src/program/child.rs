//! From fork to exec: everything that happens on the agent's side.
//!
//! All that needs memory is prepared before the fork; between fork and exec only system calls are made.

use super::Failure;
use conductor_shim::lock::FileLock;
use conductor_shim::protocol::{EXIT_GATE_CLOSED, Spec, TREE_LOCK_FD};
use std::ffi::{CString, c_char};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// Exit code of an agent's side whose exec, or a step before it, failed. The record says `spawn_failed`, not this.
const EXIT_NOT_EXECUTED: i32 = 127;

/// The steps of the agent's side that can fail, by the number that travels through the pipe.
const STEPS: [&str; 5] = ["setsid", "tree_lock", "stdio", "chdir", "exec"];
const SETSID: u8 = 0;
const TREE_LOCK: u8 = 1;
const STDIO: u8 = 2;
const CHDIR: u8 = 3;
const EXEC: u8 = 4;

/// Step and error number, as they travel through the pipe.
const MESSAGE_BYTES: usize = 5;

/// A forked agent that waits at its gate.
#[derive(Debug)]
pub(super) struct Forked {
    pub(super) pid: i32,
    gate: File,
    result: File,
}

/// An agent whose gate is open and whose exec isn't known to have worked yet.
#[derive(Debug)]
pub(super) struct Launch {
    result: File,
}

/// The state of a launch.
#[derive(Debug)]
pub(super) enum Launched {
    Pending,
    Executed,
    Failed(Failure),
}

impl Forked {
    /// Lets the agent exec.
    pub(super) fn open_gate(mut self) -> Launch {
        // If the agent's side has ended by now, the pipe or its wait status says why.
        let _ = self.gate.write_all(&[1]);
        Launch { result: self.result }
    }
}

impl Launch {
    /// What is known now, without waiting.
    pub(super) fn look(&mut self) -> Launched {
        let mut message = [0u8; MESSAGE_BYTES];
        match self.result.read(&mut message) {
            // Closed by exec, or by the end of a process that never got there; then its wait status tells.
            Ok(0) => Launched::Executed,
            Ok(_) => {
                let [step, errno @ ..] = message;
                let step = STEPS.get(usize::from(step)).copied().unwrap_or("exec");
                Launched::Failed(Failure { step, errno: i32::from_ne_bytes(errno) })
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Launched::Pending
            }
            Err(error) => Launched::Failed(Failure::of("exec")(error)),
        }
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.result.as_raw_fd()
    }
}

/// What the agent's side needs, laid out for `execve`.
struct Prepared {
    argv: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    folder: CString,
    streams: [RawFd; 3],
    tree_lock: RawFd,
    gate: RawFd,
    gate_writer: RawFd,
    result: RawFd,
}

/// Forks the agent's side. The lock of the tree is released in this process and stays with the child.
pub(super) fn fork(spec: &Spec, logs: &[File; 2], tree_lock: FileLock) -> Result<Forked, Failure> {
    let stdin = spec.stdin.as_deref().unwrap_or("/dev/null");
    let stdin = File::options().read(true).custom_flags(libc::O_NOCTTY).open(stdin).map_err(Failure::of("stdin"))?;
    let arguments = c_strings(spec.argv.iter().map(String::as_str)).map_err(Failure::of("argv"))?;
    if arguments.is_empty() {
        return Err(Failure::of("argv")(io::Error::from_raw_os_error(libc::EINVAL)));
    }
    let pairs = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
    let environment = c_strings(pairs).map_err(Failure::of("env"))?;
    let (gate, gate_writer) = pipe(0).map_err(Failure::of("pipe"))?;
    let (result, result_writer) = pipe(libc::O_NONBLOCK).map_err(Failure::of("pipe"))?;
    let prepared = Prepared {
        argv: pointers(&arguments),
        environment: pointers(&environment),
        folder: CString::new(spec.cwd.as_str()).map_err(|error| Failure::of("chdir")(error.into()))?,
        streams: [stdin.as_raw_fd(), logs[0].as_raw_fd(), logs[1].as_raw_fd()],
        tree_lock: tree_lock.file().as_raw_fd(),
        gate: gate.as_raw_fd(),
        gate_writer: gate_writer.as_raw_fd(),
        result: result_writer.as_raw_fd(),
    };
    // SAFETY: this process has one thread. The child makes system calls only and ends by exec or _exit.
    match unsafe { libc::fork() } {
        -1 => Err(Failure::of("fork")(io::Error::last_os_error())),
        // SAFETY: in the child, with everything `prepared` points to still in scope.
        0 => unsafe { agent_side(&prepared) },
        pid => Ok(Forked { pid, gate: gate_writer, result }),
    }
}

/// The child: never returns, never allocates.
///
/// # Safety
/// Only in a freshly forked single-threaded child; the pointers of `prepared` are valid.
unsafe fn agent_side(prepared: &Prepared) -> ! {
    // SAFETY: descriptors and pointers are those of `prepared`; each call is async-signal-safe.
    unsafe {
        libc::close(prepared.gate_writer);
        if libc::setsid() < 0 {
            fail(prepared, SETSID);
        }
        // A copy made by dup2 is not close-on-exec.
        if libc::dup2(prepared.tree_lock, TREE_LOCK_FD) < 0 {
            fail(prepared, TREE_LOCK);
        }
        for (target, &descriptor) in prepared.streams.iter().enumerate() {
            if libc::dup2(descriptor, target as RawFd) < 0 {
                fail(prepared, STDIO);
            }
        }
        if libc::chdir(prepared.folder.as_ptr()) != 0 {
            fail(prepared, CHDIR);
        }
        reset_signals();
        let mut byte = 0u8;
        loop {
            match libc::read(prepared.gate, (&raw mut byte).cast(), 1) {
                1 => break,
                -1 if *libc::__errno_location() == libc::EINTR => {}
                _ => libc::_exit(EXIT_GATE_CLOSED),
            }
        }
        // Marked, not closed: the result pipe has to live until exec. Kernels before 5.11 refuse the flag; all
        // descriptors of the shim are close-on-exec anyway.
        let lock = TREE_LOCK_FD as u32;
        libc::syscall(libc::SYS_close_range, 3, lock - 1, libc::CLOSE_RANGE_CLOEXEC);
        libc::syscall(libc::SYS_close_range, lock + 1, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        libc::execve(prepared.argv[0], prepared.argv.as_ptr(), prepared.environment.as_ptr());
        fail(prepared, EXEC)
    }
}

/// Every disposition back to its default (an ignored one would survive exec), and nothing blocked.
unsafe fn reset_signals() {
    const LAST_SIGNAL: i32 = 64;
    /// The kernel's `struct sigaction`, all zero: default action, no flags, empty mask, on every architecture.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_BYTES: usize = 8;
    // SAFETY: the kernel reads at most the 32 bytes of DEFAULT, and 8 bytes of it as an empty mask. The C library would
    // refuse the two signals that it keeps for itself; KILL and STOP are refused by the kernel.
    unsafe {
        for signal in 1..=LAST_SIGNAL {
            let none = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), none, MASK_BYTES);
        }
        let none = std::ptr::null_mut::<u64>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, DEFAULT.as_ptr(), none, MASK_BYTES);
    }
}

unsafe fn fail(prepared: &Prepared, step: u8) -> ! {
    // SAFETY: the descriptor is the pipe's, the pointer that of a local array.
    unsafe {
        let errno = (*libc::__errno_location()).to_ne_bytes();
        let message = [step, errno[0], errno[1], errno[2], errno[3]];
        libc::write(prepared.result, message.as_ptr().cast(), message.len());
        libc::_exit(EXIT_NOT_EXECUTED)
    }
}

fn c_strings<T: Into<Vec<u8>>>(strings: impl Iterator<Item = T>) -> io::Result<Vec<CString>> {
    strings.map(|string| CString::new(string).map_err(io::Error::from)).collect()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Reader and writer, close-on-exec; `flags` for both ends.
fn pipe(flags: i32) -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors, which are new and ours.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | flags) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])))
    }
}
