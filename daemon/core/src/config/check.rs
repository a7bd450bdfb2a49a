//! What the values of a configuration may be. All problems are collected, each with the path of its key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::load::{Place, Problem};
use super::{AgentConfig, AgentKind, Config, Env, MAX_DEPTH, Size, Time, paths};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);
/// US dollars for a million tokens at most: a thousand times the dearest that is sold, so beyond it is a mistake.
const MAX_PRICE: f64 = 1e6;
/// Characters of an account's name at most: it is a label in lists.
const MAX_ACCOUNT: usize = 64;
/// Names that only Conductor sets; an agent could otherwise be made to speak for another run.
const RESERVED: [&str; 2] = ["CONDUCTOR_", "JRUN_"];

/// Whether a variable is one that only Conductor sets, or (CLAUDECODE) one that no agent gets.
#[must_use]
pub(crate) fn reserved(name: &str) -> bool {
    name == "CLAUDECODE" || RESERVED.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a text is an agent's name: `[a-z0-9][a-z0-9-]{0,31}`.
#[must_use]
pub(crate) fn agent_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && !name.starts_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The number of a group that is given by its name or its number.
pub(super) fn group(name: &str) -> Result<u32, String> {
    let found = match name.parse::<u32>() {
        Ok(number) => nix::unistd::Group::from_gid(number.into()),
        Err(_) => nix::unistd::Group::from_name(name),
    };
    match found {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("there is no group {name:?}; it is made with: groupadd --system NAME")),
        Err(error) => Err(format!("the group {name:?} can't be looked up: {error}")),
    }
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { place: Place::Key(key.into()), message: message.into() });
    }

    fn time(&mut self, key: &str, value: Time, min: Duration, max: Duration) {
        if value.get() < min || value.get() > max {
            let (min, max) = (shown(min), shown(max));
            self.add(key, format!("{value} is out of range: {min} to {max}"));
        }
    }

    fn number<T: PartialOrd + std::fmt::Display>(&mut self, key: &str, value: T, min: T, max: T) {
        if value < min || value > max {
            self.add(key, format!("{value} is out of range: {min} to {max}"));
        }
    }
}

