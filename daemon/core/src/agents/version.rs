//! What a program says of its version: `PROGRAM --version`, asked once for every state of the file.
//!
//! Blocks for up to [`TIMEOUT`]. A program that hangs is ended with its process group; it is our own child that has not
//! been reaped, so that its pid can't belong to anything else.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::outcome::one_line;
use crate::config::Env;

/// How long a program may take: node starts slowly on a busy machine, and a hang must not hold a start for long.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of its output that are looked at.
const MAX_OUTPUT: u64 = 64 << 10;
/// Pause between two looks at whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// Why a version is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// It can't be executed.
    #[error("{path} can't be executed: {1}", path = .0.display())]
    Spawn(PathBuf, String),
    /// It did not end.
    #[error("{path} --version did not end within {time} s", path = .0.display(), time = .1.as_secs_f64())]
    Timeout(PathBuf, Duration),
    /// It failed.
    #[error("{path} --version failed ({1}): {2}", path = .0.display())]
    Failed(PathBuf, String, String),
    /// It said nothing.
    #[error("{path} --version printed nothing", path = .0.display())]
    Silent(PathBuf),
    /// There is no program to ask.
    #[error("{0}")]
    NoProgram(String),
}

/// A file at one moment: a new version of a program is another file.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    modified: Option<SystemTime>,
    length: u64,
}

/// Versions that are known.
#[derive(Default)]
pub(crate) struct Versions(Mutex<HashMap<PathBuf, (Stamp, String)>>);

impl std::fmt::Debug for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Versions")
    }
}

impl Versions {
    /// The version of a program, asked in this environment. Failures are not remembered.
    pub(crate) fn get(&self, program: &Path, env: &Env) -> Result<String, VersionError> {
        let stamp = stamp(program);
        if let Some((known, version)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(program)
            && Some(known) == stamp.as_ref()
        {
            return Ok(version.clone());
        }
        let version = ask(program, env, TIMEOUT)?;
        if let Some(stamp) = stamp {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(program.to_owned(), (stamp, version.clone()));
        }
        Ok(version)
    }
}

/// The file behind links: npm's `claude` is a link, and an update changes what it points to.
fn stamp(program: &Path) -> Option<Stamp> {
    let path = program.canonicalize().ok()?;
    let metadata = path.metadata().ok()?;
    Some(Stamp { path, modified: metadata.modified().ok(), length: metadata.len() })
}

/// Runs `PROGRAM --version` and takes the first line that it prints, on standard error if there is none on output.
fn ask(program: &Path, env: &Env, timeout: Duration) -> Result<String, VersionError> {
    let failed = |error: io::Error| VersionError::Spawn(program.to_owned(), error.to_string());
    let mut child = Command::new(program)
        .arg("--version")
        .env_clear()
        .envs(env)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let deadline = Instant::now() + timeout;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                end(&mut child);
                return Err(VersionError::Timeout(program.to_owned(), timeout));
            }
            None => thread::sleep(POLL),
        }
    };
    // What it left running may hold the pipes open; then what came so far has to do.
    let grace = deadline.saturating_duration_since(Instant::now()).min(Duration::from_secs(1));
    let said = |from: &mpsc::Receiver<Vec<u8>>| {
        let bytes = from.recv_timeout(grace).unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().map(str::trim).find(|line| !line.is_empty()).map(one_line)
    };
    let (out, err) = (said(&stdout), said(&stderr));
    if !status.success() {
        let words = err.or(out).unwrap_or_else(|| "no message".to_owned());
        return Err(VersionError::Failed(program.to_owned(), status.to_string(), words));
    }
    out.or(err).ok_or_else(|| VersionError::Silent(program.to_owned()))
}

/// Reads a pipe to its end in a thread of its own, so that neither pipe can fill up and block the program.
fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    if let Some(mut pipe) = pipe {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // Beyond the limit output is read and dropped.
            let read = (&mut pipe).take(MAX_OUTPUT).read_to_end(&mut bytes);
            if read.is_ok() && bytes.len() as u64 == MAX_OUTPUT {
                let _ = io::copy(&mut pipe, &mut io::sink());
            }
            let _ = send.send(bytes);
        });
    }
    receive
}

fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn script(body: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (folder, path)
    }

    fn env() -> Env {
        Env::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())])
    }

    #[test]
    fn the_first_line_is_the_version_wherever_it_is_printed() {
        let (_folder, path) = script("echo; echo '2.1.197 (Claude Code)'; echo more");
        assert_eq!(ask(&path, &env(), TIMEOUT).unwrap(), "2.1.197 (Claude Code)");
        let (_folder, path) = script("echo 1.0 >&2");
        assert_eq!(ask(&path, &env(), TIMEOUT).unwrap(), "1.0");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children() {
        let (folder, path) = script("sleep 1000 & echo $! > pid; wait");
        let script_text =
            fs::read_to_string(&path).unwrap().replace("> pid", &format!("> {}/pid", folder.path().display()));
        fs::write(&path, script_text).unwrap();
        let error = ask(&path, &env(), Duration::from_millis(500)).unwrap_err();
        assert!(matches!(error, VersionError::Timeout(..)), "{error}");
        let pid: i32 = fs::read_to_string(folder.path().join("pid")).unwrap().trim().parse().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        // Gone, or a zombie that nobody here can reap.
        while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < until, "{pid} lives");
            thread::sleep(POLL);
        }
    }

    #[test]
    fn failures_silence_and_floods_are_told_apart() {
        let (_folder, path) = script("echo broken >&2; exit 3");
        let text = ask(&path, &env(), TIMEOUT).unwrap_err().to_string();
        assert!(text.ends_with("--version failed (exit status: 3): broken"), "{text}");
        let (_folder, path) = script("exit 0");
        assert!(matches!(ask(&path, &env(), TIMEOUT), Err(VersionError::Silent(_))));
        let (_folder, path) = script("head -c 1000000 /dev/zero | tr '\\0' x");
        assert_eq!(ask(&path, &env(), TIMEOUT).unwrap().chars().count(), 301);
    }

    #[test]
    fn a_program_is_asked_again_only_when_its_file_has_changed() {
        let (folder, path) = script("echo x >> count; echo 1.0");
        let text = format!("#!/bin/sh\necho x >> {0}/count\necho 1.0\n", folder.path().display());
        fs::write(&path, &text).unwrap();
        let versions = Versions::default();
        assert_eq!(versions.get(&path, &env()).unwrap(), "1.0");
        assert_eq!(versions.get(&path, &env()).unwrap(), "1.0");
        assert_eq!(fs::read_to_string(folder.path().join("count")).unwrap(), "x\n");
        fs::write(&path, text.replace("1.0", "22.0")).unwrap();
        assert_eq!(versions.get(&path, &env()).unwrap(), "22.0");
    }
}
