//! The environment of an agent: built, not inherited (§7). What it gets, in the order of what wins last:
//!
//! 1. the usual variables of conductord's environment ([`USUAL`], `LC_*`, `GIT_AUTHOR_*`, `GIT_COMMITTER_*`), with HOME,
//!    USER, LOGNAME and SHELL from the user database where they are not set (as under systemd);
//! 2. what the configuration passes through: `env_pass` of all agents, then of this one;
//! 3. what the configuration sets: `env`;
//! 4. what the adapter sets (token, address, switches);
//! 5. `CONDUCTOR_*` and the `JRUN_*` names of conductor-loop, which nothing can override.
//!
//! So neither another agent's key nor conductord's own settings reach an agent, and `CLAUDECODE`, by which Claude Code
//! refuses to run inside itself, is gone.

use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use super::{PrepareError, RunRequest, text};
use crate::config::{Env, environment, reserved};

/// Variables that every agent gets if they are there.
pub const USUAL: [&str; 29] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "TERM",
    "TZ",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "FTP_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "ftp_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "NIX_SSL_CERT_FILE",
    "AWS_CA_BUNDLE",
];

/// Beginnings of further usual names.
pub const USUAL_PREFIXES: [&str; 3] = ["LC_", "GIT_AUTHOR_", "GIT_COMMITTER_"];

/// PATH where conductord has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The name of the variable that holds a run's token.
pub const TOKEN: &str = "CONDUCTOR_TOKEN";

/// The machine and the user that agents run on. Its `Debug` leaves the variables' values out: some are keys.
#[derive(Clone)]
pub struct Host {
    /// Conductord's environment, completed.
    pub env: Env,
    /// Folder of our programs, which goes to the front of PATH; `None`: not known.
    pub programs: Option<PathBuf>,
    /// Whether agents run as root.
    pub root: bool,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.env.keys().collect();
        f.debug_struct("Host").field("env", &names).field("programs", &self.programs).field("root", &self.root).finish()
    }
}

impl Host {
    /// This process's. Reads the user database where the environment does not name the user.
    #[must_use]
    pub fn current() -> Self {
        let mut env = environment();
        complete(&mut env);
        let programs = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
        Self { env, programs, root: nix::unistd::geteuid().is_root() }
    }
}

/// Adds what a service manager leaves out.
fn complete(env: &mut Env) {
    let missing = ["HOME", "USER", "LOGNAME", "SHELL"].iter().any(|name| !env.contains_key(*name));
    if let Some(Ok(Some(user))) = missing.then(|| nix::unistd::User::from_uid(nix::unistd::geteuid())) {
        let paths = [("HOME", user.dir), ("SHELL", user.shell)];
        let texts = paths.into_iter().filter_map(|(name, path)| Some((name, path.to_str()?.to_owned())));
        let names = [("USER", user.name.clone()), ("LOGNAME", user.name)];
        for (name, value) in texts.chain(names).filter(|(_, value)| !value.is_empty()) {
            env.entry(name.to_owned()).or_insert(value);
        }
    }
    env.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
}

/// Whether a variable's name says that its value is a secret.
#[must_use]
pub fn names_secret(name: &str) -> bool {
    const WORDS: [&str; 6] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS"];
    let name = name.to_ascii_uppercase();
    // `…_PATH`, `…_FILE` and the like only name one's place.
    WORDS.iter().any(|word| name.ends_with(word))
}

