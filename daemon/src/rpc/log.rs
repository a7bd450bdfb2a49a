//! Logs and files of runs as bytes: by offset, from the end, and followed while the run lives.
//!
//! Bytes are sent as the agent wrote them; nothing is masked or decoded.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use conductor_core::store::root::run_rel;
use conductor_core::types::RunKey;
use conductor_proto::{reason, v1};
use tonic::{Code, Status};

use super::context::{Answers, Call, Context, send};
use super::{error, from_proto};
use crate::auth::Action;

/// The file of standard output.
pub(super) const STDOUT: &str = "agent-stdout.txt";
/// The file of standard error.
pub(super) const STDERR: &str = "agent-stderr.txt";
/// Bytes of one answer at most (DESIGN §8).
const CHUNK: usize = 32 * 1024;
/// Bytes that one turn reads, which are sent as several answers.
const READ: usize = 8 * CHUNK;
/// How far from the end lines are looked for; with longer lines fewer are sent.
const TAIL_SCAN: u64 = 16 * 1024 * 1024;

/// Reads outside of the runtime's own threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Status> + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|_| error::shutting_down())?
}

fn io_error(error: &io::Error) -> Status {
    error::status(Code::Internal, reason::INTERNAL, format!("failed to read the log: {error}"))
}

/// Whether a run has ended, or is gone.
fn has_ended(context: &Context, key: &RunKey) -> bool {
    context.supervisor.catalog().run(key).is_none_or(|run| run.has_ended())
}

/// `StreamRunLog`.
pub(super) async fn stream(
    call: Call,
    request: &v1::StreamRunLogRequest,
) -> Result<Answers<v1::StreamRunLogResponse>, Status> {
    let key = from_proto::needed_run_key(request.run.as_ref())?;
    call.allow(Action::Read(&key.task.project))?;
    let name = match v1::LogStream::try_from(request.stream) {
        Ok(v1::LogStream::Unspecified | v1::LogStream::Stdout) => STDOUT,
        Ok(v1::LogStream::Stderr) => STDERR,
        Err(_) => return Err(error::field("stream", "this log is not known to this version")),
    };
    if call.context.supervisor.catalog().run(&key).is_none() {
        return Err(error::not_found("run", format!("no run {key}"), &[]));
    }
    let ended = has_ended(&call.context, &key);
    let log = Log { context: Arc::clone(&call.context), rel: run_rel(&key).join(name), key };
    let (file, start) = log.open_at(request.offset, request.tail_lines, ended).await?;
    let follow = request.follow;
    Ok(call.stream(move |_, sender| async move { log.send(file, start, follow, &sender).await }))
}

struct Log {
    context: Arc<Context>,
    key: RunKey,
    rel: PathBuf,
}

type Sender = tokio::sync::mpsc::Sender<Result<v1::StreamRunLogResponse, Status>>;

impl Log {
    /// The file, if it is there, and the offset at which to begin.
    async fn open_at(&self, offset: u64, tail_lines: u32, ended: bool) -> Result<(Option<File>, u64), Status> {
        let Some(file) = self.open().await? else {
            if ended {
                return Err(error::not_found("file", format!("run {} has no such log", self.key), &[]));
            }
            return Ok((None, if tail_lines > 0 { 0 } else { offset }));
        };
        if tail_lines > 0 {
            let copy = file.try_clone().map_err(|error| io_error(&error))?;
            let start = blocking(move || tail_start(&copy, tail_lines).map_err(|error| io_error(&error))).await?;
            return Ok((Some(file), start));
        }
        let length = file.metadata().map_err(|error| io_error(&error))?.len();
        if ended && offset > length {
            let message = format!("the log has {length} bytes, and the run has ended");
            return Err(error::status(Code::OutOfRange, reason::BEYOND_END, message));
        }
        Ok((Some(file), offset))
    }

    async fn open(&self) -> Result<Option<File>, Status> {
        let (context, rel) = (Arc::clone(&self.context), self.rel.clone());
        blocking(move || match context.supervisor.root().open_beneath(rel) {
            Ok((file, _)) => Ok(Some(file)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error::store("file", &error)),
        })
        .await
    }

    async fn send(self, mut file: Option<File>, mut offset: u64, follow: bool, sender: &Sender) -> Result<(), Status> {
        let path = self.context.supervisor.root().path().join(&self.rel);
        // Before the first read, so that nothing is missed between.
        let mut changes = follow.then(|| self.context.files.follow(&path));
        let mut revisions = self.context.supervisor.catalog().watch();
        loop {
            // Before the read: what an ended run wrote is in the file by then.
            let ended = has_ended(&self.context, &self.key);
            if file.is_none() {
                file = self.open().await?;
            }
            if let Some(file) = &file {
                if !send_to_end(file, &mut offset, sender).await? {
                    return Ok(());
                }
            }
            if ended {
                send(sender, v1::StreamRunLogResponse { offset, data: Vec::new(), end: true }).await;
                return Ok(());
            }
            let Some(changes) = &mut changes else { return Ok(()) };
            self.wait(changes, &mut revisions).await;
        }
    }

