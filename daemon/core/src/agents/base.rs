//! What all adapters have: one agent's configuration, the machine, and what is the same for every vendor: looking a
//! program up, building its environment, telling its key, account and version.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::version::Versions;
use super::{Host, PrepareError, RunRequest, VersionError, env, program, text};
use crate::config::{AgentConfig, Env, Token, Version};

/// Bytes of a key whose SHA-256 tells accounts apart: enough for a person's keys, useless for guessing one.
const KEY_HASH_BYTES: usize = 4;
/// Shorter values of secret variables are not masked: `1` would be masked everywhere.
const MIN_MASKED: usize = 8;

/// What is known of a vendor's program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Its name, as in PATH.
    pub(crate) program: &'static str,
    /// Its npm package; `None`: it is ours.
    pub(crate) package: Option<&'static str>,
    /// Variables that it takes a key from. Where a token is configured, no other one may be there.
    pub(crate) keys: &'static [&'static str],
    /// Variables that make it use another login than the key; removed where a token is configured.
    pub(crate) rivals: &'static [&'static str],
    /// The variable of `keys` that a token belongs into, by the token.
    pub(crate) key_for: fn(&str) -> &'static str,
    /// Switches of every start: no update of the program by itself.
    pub(crate) switches: &'static [(&'static str, &'static str)],
    /// Where its settings and its login are.
    pub(crate) folder: Option<Folder>,
    /// How a person logs in.
    pub(crate) log_in: &'static str,
}

/// A vendor program's folder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Folder {
    /// The variable that names it, or the folder that it is in.
    pub(crate) variable: &'static str,
    /// Its name in the home folder.
    pub(crate) name: &'static str,
    /// Whether the variable names the folder that it is in, as HOME does.
    pub(crate) in_home: bool,
    /// Files of a login, one of which is there after it.
    pub(crate) logins: &'static [&'static str],
    /// Files beside it in the home folder, where no variable names another place.
    pub(crate) beside: &'static [&'static str],
}

impl Folder {
    /// Where the program keeps what it writes, in an environment.
    pub(crate) fn state(&self, env: &Env) -> Vec<PathBuf> {
        let home = env.get("HOME").map(PathBuf::from).unwrap_or_default();
        match env.get(self.variable).map(PathBuf::from) {
            Some(path) if self.in_home => vec![path.join(self.name)],
            Some(path) => vec![path],
            None => [self.name].iter().chain(self.beside).map(|name| home.join(name)).collect(),
        }
    }
}

/// An agent's environment but for what belongs to one run.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// The variables.
    pub(crate) env: Env,
    /// Those of them that hold the vendor's keys.
    pub(crate) secrets: Vec<String>,
    /// Login or key, for people.
    pub(crate) login: String,
    /// The variable with the key that will be used; `None`: its own login.
    pub(crate) key: Option<&'static str>,
}

/// One agent's configuration and the machine.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) name: String,
    pub(crate) config: AgentConfig,
    pub(crate) env_pass: Arc<[String]>,
    pub(crate) host: Arc<Host>,
    pub(crate) versions: Arc<Versions>,
}

impl Base {
    /// Looks the program up in the PATH that the agent would get.
    pub(crate) fn program(&self, default: &str, install: Option<String>) -> Result<PathBuf, PrepareError> {
        let wanted = self.config.program.as_deref().unwrap_or(default);
        let path = self.environment().remove("PATH").unwrap_or_default();
        match program::find(wanted, &path) {
            program::Found::Yes(path) => Ok(path),
            program::Found::NotExecutable(path) => {
                Err(PrepareError::NotExecutable { agent: self.name.clone(), path, install })
            }
            program::Found::No => {
                Err(PrepareError::ProgramMissing { agent: self.name.clone(), program: wanted.to_owned(), install })
            }
        }
    }

    /// The command that installs a vendor's program in a version that may run.
    pub(crate) fn install(&self, facts: &Facts) -> Option<String> {
        let package = facts.package?;
        Some(match &self.config.version {
            Some(range) => {
                let wanted = format!("{package}@{}", range.npm());
                format!("npm install -g {}", program::quoted(&wanted))
            }
            None => format!("npm install -g {package}"),
        })
    }

    /// The environment without what belongs to one run, and without a vendor's.
    pub(crate) fn environment(&self) -> Env {
        env::base(&self.host, &self.env_pass, &self.config.env_pass, &self.config.env)
    }

