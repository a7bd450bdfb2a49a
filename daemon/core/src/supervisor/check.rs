//! What would keep a run from starting: the machine, this program's surroundings, each agent, and what the caller's shell
//! has that agents will not see. Changes nothing; a value of a variable is neither asked for nor told.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::inspect::{self, AgentInfo};
use super::shared::Shared;
use super::{AccountTrouble, CommandError, Supervisor};
use crate::agents::confine::INSTALL;
use crate::agents::{Finding, Level, unseen};
use crate::config::Env;
use crate::types::{LimitKind, Permissions, Timestamp};

/// Names of variables that one call may send: a shell has some hundred.
const MAX_VARIABLES: usize = 4096;
/// Free space of the data's disk below which runs are soon in trouble: two logs of a run may take 4 GiB.
const LOW_DISK: u64 = 1 << 30;
/// Free space below which nothing works.
const NO_DISK: u64 = 64 << 20;
/// A clock before this year is not set.
const FIRST_YEAR: i16 = 2025;
/// How far the clock may be behind what it said when this program started: corrections of a good clock are smaller.
const CLOCK_SLACK: Duration = Duration::from_secs(60);
/// The program that starts every agent.
const SHIM: &str = "conductor-shim";
/// The program that is the agents of the types perplexity and xai.
const REST_AGENT: &str = "conductor-rest-agent";

/// What is to be checked.
#[derive(Clone, Debug, Default)]
pub struct CheckRequest {
    /// Names of agents; none: all.
    pub agents: Vec<String>,
    /// Names of the variables of the caller's shell.
    pub variables: Vec<String>,
    /// The PATH of the caller's shell.
    pub path: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Of the machine and of conductord.
    pub machine: Vec<Finding>,
    /// Of each agent, by name.
    pub agents: Vec<AgentCheck>,
    /// Of the caller's shell: the subject is the name of a variable.
    pub shell: Vec<(String, String)>,
}

