//! The agent of the `follow` group: lines that carry the time of their writing.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use conductor_tests::wait_until;
use nix::time::{ClockId, clock_gettime};

/// How long it waits for the sign to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nanoseconds of the clock that all processes share.
pub(crate) fn now_ns() -> Result<i64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// Waits for the file `go`, then writes `count` lines with pauses.
pub(crate) fn lines(go: &Path, count: u32, pause_ms: u64) -> Result<()> {
    wait_until("the sign to begin is there", PATIENCE, || go.exists())?;
    let mut out = std::io::stdout();
    for _ in 0..count {
        std::thread::sleep(Duration::from_millis(pause_ms));
        let line = format!("{}\n", now_ns()?);
        out.write_all(line.as_bytes())?;
        out.flush()?;
    }
    Ok(())
}
