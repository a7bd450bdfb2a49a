//! `.conductor/audit.jsonl`: one line for every change that somebody asked for, done or refused.
//!
//! Lines name ids, never prompts, messages or tokens. They are written by a thread of their own: a full or slow disk costs
//! lines (counted and logged), never a call. They are not synced one by one: the durable record of a change is the change.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use conductor_core::types::Timestamp;
use serde::Serialize;
use tracing::warn;

/// Size in bytes from which the next line goes to a new file.
const ROTATE: u64 = 16 * 1024 * 1024;
/// Old files that are kept: `audit.jsonl.1` is the newest.
const KEPT: u32 = 4;
/// Lines that wait to be written: some seconds of the busiest daemon.
const QUEUE: usize = 4096;
/// Mode of the files.
const MODE: u32 = 0o600;

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// When.
    pub time: Timestamp,
    /// Who, for people.
    pub who: String,
    /// The peer's user.
    pub uid: u32,
    /// The peer's process when it connected; 0: of another pid namespace.
    pub pid: i32,
    /// The run from inside which the call came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The RPC.
    pub verb: &'static str,
    /// What it was about.
    pub resource: String,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// `ok`, else the reason of the error; `abandoned`: the caller went away before the answer.
    pub result: String,
    /// How many, where one line stands for many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// Writes records. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    sender: SyncSender<Option<Record>>,
    dropped: Arc<AtomicU64>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Audit {
    /// Starts the writer of the file at `path`.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(path: PathBuf) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new().name("audit".to_owned()).spawn(move || write_all(&path, &receiver))?;
        Ok(Self { sender, dropped: Arc::default(), writer: Arc::new(Mutex::new(Some(writer))) })
    }

    /// Hands a record to the writer, without waiting.
    pub fn record(&self, record: Record) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Some(record)) {
            // The first, the second, the fourth, … so that a stuck disk does not fill the log too.
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                warn!(dropped, "the audit file can't be written fast enough; lines are lost");
            }
        }
    }

    /// Waits until everything handed over so far is written. Blocking.
    pub fn finish(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            if self.sender.send(None).is_ok() && writer.join().is_err() {
                warn!("the writer of the audit file panicked");
            }
        }
    }
}

fn write_all(path: &Path, receiver: &Receiver<Option<Record>>) {
    let mut failures = 0_u64;
    let mut file = None;
    while let Ok(Some(record)) = receiver.recv() {
        match write(path, &mut file, &record) {
            Ok(()) => failures = 0,
            Err(error) => {
                file = None;
                failures += 1;
                if failures.is_power_of_two() {
                    warn!(%error, path = %path.display(), failures, "the audit file can't be written");
                }
            }
        }
    }
}

fn write(path: &Path, file: &mut Option<(File, u64)>, record: &Record) -> io::Result<()> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    if file.as_ref().is_none_or(|(_, size)| *size >= ROTATE) {
        *file = None;
        *file = Some(open(path)?);
    }
    if let Some((file, size)) = file {
        file.write_all(&line)?;
        *size += line.len() as u64;
    }
    Ok(())
}

/// Opens the file for appending; a full one is moved away first.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    if path.symlink_metadata().is_ok_and(|meta| meta.len() >= ROTATE) {
        for number in (1..KEPT).rev() {
            rename_if_there(&numbered(number), &numbered(number + 1))?;
        }
        rename_if_there(path, &numbered(1))?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(MODE).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn record(resource: &str) -> Record {
        Record {
            time: Timestamp::UNIX_EPOCH,
            who: "dev (uid 1000, pid 7)".to_owned(),
            uid: 1000,
            pid: 7,
            run: None,
            verb: "StopTask",
            resource: resource.to_owned(),
            request_id: None,
            result: "ok".to_owned(),
            count: None,
        }
    }

    #[test]
    fn a_change_is_one_private_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let audit = Audit::start(path.clone()).expect("a thread");
        audit.record(record("p/one\nline"));
        audit.record(record("p/two"));
        audit.finish();
        let text = std::fs::read_to_string(&path).expect("written");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[1],
            r#"{"time":"1970-01-01T00:00:00Z","who":"dev (uid 1000, pid 7)","uid":1000,"pid":7,"verb":"StopTask","resource":"p/two","result":"ok"}"#
        );
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_full_file_is_moved_away_and_four_old_ones_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        for round in 0..6 {
            std::fs::write(&path, round.to_string()).expect("written");
            File::options().write(true).open(&path).and_then(|file| file.set_len(ROTATE)).expect("a full file");
            open(&path).expect("moved away");
        }
        let first =
            |number: u32| std::fs::read(folder.path().join(format!("audit.jsonl.{number}"))).map(|text| text[0]);
        assert_eq!((first(1).ok(), first(4).ok(), first(5).ok()), (Some(b'5'), Some(b'2'), None));
    }

    #[test]
    fn a_folder_that_is_not_there_blocks_nobody() {
        let audit = Audit::start("/nonexistent/audit.jsonl".into()).expect("a thread");
        for _ in 0..2 * QUEUE {
            audit.record(record("p"));
        }
        audit.finish();
    }
}