/// What was found of one agent.
#[derive(Clone, Debug)]
pub struct AgentCheck {
    /// The agent.
    pub info: AgentInfo,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Supervisor {
    /// Checks what would keep a run from starting. May take ten seconds for each agent; one check at a time.
    ///
    /// # Errors
    /// An agent is not configured, or there are more than 4096 variables.
    pub async fn check(&self, request: CheckRequest) -> Result<CheckReport, CommandError> {
        if request.variables.len() > MAX_VARIABLES {
            return Err(CommandError::field("shell_variables", format!("at most {MAX_VARIABLES} names are taken")));
        }
        let agents = self.0.shared.agents();
        if let Some(name) = request.agents.iter().find(|name| agents.get(name).is_none()) {
            let near = agents.names().map(str::to_owned).collect();
            return Err(CommandError::NotFound { what: "agent", name: name.clone(), near });
        }
        let _turn = self.0.probing.lock().await;
        let shared = Arc::clone(&self.0.shared);
        Ok(super::perform::blocking(move || check(&shared, &request)).await)
    }
}

fn check(shared: &Shared, request: &CheckRequest) -> CheckReport {
    let agents = shared.agents();
    let named = |name: &&str| request.agents.is_empty() || request.agents.iter().any(|asked| asked == name);
    let names: Vec<&str> = agents.names().filter(named).collect();
    let checked: Vec<AgentCheck> = names
        .iter()
        .filter_map(|name| {
            let info = inspect::info(shared, &agents, name, true)?;
            let adapter = agents.get(name)?;
            let wanted = !request.agents.is_empty() || info.is_default;
            let findings = if wanted || adapter.installed() {
                let mut findings = adapter.check();
                findings.push(permissions(&info));
                findings.push(account(&info, Timestamp::now()));
                findings
            } else {
                vec![absent(&info)]
            };
            Some(AgentCheck { info, findings })
        })
        .collect();
    let mut machine = vec![data(shared.root.path()), clock(shared, SystemTime::now())];
    machine.push(programs(shared.runner.shim_program()));
    machine.push(confinement(shared, &checked));
    machine.extend(linger());
    let built: Vec<Env> = names.iter().filter_map(|name| Some(agents.get(name)?.environment())).collect();
    CheckReport { machine, agents: checked, shell: hidden(request, &built) }
}

fn found(level: Level, subject: &'static str, text: impl Into<String>, fix: Option<&str>) -> Finding {
    Finding { level, subject, text: text.into(), fix: fix.map(str::to_owned) }
}

/// An agent that nobody asked for, and that can't be used here: no problem of anybody's.
fn absent(info: &AgentInfo) -> Finding {
    let text = info.problem.clone().unwrap_or_else(|| "it has no key".to_owned());
    // The problem names its agent, which the heading does too.
    let text = text.strip_prefix(&format!("agent {}: ", info.name)).unwrap_or(&text).to_owned();
    let split = text.split_once("; install it with: ").or_else(|| text.split_once(": set "));
    match split {
        Some((text, fix)) if fix.starts_with("agents.") => {
            found(Level::Notice, "program", text, Some(&format!("set {fix}")))
        }
        Some((text, fix)) => found(Level::Notice, "program", text, Some(fix)),
        None => found(Level::Notice, "program", text, None),
    }
}

fn permissions(info: &AgentInfo) -> Finding {
    match info.permissions {
        Some(Permissions::Confined) => {
            found(Level::Good, "permissions", "confined: writes to its working folder and its task's alone", None)
        }
        Some(Permissions::Full) => found(Level::Good, "permissions", "full: writes wherever you may", None),
        None => found(
            Level::Problem,
            "permissions",
            "it is to be confined, and can't be (see confinement)",
            Some(&format!("{INSTALL}; or agents.{}.permissions: full", info.name)),
        ),
    }
}

/// The account, and until when it takes no work.
fn account(info: &AgentInfo, now: Timestamp) -> Finding {
    let name = &info.account;
    if name.is_empty() {
        return found(Level::Notice, "account", "it can't be told which account it uses", None);
    }
    let Some(trouble) = &info.trouble else {
        return found(Level::Good, "account", format!("{name}: nothing is known against it"), None);
    };
    let (level, text) = in_trouble(trouble, now);
    let probe = format!("conductorctl agent probe {}", info.name);
    let fix = match trouble.kind {
        LimitKind::Auth => format!("log in again, then: {probe}"),
        _ => format!("its tasks wait; to ask now: {probe}"),
    };
    found(level, "account", format!("{name}: {text}"), Some(&fix))
}

fn in_trouble(trouble: &AccountTrouble, now: Timestamp) -> (Level, String) {
    let kind = trouble.kind.name();
    match trouble.until {
        _ if trouble.kind == LimitKind::Auth => (Level::Problem, "its login was refused".to_owned()),
        None => (Level::Problem, format!("{kind} limit")),
        Some(until) if until <= now => (Level::Notice, format!("{kind} limit, which ended {}", clock_text(until))),
        Some(until) if trouble.known => (Level::Notice, format!("{kind} limit until {}", clock_text(until))),
        Some(until) => {
            (Level::Notice, format!("{kind} limit, its end is not known; it is tried again {}", clock_text(until)))
        }
    }
}

fn clock_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// Whether the data's folder can be written, and the room that it has.
fn data(root: &Path) -> Finding {
    let place = root.display();
    if let Err(error) = nix::unistd::access(root, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK) {
        return found(
            Level::Problem,
            "data",
            format!("{place} can't be written: {error}"),
            Some("give its user the folder"),
        );
    }
    let Some(free) = free_bytes(root) else {
        return found(Level::Good, "data", format!("{place} can be written"), None);
    };
    let text = format!("{place}, {} free", size(free));
    match free {
        0..NO_DISK => found(Level::Problem, "data", text, Some("free some room: nothing starts on a full disk")),
        NO_DISK..LOW_DISK => found(Level::Notice, "data", text, Some("free some room, or delete ended tasks")),
        _ => found(Level::Good, "data", text, None),
    }
}

/// Bytes that a user may still write.
#[cfg_attr(target_os = "linux", expect(clippy::useless_conversion, reason = "the fields are narrower elsewhere"))]
fn free_bytes(path: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: a zeroed statvfs is valid, the path ends with 0, and both outlive the call.
    let stat = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut stat) == 0).then_some(stat)
    }?;
    u64::from(stat.f_bavail).checked_mul(u64::from(stat.f_frsize))
}