    /// Its key; `None`: it has none of its own.
    pub(crate) fn token(&self) -> Result<Option<Token>, PrepareError> {
        self.config.resolve_token(&self.name, &self.host.env).map_err(|error| PrepareError::Token {
            agent: self.name.clone(),
            key: self.config.token_key(&self.name, &self.host.env),
            error,
        })
    }

    /// The environment with what a vendor's program needs of us.
    pub(crate) fn surroundings(&self, facts: &Facts) -> Result<Surroundings, PrepareError> {
        let mut env = self.program_environment(facts)?;
        let (key, login) = match self.token()? {
            Some(token) => {
                let value = token.value.expose_secret();
                let variable = (facts.key_for)(value);
                // Any other key or login would compete with it.
                env.retain(|name, _| !facts.keys.contains(&name.as_str()) && !facts.rivals.contains(&name.as_str()));
                env.insert(variable.to_owned(), value.to_owned());
                (Some(variable), token.login)
            }
            None => match facts.keys.iter().find(|name| env.get(**name).is_some_and(|value| !value.is_empty())) {
                Some(name) => (Some(*name), format!("key from variable {name}")),
                None if facts.folder.is_none() => (None, "no key".to_owned()),
                None => (None, "login".to_owned()),
            },
        };
        let secrets = facts.keys.iter().filter(|name| env.contains_key(**name));
        let secrets = secrets.map(|name| (*name).to_owned()).collect();
        Ok(Surroundings { env, secrets, login, key })
    }

    /// The environment without keys: what the program's version is asked in.
    fn program_environment(&self, facts: &Facts) -> Result<Env, PrepareError> {
        let mut env = self.environment();
        for (name, value) in facts.switches {
            env.insert((*name).to_owned(), (*value).to_owned());
        }
        if let (Some(path), Some(folder)) = (&self.config.config_dir, &facts.folder) {
            env.insert(folder.variable.to_owned(), text(path)?);
        }
        Ok(env)
    }

    /// What the program says of its version.
    pub(crate) fn version(&self, facts: &Facts) -> Result<String, VersionError> {
        let no_program = |error: PrepareError| VersionError::NoProgram(error.to_string());
        let path = self.program(facts.program, self.install(facts)).map_err(no_program)?;
        self.versions.get(&path, &self.program_environment(facts).map_err(no_program)?)
    }

    /// Whether the program's version may run. Asks nothing where any may.
    pub(crate) fn check_version(&self, facts: &Facts, path: &Path) -> Result<(), PrepareError> {
        let Some(wanted) = &self.config.version else { return Ok(()) };
        let install = self.install(facts);
        let (agent, path) = (self.name.clone(), path.to_owned());
        let wanted_text = wanted.to_string();
        let told = match self.version(facts) {
            Ok(told) => told,
            Err(error) => {
                let error = Box::new(error);
                return Err(PrepareError::VersionUnknown { agent, wanted: wanted_text, install, error });
            }
        };
        match Version::find(&told) {
            Some(version) if wanted.contains(version) => Ok(()),
            _ => Err(PrepareError::Version { agent, path, found: told, wanted: wanted_text, install }),
        }
    }

