//! What the supervisor's parts share: handles to the layers below. No mutable state of its own but the configuration.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::accounts::Accounts;
use super::idle::IdleWatch;
use super::tokens::Tokens;
use super::usage::Ledger;
use crate::agents::confine::Trial;
use crate::agents::{Agents, Host};
use crate::bus::{Bus, BusHub, BusOptions};
use crate::config::{BusConfig, Config, Durability as ConfigDurability};
use crate::ralph::{BackoffPolicy, BusTarget};
use crate::runner::Runner;
use crate::store::{Catalog, IdSource, Root};
use crate::types::{RunKey, TaskKey};

/// Handles; shared by the dispatcher, the performers and the callers.
pub(super) struct Shared {
    pub(super) root: Root,
    pub(super) accounts: Accounts,
    pub(super) ledger: Ledger,
    pub(super) catalog: Catalog,
    pub(super) buses: BusHub,
    pub(super) runner: Runner,
    pub(super) ids: IdSource,
    pub(super) tokens: Tokens,
    pub(super) host: Arc<Host>,
    pub(super) socket: PathBuf,
    pub(super) idle: IdleWatch,
    /// Whether agents can be confined here.
    pub(super) trial: Trial,
    pub(super) settings: Settings,
}

/// The configuration and what is made of it, replaced together.
pub(super) struct Settings(RwLock<InForce>);

struct InForce {
    config: Arc<Config>,
    agents: Arc<Agents>,
}

impl Settings {
    pub(super) fn new(config: Arc<Config>, host: &Arc<Host>) -> Self {
        let agents = Arc::new(Agents::new(&config, host));
        Self(RwLock::new(InForce { config, agents }))
    }

    fn in_force(&self) -> RwLockReadGuard<'_, InForce> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.settings.in_force().config)
    }

    pub(super) fn agents(&self) -> Arc<Agents> {
        Arc::clone(&self.settings.in_force().agents)
    }

    pub(super) fn set_config(&self, config: Arc<Config>) {
        let agents = Arc::new(Agents::new(&config, &self.host));
        self.buses.set_options(bus_options(&config.bus));
        *self.settings.0.write().unwrap_or_else(PoisonError::into_inner) = InForce { config, agents };
    }

    pub(super) fn backoff(&self) -> BackoffPolicy {
        let config = self.config();
        BackoffPolicy { base: config.backoff.base.get(), max: config.backoff.max.get() }
    }

    pub(super) fn task_bus(&self, key: &TaskKey) -> Bus {
        self.buses.bus(&self.root.task_bus(key))
    }

    pub(super) fn bus_of(&self, key: &TaskKey, target: &BusTarget) -> Bus {
        match target {
            BusTarget::Task => self.task_bus(key),
            BusTarget::Project => self.buses.bus(&self.root.project_bus(&key.project)),
            BusTarget::Parent(parent) => self.task_bus(parent),
        }
    }

    /// The folder that a bus lies in. It is never made for the bus: without it the bus has no task.
    pub(super) fn folder_of(&self, key: &TaskKey, target: &BusTarget) -> PathBuf {
        match target {
            BusTarget::Task => self.root.task_dir(key),
            BusTarget::Project => self.root.project_dir(&key.project),
            BusTarget::Parent(parent) => self.root.task_dir(parent),
        }
    }

    pub(super) fn run_dir(&self, key: &RunKey) -> PathBuf {
        self.root.run_dir(key)
    }
}

/// The bus's settings as the configuration words them.
pub(super) fn bus_options(config: &BusConfig) -> BusOptions {
    use crate::bus::Durability;
    BusOptions {
        durability: match config.durability {
            ConfigDurability::None => Durability::None,
            ConfigDurability::Batch => Durability::Batch,
            ConfigDurability::Always => Durability::Always,
        },
        lock_timeout: config.lock_timeout.get(),
        rotate_bytes: Some(config.rotate_size.get()),
        ..BusOptions::default()
    }
}
