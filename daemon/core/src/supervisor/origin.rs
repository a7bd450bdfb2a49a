//! Which run a process belongs to: how conductord tells an agent's call from a person's.
//!
//! A process belongs to a run if it, or a process above it, is in a run's cgroup, is a shim, or was started with the id of
//! a run of this root in its environment. What the kernel says counts first; what a process says of itself can only add
//! to it. Whatever can't be looked at is unknown, which is never taken for a person. What has left the tree altogether
//! and cleared its environment is not recognised without a cgroup: see `docs/security.md`.

use std::path::Path;

use conductor_shim::{cgroup, process};

use crate::store::Catalog;
use crate::types::{RunId, RunKey, RunStatus};

/// Processes above one that are looked at. Deeper nesting is no person's shell.
const MAX_ABOVE: usize = 64;

/// Where a process belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belonging {
    /// To no run.
    Outside,
    /// To this live run.
    Run(RunKey),
    /// To a run that has ended, or it can't be told.
    Unknown,
}

/// What marks the runs of one root.
pub(super) struct Marks<'a> {
    pub(super) catalog: &'a Catalog,
    /// Folder below which their cgroups are.
    pub(super) cgroups: Option<&'a Path>,
    /// The root, below which their folders are.
    pub(super) root: &'a Path,
}

impl Marks<'_> {
    /// Where `pid` belongs now.
    pub(super) fn belonging(&self, pid: i32) -> Belonging {
        let own = std::process::id().cast_signed();
        let Ok(first) = process::stat(pid) else { return Belonging::Unknown };
        let (mut at, mut above) = (pid, first.ppid);
        for _ in 0..MAX_ABOVE {
            if let Some(run) = self.marked(at) {
                return self.live(&run);
            }
            // Init, or the edge of our pid namespace: every process on the way was looked at.
            if above <= 1 {
                let same = process::stat(pid).is_ok_and(|now| now.start_ticks == first.start_ticks);
                return if same { Belonging::Outside } else { Belonging::Unknown };
            }
            // What a dead shim left to us as subreaper.
            if above == own {
                return Belonging::Unknown;
            }
            match process::stat(above) {
                Ok(stat) => (at, above) = (stat.pid, stat.ppid),
                Err(_) => return Belonging::Unknown,
            }
        }
        Belonging::Unknown
    }

    /// The run whose mark a process bears; the kernel's words first.
    fn marked(&self, pid: i32) -> Option<RunId> {
        self.by_cgroup(pid).or_else(|| self.by_shim(pid)).or_else(|| self.by_environment(pid))
    }

    /// A run's cgroup is named after it, below the folder of this root's.
    fn by_cgroup(&self, pid: i32) -> Option<RunId> {
        let ours = self.cgroups?.file_name()?.to_str()?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        let mut parts = path.split('/').skip_while(|part| *part != ours).skip(1);
        parts.find_map(|part| part.strip_prefix(cgroup::RUN_PREFIX)?.parse().ok())
    }

    /// A shim's argument is the run's folder.
    fn by_shim(&self, pid: i32) -> Option<RunId> {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0);
        if !words.next()?.ends_with(b"conductor-shim") {
            return None;
        }
        let folders = words.filter_map(|word| std::str::from_utf8(word).ok()).map(Path::new);
        let mut below = folders.filter(|folder| folder.starts_with(self.root));
        below.find_map(|folder| folder.file_name()?.to_str()?.parse().ok())
    }

    /// Only ids of this root count: a person may work inside a run of another one.
    fn by_environment(&self, pid: i32) -> Option<RunId> {
        let environment = process::environment(pid).ok()?;
        let value = process::environment_value(&environment, process::RUN_ID_VARIABLE)?;
        let id: RunId = std::str::from_utf8(value).ok()?.parse().ok()?;
        self.catalog.find_run(id.as_str(), None).is_ok().then_some(id)
    }

    fn live(&self, id: &RunId) -> Belonging {
        match self.catalog.find_run(id.as_str(), None) {
            Ok(run) if run.status == RunStatus::Running => Belonging::Run(run.key()),
            _ => Belonging::Unknown,
        }
    }
}