    /// Whose limits it shares.
    pub(crate) fn account(&self, facts: &Facts) -> Result<String, PrepareError> {
        if let Some(account) = &self.config.account {
            return Ok(account.clone());
        }
        let vendor = self.config.kind.vendor();
        let around = self.surroundings(facts)?;
        if let Some(value) = around.key.and_then(|name| around.env.get(name)) {
            let hash = Sha256::digest(value.as_bytes());
            let short: String = hash.iter().take(KEY_HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
            return Ok(format!("{vendor}/key-{short}"));
        }
        let folder = facts.folder.as_ref().and_then(|folder| around.env.get(folder.variable));
        Ok(match folder {
            _ if facts.folder.is_none() => format!("{vendor}/no-key"),
            Some(folder) => format!("{vendor}/login:{folder}"),
            None => format!("{vendor}/login"),
        })
    }

    /// A text without the agent's keys, for what is kept or shown of its words.
    pub(crate) fn masked(&self, text: &str) -> String {
        self.secrets().iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose_secret(), "***"))
    }

    /// The agent's keys: its token, and what the configuration put into its environment under a name that says so.
    pub(crate) fn secrets(&self) -> Vec<SecretString> {
        let token = self.token().ok().flatten().map(|token| token.value);
        let environment = self.environment();
        let names = self.configured_names(&environment);
        let values = names.iter().filter(|name| env::names_secret(name)).map(|name| &environment[name]);
        let values = values.filter(|value| value.len() >= MIN_MASKED).map(|value| SecretString::from(value.clone()));
        token.into_iter().chain(values).collect()
    }

    /// Names in `environment` that the configuration put there: some hold keys, so all count as secret.
    pub(crate) fn configured_names(&self, environment: &Env) -> Vec<String> {
        let usual = env::base(&self.host, &[], &[], &Env::new());
        environment
            .iter()
            .filter(|(name, value)| usual.get(*name) != Some(*value))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The file that becomes standard input: the prompt, or for one over `limit` a short text that names it.
    pub(crate) fn stand_in(
        &self,
        run: &RunRequest,
        program: &str,
        limit: u64,
        notes: &mut Vec<String>,
    ) -> Result<PathBuf, PrepareError> {
        let failed = |error| PrepareError::Prompt { path: run.prompt.clone(), error };
        let length = fs::metadata(&run.prompt).map_err(failed)?.len();
        if length <= limit {
            return Ok(run.prompt.clone());
        }
        let stand_in = run.run_folder.join(STAND_IN);
        let words = format!(
            "Your task is in the file {} ({length} bytes, too long to be handed over here). Read that file completely, in \
             parts, and then do what it says.\n",
            text(&run.prompt)?
        );
        fs::write(&stand_in, words).map_err(|error| PrepareError::Prompt { path: stand_in.clone(), error })?;
        notes.push(format!(
            "the prompt of {length} bytes is handed over by path, since {program} reads at most {limit} bytes from its \
             input"
        ));
        Ok(stand_in)
    }
}

/// The file that stands in for a prompt that is too long, in the run's folder.
const STAND_IN: &str = "prompt-by-path.md";

impl Folder {
    /// The folder in an environment; `None`: there is no home folder.
    pub(crate) fn path(&self, environment: &Env) -> Option<PathBuf> {
        let named = environment.get(self.variable).filter(|path| !path.is_empty());
        match named {
            Some(path) if !self.in_home => Some(path.into()),
            Some(path) => Some(Path::new(path).join(self.name)),
            None => environment.get("HOME").map(|home| Path::new(home).join(self.name)),
        }
    }