/// The part that does not depend on a run: steps 1 to 3, with PATH led by our programs' folder.
#[must_use]
pub fn base(host: &Host, shared_pass: &[String], pass: &[String], set: &Env) -> Env {
    let passes = |name: &str| {
        USUAL.contains(&name)
            || USUAL_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || shared_pass.iter().chain(pass).any(|pattern| matches(pattern, name))
    };
    let mut env: Env = host
        .env
        .iter()
        .chain(set)
        .filter(|(name, _)| !reserved(name))
        .filter(|(name, _)| set.contains_key(*name) || passes(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let path = env.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
    if let Some(folder) = host.programs.as_deref().and_then(Path::to_str)
        && !folder.contains(':')
        && !path.split(':').any(|entry| entry == folder)
    {
        *path = if path.is_empty() { folder.to_owned() } else { format!("{folder}:{path}") };
    }
    env
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

/// Lays step 5 over an environment.
///
/// # Errors
/// [`PrepareError::NotUtf8`] for a path that can't be told.
pub fn add_run(env: &mut Env, run: &RunRequest) -> Result<(), PrepareError> {
    env.retain(|name, _| !reserved(name));
    let key = &run.key;
    let parent = run.parent.as_ref();
    let bus = text(&run.task_folder.join("TASK-MESSAGE-BUS.md"))?;
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    set("CONDUCTOR_RUN_ID", key.run.to_string());
    set("CONDUCTOR_PROJECT_ID", key.task.project.to_string());
    set("CONDUCTOR_TASK_ID", key.task.task.to_string());
    if let Some(parent) = parent {
        set("CONDUCTOR_PARENT_RUN_ID", parent.run.to_string());
    }
    set("CONDUCTOR_ATTEMPT", run.attempt.to_string());
    set("CONDUCTOR_SOCKET", text(&run.socket)?);
    set(TOKEN, run.token.expose_secret().to_owned());
    set("CONDUCTOR_TASK_FOLDER", text(&run.task_folder)?);
    set("CONDUCTOR_RUN_FOLDER", text(&run.run_folder)?);
    set("CONDUCTOR_MESSAGE_BUS", bus.clone());
    set("JRUN_PROJECT_ID", key.task.project.to_string());
    set("JRUN_TASK_ID", key.task.task.to_string());
    set("JRUN_ID", key.run.to_string());
    set("JRUN_PARENT_ID", parent.map(|parent| parent.run.to_string()).unwrap_or_default());
    set("JRUN_RUNS_DIR", text(&run.task_folder.join("runs"))?);
    set("JRUN_MESSAGE_BUS", bus);
    set("JRUN_TASK_FOLDER", text(&run.task_folder)?);
    set("JRUN_RUN_FOLDER", text(&run.run_folder)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::tests::request;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn host(pairs: &[(&str, &str)]) -> Host {
        Host { env: env(pairs), programs: Some("/opt/conductor".into()), root: false }
    }

    #[test]
    fn only_the_usual_and_the_configured_variables_pass() {
        let host = host(&[
            ("PATH", "/bin"),
            ("HOME", "/home/a"),
            ("LC_ALL", "C"),
            ("GIT_AUTHOR_NAME", "A"),
            ("HTTPS_PROXY", "http://p"),
            ("ANTHROPIC_API_KEY", "sk-mine"),
            ("OPENAI_API_KEY", "sk-other"),
            ("CONDUCTOR_AGENT_CLAUDE_TOKEN", "sk-conf"),
            ("CONDUCTOR_CONFIG", "/c"),
            ("JRUN_ID", "outer"),
            ("CLAUDECODE", "1"),
            ("EXTRA", "1"),
            ("AWS_A", "1"),
            ("AWS_B", "2"),
            ("SECRET", "no"),
        ]);
        let built = base(&host, &["EXTRA".into()], &["AWS_*".into(), "C*".into()], &env(&[("SET", "v")]));
        let names: Vec<&str> = built.keys().map(String::as_str).collect();
        let expected = ["AWS_A", "AWS_B", "EXTRA", "GIT_AUTHOR_NAME", "HOME", "HTTPS_PROXY", "LC_ALL", "PATH", "SET"];
        assert_eq!(names, expected);
        assert_eq!(built["PATH"], "/opt/conductor:/bin");
    }

    #[test]
    fn our_folder_leads_the_path_once_and_a_missing_path_has_a_default() {
        let built = base(&host(&[("PATH", "/bin:/opt/conductor")]), &[], &[], &Env::new());
        assert_eq!(built["PATH"], "/bin:/opt/conductor");
        let built = base(&host(&[]), &[], &[], &Env::new());
        assert!(built["PATH"].starts_with("/opt/conductor:/usr/local/sbin:"));
    }

    #[test]
    fn nothing_overrides_what_names_the_run() {
        let run = request(Path::new("/root"));
        let mut built =
            env(&[("JRUN_ID", "forged"), ("CONDUCTOR_RUN_ID", "forged"), ("CONDUCTOR_OTHER", "x"), ("A", "1")]);
        add_run(&mut built, &run).unwrap();
        let id = run.key.run.to_string();
        assert_eq!((&built["JRUN_ID"], &built["CONDUCTOR_RUN_ID"]), (&id, &id));
        assert!(!built.contains_key("CONDUCTOR_OTHER") && !built.contains_key("CONDUCTOR_PARENT_RUN_ID"));
        assert_eq!(built["JRUN_PARENT_ID"], "");
        assert_eq!(built["JRUN_RUNS_DIR"], format!("{}/runs", run.task_folder.display()));
        assert_eq!(built["CONDUCTOR_MESSAGE_BUS"], built["JRUN_MESSAGE_BUS"]);
        assert_eq!(built[TOKEN], "run-token");
        assert_eq!(built["CONDUCTOR_ATTEMPT"], "1");
    }

    #[test]
    fn a_service_without_home_gets_it_from_the_user_database() {
        let mut built = Env::new();
        complete(&mut built);
        assert!(["HOME", "USER", "LOGNAME", "PATH"].iter().all(|name| built.contains_key(*name)), "{built:?}");
    }
}
