//! One run in a temporary folder with the real shim, and what every test asserts at its end.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conductor_shim::process::RUN_ID_VARIABLE;
use conductor_shim::protocol::*;
use conductor_shim::tree::{self, Finder, Scope, System};
use conductor_shim::{cgroup, durable, lock, process};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Far beyond anything that a test waits for; reached only by a failing one.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Run {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) spec: Spec,
}

impl Run {
    /// A run of this shell script.
    pub(crate) fn script(text: &str) -> Self {
        Self::program(&["/bin/sh", "-c", text])
    }

    pub(crate) fn python(text: &str) -> Self {
        let python =
            ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter().find(|path| PathBuf::from(path).exists());
        Self::program(&[python.unwrap_or("/usr/bin/python3"), "-S", "-c", text])
    }

    pub(crate) fn program(argv: &[&str]) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), argv)
    }

    pub(crate) fn in_folder(folder: tempfile::TempDir, argv: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("20260101-000000{:04}-{}-1", NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
        std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let spec = Spec {
            version: VERSION,
            env: vec![
                (RUN_ID_VARIABLE.to_owned(), id.clone()),
                ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
                ("OUT".to_owned(), path("")),
            ],
            run_id: id,
            argv: argv.iter().map(|&argument| argument.to_owned()).collect(),
            cwd: path(""),
            stdin: None,
            stdout: path("agent-stdout.txt"),
            stderr: path("agent-stderr.txt"),
            cgroup_parent: None,
            wall_time_ms: None,
            log_limit: None,
            secret_names: Vec::new(),
            on_exit: OnExit::Sweep,
            exit_grace_ms: 200,
            graces: Graces { int_ms: 300, term_ms: 300 },
        };
        Self { folder, spec }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self.spec);
        self
    }

    pub(crate) fn shim_path(&self, name: &str) -> PathBuf {
        self.folder.path().join(FOLDER).join(name)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    pub(crate) fn stdout(&self) -> String {
        self.text("agent-stdout.txt")
    }

    /// Writes the specification and starts the shim as conductord does.
    pub(crate) fn start(&self) -> Shim<'_> {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, environment: &[(&str, &str)]) -> Shim<'_> {
        durable::write_json(&self.shim_path(SPEC), &self.spec).unwrap();
        self.shim(&[], environment)
    }

    pub(crate) fn rescue(&self) -> Shim<'_> {
        self.shim(&["--rescue"], &[])
    }

    fn shim(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Shim<'_> {
        let errors = std::fs::File::options().append(true).create(true).open(self.file("shim-stderr.txt")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_conductor-shim"))
            .args(arguments)
            .arg(self.folder.path())
            .env_remove(RUN_ID_VARIABLE)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        Shim { run: self, child }
    }

    pub(crate) fn start_record(&self) -> Start {
        durable::read_json(&self.shim_path(START)).unwrap()
    }

    pub(crate) fn exit(&self) -> Exit {
        durable::read_json(&self.shim_path(EXIT))
            .unwrap_or_else(|error| panic!("exit.json: {error}; shim says: {}", self.text("shim-stderr.txt")))
    }

    pub(crate) fn write_stop(&self, sequence: u32, int_ms: u64, term_ms: u64) {
        let stop = Stop {
            idle: false,
            version: VERSION,
            sequence,
            who: "tester".to_owned(),
            why: "because".to_owned(),
            graces: Graces { int_ms, term_ms },
        };
        durable::write_json(&self.shim_path(STOP), &stop).unwrap();
    }

    pub(crate) fn tree_lock_is_held(&self) -> bool {
        lock::is_held(&self.shim_path(TREE_LOCK)).unwrap()
    }

    fn scope(&self) -> Scope {
        Scope { run_id: self.spec.run_id.clone(), ..Scope::default() }
    }

    pub(crate) fn marked_processes(&self) -> Vec<process::Stat> {
        let members = tree::members(&System, self.scope()).unwrap();
        members.into_iter().filter(process::Stat::is_alive).collect()
    }

    pub(crate) fn assert_nothing_is_left(&self) {
        assert_eq!(self.marked_processes(), [], "processes of the run are left");
        assert!(!self.tree_lock_is_held(), "tree.lock is held");
        if let Some(parent) = &self.spec.cgroup_parent {
            let group = PathBuf::from(parent).join(format!("conductor-run-{}", self.spec.run_id));
            assert!(!group.exists(), "the cgroup is left");
        }
    }
}

