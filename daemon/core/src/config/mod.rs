//! The configuration: one YAML file, `conductor.yaml`, every key of which has a default.
//!
//! Here are its keys ([`Config`]), how it is found and read ([`Config::find`], [`Config::load`]), its JSON Schema and the
//! view without secrets. It starts nothing and watches nothing: reloading is the daemon's.
//!
//! Precedence: flag, `CONDUCTOR_*` variable, file, default ([`Config::apply`]).

mod agent;
mod check;
mod load;
mod paths;
mod prices;
mod token;
mod units;
mod version;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::types::{ChildPolicy, DEFAULT_CHILD_WAIT, DEFAULT_MAX_RESTARTS, DEFAULT_RESTART_DELAY, Permissions};

pub use agent::{AgentConfig, AgentKind, PermissionMode, PromptBy};
pub(crate) use check::reserved;
pub use load::{ConfigError, Flags, MAX_FILE, Place, Problem, environment};
pub use paths::{MAX_SOCKET_PATH, PathError, SYSTEM_CONFIG, SYSTEM_ROOT, SYSTEM_SOCKET, Scope, check_socket};
pub use prices::{Price, Prices};
pub use token::{Env, MAX_TOKEN, Secret, Token, TokenError, token_variable};
pub use units::{Size, Time, TimeOrOff, UnitError};
pub use version::{Version, VersionRange};

/// Runs nest this deep at most (§6).
pub const MAX_DEPTH: u32 = 16;

/// The configuration of conductord.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "conductor.yaml")]
pub struct Config {
    /// Folder of all projects. Default: $XDG_STATE_HOME/conductor/runs, for a system service /var/lib/conductor/runs.
    /// A change needs a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Path of the Unix socket, at most 103 bytes. Default: $XDG_RUNTIME_DIR/conductor/conductor.sock, else below
    /// $XDG_STATE_HOME, for a system service /run/conductor/conductor.sock. A change needs a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Group (name or number) whose members may use the socket besides conductord's own user and root. They may do
    /// everything that this user may do. Default: none. A change needs a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_group: Option<String>,
    /// The agents by name (a-z, 0-9 and '-', at most 32 characters, no '-' in front). `claude`, `codex`,
    /// `gemini`, `grok`, `xai` and `perplexity` are there without being named.
    #[serde(deserialize_with = "load::agents")]
    pub agents: BTreeMap<String, AgentConfig>,
    /// What tasks and runs get that say nothing else.
    pub defaults: Defaults,
    /// The message bus.
    pub bus: BusConfig,
    /// Pauses of stopping a run.
    pub stop: StopConfig,
    /// Pauses after crashes of an agent.
    pub backoff: BackoffConfig,
    /// Whether runs get cgroups of their own where the system allows it.
    pub cgroup: CgroupMode,
    /// Variables of conductord's environment that every agent gets, besides the usual ones; `NAME*` stands for all that
    /// begin so.
    pub env_pass: Vec<String>,
    /// What happens to running agents when conductord is asked to end.
    pub on_shutdown: OnShutdown,
    /// Conductord's own log.
    pub log: LogConfig,
    /// Bounds of what agents may start.
    pub limits: LimitsConfig,
    /// What tokens cost, for vendors that report no cost: by type of agent and by model (`*` stands for any text).
    #[serde(skip_serializing_if = "Prices::is_empty")]
    pub prices: Prices,
}

/// What tasks and runs get that say nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Agent of tasks that name none. Default: the only one that is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Attempts of a loop, 1 to 100000.
    pub max_restarts: u32,
    /// Pause after an attempt without DONE, 0s to 1d.
    pub restart_delay: Time,
    /// How long DONE waits for live children, 0s to 30d.
    pub child_wait_timeout: Time,
    /// What happens to the children then.
    #[schemars(schema_with = "child_policy")]
    pub on_child_timeout: ChildPolicy,
    /// What agents may write to that say nothing else: confined to their folders, or whatever their user may. Default:
    /// confined; where that is not possible, nothing starts until this says `full`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "permissions")]
    pub permissions: Option<Permissions>,
    /// Wall time of one run, 1s to 365d; time asleep does not count. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_time: Option<Time>,
    /// Size of each log of one run, 1MiB to 16TiB, at which it is stopped.
    pub log_limit: Size,
    /// Time without any sign of life of a run (output, a message, CPU time, a pause that it has announced) after which
    /// its task is warned, 1s to 365d, or `off`; time asleep does not count.
    pub idle_warn: TimeOrOff,
    /// Time without any sign of life after which a run is ended with the outcome timed_out, 1s to 365d, or `off`.
    pub idle_timeout: TimeOrOff,
    /// Runs at the same time, 1 to 1000; further ones queue.
    pub max_concurrent_runs: u32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            agent: None,
            max_restarts: DEFAULT_MAX_RESTARTS,
            restart_delay: Time::seconds(DEFAULT_RESTART_DELAY.as_secs()),
            child_wait_timeout: Time::seconds(DEFAULT_CHILD_WAIT.as_secs()),
            on_child_timeout: ChildPolicy::default(),
            permissions: None,
            wall_time: None,
            log_limit: Size::mib(2048),
            idle_warn: TimeOrOff::seconds(600),
            idle_timeout: TimeOrOff::seconds(1800),
            max_concurrent_runs: 16,
        }
    }
}

