//! The adapter of every vendor's program. What is one vendor's own (flags, address, traps) is its [`Driver`].

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::base::{Base, Facts, Surroundings};
use super::check::{Finding, findings};
use super::program::command_line;
use super::stream::Vendor;
use super::{
    Adapter, AgentCommand, Classified, EventParser, ExitFacts, PrepareError, RunRequest, StreamSummary, VersionError,
    env, limits, session, stream, text,
};
use crate::config::{AgentKind, Env, PermissionMode};

/// Knows one vendor's program.
pub(crate) trait Driver: Debug + Send + Sync {
    /// What is known of it.
    fn facts(&self) -> &'static Facts;

    /// Whose stream and limits.
    fn vendor(&self) -> Vendor;

    /// Adds what is the vendor's own. Writes into the run's folder, or into one of ours below the root, at most.
    fn draft(&self, base: &Base, run: &RunRequest, draft: &mut Draft) -> Result<(), PrepareError>;

    /// Sets the address of the service.
    fn address(&self, url: &str, draft: &mut Draft);
}

/// A command that is being put together.
#[derive(Debug)]
pub(crate) struct Draft {
    /// Arguments behind the program.
    pub(crate) words: Vec<String>,
    /// The environment so far.
    pub(crate) env: Env,
    /// The variable with the key in use.
    pub(crate) key: Option<&'static str>,
    /// What becomes standard input.
    pub(crate) stdin: Option<PathBuf>,
    /// Variables that show in front of the command line.
    pub(crate) shown: Vec<(&'static str, String)>,
    /// What was done that nobody asked for.
    pub(crate) notes: Vec<String>,
    /// What it may do.
    pub(crate) mode: PermissionMode,
    /// The model, if one was asked for.
    pub(crate) model: Option<String>,
    /// The session that it goes on with, or begins under an id of ours.
    pub(crate) session: Option<String>,
}

impl Draft {
    /// Adds arguments.
    pub(crate) fn push<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        self.words.extend(words.into_iter().map(str::to_owned));
    }

    /// Sets a variable.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.env.insert(name.to_owned(), value.into());
    }
}

/// An agent that is a vendor's program.
#[derive(Debug)]
pub(crate) struct Cli<D> {
    base: Base,
    driver: D,
}

impl<D: Driver> Cli<D> {
    pub(crate) fn new(base: Base, driver: D) -> Self {
        Self { base, driver }
    }

    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    /// Whether it has a key; a token that can't be read counts, so that its error is shown.
    pub(crate) fn has_key(&self) -> bool {
        self.base.surroundings(self.driver.facts()).map_or(true, |around| around.key.is_some())
    }
}

impl<D: Driver> Adapter for Cli<D> {
    fn name(&self) -> &str {
        &self.base.name
    }

    fn kind(&self) -> AgentKind {
        self.base.config.kind
    }

    fn program(&self) -> Result<PathBuf, PrepareError> {
        let facts = self.driver.facts();
        self.base.program(facts.program, self.base.install(facts))
    }

    fn installed(&self) -> bool {
        (self.driver.facts().folder.is_some() || self.has_key()) && self.program().is_ok()
    }

    fn login(&self) -> Result<String, PrepareError> {
        self.base.surroundings(self.driver.facts()).map(|around| around.login)
    }

    fn account(&self) -> Result<String, PrepareError> {
        self.base.account(self.driver.facts())
    }

    fn prepare(&self, run: &RunRequest) -> Result<AgentCommand, PrepareError> {
        let (base, facts) = (&self.base, self.driver.facts());
        let program = self.program()?;
        base.check_version(facts, &program)?;
        let Surroundings { env, mut secrets, login, key } = base.surroundings(facts)?;
        secrets.extend(base.configured_names(&base.environment()));
        let mut draft = Draft {
            words: Vec::new(),
            env,
            key,
            stdin: None,
            shown: Vec::new(),
            notes: Vec::new(),
            mode: base.config.permission_mode.unwrap_or_default(),
            model: run.model.clone().or_else(|| base.config.model.clone()),
            session: run.resume_session.clone(),
        };
        if let Some(url) = &base.config.base_url {
            self.driver.address(url, &mut draft);
        }
        self.driver.draft(base, run, &mut draft)?;
        env::add_run(&mut draft.env, run)?;
        secrets.push(env::TOKEN.to_owned());
        secrets.sort();
        secrets.dedup();
        let argv: Vec<String> = [text(&program)?].into_iter().chain(draft.words).collect();
        let state = facts.folder.as_ref().map(|folder| folder.state(&draft.env)).unwrap_or_default();
        Ok(AgentCommand {
            display: display(&draft.shown, &argv, draft.stdin.as_deref())?,
            argv,
            env: draft.env.into_iter().collect(),
            secret_names: secrets,
            stdin: draft.stdin,
            cwd: run.cwd.clone(),
            login,
            program,
            model: draft.model,
            notes: draft.notes,
            agent: base.name.clone(),
            state,
            session: draft.session,
        })
    }

    fn version(&self) -> Result<Option<String>, VersionError> {
        self.base.version(self.driver.facts()).map(Some)
    }

    fn events(&self) -> Box<dyn EventParser> {
        stream::parser(self.driver.vendor())
    }

    fn classify(&self, exit: &ExitFacts, parsed: &StreamSummary) -> Classified {
        let zone = limits::zone(self.base.environment().get("TZ").map(String::as_str));
        limits::classify(self.driver.vendor(), exit, parsed, &zone, &|text| self.base.masked(text))
    }

    fn session_lost(&self, exit: &ExitFacts, parsed: &StreamSummary) -> bool {
        session::lost(self.driver.vendor(), exit, parsed)
    }

    fn masked(&self, text: &str) -> String {
        self.base.masked(text)
    }

    fn secrets(&self) -> Vec<SecretString> {
        self.base.secrets()
    }

    fn environment(&self) -> Env {
        let facts = self.driver.facts();
        self.base.surroundings(facts).map_or_else(|_| self.base.environment(), |around| around.env)
    }

    fn check(&self) -> Vec<Finding> {
        findings(&self.base, self.driver.facts())
    }
}

/// The command line for people.
fn display(shown: &[(&str, String)], argv: &[String], stdin: Option<&Path>) -> Result<String, PrepareError> {
    let mut line: String =
        shown.iter().map(|(name, value)| format!("{name}={} ", super::program::quoted(value))).collect();
    line += &command_line(argv.iter().map(String::as_str));
    if let Some(path) = stdin {
        line += &format!(" < {}", command_line([text(path)?.as_str()]));
    }
    Ok(line)
}