    /// The file of a login, where there is one. Reads none.
    pub(crate) fn login_file(&self, environment: &Env) -> Option<PathBuf> {
        let folder = self.path(environment)?;
        self.logins.iter().map(|name| folder.join(name)).find(|path| path.is_file())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::agents::tests::Bench;
    use crate::config::{AgentKind, VersionRange};

    const KINDS: [(AgentKind, &str); 4] = [
        (AgentKind::Claude, "claude"),
        (AgentKind::Codex, "codex"),
        (AgentKind::Gemini, "gemini"),
        (AgentKind::Grok, "grok"),
    ];

    fn config(kind: AgentKind) -> AgentConfig {
        AgentConfig::new(kind)
    }

    fn error(bench: &Bench) -> String {
        bench.adapter.prepare(&bench.request).unwrap_err().to_string()
    }

    #[test]
    fn a_missing_program_is_named_with_the_command_that_installs_it() {
        for (kind, program) in KINDS {
            let text = error(&Bench::new("other", config(kind), &[]));
            let start = format!("agent {program}: program {program} was not found; install it with: npm install -g @");
            assert!(text.starts_with(&start), "{text}");
            assert!(!Bench::new("other", config(kind), &[]).adapter.installed());
            assert!(Bench::new(program, config(kind), &[]).adapter.installed());
        }
    }

    #[test]
    fn only_a_version_in_the_range_runs() {
        for (kind, program) in KINDS {
            for (range, fits) in [("1.2.3", true), (">=1, <2", true), ("1.2.4", false), (">=2.1, <3", false)] {
                let config = AgentConfig { version: VersionRange::parse(range), ..config(kind) };
                let bench = Bench::new(program, config, &[]);
                assert_eq!(bench.adapter.prepare(&bench.request).is_ok(), fits, "{program} {range}");
            }
        }
        let wanted = AgentConfig { version: VersionRange::parse(">=2.1, <3"), ..config(AgentKind::Codex) };
        let bench = Bench::new("codex", wanted, &[]);
        let path = bench.programs().join("codex");
        let expected = format!(
            "agent codex: {} is version program 1.2.3, but agents.codex.version wants >=2.1, <3; install it with: npm \
             install -g '@openai/codex@>=2.1 <3'",
            path.display()
        );
        assert_eq!(error(&bench), expected);
    }

    #[test]
    fn a_program_that_does_not_tell_its_version_does_not_run_where_only_some_may() {
        for (body, words) in [("exit 3", "failed"), ("exit 0", "printed nothing"), ("echo soon", "is version soon")] {
            let wanted = AgentConfig { version: VersionRange::parse("1"), ..config(AgentKind::Gemini) };
            let bench = Bench::new("gemini", wanted, &[]);
            fs::write(bench.programs().join("gemini"), format!("#!/bin/sh\n{body}\n")).unwrap();
            let text = error(&bench);
            assert!(
                text.starts_with("agent gemini: ") && text.contains(words) && text.contains("npm install"),
                "{text}"
            );
        }
    }

    #[test]
    fn agents_that_share_a_login_or_a_key_share_an_account() {
        let account = |kind: AgentKind, program: &str, change: &dyn Fn(&mut AgentConfig), env: &[(&str, &str)]| {
            let mut agent = config(kind);
            change(&mut agent);
            Bench::new(program, agent, env).adapter.account().unwrap()
        };
        let none: &dyn Fn(&mut AgentConfig) = &|_| {};
        assert_eq!(account(AgentKind::Claude, "claude", none, &[]), "claude/login");
        assert_eq!(account(AgentKind::Codex, "codex", &|a| a.config_dir = Some("/a".into()), &[]), "codex/login:/a");
        assert_eq!(account(AgentKind::Claude, "claude", &|a| a.account = Some("team".into()), &[]), "team");
        // The first 8 hex digits of the SHA-256 of "xai-secret".
        let key = account(AgentKind::Grok, "grok", none, &[("CONDUCTOR_AGENT_GROK_TOKEN", "xai-secret")]);
        assert_eq!(key, format!("xai/key-{}", &format!("{:x}", Sha256::digest("xai-secret"))[..8]));
        assert_eq!(account(AgentKind::Xai, "grok", none, &[("CONDUCTOR_AGENT_XAI_TOKEN", "xai-secret")]), key);
        let passed = account(
            AgentKind::Xai,
            "conductor-rest-agent",
            &|a| a.env_pass = vec!["XAI_API_KEY".into()],
            &[("XAI_API_KEY", "xai-secret")],
        );
        assert_eq!(passed, key);
    }

    #[test]
    fn a_bad_token_is_one_error_with_agent_key_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        for (kind, program) in KINDS {
            for (path, words) in [
                (file("open", "sk", 0o644), "chmod 600"),
                (file("empty", "\n", 0o600), "is empty; the key has to be in it"),
                (file("lines", "sk-a\nsk-b", 0o600), "the key alone has to be in it"),
                (folder.path().join("none"), "No such file"),
                (folder.path().to_owned(), "name a file that holds the key"),
            ] {
                let bench = Bench::new(program, AgentConfig { token_file: Some(path), ..config(kind) }, &[]);
                let text = error(&bench);
                assert!(text.starts_with(&format!("agent {program}: agents.{program}.token_file: ")), "{text}");
                assert!(text.contains(words) && !text.contains("sk-"), "{text}");
                assert!(bench.adapter.login().is_err() && bench.adapter.account().is_err());
            }
            let variable = format!("CONDUCTOR_AGENT_{}_TOKEN", program.to_uppercase());
            let text = error(&Bench::new(program, config(kind), &[(&variable, "a\nb")]));
            assert!(text.starts_with(&format!("agent {program}: {variable}: ")), "{text}");
        }
    }

    #[test]
    fn keys_of_every_source_are_masked() {
        for (kind, program) in KINDS {
            let mut agent = config(kind);
            agent.env.insert("OTHER_API_KEY".into(), "sk-configured".into());
            agent.env.insert("DEBUG_TOKEN".into(), "1".into());
            agent.env_pass = vec!["XAI_API_KEY".into()];
            let variable = format!("CONDUCTOR_AGENT_{}_TOKEN", program.to_uppercase());
            let bench = Bench::new(program, agent, &[(&variable, "sk-token"), ("XAI_API_KEY", "xai-passed")]);
            let text = bench.adapter.masked("sk-token, sk-configured, xai-passed, 1");
            assert_eq!(text, "***, ***, ***, 1");
        }
    }
}
