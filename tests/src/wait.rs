//! Waiting for conditions. Nothing here waits for a fixed time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a condition may take before a test fails: far above what is usual, so that a busy machine fails no test.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `condition` holds, at most `deadline`.
///
/// # Errors
/// The deadline passed; the message names `what`.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, deadline, || condition().then_some(()))
}

/// Waits until `look` finds something, at most `deadline`, and returns it.
///
/// # Errors
/// The deadline passed; the message names `what`.
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() > deadline {
            bail!("waited {deadline:?} in vain until {what}");
        }
        std::thread::sleep(PAUSE);
    }
}
