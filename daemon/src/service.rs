//! The service manager: READY, STATUS, STOPPING and the watchdog, by the protocol of sd_notify(3). Without one
//! (`$NOTIFY_SOCKET`, `$WATCHDOG_USEC`) nothing happens.

use std::time::{Duration, Instant};

use conductor_core::supervisor::Supervisor;
use sd_notify::NotifyState;
use tracing::{debug, error};

/// How old the supervisor's sign of life may be. It comes within seconds also when nothing happens.
const MAX_SILENCE: Duration = Duration::from_secs(30);
/// Shortest pause between two feedings, whatever the manager asks for.
const MIN_PAUSE: Duration = Duration::from_millis(100);

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager was not told");
    }
}

/// Everything answers.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon ends.
pub fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Feeds the watchdog for as long as the supervisor lives; waits for ever where there is none.
pub async fn feed_watchdog(supervisor: &Supervisor) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let pause = (limit / 3).max(MIN_PAUSE);
    loop {
        let silence = Instant::now().saturating_duration_since(supervisor.heartbeat());
        if silence < MAX_SILENCE.max(limit) {
            notify(&[NotifyState::Watchdog]);
        } else {
            error!(?silence, "the supervisor does not turn; the watchdog is not fed");
        }
        tokio::time::sleep(pause).await;
    }
}
