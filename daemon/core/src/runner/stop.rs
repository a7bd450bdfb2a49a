//! Asking a shim to end its run.

use std::io;
use std::path::Path;

use conductor_shim::durable;
use conductor_shim::failpoint;
use conductor_shim::protocol::{FOLDER, Graces, START, STOP, Stop, VERSION};

use super::Runner;
use crate::types::RunKey;

/// A stop of one run.
#[derive(Clone, Debug)]
pub struct StopOrder {
    /// Who asked, for people.
    pub who: String,
    /// Why, for people.
    pub why: String,
    /// Pauses.
    pub graces: Graces,
}

impl Runner {
    /// Writes `stop.json` and tells the shim. Blocks for one durable write. A later order with shorter pauses speeds an
    /// earlier one up; the shim ignores orders that it has seen.
    ///
    /// On a disk that takes no file the shim gets SIGTERM instead: a stop with the pauses of its spec.
    ///
    /// # Errors
    /// The file can't be written and the shim can't be signalled either.
    pub fn stop(&self, key: &RunKey, folder: &Path, order: &StopOrder) -> io::Result<()> {
        failpoint::hit("daemon.stop.before_stop_json")?;
        let written = {
            let _turn = self.0.orders.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            write_order(folder, order)
        };
        failpoint::hit("daemon.stop.after_stop_json")?;
        // Before start.json exists the shim may not have its handlers yet: it reads the file at the right time itself.
        // Without the file there is only the signal; a shim that dies of it opens no gate.
        if written.is_err() || folder.join(FOLDER).join(START).exists() {
            let signal = if written.is_ok() { libc::SIGUSR1 } else { libc::SIGTERM };
            let reached = self.0.shims.signal(key, signal)?;
            failpoint::hit("daemon.stop.after_signal")?;
            if reached {
                return Ok(());
            }
        }
        written
    }

    /// As [`Runner::stop`], for a run without a sign of life: its outcome will be `timed_out`, `order.why` its summary.
    /// Does nothing where a stop was asked for before: its cause stays.
    ///
    /// On a disk that takes no file nothing happens: without its cause on disk the end would count as a wish.
    ///
    /// # Errors
    /// The file can't be written or the shim can't be signalled. It may be tried again.
    pub fn stop_idle(&self, key: &RunKey, folder: &Path, order: &StopOrder) -> io::Result<()> {
        failpoint::hit("daemon.idle.before_stop_json")?;
        {
            let _turn = self.0.orders.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match read_stop(folder)? {
                Some(before) if !before.idle => return Ok(()),
                Some(_) => {}
                None => {
                    let stop = Stop {
                        version: VERSION,
                        sequence: 1,
                        who: order.who.clone(),
                        why: order.why.clone(),
                        graces: order.graces,
                        idle: true,
                    };
                    durable::write_json(&folder.join(FOLDER).join(STOP), &stop)?;
                }
            }
        }
        failpoint::hit("daemon.idle.after_stop_json")?;
        // Only runs whose start is known get here, so the shim listens.
        self.0.shims.signal(key, libc::SIGUSR1)?;
        failpoint::hit("daemon.idle.after_signal")
    }
}

/// Reads the latest order.
///
/// # Errors
/// The file is there and can't be read or understood.
pub fn read_stop(run_dir: &Path) -> io::Result<Option<Stop>> {
    durable::read_json_if_exists(&run_dir.join(FOLDER).join(STOP))
}

/// Writes the next order; the numbers grow.
pub(super) fn write_order(folder: &Path, order: &StopOrder) -> io::Result<()> {
    // A damaged file is replaced: what it said can't be known, and the new order is the more urgent one.
    let before = read_stop(folder).unwrap_or(None);
    let mut stop = Stop {
        version: VERSION,
        sequence: before.as_ref().map_or(1, |stop| stop.sequence + 1),
        who: order.who.clone(),
        why: order.why.clone(),
        graces: order.graces,
        idle: false,
    };
    // The shim keeps the first cause too: a person who hurries the end of an idle run does not change why it ends.
    if let Some(first) = before.filter(|first| first.idle) {
        stop.idle = true;
        stop.why = first.why;
    }
    durable::write_json(&folder.join(FOLDER).join(STOP), &stop)
}
