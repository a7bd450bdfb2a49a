//! Processes of a sandbox, found in `/proc`. Signals go only to processes that were found to belong to it.

use std::fs;
use std::path::{Path, PathBuf};

/// A process that belongs to a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Start time in clock ticks since boot, which tells it from a later process with the same pid.
    pub start_ticks: u64,
    /// One letter, as in proc(5).
    pub state: char,
    /// Its parent.
    pub parent: i32,
    /// Its command name.
    pub name: String,
    /// Its arguments, joined by spaces.
    pub command: String,
    /// How it was recognised: `environ`, `cwd`, `descriptor` or `arguments`.
    pub evidence: &'static str,
    /// Its `CONDUCTOR_RUN_ID`, if its environment has one.
    pub run_id: Option<String>,
}

impl Process {
    /// Whether it only waits to be reaped.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Every process whose environment, working folder, arguments or open files name a path below `folder`; this one excepted.
#[must_use]
pub fn of_folder(folder: &Path) -> Vec<Process> {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    pids().into_iter().filter(|pid| *pid != me).filter_map(|pid| recognise(pid, folder)).collect()
}

fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn recognise(pid: i32, folder: &Path) -> Option<Process> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let environ = fs::read(proc.join("environ")).unwrap_or_default();
    let cmdline = fs::read(proc.join("cmdline")).unwrap_or_default();
    let needle = folder.to_str()?.as_bytes();
    let evidence = if contains(&environ, needle) {
        "environ"
    } else if fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)) {
        "cwd"
    } else if contains(&cmdline, needle) {
        "arguments"
    } else if holds_file(&proc, folder) {
        "descriptor"
    } else {
        return None;
    };
    let (state, parent, start_ticks, name) = stat(pid)?;
    let run_id = environ
        .split(|b| *b == 0)
        .find_map(|pair| pair.strip_prefix(b"CONDUCTOR_RUN_ID="))
        .map(|id| String::from_utf8_lossy(id).into_owned());
    let command = String::from_utf8_lossy(&cmdline).replace('\0', " ");
    Some(Process { pid, start_ticks, state, parent, name, command, evidence, run_id })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn holds_file(proc: &Path, folder: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(proc.join("fd")) else { return false };
    descriptors.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.starts_with(folder)))
}

/// State, parent, start time and name of a process; `None` if it is gone.
#[must_use]
pub fn stat(pid: i32) -> Option<(char, i32, u64, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold any character, so that the last one counts.
    let (head, tail) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?, name))
}

/// Whether a process lives: there, and no zombie.
#[must_use]
pub fn lives(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, ..)| !matches!(state, 'Z' | 'X'))
}

/// Sends `signal` to a process, if it still is the one that was found.
pub fn signal(process: &Process, signal: i32) {
    let same = stat(process.pid).is_some_and(|(_, _, start, _)| start == process.start_ticks);
    if same {
        // SAFETY: kill takes no pointers.
        unsafe { libc::kill(process.pid, signal) };
    }
}

/// Resident set of a process in bytes, and its voluntary context switches so far.
#[must_use]
pub fn footprint(pid: i32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some((field("VmRSS:")? * 1024, field("voluntary_ctxt_switches:")?))
}

/// Largest resident set of a process so far, in bytes; `None` if it is gone.
#[must_use]
pub fn peak(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_recognised_by_its_environment_and_a_stranger_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = std::process::Command::new("sleep").arg("60").env("SOMEWHERE", folder.path()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        crate::wait_until("sleep shows its environment", crate::DEADLINE, || {
            of_folder(folder.path()).iter().any(|found| found.pid == pid && found.evidence == "environ")
        })
        .unwrap();
        assert_eq!(of_folder(folder.path()).len(), 1);
        signal(&of_folder(folder.path())[0], libc::SIGKILL);
        child.wait().unwrap();
        assert!(of_folder(folder.path()).is_empty());
    }
}
