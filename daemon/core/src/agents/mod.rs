//! Agents: what turns a prepared run into a command, and its output into normal events.
//!
//! One [`Adapter`] per configured agent, kept by [`Agents`]. Nothing here spawns an agent (the runner does) or decides
//! what a loop does next (`ralph` does). The only program that is started here is a version probe.
//!
//! | module | what |
//! | --- | --- |
//! | `claude`, `codex`, `gemini`, `grok`, `rest`, `xai`, `command` | the adapters |
//! | `base`, `cli` | what they share: looking up, environment, key, account, version |
//! | `home` | a folder of settings of ours, where a program would prefer a login to a key |
//! | [`check`] | what a newcomer trips over |
//! | [mod@env] | the environment of an agent: built, not inherited |
//! | [`event`], `lines` | normal events and how a stream is cut into lines |
//! | [`stream`] | a parser per vendor |
//! | `limits` | usage limits, outages and login problems told apart, and the clocks in vendors' words |
//! | [`mask`] | configured keys in what agents print |
//! | [`outcome`] | from how a process ended to the run's outcome |
//! | [`output`] | `output.md` |
//! | [`prompt`] | the preamble and what a next attempt is told |
//! | [`version`] | what a program says of its version |

mod base;
pub mod check;
mod claude;
mod cli;
mod codex;
mod command;
pub mod confine;
pub mod env;
pub mod event;
mod gemini;
mod grok;
mod home;
mod json;
pub(crate) mod limits;
mod lines;
pub mod mask;
pub mod outcome;
pub mod output;
mod parser;
pub mod program;
pub mod prompt;
mod rest;
mod session;
pub mod stream;
pub mod version;
mod xai;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;

use crate::config::{AgentKind, Config, Env, TokenError, token_variable};
use crate::types::{Limits, RunKey};

use base::Base;
use cli::Cli;

pub use check::{Finding, Level, Unseen, unseen};
pub use env::Host;
pub use event::{Event, EventKind, EventParser, Stream, StreamSummary};
pub use mask::{Masks, Seam};
pub use outcome::{Classified, EndCause, ExitFacts};
pub use version::VersionError;

/// Bytes of a task's prompt at most (§15); longer ones are refused.
pub const MAX_PROMPT: u64 = 16 << 20;

/// A run that is to be started. Paths are absolute.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// Project, task and run.
    pub key: RunKey,
    /// The run whose agent started this task or run.
    pub parent: Option<RunKey>,
    /// Its ordinal in its task's loop, from 1.
    pub attempt: u32,
    /// Attempts that the loop makes at most.
    pub max_attempts: u32,
    /// Storage root.
    pub root: PathBuf,
    /// The task's folder.
    pub task_folder: PathBuf,
    /// The run's folder, which exists.
    pub run_folder: PathBuf,
    /// The file with the whole prompt, preamble included, which exists.
    pub prompt: PathBuf,
    /// Working folder of the agent.
    pub cwd: PathBuf,
    /// Model; `None`: the agent's.
    pub model: Option<String>,
    /// Arguments behind the configured ones.
    pub extra_args: Vec<String>,
    /// The vendor's session to go on with; `None`: a fresh one.
    pub resume_session: Option<String>,
    /// The token with which this run may use conductord.
    pub token: SecretString,
    /// Conductord's socket.
    pub socket: PathBuf,
    /// Limits of the run.
    pub limits: Limits,
}

/// What is to be executed. Its `Debug` leaves the environment's values out.
#[derive(Clone)]
pub struct AgentCommand {
    /// Absolute path of the program, then its arguments.
    pub argv: Vec<String>,
    /// The whole environment, sorted by name.
    pub env: Vec<(String, String)>,
    /// Names in `env` whose values are secrets.
    pub secret_names: Vec<String>,
    /// What becomes standard input; `None`: `/dev/null`.
    pub stdin: Option<PathBuf>,
    /// Working folder.
    pub cwd: PathBuf,
    /// The command line for people, without secrets.
    pub display: String,
    /// Login or key in use, for people: `login`, `key from token_file`, `none` for plain commands.
    pub login: String,
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Model that was asked for.
    pub model: Option<String>,
    /// What was done that nobody asked for, one sentence each.
    pub notes: Vec<String>,
    /// The agent's name in the configuration.
    pub agent: String,
    /// The program's own folders and files, to which it writes.
    pub state: Vec<PathBuf>,
    /// The vendor's session that it goes on with, or begins under an id of ours; `None`: its stream will tell.
    pub session: Option<String>,
}

impl fmt::Debug for AgentCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("AgentCommand")
            .field("display", &self.display)
            .field("env", &names)
            .field("stdin", &self.stdin)
            .field("cwd", &self.cwd)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

