//! The parts of the program; `main.rs` draws the state machine that they make up.

mod child;
mod clock;
mod exec;
mod exit;
mod group;
mod leader;
mod rescue;
mod signals;
mod start;
mod stop;
mod supervise;

use conductor_shim::protocol::{EXIT_LOCKED, EXIT_STARTED_BEFORE, FOLDER};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use exec::exec;
pub(crate) use rescue::rescue;
pub(crate) use start::start;

/// Exit code: `exit.json` says how the run ended.
const EXIT_RECORDED: i32 = 0;
/// Exit code: no record could be written; standard error and the status line say why.
const EXIT_FAILED: i32 = 1;
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
        let folder = run.join(FOLDER);
        // Only an empty path or a vanished working folder has no absolute form; opening it says so soon enough.
        Self { folder: std::path::absolute(&folder).unwrap_or(folder) }
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
    // SAFETY: the only pointer is that of a constant string; no descriptor from 3 on belongs to anything of ours yet.
    unsafe {
        if libc::setsid() < 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        // No folder or mount stays busy because of a shim.
        if libc::chdir(c"/".as_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        // conductord's descriptors are close-on-exec already; this is for a shim that a person starts.
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
    }
    Ok(())
}
