//! The live shims, by run: how a stop reaches the one that is in charge now.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use conductor_shim::process::Pidfd;

use crate::types::RunKey;

/// The registry. A rescue shim takes the place of the shim that it replaces.
#[derive(Clone, Debug, Default)]
pub struct Shims(Arc<Mutex<HashMap<RunKey, Arc<Pidfd>>>>);

impl Shims {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunKey, Arc<Pidfd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, key: &RunKey, pidfd: Arc<Pidfd>) {
        self.lock().insert(key.clone(), pidfd);
    }

    pub(super) fn remove(&self, key: &RunKey) {
        self.lock().remove(key);
    }

    /// Number of live shims.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// The runs that have one.
    #[must_use]
    pub fn runs(&self) -> Vec<RunKey> {
        self.lock().keys().cloned().collect()
    }

    /// Signals the shim of a run. `false`: there is none, or it has ended.
    ///
    /// # Errors
    /// That it may not be signalled.
    pub fn signal(&self, key: &RunKey, signal: i32) -> io::Result<bool> {
        let pidfd = self.lock().get(key).cloned();
        pidfd.map_or(Ok(false), |pidfd| pidfd.send_signal(signal))
    }
}
