//! The steps that a supervisor must survive.
//!
//! | step | does |
//! | --- | --- |
//! | `crash SIGNAL` | ends itself by `KILL`, `TERM`, `SEGV` or `ABRT` |
//! | `ignore SIGNAL…` | ignores `INT`, `TERM`, `HUP`, `QUIT` |
//! | `trap SIGNAL CODE` | exits with the code when the signal comes |
//! | `stop-self` | SIGSTOP |
//! | `print-bytes N`, `stderr-bytes N`, `long-line N` | much output (`1G`, `100M`) |
//! | `close-output` | closes stdin, stdout and stderr |
//! | `hold-output MS` | leaves a grandchild in a session of its own that holds the output |
//! | `escape MS` | forks twice, calls setsid, clears its environment and sleeps |
//! | `leave MS` | leaves a plain child |
//! | `clear-env` | goes on with an empty environment |
//! | `fork-storm N` | leaves N children that each fork once |
//! | `remove-task-folder` | |

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};

use crate::Place;
use crate::steps::number;

/// One hostile step; `Some` ends the program.
pub(crate) fn one(place: &Place, verb: &str, value: &str, rest: &[String]) -> Option<i32> {
    match verb {
        "crash" => raise(signal_number(value)),
        "ignore" => value.split_whitespace().for_each(|name| ignore(signal_number(name))),
        "trap" => trap(value),
        "stop-self" => raise(libc::SIGSTOP),
        "print-bytes" => print_bytes(&mut std::io::stdout().lock(), number(value), true),
        "stderr-bytes" => print_bytes(&mut std::io::stderr().lock(), number(value), true),
        "long-line" => print_bytes(&mut std::io::stdout().lock(), number(value), false),
        "close-output" => close_output(),
        "hold-output" => sleeper(value, Escape::Session, Stdio::inherit()),
        "escape" => sleeper(value, Escape::Twice, Stdio::null()),
        "leave" => sleeper(value, Escape::No, Stdio::null()),
        "clear-env" => clear_environment(place, rest),
        "fork-storm" => fork_storm(number(value)),
        "remove-task-folder" => std::fs::remove_dir_all(&place.task).expect("removing the task folder"),
        _ => {
            eprintln!("unknown step {verb:?}");
            return Some(99);
        }
    }
    None
}

fn signal_number(name: &str) -> i32 {
    match name {
        "INT" => libc::SIGINT,
        "TERM" => libc::SIGTERM,
        "HUP" => libc::SIGHUP,
        "QUIT" => libc::SIGQUIT,
        "KILL" => libc::SIGKILL,
        "SEGV" => libc::SIGSEGV,
        "ABRT" => libc::SIGABRT,
        other => panic!("unknown signal {other:?}"),
    }
}

fn raise(signal: i32) {
    // SAFETY: neither call takes a pointer to anything that is kept; the default action undoes Rust's own handlers.
    unsafe {
        if signal != libc::SIGSTOP && signal != libc::SIGKILL {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::kill(libc::getpid(), signal);
    }
    if signal != libc::SIGSTOP {
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

fn ignore(signal: i32) {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

static TRAP_CODE: AtomicI32 = AtomicI32::new(0);

extern "C" fn leave_now(_signal: i32) {
    // SAFETY: _exit may be called in a signal handler.
    unsafe { libc::_exit(TRAP_CODE.load(Ordering::Relaxed)) }
}

fn trap(value: &str) {
    let (name, code) = value.split_once(' ').expect("a signal and a code");
    TRAP_CODE.store(code.parse().expect("an exit code"), Ordering::Relaxed);
    // SAFETY: the handler only calls _exit.
    unsafe { libc::signal(signal_number(name), leave_now as *const () as libc::sighandler_t) };
}

/// `count` bytes, in lines of 64 or as one line with a newline at its end.
fn print_bytes(to: &mut dyn std::io::Write, count: u64, lines: bool) {
    let mut block = vec![b'x'; 1 << 20];
    if lines {
        block.iter_mut().skip(63).step_by(64).for_each(|byte| *byte = b'\n');
    }
    let mut left = count;
    while left > 0 {
        let size = left.min(block.len() as u64);
        let part = &block[..usize::try_from(size).expect("at most a MiB")];
        if to.write_all(part).is_err() {
            return;
        }
        left -= size;
    }
    if !lines {
        let _ = to.write_all(b"\n");
    }
    let _ = to.flush();
}

fn close_output() {
    for descriptor in 0..3 {
        // SAFETY: nothing of this program uses them afterwards but with errors ignored.
        unsafe { libc::close(descriptor) };
    }
}

/// How far a left process gets away.
enum Escape {
    /// Not at all: a plain child.
    No,
    /// Into a session of its own.
    Session,
    /// Forked twice, in a session of its own, with an empty environment and `/` as its folder.
    Twice,
}

fn sleeper(millis: &str, escape: Escape, output: Stdio) {
    let seconds = format!("{}", number(millis) as f64 / 1000.0);
    let mut command = Command::new("sleep");
    command.arg(&seconds).stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
    match escape {
        Escape::No => {}
        Escape::Session => {
            // SAFETY: setsid may be called between fork and exec.
            unsafe {
                command.pre_exec(|| if libc::setsid() < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) })
            };
        }
        Escape::Twice => {
            // After `clear-env` there is no PATH.
            let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
            let sleep = std::env::split_paths(&path).map(|folder| folder.join("sleep")).find(|path| path.exists());
            let mut shell = Command::new("/bin/sh");
            let script =
                format!("cd / && exec setsid env -i {} {seconds} &", sleep.expect("sleep is in PATH").display());
            shell.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            shell.status().expect("starting a shell");
            return;
        }
    }
    // Dropping the handle leaves the process alone: that is the point.
    drop(command.spawn().expect("starting sleep"));
}

fn clear_environment(place: &Place, rest: &[String]) {
    let path = |path: &std::path::Path| path.display().to_string();
    let mut command = Command::new(std::env::current_exe().expect("its own path"));
    command.env_clear().arg("--place").args([path(&place.task), path(&place.run), place.attempt.to_string()]);
    command.args(rest);
    if rest.is_empty() {
        command.arg("exit 0");
    }
    panic!("exec of itself: {}", command.exec());
}

fn fork_storm(count: u64) {
    for _ in 0..count {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "sleep 60 & exec sleep 60"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(shell.spawn().expect("starting a shell"));
    }
}
