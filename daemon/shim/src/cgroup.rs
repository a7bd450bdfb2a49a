//! A run's cgroup v2 folder: where to make one, who is in it, how to end all of them at once.
//!
//! Only the v2 interface, found also where it is mounted beside v1 hierarchies ("hybrid"). Controllers and limits are
//! not enabled here; whoever makes the parent decides about them. On systems without cgroups nothing is found, and
//! the walk tier ([`crate::tree`]) is used.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// How long [`Cgroup::remove`] tries: the kernel lets go of a group a moment after its last process.
const REMOVE_TIME: Duration = Duration::from_millis(500);
/// Pause between two tries to remove.
const REMOVE_PAUSE: Duration = Duration::from_millis(1);
/// Nested groups that are looked into, so that a tree of folders can't keep a shim busy for ever.
const MAX_NESTED: usize = 4096;
/// Name prefix of a run's folder.
pub const RUN_PREFIX: &str = "conductor-run-";

/// The cgroup v2 folder that this process is in, as a path of the mounted file system. `None`: no v2 hierarchy is
/// mounted, or this process is outside of what is mounted (a bind mount of a part).
///
/// # Errors
/// Those of reading `/proc`.
pub fn own() -> io::Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let membership = fs::read_to_string("/proc/self/cgroup")?;
    Ok(own_in(&mounts, &membership))
}

fn own_in(mounts: &str, membership: &str) -> Option<PathBuf> {
    let (root, mount_point) = mounts.lines().find_map(unified_mount)?;
    let path = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = Path::new(path).strip_prefix(&root).ok()?;
    // A path that leaves the namespace's root is shown with "..": that folder is not below the mount.
    below.components().all(|part| matches!(part, Component::Normal(_))).then(|| mount_point.join(below))
}

/// Root and mount point of a mountinfo line, if it is a cgroup2 mount (proc_pid_mountinfo(5)).
fn unified_mount(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (before, after) = line.split_once(" - ")?;
    if after.split(' ').next()? != "cgroup2" {
        return None;
    }
    let mut fields = before.split(' ').skip(3);
    Some((unescape(fields.next()?), unescape(fields.next()?)))
}

