//! The parts of the program; `main.rs` draws the state machine that they make up.

mod child;
mod clock;
mod exit;
mod group;
mod leader;
mod rescue;
mod signals;
mod start;
mod stop;
mod supervise;

use conductor_shim::protocol::{EXIT_LOCKED, FOLDER};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use rescue::rescue;
pub(crate) use start::start;

/// Exit code: `exit.json` says how the run ended.
const EXIT_RECORDED: i32 = 0;
/// Exit code: no record could be written; standard error and the status line say why.
const EXIT_FAILED: i32 = 1;
/// Exit code: this run was started before, so it isn't started again.
const EXIT_STARTED_BEFORE: i32 = 112;

/// How long `shim.lock` is tried: a probe holds it for an instant, a dying shim for its last moments.
const LOCK_TIME: Duration = Duration::from_secs(1);

/// Space taken for `exit.json` at the start, in bytes. The record's own bounds (stragglers, texts) keep it below.
const EXIT_RECORD_BYTES: u64 = 64 << 10;

/// The protocol folder of one run.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
}

impl Files {
    fn of_run(run: &Path) -> Self {
        Self { folder: run.join(FOLDER) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// A step that failed, as `spawn_failed` reports it.
#[derive(Debug)]
struct Failure {
    step: &'static str,
    errno: i32,
}

impl Failure {
    fn of(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| {
            // Errors of our own making (a record that can't be parsed) have no number of the kernel's.
            let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
            eprintln!("conductor-shim: {step}: {error}");
            Self { step, errno }
        }
    }

    /// The exit code of a shim that ends on this failure without a record.
    fn exit_code(&self) -> i32 {
        match self.step {
            "shim_lock" => EXIT_LOCKED,
            "started_before" => EXIT_STARTED_BEFORE,
            _ => EXIT_FAILED,
        }
    }
}

/// Becomes leader of a session of its own and the parent of every orphan below it, and closes what it inherited.
fn detach() -> io::Result<()> {
    // SAFETY: none of the calls takes a pointer; no descriptor from 3 on belongs to anything of ours yet.
    unsafe {
        if libc::setsid() < 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        // conductord's descriptors are close-on-exec already; this is for a shim that a person starts.
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
    }
    Ok(())
}
