//! Claude Code, headless (`claude -p`), with the prompt on standard input. Flags and traps: contract C1 of the agents,
//! seen with claude 2.1.197. Its stream is read by `stream`, its refusals by `limits`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::ExposeSecret;

use super::program::command_line;
use super::stream::Vendor;
use super::version::Versions;
use super::{
    Adapter, AgentCommand, Base, Classified, EventParser, ExitFacts, PrepareError, RunRequest, StreamSummary,
    VersionError, env, limits, stream, text,
};
use crate::config::{AgentKind, Env, PermissionMode};

/// How to get it.
const INSTALL: &str = "npm install -g @anthropic-ai/claude-code";
/// Claude Code reads at most 10 MB from standard input (its documentation); a longer prompt is handed over by path.
const MAX_STDIN: u64 = 10_000_000;
/// The file that stands in for a prompt over [`MAX_STDIN`], in the run's folder.
const STDIN_FILE: &str = "prompt-by-path.md";
/// Keys that it takes from its environment, and how each shows as a login.
const KEY_VARIABLES: [&str; 3] = ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"];
/// Beginning of the long-lived tokens that `claude setup-token` makes, which go into a variable of their own.
const OAUTH_PREFIX: &str = "sk-ant-oat";

/// An agent of type `claude`.
#[derive(Debug)]
pub(crate) struct Claude {
    base: Base,
    versions: Arc<Versions>,
}

impl Claude {
    pub(crate) fn new(base: Base, versions: Arc<Versions>) -> Self {
        Self { base, versions }
    }

    fn permission_mode(&self) -> PermissionMode {
        self.base.config.permission_mode.unwrap_or_default()
    }

    fn argv(&self, program: String, run: &RunRequest) -> Vec<String> {
        let mut argv = vec![program];
        let fixed =
            ["-p", "--input-format", "text", "--output-format", "stream-json", "--verbose", "--permission-mode"];
        argv.extend(fixed.map(str::to_owned));
        argv.push(self.permission_mode().name().to_owned());
        if let Some(model) = run.model.as_ref().or(self.base.config.model.as_ref()) {
            argv.extend(["--model".to_owned(), model.clone()]);
        }
        if let Some(session) = &run.resume_session {
            argv.extend(["--resume".to_owned(), session.clone()]);
        }
        argv.extend(self.base.config.args.iter().chain(&run.extra_args).cloned());
        argv
    }

    /// The environment but for what belongs to one run, the names of secrets in it, and the login that results.
    fn environment(&self) -> Result<(Env, Vec<String>, String), PrepareError> {
        let config = &self.base.config;
        let mut environment = self.base.environment();
        let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
        // A run is not the moment to change the program, and an update would change what is being used by others.
        set("DISABLE_AUTOUPDATER", "1".to_owned());
        if let Some(url) = &config.base_url {
            set("ANTHROPIC_BASE_URL", url.clone());
        }
        if let Some(folder) = &config.config_dir {
            set("CLAUDE_CONFIG_DIR", text(folder)?);
        }
        let token = config
            .resolve_token(&self.base.name, &self.base.host.env)
            .map_err(|error| PrepareError::Token { agent: self.base.name.clone(), error })?;
        let login = match token {
            Some(token) => {
                let value = token.value.expose_secret();
                let oauth = value.starts_with(OAUTH_PREFIX);
                // Any other key would compete with it.
                environment.retain(|name, _| !KEY_VARIABLES.contains(&name.as_str()));
                environment.insert(KEY_VARIABLES[if oauth { 2 } else { 0 }].to_owned(), value.to_owned());
                token.login
            }
            None => match KEY_VARIABLES.iter().find(|name| environment.contains_key(**name)) {
                Some(name) => format!("key from variable {name}"),
                None => "login".to_owned(),
            },
        };
        let secrets = KEY_VARIABLES.iter().filter(|name| environment.contains_key(**name));
        let secrets = secrets.map(|name| (*name).to_owned()).collect();
        Ok((environment, secrets, login))
    }

