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
        let written = write_order(folder, order);
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
}

/// Writes the next order; the numbers grow.
pub(super) fn write_order(folder: &Path, order: &StopOrder) -> io::Result<()> {
    let path = folder.join(FOLDER).join(STOP);
    // A damaged file is replaced: what it said can't be known, and the new order is the more urgent one.
    let before: Option<Stop> = durable::read_json_if_exists(&path).unwrap_or(None);
    let stop = Stop {
        version: VERSION,
        sequence: before.map_or(1, |stop| stop.sequence + 1),
        who: order.who.clone(),
        why: order.why.clone(),
        graces: order.graces,
    };
    durable::write_json(&path, &stop)
}
