//! Followers: streams that outlive a restart of the daemon. They resume where they were, and say once that it is gone.
//!
//! What is shown of a stream is up to `commands`.

mod bus;
mod events;
mod log;
mod watch;

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use conductor_proto::reason;
use tonic::Status;

use crate::errors::{self, Failure};
use crate::output::time;

pub(crate) use bus::{BusPages, BusReader};
pub(crate) use events::EventReader;
pub(crate) use log::LogReader;
pub(crate) use watch::{Change, Watcher};

/// Pause before the first new try; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A daemon that is back is found within this.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Pause after the daemon ended a stream because we were slow: our reader gets a moment.
const SLOW_PAUSE: Duration = Duration::from_millis(20);

/// What the followers of this program know of a lost connection, together: it is told once.
#[derive(Clone)]
pub(crate) struct Outage {
    state: Arc<Mutex<State>>,
    limit: Duration,
}

#[derive(Default)]
struct State {
    since: Option<Instant>,
    pause: Duration,
    silent: bool,
}

impl Outage {
    /// Followers give up when the daemon is away for longer than `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { state: Arc::default(), limit }
    }

    /// Says nothing from now on: something else has the screen.
    pub(crate) fn silence(&self) {
        self.lock().silent = true;
    }

    /// For how long the daemon is away.
    pub(crate) fn away(&self) -> Option<Duration> {
        self.lock().since.map(|since| since.elapsed())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream is open again.
    pub(crate) fn over(&self) {
        let mut state = self.lock();
        if let Some(since) = state.since.take() {
            tell(&state, &format!("the daemon is back after {}", time::duration(since.elapsed())));
        }
    }

    /// A stream broke, or ended before its end: waits a little, so that it can be opened again.
    pub(crate) async fn lost(&self, action: &str, status: Option<Status>) -> Result<(), Failure> {
        if let Some(status) = status {
            if errors::reason_of(&status).as_deref() == Some(reason::SLOW_READER) {
                tokio::time::sleep(SLOW_PAUSE).await;
                return Ok(());
            }
            if !errors::is_lost(&status) {
                return Err(Failure::status(action, status));
            }
        }
        let pause = self.next_pause(action)?;
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn next_pause(&self, action: &str) -> Result<Duration, Failure> {
        let mut state = self.lock();
        match state.since {
            None => {
                state.since = Some(Instant::now());
                state.pause = FIRST_PAUSE;
                tell(&state, &format!("the daemon is gone; waiting up to {} for it", time::duration(self.limit)));
            }
            Some(since) if since.elapsed() >= self.limit => {
                return Err(Failure::Gone { action: action.to_owned(), waited_for: since.elapsed() });
            }
            Some(_) => state.pause = (state.pause * 2).min(LONGEST_PAUSE),
        }
        Ok(state.pause)
    }
}

fn tell(state: &State, text: &str) {
    if !state.silent {
        crate::output::live::make_way();
        // Nobody can be told if standard error is closed.
        let _ = crate::output::beside(|| writeln!(std::io::stderr().lock(), "conductorctl: {text}"));
    }
}