    /// The file that becomes standard input: the prompt, or for a very long one a short text that names it.
    fn stdin(run: &RunRequest, notes: &mut Vec<String>) -> Result<PathBuf, PrepareError> {
        let failed = |error| PrepareError::Prompt { path: run.prompt.clone(), error };
        let length = fs::metadata(&run.prompt).map_err(failed)?.len();
        if length <= MAX_STDIN {
            return Ok(run.prompt.clone());
        }
        let stand_in = run.run_folder.join(STDIN_FILE);
        let words = format!(
            "Your task is in the file {} ({length} bytes, too long to be handed over here). Read that file completely, in \
             parts, and then do what it says.\n",
            text(&run.prompt)?
        );
        fs::write(&stand_in, words).map_err(|error| PrepareError::Prompt { path: stand_in.clone(), error })?;
        notes.push(format!(
            "the prompt of {length} bytes is handed over by path, since Claude Code reads at most 10 MB from its input"
        ));
        Ok(stand_in)
    }
}

impl Adapter for Claude {
    fn name(&self) -> &str {
        &self.base.name
    }

    fn kind(&self) -> AgentKind {
        AgentKind::Claude
    }

    fn program(&self) -> Result<PathBuf, PrepareError> {
        self.base.program("claude", Some(INSTALL))
    }

    fn login(&self) -> Result<String, PrepareError> {
        self.environment().map(|(_, _, login)| login)
    }

    fn masked(&self, text: &str) -> String {
        self.base.masked(text)
    }

    fn prepare(&self, run: &RunRequest) -> Result<AgentCommand, PrepareError> {
        let program = self.program()?;
        let (mut environment, mut secret_names, login) = self.environment()?;
        secret_names.extend(self.base.configured_names(&self.base.environment()));
        let mut notes = Vec::new();
        let mut shown = String::new();
        if self.base.host.root && self.permission_mode() == PermissionMode::BypassPermissions {
            // As root it refuses to bypass permissions unless it is told that it is in a sandbox.
            environment.insert("IS_SANDBOX".to_owned(), "1".to_owned());
            "IS_SANDBOX=1 ".clone_into(&mut shown);
            notes.push(
                "IS_SANDBOX=1 is set, since Claude Code refuses bypassPermissions as root without it; the agent is not \
                 confined"
                    .to_owned(),
            );
        }
        env::add_run(&mut environment, run)?;
        secret_names.push(env::TOKEN.to_owned());
        let stdin = Self::stdin(run, &mut notes)?;
        let argv = self.argv(text(&program)?, run);
        shown += &command_line(argv.iter().map(String::as_str));
        shown += &format!(" < {}", command_line([text(&stdin)?.as_str()]));
        Ok(AgentCommand {
            argv,
            env: environment.into_iter().collect(),
            secret_names,
            stdin: Some(stdin),
            cwd: run.cwd.clone(),
            display: shown,
            login,
            program,
            model: run.model.clone().or_else(|| self.base.config.model.clone()),
            notes,
        })
    }

    fn version(&self) -> Result<Option<String>, VersionError> {
        let program = self.program().map_err(|error| VersionError::NoProgram(error.to_string()))?;
        let mut environment = self.base.environment();
        environment.insert("DISABLE_AUTOUPDATER".to_owned(), "1".to_owned());
        self.versions.get(&program, &environment).map(Some)
    }

    fn events(&self) -> Box<dyn EventParser> {
        stream::claude()
    }

    fn classify(&self, exit: &ExitFacts, parsed: &StreamSummary) -> Classified {
        let zone = limits::zone(self.base.environment().get("TZ").map(String::as_str));
        limits::classify(Vendor::Claude, exit, parsed, &zone, &|text| self.base.masked(text))
    }
}

#[cfg(test)]
mod tests;
