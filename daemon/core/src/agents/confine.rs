//! Confinement: an agent that may write to its working folder, its task's folder, its vendor's own state and a private
//! `/tmp`, and to nothing else; that sees no process but its own; and that finds no key of ours.
//!
//! One mechanism for all vendors: bubblewrap around the whole program (`docs/decisions/0007-one-sandbox.md`). This module
//! makes the command and asks whether it works here; it starts nothing else.
//!
//! ```text
//! conductor-shim --exec ignore   bwrap ignores the signals of a stop, which are for the agent
//!   └─ bwrap …                   the run's leader: waits for the agent and passes its exit code on
//!        └─ bwrap                pid 1 of the agent's own processes
//!             └─ conductor-shim --exec default   gives the signals back
//!                  └─ the agent
//! ```
//!
//! What the agent's descriptors point to (its logs, `tree.lock`) was opened before and stays writable.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::program;

/// How it is installed, for the hint.
pub const INSTALL: &str = "apt-get install bubblewrap";
/// How long the trial may take.
const TRIAL_TIME: Duration = Duration::from_secs(10);
/// Pause between two looks at it.
const TRIAL_POLL: Duration = Duration::from_millis(5);
/// Bytes of what a failed trial says.
const TRIAL_WORDS: usize = 300;
/// Folders that every program may fill, and which each confined agent gets for itself.
const PRIVATE: [&str; 2] = ["/tmp", "/var/tmp"];
/// Sockets through which a program outside would act for whoever may write to them.
const BACK_DOORS: [&str; 6] = [
    "/run/dbus/system_bus_socket",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/snapd.socket",
];

/// The same in a user's runtime folder: a service manager or an engine that would start anything outside.
const USER_BACK_DOORS: [&str; 4] = ["bus", "systemd", "docker.sock", "podman"];

/// What would act outside for an agent, in a user's runtime folder.
#[must_use]
pub fn user_back_doors(runtime: &Path) -> Vec<PathBuf> {
    USER_BACK_DOORS.iter().map(|name| runtime.join(name)).collect()
}

/// What an agent gets.
#[derive(Clone, Debug, Default)]
pub struct Walls {
    /// Its working folder.
    pub cwd: PathBuf,
    /// Folders and files that it may write to, besides; those that don't exist are left out.
    pub writable: Vec<PathBuf>,
    /// Folders that it needs to see, also where they lie in a folder that is private or hidden.
    pub visible: Vec<PathBuf>,
    /// Folders and files that it must not see.
    pub hidden: Vec<PathBuf>,
}

