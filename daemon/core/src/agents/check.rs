//! What a newcomer trips over, checked in exactly the environment that a run would get. Reads no secret, starts nothing
//! but a version probe, changes nothing.

use super::base::{Base, Facts};
use super::env;
use crate::config::{Env, Version};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What was looked at: `program`, `version`, `login`, `address`, `settings`.
    pub subject: &'static str,
    /// How it is, for people, without the agent's name.
    pub text: String,
    /// What to do.
    pub fix: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Good,
    /// It may be meant so.
    Notice,
    /// A run would fail.
    Problem,
}

impl Finding {
    pub(super) fn new(level: Level, subject: &'static str, text: impl Into<String>) -> Self {
        Self { level, subject, text: text.into(), fix: None }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

/// What is to be told of an agent that is a vendor's program. May take ten seconds: it asks for the version.
pub(super) fn findings(base: &Base, facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    match base.program(facts.program, base.install(facts)) {
        Err(error) => all.push(Finding::new(Level::Problem, "program", error.to_string())),
        Ok(path) => {
            all.push(Finding::new(Level::Good, "program", path.display().to_string()));
            all.push(match (base.check_version(facts, &path), base.version(facts)) {
                (Err(error), _) => Finding::new(Level::Problem, "version", error.to_string()),
                (Ok(()), Ok(told)) if Version::find(&told).is_some() => Finding::new(Level::Good, "version", told),
                (Ok(()), Ok(told)) => Finding::new(Level::Notice, "version", format!("{told:?} names no version")),
                (Ok(()), Err(error)) => Finding::new(Level::Notice, "version", error.to_string()),
            });
        }
    }
    all.push(login(base, facts));
    if let Some(url) = &base.config.base_url {
        all.push(Finding::new(Level::Good, "address", url.clone()));
    }
    if let Some(folder) = base.config.config_dir.as_ref().filter(|folder| !folder.is_dir()) {
        let text = format!("config_dir {} is not there yet", folder.display());
        all.push(Finding::new(Level::Notice, "settings", text));
    }
    all
}

fn login(base: &Base, facts: &Facts) -> Finding {
    let around = match base.surroundings(facts) {
        Ok(around) => around,
        Err(error) => return Finding::new(Level::Problem, "login", error.to_string()),
    };
    if around.key.is_some() {
        return Finding::new(Level::Good, "login", around.login);
    }
    let key = format!("set agents.{}.token_file", base.name);
    let Some(folder) = &facts.folder else {
        return Finding::new(Level::Problem, "login", "there is no key, and it has no login").fix(key);
    };
    if let Some(file) = folder.login_file(&around.env) {
        return Finding::new(Level::Good, "login", format!("login ({} is there)", file.display()));
    }
    let place = folder.path(&around.env).map(|path| path.display().to_string()).unwrap_or_default();
    // Some keep it in a keychain, or have it made by a helper of their settings.
    Finding::new(Level::Notice, "login", format!("there is no key, and no login was found in {place}"))
        .fix(format!("{}; or {key}", facts.log_in))
}

/// A variable of a shell that agents see otherwise, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// Its name.
    pub name: String,
    /// What that means; no values.
    pub text: String,
}

/// Variables that change what agents and their tools do, with what a person would expect of each. Keys of vendors are told
/// by their names.
const MEANT: [&str; 40] = [
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_MODEL",
    "AWS_PROFILE",
    "AWS_REGION",
    "CARGO_HOME",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CONFIG_DIR",
    "CODEX_HOME",
    "CONDA_PREFIX",
    "DOCKER_HOST",
    "GEMINI_CLI_HOME",
    "GEMINI_MODEL",
    "GIT_CONFIG_GLOBAL",
    "GIT_SSH_COMMAND",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_LOCATION",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_GEMINI_BASE_URL",
    "GOOGLE_GENAI_USE_GCA",
    "GOOGLE_GENAI_USE_VERTEXAI",
    "GOPATH",
    "GROK_HOME",
    "JAVA_HOME",
    "KUBECONFIG",
    "LD_LIBRARY_PATH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NPM_CONFIG_PREFIX",
    "NPM_CONFIG_REGISTRY",
    "NVM_DIR",
    "OPENAI_BASE_URL",
    "PIP_INDEX_URL",
    "PYTHONPATH",
    "RUSTFLAGS",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "VIRTUAL_ENV",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
];

/// What a shell has and an agent will not see, by name. `shell` is the caller's environment, `built` an agent's
/// ([`super::Adapter::environment`]). Pure; no value is told but folders of PATH.
#[must_use]
pub fn unseen(shell: &Env, built: &Env) -> Vec<Unseen> {
    let told = |name: &String, text: String| Unseen { name: name.clone(), text };
    let mut all = Vec::new();
    for (name, value) in shell.iter().filter(|(_, value)| !value.is_empty()) {
        let key = env::names_secret(name) && !crate::config::reserved(name);
        match built.get(name) {
            None if key => {
                all.push(told(name, "is a key of your shell; agents get none of those, see token_file".into()))
            }
            None if MEANT.contains(&name.as_str()) => {
                all.push(told(name, "is set in your shell; agents don't see it unless env_pass names it".into()));
            }
            Some(other) if name == "PATH" => {
                let has = |folder: &&str| other.split(':').any(|known| known == *folder);
                let lacking: Vec<&str> = value.split(':').filter(|folder| !folder.is_empty() && !has(folder)).collect();
                if !lacking.is_empty() {
                    all.push(told(
                        name,
                        format!("of your shell has folders that agents don't: {}", lacking.join(", ")),
                    ));
                }
            }
            Some(other) if other != value && (key || MEANT.contains(&name.as_str())) => {
                all.push(told(name, "has another value in your shell than agents get".into()));
            }
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::tests::Bench;
    use crate::config::{AgentConfig, AgentKind, VersionRange};

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn told(bench: &Bench) -> Vec<(Level, &'static str)> {
        bench.adapter.check().iter().map(|finding| (finding.level, finding.subject)).collect()
    }

    #[test]
    fn program_version_and_login_are_told_without_reading_the_login() {
        let bench = Bench::new("codex", AgentConfig::new(AgentKind::Codex), &[]);
        let found = bench.adapter.check();
        assert_eq!(told(&bench), [(Level::Good, "program"), (Level::Good, "version"), (Level::Notice, "login")]);
        assert!(found[2].fix.as_deref().unwrap().starts_with("run: codex login; or set agents.codex.token_file"));
        let login = bench.home().join(".codex/auth.json");
        std::fs::create_dir_all(login.parent().unwrap()).unwrap();
        std::fs::write(&login, "{").unwrap();
        let found = bench.adapter.check();
        assert_eq!(found[2].text, format!("login ({} is there)", login.display()));
    }

    #[test]
    fn what_would_stop_a_run_is_a_problem() {
        let version = VersionRange::parse(">=2");
        let bench = Bench::new("gemini", AgentConfig { version, ..AgentConfig::new(AgentKind::Gemini) }, &[]);
        assert_eq!(told(&bench)[1], (Level::Problem, "version"));
        let bench = Bench::new("none", AgentConfig::new(AgentKind::Codex), &[]);
        assert_eq!(told(&bench), [(Level::Problem, "program"), (Level::Notice, "login")]);
        let bench = Bench::new("conductor-rest-agent", AgentConfig::new(AgentKind::Perplexity), &[]);
        assert_eq!(told(&bench)[2], (Level::Problem, "login"));
        let missing = AgentConfig { token_file: Some("/none".into()), ..AgentConfig::new(AgentKind::Codex) };
        let found = Bench::new("codex", missing, &[]).adapter.check();
        assert!(found[2].level == Level::Problem && found[2].text.contains("agents.codex.token_file"), "{found:?}");
    }

    #[test]
    fn variables_that_agents_will_not_see_are_named_without_their_values() {
        let shell = env(&[
            ("ANTHROPIC_API_KEY", "sk-secret"),
            ("CONDUCTOR_TOKEN", "x"),
            ("EDITOR", "vi"),
            ("HOME", "/home/a"),
            ("NODE_OPTIONS", "--secret"),
            ("NPM_TOKEN", ""),
            ("PASSED", "1"),
            ("PATH", "/opt/tools/bin:/usr/bin:"),
        ]);
        let built = env(&[("PATH", "/usr/bin:/bin"), ("HOME", "/root"), ("PASSED", "1")]);
        let found = unseen(&shell, &built);
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["ANTHROPIC_API_KEY", "NODE_OPTIONS", "PATH"]);
        assert!(!format!("{found:?}").contains("secret"));
        assert!(found[2].text.ends_with("agents don't: /opt/tools/bin"), "{}", found[2].text);
        assert!(unseen(&built, &built).is_empty());
    }
}
