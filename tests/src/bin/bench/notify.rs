//! A stand-in for the service manager: it hears when the daemon is ready.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use conductor_tests::{Daemon, Sandbox};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a start took.
pub(crate) struct Started<'a> {
    pub(crate) daemon: Daemon<'a>,
    /// Milliseconds from the lock (the time of its file, which the kernel rounds down by at most a tick) to READY.
    pub(crate) from_lock: f64,
    /// Milliseconds from the spawn to READY.
    pub(crate) from_spawn: f64,
    /// Milliseconds of CPU time that it had used by then, all threads: what other programs do counts little here.
    pub(crate) cpu: f64,
}

/// Starts the daemon again and waits until it says that it is ready.
pub(crate) fn start_again(sandbox: &Sandbox) -> Result<Started<'_>> {
    let path: PathBuf = sandbox.path().join("run/notify");
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let text = path.to_str().context("a path in /tmp is text")?;
    let spawned = Instant::now();
    let mut daemon = Daemon::spawn(sandbox, &[("NOTIFY_SOCKET", text)])?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).with_context(|| daemon.log_text())?;
        let (ready, now) = (spawned.elapsed(), SystemTime::now());
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == "READY=1") {
            let cpu = cpu_ms(daemon.pid())?;
            let lock = sandbox.root().join(".conductor/daemon.lock").metadata()?.modified()?;
            let Ok(from_lock) = now.duration_since(lock) else { bail!("the lock was taken after READY") };
            daemon.ready()?;
            return Ok(Started {
                daemon,
                from_lock: from_lock.as_secs_f64() * 1e3,
                from_spawn: ready.as_secs_f64() * 1e3,
                cpu,
            });
        }
    }
}

/// CPU time of a process, its ended threads included, to a hundredth of a second.
fn cpu_ms(pid: i32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = text.rsplit_once(')').context("a name in parentheses")?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).context("a count of ticks");
    // Fields 14 and 15 of proc_pid_stat(5), counted from the third; a tick is 10 ms on every Linux.
    Ok((ticks(11)? + ticks(12)?) * 10.0)
}