/// Puts walls around a command line. All paths are absolute; `shim` is the program of this project.
#[must_use]
pub fn wrap(argv: Vec<String>, bwrap: &Path, shim: &Path, walls: &Walls) -> Vec<String> {
    let own = |path: &Path| path.to_string_lossy().into_owned();
    let mut line = vec![own(shim), "--exec".to_owned(), "ignore".to_owned(), own(bwrap)];
    let mut say = |words: &[&str]| line.extend(words.iter().map(|word| (*word).to_owned()));
    say(&["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
    for folder in PRIVATE {
        say(&["--tmpfs", folder]);
    }
    // Outer folders before those that lie in them: a later mount covers an earlier one.
    let mut mounts: BTreeSet<(PathBuf, Mount)> = BTreeSet::new();
    let real = |path: &PathBuf| fs::canonicalize(path).ok();
    mounts.extend(walls.hidden.iter().filter_map(real).map(|path| (path, Mount::Hidden)));
    mounts.extend(BACK_DOORS.map(PathBuf::from).iter().filter_map(real).map(|path| (path, Mount::Hidden)));
    let concealed = |path: &Path| {
        PRIVATE.iter().any(|private| path.starts_with(private))
            || walls.hidden.iter().filter_map(real).any(|hidden| path.starts_with(&hidden) && path != hidden)
    };
    mounts.extend(
        walls.visible.iter().filter_map(real).filter(|path| concealed(path)).map(|path| (path, Mount::Visible)),
    );
    let writable = walls.writable.iter().chain([&walls.cwd]).filter_map(real);
    for path in writable {
        mounts.retain(|(other, kind)| *other != path || *kind == Mount::Hidden);
        mounts.insert((path, Mount::Writable));
    }
    for (path, mount) in &mounts {
        let path = own(path);
        match mount {
            Mount::Visible => say(&["--ro-bind", &path, &path]),
            Mount::Writable => say(&["--bind", &path, &path]),
            Mount::Hidden if Path::new(&path).is_dir() => say(&["--tmpfs", &path]),
            Mount::Hidden => say(&["--ro-bind", "/dev/null", &path]),
        }
    }
    say(&["--unshare-pid", "--unshare-ipc", "--cap-drop", "ALL", "--chdir", &own(&walls.cwd), "--"]);
    say(&[&own(shim), "--exec", "default"]);
    line.extend(argv);
    line
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mount {
    Visible,
    Writable,
    /// Last, so that what is hidden stays so where it is also asked for otherwise.
    Hidden,
}

/// Makes the folders and (JSON) files of a vendor's state that don't exist yet, so that the agent can write to them: inside the walls it
/// could not make them.
pub fn make_state(paths: &[PathBuf]) {
    for path in paths.iter().filter(|path| !path.exists()) {
        // What can't be made is something that the program itself would say more about.
        if path.extension().is_some_and(|kind| kind == "json") {
            let options = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let _ = options.and_then(|mut file| file.write_all(b"{}\n"));
        } else {
            let _ = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        }
    }
}

/// Whether confinement works on this machine, asked once for each program file.
#[derive(Debug, Default)]
pub struct Trial {
    known: Mutex<Option<Known>>,
}

/// What was found of a program file.
#[derive(Debug)]
struct Known {
    bwrap: PathBuf,
    /// When the file was last changed.
    changed: i64,
    result: Result<(), String>,
}

impl Trial {
    /// The program that confines, if it can. Blocks for up to ten seconds at the first call.
    ///
    /// # Errors
    /// Why it can't, for people.
    pub fn get(&self, path: &OsStr) -> Result<PathBuf, String> {
        let bwrap = match program::find("bwrap", &path.to_string_lossy()) {
            program::Found::Yes(path) => path,
            _ => return Err(format!("bubblewrap (bwrap) is not installed: {INSTALL}")),
        };
        let changed = fs::metadata(&bwrap).map_or(0, |found| found.mtime());
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fresh = known.as_ref().is_none_or(|known| known.bwrap != bwrap || known.changed != changed);
        if fresh {
            *known = Some(Known { result: attempt(&bwrap), bwrap: bwrap.clone(), changed });
        }
        let result = known.as_ref().map_or(Ok(()), |known| known.result.clone());
        result.map(|()| bwrap)
    }
}

/// Puts walls around `true`.
fn attempt(bwrap: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{} can't be tried: {error}", bwrap.display());
    let arguments =
        "--ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --unshare-pid --unshare-ipc --cap-drop ALL -- true";
    let mut child = Command::new(bwrap)
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let deadline = Instant::now() + TRIAL_TIME;
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{} does not end when tried", bwrap.display()));
            }
            None => std::thread::sleep(TRIAL_POLL),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut words = String::new();
    if let Some(stderr) = child.stderr.take() {
        use std::io::Read as _;
        let _ = stderr.take(TRIAL_WORDS as u64).read_to_string(&mut words);
    }
    Err(format!("bubblewrap does not work here: {}", super::outcome::one_line(&words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shim() -> PathBuf {
        PathBuf::from("/bin/conductor-shim")
    }

    #[test]
    fn outer_folders_are_mounted_before_inner_ones_and_hidden_ones_stay_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = fs::canonicalize(folder.path()).unwrap().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let walls = Walls {
            cwd: at("work"),
            writable: vec![at("root/p/task"), at("work"), folder.path().join("none")],
            visible: vec![at("socket"), PathBuf::from("/usr")],
            hidden: vec![at("root/.conductor")],
        };
        let line = wrap(vec!["/bin/true".into()], Path::new("/usr/bin/bwrap"), &shim(), &walls).join(" ");
        let place = |words: &str| line.find(words).unwrap_or_else(|| panic!("{words} is not in {line}"));
        let bind = |kind: &str, path: PathBuf| format!("--{kind} {0} {0}", path.display());
        assert!(place("--tmpfs /tmp") < place(&bind("bind", at("work"))));
        assert!(place(&bind("ro-bind", at("socket"))) > 0 && !line.contains("/usr /usr"));
        assert!(place(&format!("--tmpfs {}", at("root/.conductor").display())) > 0);
        assert_eq!(line.matches(&bind("bind", at("work"))).count(), 1);
        assert!(!line.contains("none"));
        assert!(line.starts_with("/bin/conductor-shim --exec ignore /usr/bin/bwrap "));
        assert!(line.ends_with(" -- /bin/conductor-shim --exec default /bin/true"), "{line}");
    }

    #[test]
    fn a_program_that_is_missing_is_named_with_the_way_to_install_it() {
        let error = Trial::default().get(OsStr::new("/nonexistent")).unwrap_err();
        assert!(error.contains(INSTALL), "{error}");
    }
}