impl Drop for Run {
    /// A failing test leaves no process behind either.
    fn drop(&mut self) {
        let _ = tree::kill(&System, &mut Finder::new(self.scope()), None, Duration::from_secs(5));
    }
}

pub(crate) struct Shim<'run> {
    pub(crate) run: &'run Run,
    pub(crate) child: Child,
}

impl Shim<'_> {
    /// The line on the status pipe; empty if it was closed without one.
    pub(crate) fn status_line(&mut self) -> String {
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn wait_started(&mut self) -> i32 {
        let line = self.status_line();
        let pid = line.strip_prefix("started ").unwrap_or_else(|| panic!("status line {line:?}"));
        pid.trim().parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: no pointers; our own unreaped child.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for the shim's own exit code.
    pub(crate) fn code(&mut self) -> i32 {
        let status = self.status();
        status.code().unwrap_or_else(|| panic!("shim ended by signal {:?}", status.signal()))
    }

    pub(crate) fn status(&mut self) -> std::process::ExitStatus {
        let child = &mut self.child;
        let mut status = None;
        wait_for("the shim to end", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Waits for the end of the run, and asserts that its tree is empty.
    pub(crate) fn ended(mut self) -> Exit {
        assert_eq!(self.code(), 0, "shim says: {}", self.run.text("shim-stderr.txt"));
        let exit = self.run.exit();
        if exit.tree_empty {
            self.run.assert_nothing_is_left();
        }
        exit
    }

    pub(crate) fn kill_nine(&mut self) {
        self.signal(libc::SIGKILL);
        self.child.wait().unwrap();
    }
}

impl Drop for Shim<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The two tiers that a test is to be run in: without a cgroup, and with one where that can be had.
pub(crate) fn tiers() -> Vec<Option<String>> {
    let mut tiers = vec![None];
    match cgroup::own().ok().flatten().filter(|parent| cgroup::probe(parent)) {
        Some(parent) => tiers.push(Some(parent.to_str().unwrap().to_owned())),
        None => eprintln!("the cgroup tier is skipped: no writable cgroup v2 here"),
    }
    tiers
}

/// Makes this test program what conductord is: the parent of agents whose shim has died.
pub(crate) fn adopt_orphans() {
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }, 0);
}

/// Reaps exactly this adopted process, when it ends.
pub(crate) fn reap_adopted(agent: Identity) {
    std::thread::spawn(move || {
        wait_for("the agent to be ours", || match process::stat(agent.pid) {
            Ok(stat) => stat.start_ticks != agent.start_ticks || stat.ppid == std::process::id() as i32,
            Err(_) => true,
        });
        // SAFETY: a null status is allowed; one pid by name. If it is not ours, the call fails and changes nothing.
        unsafe { libc::waitpid(agent.pid, std::ptr::null_mut(), 0) };
    });
}

/// A file system of 1 MiB, which is easily filled.
pub(crate) struct SmallDisk {
    mount_point: tempfile::TempDir,
    name: std::ffi::CString,
}

impl SmallDisk {
    /// `None`, with a message, where mounting is not allowed.
    pub(crate) fn mount() -> Option<Self> {
        let mount_point = tempfile::tempdir().unwrap();
        let name = std::ffi::CString::new(mount_point.path().to_str().unwrap()).unwrap();
        // SAFETY: all strings end in NUL.
        let result = unsafe {
            libc::mount(c"conductor-test".as_ptr(), name.as_ptr(), c"tmpfs".as_ptr(), 0, c"size=1m".as_ptr().cast())
        };
        if result != 0 {
            eprintln!("skipped: mounting a small disk is not allowed here: {}", std::io::Error::last_os_error());
            return None;
        }
        Some(Self { mount_point, name })
    }

    /// A new folder on it, for a run.
    pub(crate) fn folder(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(self.mount_point.path()).unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // SAFETY: the string ends in NUL.
        unsafe { libc::umount2(self.name.as_ptr(), libc::MNT_DETACH) };
    }
}
