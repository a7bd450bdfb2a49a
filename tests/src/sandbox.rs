//! A folder of its own for one test: home, configuration, state, socket and the environment that leads there.
//!
//! Dropping it ends every process that belongs to it. It starts none; see [`crate::Daemon`].

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::procs::{self, Process};
use crate::wait_until;

/// Programs that tests need beside their own executable.
const PROGRAMS: &[&str] =
    &["conductord", "conductorctl", "conductor-shim", "conductor-rest-agent", "conductor-fake-agent"];

/// How long processes may take to vanish once a run has its outcome: a shim ends right after it wrote `exit.json`.
const SETTLE: Duration = Duration::from_secs(10);

/// Lines of a daemon's log that a failure shows.
const REPORTED_LINES: usize = 60;

/// The folder of one test.
pub struct Sandbox {
    folder: tempfile::TempDir,
    bin: PathBuf,
}

impl Sandbox {
    /// Makes the folder. Its path is short, since a socket's path is limited to 103 bytes.
    ///
    /// # Errors
    /// The folder can't be made, or a program is not built.
    pub fn new() -> Result<Self> {
        Self::beneath(Path::new("/tmp"))
    }

    /// The same in another folder: confined agents have a `/tmp` of their own.
    ///
    /// # Errors
    /// As [`Sandbox::new`].
    pub fn beneath(parent: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("cdt-").tempdir_in(parent);
        let folder = folder.with_context(|| format!("making a folder in {}", parent.display()))?;
        let sandbox = Self { folder, bin: bin_folder()? };
        for name in ["home", "run", "config", "work", "tmp"] {
            std::fs::create_dir(sandbox.path().join(name))?;
        }
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(sandbox.path().join("run"), std::fs::Permissions::from_mode(0o700))?;
        Ok(sandbox)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where agents work: an empty folder, unless a test puts something there.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.path().join("work")
    }

    /// The storage root of the daemon.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path().join("state/conductor/runs")
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path().join("run/conductor/conductor.sock")
    }

    /// The configuration file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.path().join("config/conductor.yaml")
    }

    /// Absolute path of a built program.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A command of a built or system program with the sandbox's environment and nothing of the caller's.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(self.work());
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        command
    }

    /// What every program of the sandbox sees.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let below = |name: &str| self.path().join(name).display().to_string();
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
        vec![
            ("PATH", format!("{}:{path}", self.bin.display())),
            ("HOME", below("home")),
            ("TMPDIR", below("tmp")),
            ("XDG_STATE_HOME", below("state")),
            ("XDG_RUNTIME_DIR", below("run")),
            ("XDG_CONFIG_HOME", below("config")),
            ("CONDUCTOR_CONFIG", self.config_path().display().to_string()),
            ("LANG", "C.UTF-8".to_owned()),
            ("TERM", "dumb".to_owned()),
            ("NO_COLOR", "1".to_owned()),
            ("RUST_BACKTRACE", "1".to_owned()),
        ]
    }

    /// Every live process that belongs to the sandbox, daemons, shims and agents alike.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        procs::of_folder(self.path()).into_iter().filter(|process| !process.is_zombie()).collect()
    }

    /// The live processes that are no daemon and no client: shims, agents and what agents started.
    #[must_use]
    pub fn stray_processes(&self) -> Vec<Process> {
        let ours = ["conductord", "conductorctl"];
        self.processes().into_iter().filter(|process| !ours.contains(&process.name.as_str())).collect()
    }

    /// Waits until no shim, agent or child of an agent lives.
    ///
    /// # Errors
    /// Some still live after ten seconds; they are named.
    pub fn assert_no_strays(&self) -> Result<()> {
        let waited = wait_until("no process of an agent is left", SETTLE, || self.stray_processes().is_empty());
        let left = self.stray_processes();
        ensure!(left.is_empty(), "processes are left: {left:#?}");
        waited
    }

    /// Removes the empty cgroups that daemons of this sandbox made: a killed one leaves its own, which is right for it.
    fn remove_cgroups(&self) {
        let files = crate::tree::list(&self.root()).into_keys().filter(|path| path.ends_with("/shim/start.json"));
        for file in files {
            let text = std::fs::read(self.root().join(file)).unwrap_or_default();
            let start: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            if let Some(folder) = start["cgroup"].as_str().map(Path::new) {
                // The kernel refuses to remove one that has processes or children.
                let _ = std::fs::remove_dir(folder);
                let _ = folder.parent().map(std::fs::remove_dir);
            }
        }
    }

    /// What a person needs to understand a failure: processes, the storage tree, and the last lines of each daemon's log.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = format!("processes: {:#?}\n", self.processes());
        for (path, kind) in crate::tree::list(&self.root()) {
            text.push_str(&format!("{kind} {path}\n"));
        }
        for number in 1.. {
            let name = format!("conductord-{number}.log");
            if !self.path().join(&name).exists() {
                break;
            }
            let log = self.read(&name);
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(REPORTED_LINES)..];
            text.push_str(&format!("--- {name} ---\n{}\n", last.join("\n")));
        }
        text
    }

    /// The text of a file below the sandbox, empty if there is none.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> String {
        std::fs::read(self.path().join(path))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

/// Runs a test in a sandbox of its own; if it fails, shows the daemons' logs and the storage tree.
///
/// # Panics
/// The test failed.
pub fn in_sandbox(test: impl FnOnce(&Sandbox) -> Result<()>) {
    in_given_sandbox(Sandbox::new().expect("a sandbox"), test);
}

/// The same in a sandbox that is there.
///
/// # Panics
/// The test failed.
pub fn in_given_sandbox(sandbox: Sandbox, test: impl FnOnce(&Sandbox) -> Result<()>) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&sandbox)));
    if !matches!(result, Ok(Ok(()))) {
        eprintln!("{}", sandbox.report());
    }
    match result {
        Ok(result) => result.expect("the test"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Several passes, since an agent may fork between the scan and the signal.
        let ended = wait_until("the sandbox is empty", SETTLE, || {
            let left = self.processes();
            for process in &left {
                procs::signal(process, libc::SIGKILL);
            }
            left.is_empty()
        });
        self.remove_cgroups();
        if let Err(error) = ended {
            eprintln!("{error}: {:#?}", self.processes());
        }
        if std::env::var_os("CONDUCTOR_KEEP_SANDBOX").is_some() {
            self.folder.disable_cleanup(true);
            eprintln!("kept: {}", self.path().display());
        }
    }
}

/// The folder of the built programs: that of this executable, or the one above `deps`.
///
/// # Errors
/// A program is missing there.
pub fn bin_folder() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let mut folder = executable.parent().context("an executable is in a folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("deps is in a folder")?;
    }
    for program in PROGRAMS {
        ensure!(
            folder.join(program).is_file(),
            "{program} is not built in {}; use make test, or: cargo build --workspace --bins --features conductor-tests/failpoints",
            folder.display()
        );
    }
    Ok(folder.to_owned())
}
