//! Logs and files of runs as bytes: by offset, from the end, and followed while the run lives.
//!
//! Bytes are sent as the agent wrote them, but for configured tokens: each byte of one is sent as `*`, so that offsets
//! stay true. Nothing is decoded.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conductor_core::agents::Masks;
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
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|_| error::shutting_down())?
}

pub(super) fn io_error(error: &io::Error) -> Status {
    error::status(Code::Internal, reason::INTERNAL, format!("failed to read the log: {error}"))
}

/// Whether a run has ended, or is gone.
pub(super) fn has_ended(context: &Context, key: &RunKey) -> bool {
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
    let masks = call.context.supervisor.masks().await;
    let log = Log { context: Arc::clone(&call.context), rel: run_rel(&key).join(name), key, masks };
    let (file, start) = log.open_at(request.offset, request.tail_lines, ended).await?;
    let follow = request.follow;
    Ok(call.stream(move |_, sender| async move { log.send(file, start, follow, &sender).await }))
}

struct Log {
    context: Arc<Context>,
    key: RunKey,
    rel: PathBuf,
    masks: Masks,
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
        open(&self.context, &self.rel).await
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
            if let Some(file) = &file
                && !self.send_to_end(file, &mut offset, ended || !follow, sender).await?
            {
                return Ok(());
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

    /// Sends what is there from `offset` on; unless this is the `last` time, what may be the beginning of a token waits
    /// for the rest of it. `false`: the reader is gone.
    async fn send_to_end(&self, file: &File, offset: &mut u64, last: bool, sender: &Sender) -> Result<bool, Status> {
        loop {
            let copy = file.try_clone().map_err(|error| io_error(&error))?;
            let (from, masks) = (*offset, self.masks.clone());
            let piece = blocking(move || read(&copy, from, last, &masks).map_err(|error| io_error(&error))).await?;
            for data in piece.bytes.chunks(CHUNK) {
                let answer = v1::StreamRunLogResponse { offset: *offset, data: data.to_vec(), end: false };
                if !send(sender, answer).await {
                    return Ok(false);
                }
                *offset += data.len() as u64;
            }
            if piece.at_end {
                return Ok(true);
            }
        }
    }
}

/// Opens a file below the root; `None`: it is not there.
pub(super) async fn open(context: &Arc<Context>, rel: &Path) -> Result<Option<File>, Status> {
    let (context, rel) = (Arc::clone(context), rel.to_owned());
    blocking(move || match context.supervisor.root().open_beneath(rel) {
        Ok((file, _)) => Ok(Some(file)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error::store("file", &error)),
    })
    .await
}

/// Masked bytes of a file.
struct Piece {
    bytes: Vec<u8>,
    /// There is no more now.
    at_end: bool,
}

/// Reads from an offset on, with what stands before it, since a token may have begun there.
fn read(file: &File, from: u64, last: bool, masks: &Masks) -> io::Result<Piece> {
    let behind = usize::try_from(from).unwrap_or(usize::MAX).min(masks.look_behind());
    // More than the longest token is read, so that there is always something that need not wait.
    let mut bytes = vec![0; behind + READ];
    let count = file.read_at(&mut bytes, from - behind as u64)?;
    bytes.truncate(count);
    let at_end = count < behind + READ;
    if at_end && last {
        masks.hide_last(&mut bytes);
    } else {
        let waiting = masks.partial(&bytes);
        masks.hide(&mut bytes);
        bytes.truncate((count - waiting).max(behind.min(count)));
    }
    bytes.drain(..behind.min(bytes.len()));
    Ok(Piece { bytes, at_end })
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
    let rel = run_rel(&key).join(name);
    let missing = || error::not_found("file", format!("run {key} has no {name}"), &[]);
    let file = open(&call.context, &rel).await?.ok_or_else(missing)?;
    let masks = call.context.supervisor.masks().await;
    Ok(call.stream(move |_, sender| async move {
        let mut offset = 0;
        loop {
            let copy = file.try_clone().map_err(|error| io_error(&error))?;
            let masks = masks.clone();
            let piece = blocking(move || read(&copy, offset, true, &masks).map_err(|error| io_error(&error))).await?;
            offset += piece.bytes.len() as u64;
            for data in piece.bytes.chunks(CHUNK) {
                if !send(&sender, v1::ReadRunFileResponse { data: data.to_vec() }).await {
                    return Ok(());
                }
            }
            if piece.at_end {
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

    /// All of a file as a reader gets it who begins at `from` and looks after every `step` bytes that were written.
    fn seen(text: &[u8], from: u64, step: usize, masks: &Masks) -> Vec<u8> {
        let mut file = tempfile::tempfile().expect("a file");
        let (mut offset, mut seen) = (from, Vec::new());
        for part in text.chunks(step).chain([&[][..]]) {
            file.write_all(part).expect("written");
            let piece = super::read(&file, offset, part.is_empty(), masks).expect("read");
            offset += piece.bytes.len() as u64;
            seen.extend(piece.bytes);
        }
        seen
    }

    #[test]
    fn a_token_is_hidden_however_the_file_grows_and_wherever_reading_begins() {
        let key = "sk-ant-api03-0123456789abcdef";
        let masks = Masks::new(&[key.to_owned().into()]);
        let text = format!("one {key}{key}\ntwo sk-ant-api03-0123 sk-a{key} sk-ant");
        let hidden = text.replace(key, &"*".repeat(key.len()));
        for step in 1..text.len() {
            assert_eq!(String::from_utf8_lossy(&seen(text.as_bytes(), 0, step, &masks)), hidden, "step {step}");
        }
        for from in 0..text.len() {
            let seen = seen(text.as_bytes(), from as u64, text.len(), &masks);
            assert_eq!(String::from_utf8_lossy(&seen), hidden[from..], "from {from}");
        }
        let mut long = vec![b'x'; READ - 10];
        long.extend_from_slice(key.as_bytes());
        long.extend(vec![b'y'; READ]);
        let whole = seen(&long, 0, long.len(), &masks);
        assert!(whole.len() > READ, "it goes on behind the key");
        assert!(!whole.windows(6).any(|part| part == b"012345"));
    }
}
