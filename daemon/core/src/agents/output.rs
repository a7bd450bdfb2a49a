//! `output.md`, the answer of a run: what the agent wrote itself; else the final answer of its stream; else its standard
//! output. Settled once a run has ended; doing it again changes nothing.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file's name in the run's folder.
pub const FILE: &str = "output.md";
/// Bytes of standard output that are copied; the rest is in `agent-stdout.txt`. An answer is for reading: nobody reads
/// more, and a run may print 2 GiB.
pub const MAX_COPY: u64 = 64 << 20;
/// Where it is put together: hidden, in the same folder, so that the rename is atomic.
const TEMPORARY: &str = ".output.md.tmp";

/// Where the answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The agent wrote the file.
    Agent,
    /// The final answer of its stream.
    Answer,
    /// Its standard output.
    Stdout {
        /// Whether only the first [`MAX_COPY`] bytes were copied.
        cut: bool,
    },
    /// There is none: no file, no answer, no output.
    Nothing,
}

/// Why there is no answer although there should be.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The agent put something else at its place.
    #[error("{} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// Reading or writing failed.
    #[error("{path}: {1}", path = .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// Makes sure that a run's `output.md` holds its answer.
///
/// # Errors
/// [`OutputError`]; nothing half-written is left in place.
pub fn settle(run_folder: &Path, stdout: &Path, answer: Option<&str>) -> Result<Source, OutputError> {
    let path = run_folder.join(FILE);
    match fs::symlink_metadata(&path) {
        Ok(found) if !found.is_file() => return Err(OutputError::NotRegular(path)),
        Ok(found) if found.len() > 0 => return Ok(Source::Agent),
        // An empty file says nothing.
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(OutputError::Io(path, error)),
    }
    if let Some(answer) = answer.filter(|answer| !answer.trim().is_empty()) {
        let newline = if answer.ends_with('\n') { "" } else { "\n" };
        write(run_folder, &path, |file| {
            file.write_all(answer.as_bytes())?;
            file.write_all(newline.as_bytes())
        })?;
        return Ok(Source::Answer);
    }
    copy(run_folder, &path, stdout)
}

fn copy(run_folder: &Path, path: &Path, stdout: &Path) -> Result<Source, OutputError> {
    let failed = |error| OutputError::Io(stdout.to_owned(), error);
    let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(stdout);
    let mut from = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Source::Nothing),
        Err(error) => return Err(failed(error)),
    };
    let metadata = from.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(OutputError::NotRegular(stdout.to_owned()));
    }
    let length = metadata.len();
    if length == 0 {
        return Ok(Source::Nothing);
    }
    let cut = length > MAX_COPY;
    write(run_folder, path, |file| {
        io::copy(&mut (&mut from).take(MAX_COPY), file)?;
        if cut {
            write!(
                file,
                "\n\n[cut: these are the first {MAX_COPY} of {length} bytes; agent-stdout.txt has them all]\n"
            )?;
        }
        Ok(())
    })?;
    Ok(Source::Stdout { cut })
}

/// Temporary file, write, fsync, rename, fsync of the folder.
fn write(folder: &Path, path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), OutputError> {
    let temporary = folder.join(TEMPORARY);
    let whole = || -> io::Result<()> {
        // A left-over, or a link that the agent put there, is not written through.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        fill(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    whole().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        OutputError::Io(path.to_owned(), error)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom};

    use super::*;

    fn run(stdout: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent-stdout.txt");
        fs::write(&path, stdout).unwrap();
        (folder, path)
    }

    fn output(folder: &tempfile::TempDir) -> String {
        fs::read_to_string(folder.path().join(FILE)).unwrap()
    }

    #[test]
    fn what_the_agent_wrote_stays() {
        let (folder, stdout) = run(b"out");
        fs::write(folder.path().join(FILE), "mine").unwrap();
        assert_eq!(settle(folder.path(), &stdout, Some("answer")).unwrap(), Source::Agent);
        assert_eq!(output(&folder), "mine");
    }

    #[test]
    fn else_the_answer_else_the_output_and_again_changes_nothing() {
        let (folder, stdout) = run(b"out");
        fs::write(folder.path().join(FILE), "").unwrap();
        assert_eq!(settle(folder.path(), &stdout, Some("answer")).unwrap(), Source::Answer);
        assert_eq!(settle(folder.path(), &stdout, Some("other")).unwrap(), Source::Agent);
        assert_eq!(output(&folder), "answer\n");
        let (folder, stdout) = run(b"out \xff");
        assert_eq!(settle(folder.path(), &stdout, Some(" \n")).unwrap(), Source::Stdout { cut: false });
        assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), b"out \xff");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing temporary is left");
    }

    #[test]
    fn without_anything_there_is_no_file() {
        let (folder, stdout) = run(b"");
        assert_eq!(settle(folder.path(), &stdout, None).unwrap(), Source::Nothing);
        assert_eq!(settle(folder.path(), &folder.path().join("none"), None).unwrap(), Source::Nothing);
        assert!(!folder.path().join(FILE).exists());
    }

    #[test]
    fn a_large_output_is_cut_with_a_note() {
        let (folder, stdout) = run(b"begin");
        File::options().write(true).open(&stdout).unwrap().set_len(MAX_COPY + 1).unwrap();
        assert_eq!(settle(folder.path(), &stdout, None).unwrap(), Source::Stdout { cut: true });
        let mut file = File::open(folder.path().join(FILE)).unwrap();
        file.seek(SeekFrom::Start(MAX_COPY)).unwrap();
        let mut note = String::new();
        file.read_to_string(&mut note).unwrap();
        assert_eq!(note.trim(), "[cut: these are the first 67108864 of 67108865 bytes; agent-stdout.txt has them all]");
    }

    #[test]
    fn links_and_folders_are_neither_followed_nor_replaced() {
        let (folder, stdout) = run(b"out");
        let secret = folder.path().join("secret");
        fs::write(&secret, "s").unwrap();
        std::os::unix::fs::symlink(&secret, folder.path().join(FILE)).unwrap();
        assert!(matches!(settle(folder.path(), &stdout, Some("a")), Err(OutputError::NotRegular(_))));
        fs::remove_file(folder.path().join(FILE)).unwrap();
        fs::create_dir(folder.path().join(FILE)).unwrap();
        assert!(matches!(settle(folder.path(), &stdout, Some("a")), Err(OutputError::NotRegular(_))));
        fs::remove_dir(folder.path().join(FILE)).unwrap();
        std::os::unix::fs::symlink(&secret, folder.path().join(TEMPORARY)).unwrap();
        assert_eq!(settle(folder.path(), &stdout, Some("a")).unwrap(), Source::Answer);
        assert_eq!(fs::read_to_string(&secret).unwrap(), "s");
    }
}