    /// Waits until the file may have grown or the run may have ended.
    async fn wait(&self, changes: &mut super::file_watch::Watched, revisions: &mut tokio::sync::watch::Receiver<u64>) {
        let ended = async {
            // Every change of anything wakes this; most are of other runs.
            while revisions.changed().await.is_ok() && !has_ended(&self.context, &self.key) {}
        };
        tokio::select! {
            () = changes.changed() => {}
            () = ended => {}
        }
    }
}

/// Sends what is there from `offset` on. `false`: the reader is gone.
async fn send_to_end(file: &File, offset: &mut u64, sender: &Sender) -> Result<bool, Status> {
    loop {
        let copy = file.try_clone().map_err(|error| io_error(&error))?;
        let from = *offset;
        let read = blocking(move || {
            let mut bytes = vec![0; READ];
            let count = copy.read_at(&mut bytes, from).map_err(|error| io_error(&error))?;
            bytes.truncate(count);
            Ok(bytes)
        });
        let bytes = read.await?;
        for data in bytes.chunks(CHUNK) {
            let answer = v1::StreamRunLogResponse { offset: *offset, data: data.to_vec(), end: false };
            if !send(sender, answer).await {
                return Ok(false);
            }
            *offset += data.len() as u64;
        }
        if bytes.len() < READ {
            return Ok(true);
        }
    }
}

/// The offset of the first of the last `lines` lines. A last line without its end counts.
fn tail_start(file: &File, lines: u32) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let floor = length.saturating_sub(TAIL_SCAN);
    let (mut end, mut left) = (length, u64::from(lines));
    let mut block = vec![0; READ];
    while end > floor {
        let begin = end.saturating_sub(READ as u64).max(floor);
        let part = &mut block[..usize::try_from(end - begin).unwrap_or(READ)];
        file.read_exact_at(part, begin)?;
        for (at, byte) in part.iter().enumerate().rev() {
            let after = begin + at as u64 + 1;
            // The end of the last line begins no further line.
            if *byte == b'\n' && after < length {
                left -= 1;
                if left == 0 {
                    return Ok(after);
                }
            }
        }
        end = begin;
    }
    Ok(floor)
}

/// `ReadRunFile`.
pub(super) async fn read_file(
    call: Call,
    request: &v1::ReadRunFileRequest,
) -> Result<Answers<v1::ReadRunFileResponse>, Status> {
    let key = from_proto::needed_run_key(request.run.as_ref())?;
    call.allow(Action::Read(&key.task.project))?;
    let name = match v1::RunFile::try_from(request.file) {
        Ok(v1::RunFile::Prompt) => "prompt.md",
        Ok(v1::RunFile::Output) => "output.md",
        Ok(v1::RunFile::Unspecified) | Err(_) => return Err(error::field("file", "prompt or output is needed")),
    };
    let log = Log { context: Arc::clone(&call.context), rel: run_rel(&key).join(name), key };
    let missing = || error::not_found("file", format!("run {} has no {name}", log.key), &[]);
    let file = log.open().await?.ok_or_else(missing)?;
    Ok(call.stream(move |_, sender| async move {
        let file = Arc::new(file);
        let mut offset = 0;
        loop {
            let copy = Arc::clone(&file);
            let read = blocking(move || {
                let mut data = vec![0; CHUNK];
                let count = copy.read_at(&mut data, offset).map_err(|error| io_error(&error))?;
                data.truncate(count);
                Ok(data)
            });
            let data = read.await?;
            offset += data.len() as u64;
            if data.is_empty() || !send(&sender, v1::ReadRunFileResponse { data }).await {
                return Ok(());
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn start(text: &[u8], lines: u32) -> u64 {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text).expect("written");
        tail_start(&file, lines).expect("read")
    }

    #[test]
    fn the_last_lines_are_found_with_or_without_a_final_end() {
        assert_eq!(start(b"a\nb\nc\n", 1), 4);
        assert_eq!(start(b"a\nb\nc", 1), 4);
        assert_eq!(start(b"a\nb\nc\n", 2), 2);
        assert_eq!(start(b"a\nb\nc\n", 9), 0);
        assert_eq!(start(b"", 3), 0);
        assert_eq!(start(b"\n\n", 1), 1);
    }

    #[test]
    fn lines_across_blocks_are_found_and_the_search_ends_where_it_is_bounded() {
        let mut text = vec![b'x'; 3 * READ];
        text[10] = b'\n';
        assert_eq!(start(&text, 1), 11);
        let long = vec![b'x'; usize::try_from(TAIL_SCAN).expect("fits") + 100];
        assert_eq!(start(&long, 1), 100);
    }
}
