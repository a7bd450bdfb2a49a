//! What the daemon, its shims and agents ask of the kernel, counted by strace.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use conductor_tests::{DEADLINE, wait_until};

/// The calls that cost: syncs, renames, new processes and programs.
const CALLS: &str = "fsync,fdatasync,rename,renameat,renameat2,clone,clone3,fork,vfork,execve,mkdir,mkdirat";

/// Counts of calls.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// How often one of these calls came.
    pub(crate) fn of(&self, names: &[&str]) -> u64 {
        names.iter().filter_map(|name| self.0.get(*name)).sum()
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list: Vec<String> = self.0.iter().map(|(name, count)| format!("{name} {count}")).collect();
        f.write_str(&list.join(", "))
    }
}

/// A strace that follows a process and everything that it starts.
pub(crate) struct Tracer {
    child: Child,
    output: std::path::PathBuf,
}

impl Tracer {
    /// Attaches to a process; `None` where there is no strace or it may not.
    pub(crate) fn attach(pid: i32, output: &Path) -> Result<Option<Self>> {
        let spawned = Command::new("strace")
            .args(["-f", "-y", "-p", &pid.to_string(), "-e", &format!("trace={CALLS}"), "-e", "signal=none", "-o"])
            .arg(output)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = spawned else { return Ok(None) };
        let stderr = child.stderr.take().context("it was asked for")?;
        let mut lines = BufReader::new(stderr).lines();
        let attached = lines.by_ref().map_while(Result::ok).any(|line| line.contains("attached"));
        if !attached {
            child.wait()?;
            return Ok(None);
        }
        // It says more, about each new process; nobody may make it wait.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(Some(Self { child, output: output.to_owned() }))
    }

    /// Detaches and counts.
    pub(crate) fn finish(mut self) -> Result<Counts> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
        wait_until("strace detaches", DEADLINE, || self.child.try_wait().is_ok_and(|status| status.is_some()))?;
        let text = std::fs::read_to_string(&self.output)?;
        let counts = count(&text);
        ensure!(!counts.0.is_empty(), "strace saw nothing");
        Ok(counts)
    }
}

/// Counts the calls of a trace; one that is told in two lines counts once, one that failed does not.
fn count(text: &str) -> Counts {
    let mut counts = Counts::default();
    for line in text.lines() {
        let call = line.trim_start_matches(|letter: char| letter.is_ascii_digit()).trim_start();
        let name = match call.strip_prefix("<... ") {
            Some(rest) => rest.split(' ').next(),
            None if call.ends_with("<unfinished ...>") => None,
            None => call.split_once('(').map(|(name, _)| name),
        };
        if let Some(name) = name.filter(|name| CALLS.split(',').any(|call| call == *name))
            && !line.contains(" = -1 ")
        {
            *counts.0.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_told_in_two_lines_counts_once_and_a_failed_one_not() {
        let text = "7 fsync(3</tmp/a> <unfinished ...>\n8 vfork( <unfinished ...>\n7 <... fsync resumed>) = 0\n\
                    9 mkdir(\"/tmp\", 0700) = -1 EEXIST (File exists)\n8 <... vfork resumed>) = 10\n7 fsync(4) = 0\n\
                    10 +++ exited with 0 +++\n";
        let counts = count(text);
        assert_eq!((counts.of(&["fsync"]), counts.of(&["vfork", "mkdir"])), (2, 1));
    }
}