/// `types` knows no schemas, so its values are named here; a test holds them together.
fn child_policy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["detach", "stop", "wait"] })
}

/// The same of what an agent may write to.
fn permissions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "enum": ["confined", "full", null] })
}

/// The message bus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BusConfig {
    /// When a posted message is answered.
    pub durability: Durability,
    /// Size at which a bus file is archived, 1MiB to 1TiB.
    pub rotate_size: Size,
    /// How long a post waits for another program's lock, 100ms to 5m.
    pub lock_timeout: Time,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self { durability: Durability::Batch, rotate_size: Size::mib(64), lock_timeout: Time::seconds(10) }
    }
}

/// When a posted message is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// When it is written; a power cut may lose it.
    None,
    /// When it is on disk, which many messages share one sync for.
    #[default]
    Batch,
    /// When it is on disk, by a sync of its own.
    Always,
}

/// Pauses of stopping a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StopConfig {
    /// Between SIGINT and SIGTERM, 0s to 1h.
    pub int_grace: Time,
    /// Between SIGTERM and the kill, 0s to 1h.
    pub term_grace: Time,
    /// What the rest of a tree has after its agent ended by itself, 0s to 1h.
    pub exit_grace: Time,
}

impl Default for StopConfig {
    fn default() -> Self {
        Self { int_grace: Time::seconds(10), term_grace: Time::seconds(5), exit_grace: Time::seconds(2) }
    }
}

/// Pauses after crashes of an agent: they double from the first to the longest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackoffConfig {
    /// The first, 10ms to 1h.
    pub base: Time,
    /// The longest, `base` to 1d.
    pub max: Time,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self { base: Time::seconds(1), max: Time::seconds(300) }
    }
}

/// Whether runs get cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CgroupMode {
    /// Where the system allows it; else process trees are walked.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// What happens to running agents when conductord is asked to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnShutdown {
    /// They go on; the next conductord adopts them.
    #[default]
    Leave,
    /// They are stopped; their loops go on at the next start.
    Stop,
}

/// Conductord's own log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// What is logged: a level (error, warn, info, debug, trace) or directives such as `info,conductor_core::bus=debug`.
    /// $CONDUCTOR_LOG overrides it.
    pub filter: String,
    /// How it looks.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// How the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// To journald when systemd started conductord, else as text.
    #[default]
    Auto,
    /// Lines for people, on standard error.
    Text,
    /// JSON lines, on standard error.
    Json,
}

/// Bounds of what agents may start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// How deep tasks may start tasks, 0 (not at all) to 16.
    pub max_depth: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { max_depth: MAX_DEPTH }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: None,
            socket: None,
            socket_group: None,
            agents: load::with_built_in(BTreeMap::new()),
            defaults: Defaults::default(),
            bus: BusConfig::default(),
            stop: StopConfig::default(),
            backoff: BackoffConfig::default(),
            cgroup: CgroupMode::default(),
            env_pass: Vec::new(),
            on_shutdown: OnShutdown::default(),
            log: LogConfig::default(),
            limits: LimitsConfig::default(),
            prices: Prices::default(),
        }
    }
}

impl Config {
    /// The configuration without secrets, for `conductorctl config`: tokens and the values of variables are `***`.
    #[must_use]
    pub fn redacted(&self) -> serde_json::Value {
        let mut view = self.clone();
        view.agents.values_mut().for_each(AgentConfig::hide);
        serde_json::to_value(&view).expect("only text keys and plain values")
    }

    /// [`Config::redacted`] as YAML.
    #[must_use]
    pub fn redacted_yaml(&self) -> String {
        serde_yaml::to_string(&self.redacted()).expect("JSON is YAML")
    }

    /// The number of `socket_group`; `None`: none is configured. Reads the group database.
    ///
    /// # Errors
    /// There is no such group; a sentence.
    pub fn socket_gid(&self) -> Result<Option<u32>, String> {
        self.socket_group.as_deref().map(check::group).transpose()
    }

    /// Keys that differ and that a running conductord can't take over.
    #[must_use]
    pub fn diff_restart_needed(old: &Self, new: &Self) -> Vec<&'static str> {
        let differs = [
            ("root", old.root != new.root),
            ("socket", old.socket != new.socket),
            ("socket_group", old.socket_group != new.socket_group),
        ];
        differs.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }
}

/// The JSON Schema of `conductor.yaml`, for editors.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

#[cfg(test)]
mod tests;
