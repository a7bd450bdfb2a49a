//! Starts a user's conductord in the background. It ends nothing and knows nothing of the daemon's own work.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::environment;
use crate::output::time;

/// How long a start may take: recovery of 10,000 runs takes a second, of a slow disk some more.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Pause between two tries to connect.
const PROBE_PAUSE: Duration = Duration::from_millis(30);

/// conductord's exit code when another one holds the root: that one is about to answer.
const EXIT_HELD: i32 = 75;

/// Lines of the daemon's log that are shown after a failed start.
const SHOWN_LINES: usize = 12;

/// Bytes read for them from the end of the log.
const SHOWN_BYTES: u64 = 8 * 1024;

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// No program.
    #[error("conductord is neither beside {} nor on PATH", beside.display())]
    NoProgram { beside: PathBuf },
    /// No folder for its log.
    #[error("neither XDG_STATE_HOME nor HOME is set, so its log has no place")]
    NoStateFolder,
    /// The system refused.
    #[error("can't {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// It ended.
    #[error("{} ended with {status}", program.display())]
    Ended { program: PathBuf, status: ExitStatus, log: PathBuf, last: Vec<String> },
    /// It lives and does not answer.
    #[error("{} (pid {pid}) does not answer at {} after {}", program.display(), socket.display(), time::duration(START_LIMIT))]
    Silent { program: PathBuf, pid: u32, socket: PathBuf, log: PathBuf, last: Vec<String> },
}

impl LaunchError {
    pub(crate) fn hints(&self) -> Vec<String> {
        match self {
            Self::NoProgram { .. } => vec!["install conductord, or name a running one with --socket".into()],
            Self::Ended { log, last, .. } | Self::Silent { log, last, .. } => {
                let mut hints = vec![format!("its log is {}{}", log.display(), if last.is_empty() { "" } else { ":" })];
                hints.extend(last.iter().map(|line| format!("  {line}")));
                hints
            }
            _ => Vec::new(),
        }
    }
}

/// A daemon that was just started.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) program: PathBuf,
    pub(crate) pid: u32,
    pub(crate) log: PathBuf,
}

/// Starts conductord and waits until it listens at `socket`. `named`: the socket was named by the user.
pub(crate) async fn launch(socket: &Path, named: bool) -> Result<Launched, LaunchError> {
    let program = find_program()?;
    let log = log_file()?;
    let from = fs::metadata(&log).map_or(0, |data| data.len());
    let mut child = spawn(&program, &log, named.then_some(socket))?;
    let began = Instant::now();
    let mut ended = None;
    loop {
        if tokio::net::UnixStream::connect(socket).await.is_ok() {
            return Ok(Launched { pid: child.id(), program, log });
        }
        if ended.is_none() {
            ended = child.try_wait().ok().flatten();
        }
        if let Some(status) = ended.filter(|status| status.code() != Some(EXIT_HELD)) {
            return Err(LaunchError::Ended { program, status, last: tail(&log, from), log });
        }
        if began.elapsed() > START_LIMIT {
            let last = tail(&log, from);
            return Err(match ended {
                Some(status) => LaunchError::Ended { program, status, log, last },
                None => LaunchError::Silent { program, pid: child.id(), socket: socket.to_owned(), log, last },
            });
        }
        tokio::time::sleep(PROBE_PAUSE).await;
    }
}

fn find_program() -> Result<PathBuf, LaunchError> {
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.parent().map(Path::to_owned).unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(beside.clone())
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join("conductord"))
        .find(|program| program.is_absolute() && is_executable(program))
        .ok_or(LaunchError::NoProgram { beside })
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn log_file() -> Result<PathBuf, LaunchError> {
    let folder = environment::state_folder().ok_or(LaunchError::NoStateFolder)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|source| LaunchError::Io {
        action: "make the folder",
        path: folder.clone(),
        source,
    })?;
    Ok(folder.join("conductord.log"))
}

fn spawn(program: &Path, log: &Path, socket: Option<&Path>) -> Result<Child, LaunchError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| LaunchError::Io { action, path, source }
    };
    let open = || OpenOptions::new().create(true).append(true).mode(0o600).open(log);
    let out = open().map_err(failed("open", log))?;
    let err = open().map_err(failed("open", log))?;
    let mut command = Command::new(program);
    if let Some(socket) = socket {
        let whole = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
        command.arg("--socket").arg(whole);
    }
    command.stdin(Stdio::null()).stdout(out).stderr(err).current_dir("/");
    // SAFETY: setsid is async-signal-safe, and nothing else happens between fork and exec.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(std::io::Error::from));
    }
    command.spawn().map_err(failed("execute", program))
}

/// The last lines that were written to the log since it had `from` bytes.
fn tail(log: &Path, from: u64) -> Vec<String> {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(SHOWN_BYTES)).min(length)))?;
        let mut bytes = Vec::new();
        file.take(SHOWN_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].iter().map(|line| crate::output::plain(line)).collect()
}