#[expect(clippy::cast_precision_loss, reason = "it is rounded anyway")]
fn size(bytes: u64) -> String {
    match bytes {
        0..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.0} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

/// Whether the clock is set, and was not set back since this program started.
fn clock(shared: &Shared, now: SystemTime) -> Finding {
    let fix = Some("set it: ids and the ends of limits are by this clock");
    let shown = Timestamp::try_from(now).map(clock_text).unwrap_or_default();
    let year = Timestamp::try_from(now).map_or(0, |now| now.to_zoned(jiff::tz::TimeZone::UTC).year());
    if year < FIRST_YEAR {
        return found(Level::Problem, "clock", format!("it says {shown}: it is not set"), fix);
    }
    // Written at the start of this program.
    let started = std::fs::metadata(shared.root.conductor_file("epoch")).and_then(|file| file.modified());
    match started {
        Ok(started) if started > now + CLOCK_SLACK => {
            found(Level::Notice, "clock", format!("it says {shown}, earlier than when conductord started"), fix)
        }
        _ => found(Level::Good, "clock", shown, None),
    }
}

/// The programs that lie beside this one.
fn programs(shim: &Path) -> Finding {
    let missing = |name: &str| {
        let file = std::fs::metadata(shim.with_file_name(name));
        !file.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let folder = shim.parent().unwrap_or(shim).display();
    let fix = Some("install Conductor whole: its programs belong into one folder");
    if missing(SHIM) {
        return found(Level::Problem, "programs", format!("{SHIM} is not in {folder}: no run can start"), fix);
    }
    if missing(REST_AGENT) {
        let text = format!("{REST_AGENT} is not in {folder}: agents of the types perplexity and xai can't run");
        return found(Level::Notice, "programs", text, fix);
    }
    found(Level::Good, "programs", format!("{SHIM} and {REST_AGENT} are in {folder}"), None)
}

/// Whether agents can be confined here. It is a problem only for those that are to be.
fn confinement(shared: &Shared, agents: &[AgentCheck]) -> Finding {
    let path = shared.host.env.get("PATH").cloned().unwrap_or_default();
    let needed = agents.iter().any(|agent| agent.info.permissions.is_none() && agent.info.program.is_some());
    match shared.trial.get(OsStr::new(&path)) {
        Ok(bwrap) => found(Level::Good, "confinement", format!("works, by {}", bwrap.display()), None),
        Err(problem) => {
            let level = if needed { Level::Problem } else { Level::Notice };
            let problem = problem.strip_suffix(&format!(": {INSTALL}")).unwrap_or(&problem);
            let fix = format!("{INSTALL}; or defaults.permissions: full; or --permissions full for one task");
            found(level, "confinement", problem, Some(&fix))
        }
    }
}

/// Whether a daemon of a login session ends with it.
fn linger() -> Option<Finding> {
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    if !Path::new("/run/systemd/system").is_dir() || !cgroup.contains("/user.slice/") {
        return None;
    }
    // SAFETY: getuid takes nothing.
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(unsafe { libc::getuid() })).ok()??.name;
    if Path::new("/var/lib/systemd/linger").join(&user).exists() {
        return None;
    }
    let text = "systemd may end conductord and its agents when you log out";
    Some(found(Level::Notice, "logout", text, Some(&format!("loginctl enable-linger {user}"))))
}

/// Variables that none of the environments shows. What an agent gets by another way, such as a configured key, is seen.
fn hidden(request: &CheckRequest, built: &[Env]) -> Vec<(String, String)> {
    let mut seen_by: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for env in built {
        // Values are not sent: one that an agent has is taken for the same.
        let mut shell: Env = request
            .variables
            .iter()
            .map(|name| (name.clone(), env.get(name).cloned().unwrap_or_else(|| "set".to_owned())))
            .collect();
        shell.remove("PATH");
        shell.extend(request.path.clone().map(|path| ("PATH".to_owned(), path)));
        for variable in unseen(&shell, env) {
            seen_by.entry(variable.name).or_insert((0, variable.text)).0 += 1;
        }
    }
    seen_by.into_iter().filter(|(_, (count, _))| *count == built.len()).map(|(name, (_, text))| (name, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_variable_is_hidden_only_if_no_agent_sees_it() {
        let request = CheckRequest {
            variables: ["NODE_OPTIONS", "OPENAI_API_KEY", "HOME", "PATH", "EDITOR"].map(str::to_owned).to_vec(),
            path: Some("/opt/tools:/usr/bin".to_owned()),
            ..CheckRequest::default()
        };
        let claude = env(&[("HOME", "/root"), ("PATH", "/usr/bin")]);
        let codex = env(&[("HOME", "/root"), ("PATH", "/usr/bin"), ("OPENAI_API_KEY", "sk-secret")]);
        let names = |built: &[Env]| hidden(&request, built).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&[claude.clone(), codex.clone()]), ["NODE_OPTIONS", "PATH"]);
        assert_eq!(names(std::slice::from_ref(&claude)), ["NODE_OPTIONS", "OPENAI_API_KEY", "PATH"]);
        assert!(!format!("{:?}", hidden(&request, &[claude, codex])).contains("secret"));
        assert!(names(&[]).is_empty());
    }

    #[test]
    fn an_account_in_trouble_says_until_when_and_only_a_refused_login_is_a_problem() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().expect("a time");
        let until = |text: &str| Some(text.parse().expect("a time"));
        let trouble = |kind, until, known| AccountTrouble {
            kind,
            since: now,
            until,
            known,
            source: None,
            agent: "claude".to_owned(),
            run: "p/t/r".to_owned(),
            message: String::new(),
        };
        for (trouble, level, text) in [
            (trouble(LimitKind::Auth, None, false), Level::Problem, "its login was refused"),
            (
                trouble(LimitKind::Window, until("2026-01-01T17:46:00Z"), true),
                Level::Notice,
                "window limit until 2026-01-01 17:46 UTC",
            ),
            (
                trouble(LimitKind::Daily, until("2026-01-01T12:15:00Z"), false),
                Level::Notice,
                "daily limit, its end is not known; it is tried again 2026-01-01 12:15 UTC",
            ),
            (
                trouble(LimitKind::Window, until("2026-01-01T11:00:00Z"), true),
                Level::Notice,
                "window limit, which ended 2026-01-01 11:00 UTC",
            ),
        ] {
            assert_eq!(in_trouble(&trouble, now), (level, text.to_owned()));
        }
    }

    #[test]
    fn a_folder_that_can_be_written_says_how_much_room_it_has() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = data(folder.path());
        assert!(told.level != Level::Problem && told.text.ends_with(" free"), "{told:?}");
        let told = data(Path::new("/nonexistent"));
        assert!(told.level == Level::Problem && told.fix.is_some(), "{told:?}");
    }

    #[test]
    fn a_program_that_is_missing_beside_us_is_named_with_what_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let shim = folder.path().join(SHIM);
        let told = programs(&shim);
        assert!(told.level == Level::Problem && told.text.ends_with("no run can start"), "{told:?}");
        for (name, level) in [(SHIM, Level::Notice), (REST_AGENT, Level::Good)] {
            let path = folder.path().join(name);
            std::fs::write(&path, "").expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("made executable");
            assert_eq!(programs(&shim).level, level, "{name}");
        }
    }
}