/// Why a run can't be prepared. All of them need a person: trying again changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The program is nowhere.
    #[error("agent {agent}: program {program} was not found{}", hint(.install.as_deref()))]
    ProgramMissing {
        /// The agent.
        agent: String,
        /// What was looked for.
        program: String,
        /// Command that installs it.
        install: Option<String>,
    },
    /// It is there, but not a file that can be executed.
    #[error("agent {agent}: {} is not an executable file{}", .path.display(), hint(.install.as_deref()))]
    NotExecutable {
        /// The agent.
        agent: String,
        /// The file.
        path: PathBuf,
        /// Command that installs it.
        install: Option<String>,
    },
    /// Its version is none that may run.
    #[error(
        "agent {agent}: {} is version {found}, but agents.{agent}.version wants {wanted}{}",
        .path.display(),
        hint(.install.as_deref())
    )]
    Version {
        /// The agent.
        agent: String,
        /// The program.
        path: PathBuf,
        /// What it says.
        found: String,
        /// The range of the configuration.
        wanted: String,
        /// Command that installs one that may run.
        install: Option<String>,
    },
    /// Only some versions may run, and its own can't be told.
    #[error("agent {agent}: agents.{agent}.version wants {wanted}, but {error}{}", hint(.install.as_deref()))]
    VersionUnknown {
        /// The agent.
        agent: String,
        /// The range of the configuration.
        wanted: String,
        /// Command that installs one that may run.
        install: Option<String>,
        /// Why.
        #[source]
        error: Box<VersionError>,
    },
    /// Its token can't be had.
    #[error("agent {agent}: {key}: {error}")]
    Token {
        /// The agent.
        agent: String,
        /// The key of the configuration, or the variable, that the token is to come from.
        key: String,
        /// Why.
        #[source]
        error: TokenError,
    },
    /// It needs a key and has none.
    #[error("{}: set agents.{agent}.token_file, or {}", no_key(.agent, .or.as_deref()), token_variable(.agent))]
    NoKey {
        /// The agent.
        agent: String,
        /// What is missing for the way that needs no key.
        or: Option<Box<PrepareError>>,
    },
    /// The settings of its program can't be read, or ours not made from them.
    #[error("agent {agent}: {} {error}", .path.display())]
    Settings {
        /// The agent.
        agent: String,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Something was asked for that this kind of agent has not.
    #[error("agent {agent} is a plain command and knows no {what}")]
    Unsupported {
        /// The agent.
        agent: String,
        /// What.
        what: &'static str,
    },
    /// A path that can't be written into a command or an environment.
    #[error("{} is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
    /// The prompt can't be read, or handed over.
    #[error("prompt {}: {error}", .path.display())]
    Prompt {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

fn hint(install: Option<&str>) -> String {
    install.map(|command| format!("; install it with: {command}")).unwrap_or_default()
}

fn no_key(agent: &str, or: Option<&PrepareError>) -> String {
    match or {
        Some(missing) => format!("{missing}; or give it a key for the HTTP API"),
        None => format!("agent {agent}: it needs a key"),
    }
}

/// What the rest of Conductor knows of an agent. All calls may read files and block shortly; [`Adapter::version`],
/// [`Adapter::check`], and [`Adapter::prepare`] where only some versions may run, may take ten seconds.
pub trait Adapter: Send + Sync + fmt::Debug {
    /// Its name in the configuration.
    fn name(&self) -> &str;

    /// Its kind.
    fn kind(&self) -> AgentKind;

    /// Its program, looked up.
    ///
    /// # Errors
    /// [`PrepareError::ProgramMissing`], [`PrepareError::NotExecutable`].
    fn program(&self) -> Result<PathBuf, PrepareError>;

    /// Whether it could be the default: its program is there, and what needs a key has one.
    fn installed(&self) -> bool {
        self.program().is_ok()
    }

    /// Login or key that a run would use, for people.
    ///
    /// # Errors
    /// [`PrepareError::Token`].
    fn login(&self) -> Result<String, PrepareError>;

    /// Whose limits it shares: a name of the configuration, else `VENDOR/login`, `VENDOR/login:FOLDER` or
    /// `VENDOR/key-HASH` (the first 8 hex digits of the key's SHA-256), for a plain command `command/NAME`.
    ///
    /// # Errors
    /// [`PrepareError::Token`].
    fn account(&self) -> Result<String, PrepareError>;

    /// The command of a run. Writes into the run's folder, or a folder of the agent below the root, at most, and may be
    /// called again.
    ///
    /// # Errors
    /// [`PrepareError`].
    fn prepare(&self, run: &RunRequest) -> Result<AgentCommand, PrepareError>;

    /// What the program says of its version; `None` for programs that can't be asked. Asked once per file and change of
    /// it.
    ///
    /// # Errors
    /// [`VersionError`].
    fn version(&self) -> Result<Option<String>, VersionError>;

    /// A parser of its standard output.
    fn events(&self) -> Box<dyn EventParser>;

    /// The run's outcome, from how its process ended and what its stream said.
    fn classify(&self, exit: &ExitFacts, parsed: &StreamSummary) -> Classified;

    /// Whether it ended at once because the session that it was to go on with is not there.
    fn session_lost(&self, _: &ExitFacts, _: &StreamSummary) -> bool {
        false
    }

    /// A text without the agent's keys, for what is kept or shown of its words.
    fn masked(&self, text: &str) -> String;

    /// What [`Adapter::masked`] replaces. Never to be shown.
    fn secrets(&self) -> Vec<SecretString>;

    /// The environment of a run but for what belongs to one run: for [`unseen`], never to be shown, as it holds the key.
    fn environment(&self) -> Env;

    /// What a newcomer trips over, in exactly the environment that a run would get. Starts nothing but a version probe.
    fn check(&self) -> Vec<Finding>;

    /// The final answer of its stream, for `output.md`; `None`: the stream has none.
    fn final_answer(&self, parsed: &StreamSummary) -> Option<String> {
        parsed.answer.clone().filter(|answer| !answer.trim().is_empty())
    }
}

/// A parser for the streams of an agent of which nothing is known: every line of standard output is text.
#[must_use]
pub fn plain_events() -> Box<dyn EventParser> {
    Box::new(parser::Parser::new(parser::Plain::default()))
}

/// The configured agents. Cheap to build; built anew when the configuration changes.
#[derive(Clone, Debug)]
pub struct Agents {
    adapters: BTreeMap<String, Arc<dyn Adapter>>,
    default: Option<String>,
}

impl Agents {
    /// Adapters for all agents of a configuration.
    #[must_use]
    pub fn new(config: &Config, host: &Arc<Host>) -> Self {
        let shared: Arc<[String]> = config.env_pass.clone().into();
        let versions = Arc::new(version::Versions::default());
        let adapters = config
            .agents
            .iter()
            .map(|(name, agent)| {
                let base = Base {
                    name: name.clone(),
                    config: agent.clone(),
                    env_pass: Arc::clone(&shared),
                    host: Arc::clone(host),
                    versions: Arc::clone(&versions),
                };
                let adapter: Arc<dyn Adapter> = match agent.kind {
                    AgentKind::Claude => Arc::new(Cli::new(base, claude::Claude)),
                    AgentKind::Codex => Arc::new(Cli::new(base, codex::Codex)),
                    AgentKind::Gemini => Arc::new(Cli::new(base, gemini::Gemini)),
                    AgentKind::Grok => Arc::new(Cli::new(base, grok::Grok)),
                    AgentKind::Xai => Arc::new(xai::Xai::new(base)),
                    AgentKind::Perplexity => Arc::new(Cli::new(base, rest::Rest::Perplexity)),
                    AgentKind::Command => Arc::new(command::Command::new(base)),
                };
                (name.clone(), adapter)
            })
            .collect();
        Self { adapters, default: config.defaults.agent.clone() }
    }

    /// An agent by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Adapter>> {
        self.adapters.get(name)
    }

    /// What hides the keys of all agents. Reads token files; one that can't be read hides nothing, as nobody has it.
    #[must_use]
    pub fn masks(&self) -> Masks {
        let secrets: Vec<SecretString> = self.adapters.values().flat_map(|adapter| adapter.secrets()).collect();
        Masks::new(&secrets)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.adapters.keys().map(String::as_str)
    }

    /// Agents whose program is there, and whose key is, where they need one. Looks at the disk.
    #[must_use]
    pub fn installed(&self) -> Vec<&str> {
        self.adapters.iter().filter(|(_, adapter)| adapter.installed()).map(|(name, _)| name.as_str()).collect()
    }

    /// The agent of a task that names none: `defaults.agent`, else the only one that is installed; `None`: it has to be
    /// named.
    #[must_use]
    pub fn default_agent(&self) -> Option<&str> {
        if let Some(name) = &self.default {
            return Some(name);
        }
        match self.installed()[..] {
            [only] => Some(only),
            _ => None,
        }
    }
}

/// A path as text.
pub(crate) fn text(path: &Path) -> Result<String, PrepareError> {
    path.to_str().map(str::to_owned).ok_or_else(|| PrepareError::NotUtf8(path.to_owned()))
}

/// An address with a path where it has none: gateways have paths of their own, a bare host has the vendor's.
pub(crate) fn with_path(url: &str, path: &str) -> String {
    let bare = url.trim_end_matches('/');
    let host = bare.split_once("://").map_or(bare, |(_, rest)| rest);
    if host.contains(['/', '?']) { bare.to_owned() } else { format!("{bare}{path}") }
}

#[cfg(test)]
mod tests;
