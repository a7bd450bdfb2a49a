//! Looking at what runs: processes of a run, agents and their programs.

use std::time::Duration;

use conductor_shim::process::Identity;
use conductor_shim::tree;

use super::shared::Shared;
use super::{AccountTrouble, CommandError, Supervisor, confine};
use crate::agents::Agents;
use crate::config::token_variable;
use crate::runner;
use crate::types::{Permissions, RunKey};

/// Clock ticks a second of `/proc/PID/stat`: fixed at 100 for user space on Linux.
const TICKS: u64 = 100;

/// A process of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its pid.
    pub pid: i32,
    /// Its parent.
    pub ppid: i32,
    /// Its process group.
    pub pgid: i32,
    /// Its session.
    pub sid: i32,
    /// Its command name.
    pub name: String,
    /// One letter, as in proc(5).
    pub state: char,
    /// Resident set in bytes.
    pub rss_bytes: u64,
    /// User and system CPU time.
    pub cpu: Duration,
}

/// A configured agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentInfo {
    /// Its name.
    pub name: String,
    /// Its type: `claude`, `codex`, …, `command`.
    pub kind: String,
    /// Absolute path of its program; `None`: not found.
    pub program: Option<String>,
    /// Whether it could be the default: its program is there, and what needs a key has one.
    pub installed: bool,
    /// What the program says of its version.
    pub version: Option<String>,
    /// Login or key that it would use.
    pub login: String,
    /// Whether tasks that name no agent get it.
    pub is_default: bool,
    /// What is wrong and how to put it right.
    pub problem: Option<String>,
    /// Model that it is configured with.
    pub model: Option<String>,
    /// The account that it uses; empty: it can't be told.
    pub account: String,
    /// What the account is in trouble for.
    pub trouble: Option<AccountTrouble>,
    /// What a run may write to; `None`: it can't start.
    pub permissions: Option<Permissions>,
    /// Why it can't, and the ways out.
    pub permissions_problem: Option<String>,
}

impl Supervisor {
    /// The live processes of a run, its shim left out.
    ///
    /// # Errors
    /// `/proc` can't be read.
    pub async fn processes(&self, run: &RunKey) -> Result<Vec<ProcessInfo>, CommandError> {
        let folder = self.0.shared.run_dir(run);
        let id = run.run.to_string();
        let found = super::perform::blocking(move || -> std::io::Result<Vec<ProcessInfo>> {
            let Some(start) = runner::read_start(&folder)? else { return Ok(Vec::new()) };
            let above = alive(&start.shim).map(|pid| vec![pid]).unwrap_or_default();
            let scope = tree::Scope { above, within: vec![start.agent], run_id: id };
            let members = tree::members(&tree::System, scope)?;
            Ok(members.into_iter().filter(|member| member.pid != start.shim.pid).map(describe).collect())
        })
        .await;
        found.map_err(|source| CommandError::Io { action: "list the run's processes".to_owned(), source })
    }

    /// The configured agents, by name. With `probe` their programs are asked for their versions (up to 10 s each).
    pub async fn agents(&self, probe: bool) -> Vec<AgentInfo> {
        let _turn = if probe { Some(self.0.probing.lock().await) } else { None };
        let shared = std::sync::Arc::clone(&self.0.shared);
        super::perform::blocking(move || {
            let agents = shared.agents();
            agents.names().filter_map(|name| info(&shared, &agents, name, probe)).collect()
        })
        .await
    }
}

/// One agent. With `probe` its program is asked for its version. Blocks.
pub(super) fn info(shared: &Shared, agents: &Agents, name: &str, probe: bool) -> Option<AgentInfo> {
    let adapter = agents.get(name)?;
    let program = adapter.program();
    let login = adapter.login();
    let problem = program.as_ref().err().or(login.as_ref().err()).map(ToString::to_string);
    let (version, unasked) = match probe && program.is_ok() {
        true => match adapter.version() {
            Ok(version) => (version, None),
            Err(error) => (None, Some(error.to_string())),
        },
        false => (None, None),
    };
    let keyless = || format!("agent {name}: it needs a key: set agents.{name}.token_file, or {}", token_variable(name));
    let installed = adapter.installed();
    let unusable = (problem.is_none() && !installed).then(keyless);
    let account = adapter.account().unwrap_or_default();
    let granted = confine::grant_agent(shared, name, None);
    Some(AgentInfo {
        name: name.to_owned(),
        installed,
        trouble: shared.accounts.list().remove(&account),
        account,
        kind: adapter.kind().name().to_owned(),
        program: program.ok().map(|path| path.display().to_string()),
        version,
        login: login.unwrap_or_default(),
        is_default: agents.default_agent() == Some(name),
        problem: problem.or(unusable).or(unasked),
        model: shared.config().agents.get(name).and_then(|agent| agent.model.clone()),
        permissions: granted.as_ref().ok().map(confine::Granted::name),
        permissions_problem: granted.err(),
    })
}

fn alive(identity: &Identity) -> Option<i32> {
    conductor_shim::process::is_alive(identity).then_some(identity.pid)
}

fn describe(stat: conductor_shim::process::Stat) -> ProcessInfo {
    ProcessInfo {
        pid: stat.pid,
        ppid: stat.ppid,
        pgid: stat.pgid,
        sid: stat.sid,
        rss_bytes: resident(stat.pid),
        cpu: Duration::from_millis((stat.user_ticks + stat.system_ticks) * 1000 / TICKS),
        name: stat.name,
        state: stat.state,
    }
}

/// Resident set from `/proc/PID/statm`; 0 where it can't be read.
fn resident(pid: i32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm"))
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    // SAFETY: sysconf takes no pointers.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    pages.unwrap_or(0) * page
}