fn shown(time: Duration) -> Time {
    Time::millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

impl Config {
    /// Everything that is wrong with the values.
    pub(super) fn check(&self, env: &Env) -> Vec<Problem> {
        let mut problems = Problems(Vec::new());
        if let Some(Err(error)) = self.socket.as_deref().map(paths::check_socket) {
            problems.add("socket", error.to_string());
        }
        if let Err(problem) = self.socket_gid() {
            problems.add("socket_group", problem);
        }
        self.check_numbers(&mut problems);
        check_names(&mut problems, "env_pass", &self.env_pass);
        if self.log.filter.trim().is_empty() {
            problems.add("log.filter", "is empty; write a level such as info");
        }
        if let Some(agent) = self.defaults.agent.as_ref().filter(|agent| !self.agents.contains_key(*agent)) {
            let known: Vec<&str> = self.agents.keys().map(String::as_str).collect();
            problems.add("defaults.agent", format!("there is no agent {agent:?}; there are: {}", known.join(", ")));
        }
        for (name, agent) in &self.agents {
            check_agent(&mut problems, name, agent, env);
        }
        self.check_prices(&mut problems);
        problems.0
    }

    fn check_numbers(&self, problems: &mut Problems) {
        let defaults = &self.defaults;
        problems.number("defaults.max_restarts", defaults.max_restarts, 1, 100_000);
        problems.time("defaults.restart_delay", defaults.restart_delay, Duration::ZERO, DAY);
        problems.time("defaults.child_wait_timeout", defaults.child_wait_timeout, Duration::ZERO, 30 * DAY);
        if let Some(time) = defaults.wall_time {
            problems.time("defaults.wall_time", time, Duration::from_secs(1), 365 * DAY);
        }
        for (key, time) in
            [("defaults.idle_warn", defaults.idle_warn), ("defaults.idle_timeout", defaults.idle_timeout)]
        {
            if let Some(time) = time.time() {
                problems.time(key, time, Duration::from_secs(1), 365 * DAY);
            }
        }
        problems.number("defaults.log_limit", defaults.log_limit, Size::mib(1), Size::bytes(16 << 40));
        problems.number("defaults.max_concurrent_runs", defaults.max_concurrent_runs, 1, 1000);
        problems.number("bus.rotate_size", self.bus.rotate_size, Size::mib(1), Size::bytes(1 << 40));
        problems.time("bus.lock_timeout", self.bus.lock_timeout, Duration::from_millis(100), Duration::from_secs(300));
        problems.time("stop.int_grace", self.stop.int_grace, Duration::ZERO, HOUR);
        problems.time("stop.term_grace", self.stop.term_grace, Duration::ZERO, HOUR);
        problems.time("stop.exit_grace", self.stop.exit_grace, Duration::ZERO, HOUR);
        problems.time("backoff.base", self.backoff.base, Duration::from_millis(10), HOUR);
        problems.time("backoff.max", self.backoff.max, self.backoff.base.get().min(DAY), DAY);
        problems.number("limits.max_depth", self.limits.max_depth, 0, MAX_DEPTH);
    }

    fn check_prices(&self, problems: &mut Problems) {
        for (kind, models) in &self.prices.0 {
            for (model, price) in models {
                for (part, value) in price.numbers() {
                    // Not a number fails every comparison.
                    if !(0.0..=MAX_PRICE).contains(&value) {
                        let key = format!("prices.{}.{model}.{part}", kind.name());
                        problems
                            .add(key, format!("{value} is out of range: 0 to {MAX_PRICE} US dollars a million tokens"));
                    }
                }
            }
        }
    }

    /// Makes paths absolute: `~/` is the home folder, the rest is relative to `folder`, that of the file.
    pub(super) fn resolve_paths(&mut self, folder: &Path, env: &Env) {
        let full = |path: &mut PathBuf| {
            let expanded = home_path(path, env);
            *path = folder.join(expanded.as_ref().unwrap_or(path));
        };
        self.root.iter_mut().for_each(full);
        self.socket.iter_mut().for_each(full);
        for agent in self.agents.values_mut() {
            agent.token_file.iter_mut().for_each(full);
            agent.config_dir.iter_mut().for_each(full);
            agent.write_paths.iter_mut().for_each(full);
            // A name without a slash is looked up in PATH.
            if let Some(program) = agent.program.as_mut().filter(|program| program.contains('/')) {
                let mut path = PathBuf::from(&*program);
                full(&mut path);
                *program = path.to_string_lossy().into_owned();
            }
        }
    }
}

fn home_path(path: &Path, env: &Env) -> Option<PathBuf> {
    let rest = path.strip_prefix("~").ok()?;
    paths::absolute(env, "HOME").map(|home| home.join(rest))
}

fn check_agent(problems: &mut Problems, name: &str, agent: &AgentConfig, env: &Env) {
    let key = |field: &str| format!("agents.{name}.{field}");
    if !agent_name(name) {
        problems.add(format!("agents.{name}"), "is not an agent's name: 1 to 32 of a-z, 0-9 and '-', no '-' in front");
    }
    if agent.program.as_ref().is_some_and(|program| program.trim().is_empty()) {
        problems.add(key("program"), "is empty");
    }
    check_names(problems, &key("env_pass"), &agent.env_pass);
    for (variable, value) in &agent.env {
        check_name(problems, &key(&format!("env.{variable}")), variable);
        if value.contains('\0') {
            problems.add(key(&format!("env.{variable}")), "contains a zero byte");
        }
    }
    if agent.args.iter().any(|arg| arg.contains('\0')) {
        problems.add(key("args"), "contains a zero byte");
    }
    if agent.account.as_ref().is_some_and(|account| !account_name(account)) {
        problems.add(key("account"), format!("is not an account's name: 1 to {MAX_ACCOUNT} visible ASCII characters"));
    }
    match agent.kind {
        AgentKind::Command => check_command(problems, name, agent),
        _ => check_vendor(problems, name, agent, env),
    }
}

fn account_name(name: &str) -> bool {
    (1..=MAX_ACCOUNT).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
}

fn check_vendor(problems: &mut Problems, name: &str, agent: &AgentConfig, env: &Env) {
    let key = |field: &str| format!("agents.{name}.{field}");
    if agent.prompt.is_some() {
        problems.add(key("prompt"), "is only for agents of type command");
    }
    if agent.kind == AgentKind::Perplexity && agent.config_dir.is_some() {
        problems.add(key("config_dir"), "is not for agents of type perplexity: they keep no settings and no login");
    }
    check_token(problems, name, agent, env);
    check_permissions(problems, &key("permission_mode"), agent);
    if agent.model.as_ref().is_some_and(|model| model.trim().is_empty() || model.starts_with('-')) {
        problems.add(key("model"), "is not the name of a model");
    }
    if let Some(url) = &agent.base_url {
        check_url(problems, &key("base_url"), url);
    }
}

fn check_token(problems: &mut Problems, name: &str, agent: &AgentConfig, env: &Env) {
    let sources = [
        ("token_file", agent.token_file.is_some()),
        ("token_env", agent.token_env.is_some()),
        ("token", agent.token.is_some()),
    ];
    let named: Vec<&str> = sources.into_iter().filter_map(|(field, there)| there.then_some(field)).collect();
    if let [first, second, ..] = named[..] {
        problems.add(format!("agents.{name}.{second}"), format!("{first} is there too; keep one of them"));
    } else if let Err(error) = agent.resolve_token(name, env) {
        let key = agent.token_key(name, env);
        // The variable is not of the file: its agent has to be told.
        let of = if key.starts_with("agents.") { String::new() } else { format!("agent {name}: ") };
        problems.add(key, format!("{of}{error}"));
    }
}

fn check_permissions(problems: &mut Problems, key: &str, agent: &AgentConfig) {
    let Some(mode) = agent.permission_mode else { return };
    let known = agent.kind.permission_modes();
    if known.is_empty() {
        problems.add(key, format!("is not for agents of type {}: they run no tools of yours", agent.kind.name()));
    } else if !known.contains(&mode) {
        let names: Vec<&str> = known.iter().map(|mode| mode.name()).collect();
        let (mode, kind) = (mode.name(), agent.kind.name());
        problems.add(key, format!("{mode} is not for agents of type {kind}; they know: {}", names.join(", ")));
    }
}

fn check_command(problems: &mut Problems, name: &str, agent: &AgentConfig) {
    if agent.program.is_none() {
        problems.add(format!("agents.{name}.program"), "is missing: an agent of type command needs one");
    }
    let foreign = [
        ("token", agent.token.is_some()),
        ("token_file", agent.token_file.is_some()),
        ("token_env", agent.token_env.is_some()),
        ("version", agent.version.is_some()),
        ("model", agent.model.is_some()),
        ("permission_mode", agent.permission_mode.is_some()),
        ("base_url", agent.base_url.is_some()),
        ("config_dir", agent.config_dir.is_some()),
    ];
    for (field, _) in foreign.into_iter().filter(|(_, there)| *there) {
        let hint = if field.starts_with("token") { "; it gets its key by env_pass" } else { "" };
        problems.add(format!("agents.{name}.{field}"), format!("is not for agents of type command{hint}"));
    }
}

/// The URL is part of what people are shown, so a password has no place in it.
fn check_url(problems: &mut Problems, key: &str, url: &str) {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    match host {
        None if url.contains("://") => problems.add(key, format!("{url:?} does not begin with http:// or https://")),
        None => problems.add(key, format!("{url:?} does not begin with http:// or https://; write https://{url}")),
        Some("") => problems.add(key, format!("{url:?} names no host")),
        Some(host) if host.contains('@') => problems.add(key, "contains a user or password; use token_file"),
        Some(_) if !url.bytes().all(|b| b.is_ascii_graphic()) => {
            problems.add(key, "contains a space or control character")
        }
        Some(_) => {}
    }
}

fn check_names(problems: &mut Problems, key: &str, names: &[String]) {
    for name in names {
        match name.strip_suffix('*') {
            Some("") => problems.add(key, "\"*\" would pass everything; name the variables, or how they begin"),
            Some(prefix) => check_name(problems, key, prefix),
            None => check_name(problems, key, name),
        }
    }
}

fn check_name(problems: &mut Problems, key: &str, name: &str) {
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !valid {
        problems.add(key, format!("{name:?} is not the name of a variable"));
    } else if reserved(name) {
        problems.add(key, format!("{name} is for Conductor alone to set or remove"));
    }
}
