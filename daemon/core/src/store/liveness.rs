//! Whether a process of another program still exists, for display only.
//!
//! Looks at `/proc` and sends nothing, not even signal 0. This is no identity check: before a signal, the shim's own
//! records are compared ([`conductor_shim::process`]). Where there is no `/proc`, a process that can't be looked at
//! counts as gone.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::OnceLock;

use jiff::{SignedDuration, Timestamp};

/// A process that began this much after its run was started is another one with the same pid.
const REUSE_MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// What is alive, as of the first question.
#[derive(Debug)]
pub struct Liveness {
    proc: PathBuf,
    boot: OnceLock<Option<i64>>,
    groups: OnceLock<HashSet<i32>>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self::at("/proc")
    }
}

impl Liveness {
    /// Looks at another folder than `/proc` (for tests).
    #[must_use]
    pub fn at(proc: impl Into<PathBuf>) -> Self {
        Self { proc: proc.into(), boot: OnceLock::new(), groups: OnceLock::new() }
    }

    /// Whether a process or its group still exists, as conductor-loop decides it; a pid that has since been given to
    /// another process does not count.
    #[must_use]
    pub fn is_alive(&self, pid: i32, pgid: i32, started: Timestamp) -> bool {
        if self.boot_time().is_some_and(|boot| boot > started.as_second() + REUSE_MARGIN.as_secs()) {
            return false;
        }
        match (pid > 0).then(|| self.stat(pid)).flatten() {
            Some(stat) => !self.began_later(&stat, started),
            None => pgid > 0 && self.groups().contains(&pgid),
        }
    }

    fn began_later(&self, stat: &Stat, started: Timestamp) -> bool {
        let Some(boot) = self.boot_time() else { return false };
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100).max(1);
        let began = boot.saturating_add(i64::try_from(stat.start_ticks).unwrap_or(i64::MAX) / ticks);
        began > started.as_second() + REUSE_MARGIN.as_secs()
    }

    fn stat(&self, pid: i32) -> Option<Stat> {
        let text = std::fs::read_to_string(self.proc.join(pid.to_string()).join("stat")).ok()?;
        Stat::parse(&text).filter(|stat| !stat.is_zombie)
    }

    /// Seconds since 1970 at which the machine started.
    fn boot_time(&self) -> Option<i64> {
        *self.boot.get_or_init(|| {
            let text = std::fs::read_to_string(self.proc.join("stat")).ok()?;
            text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
        })
    }

    fn groups(&self) -> &HashSet<i32> {
        self.groups.get_or_init(|| {
            let Ok(list) = std::fs::read_dir(&self.proc) else { return HashSet::new() };
            let pids = list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
            pids.filter_map(|pid| self.stat(pid)).map(|stat| stat.group).collect()
        })
    }
}

struct Stat {
    is_zombie: bool,
    group: i32,
    start_ticks: u64,
}

impl Stat {
    /// `pid (comm) state ppid pgrp …`, see proc_pid_stat(5); the name may hold spaces and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let rest = &text[text.rfind(')')? + 1..];
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            is_zombie: matches!(*fields.first()?, "Z" | "X"),
            group: fields.get(2)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_alive_and_a_later_run_of_its_pid_is_not() {
        let live = Liveness::default();
        let pid = i32::try_from(std::process::id()).expect("a pid");
        assert!(live.is_alive(pid, 0, Timestamp::now()));
        let group = nix::unistd::getpgrp().as_raw();
        assert!(live.is_alive(0, group, Timestamp::now()));
        assert!(!live.is_alive(0, 0, Timestamp::now()));
        assert!(!live.is_alive(pid, 0, "2020-01-01T00:00:00Z".parse().expect("a time")), "an earlier boot");
    }

    #[test]
    fn a_reused_pid_and_a_zombie_are_not_alive() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("stat"), "cpu 1\nbtime 1000\n").expect("write");
        let process = |pid: i32, state: char, ticks: u64| {
            let folder = dir.path().join(pid.to_string());
            std::fs::create_dir(&folder).expect("mkdir");
            let text = format!("{pid} (a) b) {state} 1 {pid} {pid} 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0 0\n");
            std::fs::write(folder.join("stat"), text).expect("write");
        };
        process(10, 'S', 50_000); // began at 1500
        process(11, 'Z', 50_000);
        let live = Liveness::at(dir.path());
        let second = |value| Timestamp::from_second(value).expect("in range");
        assert!(live.is_alive(10, 10, second(1500)));
        assert!(!live.is_alive(10, 10, second(1400)), "began 100 s after the run");
        assert!(!live.is_alive(11, 11, second(1500)));
        assert!(!live.is_alive(12, 12, second(1500)));
    }
}