/// Undoes the octal escapes of mountinfo.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        match digits {
            Some(digits) if first == b'\\' => {
                let value = digits.iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                bytes.push(value as u8);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Whether a run's folder can be made below `parent`, filled and killed: tried with an empty one.
#[must_use]
pub fn probe(parent: &Path) -> bool {
    let Ok(group) = Cgroup::create(parent, &format!("probe-{}", std::process::id())) else { return false };
    let usable = group.kill().is_ok() && group.is_populated().is_ok_and(|populated| !populated);
    group.remove().is_ok() && usable
}

/// One run's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the folder of `run_id` below `parent`, or takes over the one that a dead shim has left, if that is empty.
    ///
    /// # Errors
    /// `Unsupported` if `parent` is in no cgroup v2 with `cgroup.kill` (Linux 5.14), `AlreadyExists` if the folder has
    /// processes in it, `InvalidInput` for an id that is no single file name, or the error of making the folder.
    pub fn create(parent: &Path, run_id: &str) -> io::Result<Self> {
        let mut parts = Path::new(run_id).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a run id is one file name"));
        }
        // Checked first, so that nothing is made in a folder that is no cgroup.
        if !parent.join("cgroup.procs").exists() {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        let group = Self { path: parent.join(format!("{RUN_PREFIX}{run_id}")) };
        match fs::create_dir(&group.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !group.is_populated()? => {}
            other => other?,
        }
        if group.path.join("cgroup.kill").exists() && group.path.join("cgroup.events").exists() {
            return Ok(group);
        }
        group.remove()?;
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    /// The folder at `path`, as a start record names it. `None`: it is gone, so nothing is in it.
    #[must_use]
    pub fn open(path: &Path) -> Option<Self> {
        path.join("cgroup.events").exists().then(|| Self { path: path.to_owned() })
    }

    /// CPU time that everything in the folder has used so far, ended processes included. The kernel keeps it with or
    /// without the cpu controller.
    ///
    /// # Errors
    /// `NotFound` if the folder is gone, `InvalidData` if the kernel's answer is not understood.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let text = fs::read_to_string(self.path.join("cpu.stat"))?;
        let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok());
        used.map(Duration::from_micros).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The folder that [`Cgroup::create`] would have made for this run. `None`: there is none.
    #[must_use]
    pub fn of_run(parent: &Path, run_id: &str) -> Option<Self> {
        Self::open(&parent.join(format!("{RUN_PREFIX}{run_id}")))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process, with its threads, into the group.
    ///
    /// # Errors
    /// That of the kernel: `PermissionDenied`, or `NotFound` (ESRCH) for a process that is gone.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// Kills everything in the group and in groups below it, forks under way included.
    ///
    /// # Errors
    /// That of the kernel.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }

    /// Whether a live process is in the group or below it. Zombies don't count. A group that is gone is not populated.
    ///
    /// # Errors
    /// Those of reading `cgroup.events`.
    pub fn is_populated(&self) -> io::Result<bool> {
        match fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(events) => Ok(value_of(&events, "populated") != Some(0)),
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// `cgroup.events`, to be waited for and read again.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn events(&self) -> io::Result<Events> {
        File::open(self.path.join("cgroup.events")).map(Events)
    }

    /// Waits until the group is empty, or `limit` is over. Returns whether it is empty.
    ///
    /// # Errors
    /// Those of reading and polling `cgroup.events`.
    pub fn wait_empty(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        let Ok(events) = self.events() else { return self.is_populated().map(|populated| !populated) };
        loop {
            if !events.is_populated()? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let mut entry = libc::pollfd { fd: events.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
            let milliseconds = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
            // SAFETY: `entry` is one valid pollfd.
            unsafe { libc::poll(&raw mut entry, 1, milliseconds) };
        }
    }

    /// The pids in the group and in groups below it, as far as they are visible in this pid namespace.
    ///
    /// # Errors
    /// Those of reading; a group that is gone has none.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for folder in self.folders()? {
            match fs::read_to_string(folder.join("cgroup.procs")) {
                // 0 stands for a process of another pid namespace.
                Ok(text) => {
                    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|&pid| pid > 0))
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pids)
    }

    /// How many processes of the group the kernel's OOM killer has ended; `None` without a memory controller.
    #[must_use]
    pub fn oom_kills(&self) -> Option<u64> {
        value_of(&fs::read_to_string(self.path.join("memory.events")).ok()?, "oom_kill")
    }

    /// Removes the group and the empty groups below it, deepest first.
    ///
    /// # Errors
    /// `ResourceBusy` if a process is still in it after half a second.
    pub fn remove(&self) -> io::Result<()> {
        let deadline = Instant::now() + REMOVE_TIME;
        loop {
            match self.remove_once() {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    std::thread::sleep(REMOVE_PAUSE);
                }
                other => return other,
            }
        }
    }

    fn remove_once(&self) -> io::Result<()> {
        for folder in self.folders()?.iter().rev() {
            match fs::remove_dir(folder) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The group's folder and all below it, parents before their children.
    fn folders(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = vec![self.path.clone()];
        let mut next = 0;
        while next < folders.len() && folders.len() < MAX_NESTED {
            match fs::read_dir(&folders[next]) {
                Ok(entries) => {
                    let nested = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                    folders.extend(nested.map(|entry| entry.path()));
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
            next += 1;
        }
        Ok(folders)
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// An open `cgroup.events`. `poll` with `POLLPRI` reports a change since the last [`Events::is_populated`]; without any
/// such call it reports one at once.
#[derive(Debug)]
pub struct Events(File);

impl Events {
    /// Whether a live process is in the group now.
    ///
    /// # Errors
    /// Those of reading; a group that is gone is not populated.
    pub fn is_populated(&self) -> io::Result<bool> {
        use std::io::{Read, Seek};
        let mut text = String::new();
        let mut file = &self.0;
        match file.rewind().and_then(|()| file.read_to_string(&mut text)) {
            Ok(_) => Ok(value_of(&text, "populated") != Some(0)),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The number after `key` in a file of `key number` lines.
fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:3 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_folder_is_found_in_a_hybrid_hierarchy() {
        let found = own_in(HYBRID, "9:name=systemd:/\n0::/user.slice/a.service\n");
        assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/uni fied/user.slice/a.service")));
        assert_eq!(own_in(HYBRID, "0::/\n"), Some(PathBuf::from("/sys/fs/cgroup/uni fied")));
    }

    #[test]
    fn a_mount_of_a_part_is_used_only_if_the_process_is_inside() {
        let mounts = "41 31 0:38 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        assert_eq!(own_in(mounts, "0::/docker/abc/x\n"), Some(PathBuf::from("/sys/fs/cgroup/x")));
        assert_eq!(own_in(mounts, "0::/docker/abcdef\n"), None);
        assert_eq!(own_in(HYBRID, "0::/../outside\n"), None);
    }

    #[test]
    fn without_a_unified_hierarchy_there_is_no_folder() {
        assert_eq!(own_in("30 1 0:1 / /sys/fs/cgroup/pids rw - cgroup cgroup rw\n", "8:pids:/\n"), None);
    }

    #[test]
    fn a_folder_that_is_no_cgroup_is_refused_and_stays_clean() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!probe(folder.path()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_run_id_that_is_a_path_is_refused() {
        for id in ["", ".", "..", "a/b", "/a"] {
            assert_eq!(Cgroup::create(Path::new("/"), id).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{id:?}");
        }
    }

    #[test]
    fn a_group_kills_what_is_in_it_and_nested_groups_are_removed() {
        let Some(parent) = own().ok().flatten().filter(|parent| probe(parent)) else {
            eprintln!("skipped: no writable cgroup v2 here");
            return;
        };
        let group = Cgroup::create(&parent, &format!("unit-{}", std::process::id())).unwrap();
        fs::create_dir_all(group.path().join("a/b")).unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let nested = Cgroup { path: group.path().join("a/b") };
        nested.add(child.id() as i32).unwrap();
        assert!(group.is_populated().unwrap());
        assert_eq!(group.processes().unwrap(), [child.id() as i32]);
        assert!(!group.wait_empty(Duration::from_millis(20)).unwrap());
        assert!(group.cpu_time().unwrap() < Duration::from_secs(60), "of a process that sleeps");
        group.kill().unwrap();
        assert!(group.wait_empty(Duration::from_secs(30)).unwrap());
        child.wait().unwrap();
        group.remove().unwrap();
        assert!(!group.path().exists());
        assert!(Cgroup::open(group.path()).is_none());
    }
}
