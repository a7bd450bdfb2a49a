//! What a committer does while it holds the lock: repair, rotation, one batch.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use conductor_shim::failpoint;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::archive;
use super::error::BusError;
use super::file::{Appended, Appender};
use super::format::MAX_HEADER;
use super::format::encode::{Fields, entry};
use super::format::scan::{State, Tail};
use super::ids;
use super::options::{BusOptions, Durability, Posted};
use super::segment::Segment;
use super::shared::{Shared, count};
use super::walk::{Mark, walk};
use super::writer::{Ask, Job};
use crate::types::{MessageDraft, MessageId, ProjectId};

/// Messages and bytes from which a batch takes no further post: a write of some milliseconds.
const MAX_BATCH: (usize, usize) = (4096, 4 << 20);

/// What became of a turn with the lock.
pub(super) enum Session {
    /// These are to be answered, now that the lock is free.
    Served(Vec<Answer>),
    /// The file was renamed: another one has to be locked.
    Moved,
    /// Another program's entry is unfinished, and it still has time.
    Unfinished,
}

/// An answer that is due.
pub(super) enum Answer {
    Posts(oneshot::Sender<Result<Vec<Posted>, BusError>>, Result<Vec<Posted>, BusError>),
    Repaired(oneshot::Sender<Result<Option<PathBuf>, BusError>>, Option<PathBuf>),
}

impl Answer {
    /// Sends it. A caller that has gone away needs none.
    pub(super) fn send(self) {
        match self {
            Self::Posts(to, result) => drop(to.send(result)),
            Self::Repaired(to, path) => drop(to.send(Ok(path))),
        }
    }
}

/// Entries of one batch, encoded.
#[derive(Default)]
struct Batch {
    text: String,
    entries: Vec<Written>,
}

/// One of them.
struct Written {
    /// Where it begins in the batch's text.
    start: usize,
    id: MessageId,
    time: Timestamp,
    key: Option<String>,
}

impl Batch {
    /// Adds `drafts`; on failure the batch is as before.
    fn add(&mut self, drafts: &mut [MessageDraft], separate_first: bool) -> Result<(), BusError> {
        let (length, count) = (self.text.len(), self.entries.len());
        for draft in drafts {
            if separate_first || !self.text.is_empty() {
                self.text.push('\n');
            }
            let start = self.text.len();
            let (id, time) = ids::next();
            let header = encode(&mut self.text, draft, &id, time);
            if header > MAX_HEADER {
                self.text.truncate(length);
                self.entries.truncate(count);
                return Err(BusError::TooLarge { what: "header", size: header, limit: MAX_HEADER });
            }
            self.entries.push(Written { start, id, time, key: draft.key.take() });
        }
        Ok(())
    }
}

fn encode(out: &mut String, draft: &MessageDraft, id: &MessageId, time: Timestamp) -> usize {
    let issue = draft.issue.as_deref().or((draft.kind == "ISSUE").then_some(id.as_str()));
    let time = time.to_string();
    let fields = Fields {
        id: id.as_str(),
        time: &time,
        kind: &draft.kind,
        project: draft.project.as_str(),
        task: draft.task.as_ref().map_or("", |task| task.as_str()),
        run: draft.run.as_ref().map_or("", |run| run.as_str()),
        issue,
        parents: &draft.parents,
        links: &draft.links,
        meta: &draft.meta,
        key: draft.key.as_deref(),
        body: &draft.body,
    };
    entry(out, &fields)
}

impl Shared {
    fn io(&self, action: &'static str) -> impl Fn(io::Error) -> BusError + '_ {
        move |error| BusError::io(action, &self.path, error)
    }

    /// One turn with the lock.
    pub(super) fn session(&self, appender: &mut Appender, options: &BusOptions) -> Result<Session, BusError> {
        let synced = self.sync_quietly()?;
        let Some(live) = self.chain.live().filter(|live| live.id == appender.id) else { return Ok(Session::Moved) };
        let mut repaired = None;
        match live.tail() {
            (Tail::Clean, _) => {}
            (Tail::Torn { start, ours }, seen) => {
                let written = std::fs::symlink_metadata(&self.path).map(|meta| age(&meta)).unwrap_or_default();
                if !ours && seen.max(written) < options.foreign_torn_grace {
                    return Ok(Session::Unfinished);
                }
                repaired = Some(self.move_torn(appender, &live, start)?);
            }
        }
        if synced.late {
            self.move_late(appender, options)?;
        }
        let mut answers = Vec::new();
        while let Some(job) = self.writer.take_if(|job| !matches!(job.ask, Ask::Post { .. })) {
            match job.ask {
                Ask::Repair { done } => answers.push(Answer::Repaired(done, repaired.take())),
                Ask::Rotate { done } => {
                    answers.into_iter().for_each(Answer::send);
                    // As for a batch: whoever asked is answered, and nobody else concerned.
                    drop(done.send(self.rotate_locked()));
                    return Ok(Session::Moved);
                }
                Ask::Tidy | Ask::Post { .. } => {}
            }
        }
        let size = appender.size().map_err(self.io("look at"))?;
        if options.rotate_bytes.is_some_and(|limit| size >= limit.max(1)) && self.writer.has_posts() {
            answers.into_iter().for_each(Answer::send);
            self.rotate_locked()?;
            return Ok(Session::Moved);
        }
        self.batch(appender, options, size, &mut answers);
        Ok(Session::Served(answers))
    }

    /// Takes what has accumulated and commits it.
    fn batch(&self, appender: &mut Appender, options: &BusOptions, size: u64, answers: &mut Vec<Answer>) {
        let always = options.durability == Durability::Always;
        let (mut messages, mut bytes, mut first) = (0, 0, true);
        let jobs = self.writer.take_while(|job| {
            let Ask::Post { drafts, .. } = &job.ask else { return false };
            if !first && (always || messages >= MAX_BATCH.0 || bytes >= MAX_BATCH.1) {
                return false;
            }
            first = false;
            messages += drafts.len();
            bytes += drafts.iter().map(|draft| draft.body.len()).sum::<usize>();
            true
        });
        let mut batch = Batch::default();
        let mut waiting = Vec::with_capacity(jobs.len());
        for job in jobs {
            let Job { ask: Ask::Post { mut drafts, done }, .. } = job else { continue };
            let from = batch.entries.len();
            match batch.add(&mut drafts, size > 0) {
                Ok(()) => waiting.push((done, from..batch.entries.len())),
                Err(error) => answers.push(Answer::Posts(done, Err(error))),
            }
        }
        if batch.entries.is_empty() {
            return;
        }
        let counters = &self.hub.counters;
        match self.commit(appender, options, &batch) {
            Ok(begin) => {
                count(&counters.posted, batch.entries.len() as u64);
                for (done, range) in waiting {
                    let posted = batch.entries[range].iter().map(|written| Posted {
                        id: written.id.clone(),
                        offset: begin + written.start as u64,
                        time: written.time,
                    });
                    answers.push(Answer::Posts(done, Ok(posted.collect())));
                }
            }
            Err(error) => {
                count(&counters.failed, batch.entries.len() as u64);
                answers.extend(waiting.into_iter().map(|(done, _)| Answer::Posts(done, Err(error.clone()))));
            }
        }
    }

    /// Writes a batch, makes it as durable as asked, publishes it. The offset at which it begins.
    fn commit(&self, appender: &mut Appender, options: &BusOptions, batch: &Batch) -> Result<u64, BusError> {
        let size = appender.size().map_err(self.io("look at"))?;
        let live = self.chain.live().filter(|live| live.id == appender.id);
        if let Some(live) = &live {
            live.freeze(size);
        }
        let result = self.append(appender, batch.text.as_bytes(), options.durability != Durability::None);
        if let Some(live) = &live {
            match &result {
                Ok(begin) => {
                    let entries: Vec<_> = batch
                        .entries
                        .iter()
                        .map(|it| (begin + it.start as u64, it.id.as_str(), it.key.as_deref()))
                        .collect();
                    let end = begin + batch.text.len() as u64;
                    live.unfreeze(&entries, *begin, end);
                    self.chain.note_own(end);
                }
                Err(_) => live.unfreeze(&[], 0, 0),
            }
        }
        if result.is_ok() {
            count(&self.hub.counters.batches, 1);
            count(&self.hub.counters.bytes, batch.text.len() as u64);
            self.publish();
        }
        result
    }

    /// Appends and syncs, or leaves the file as it was.
    fn append(&self, appender: &mut Appender, bytes: &[u8], durable: bool) -> Result<u64, BusError> {
        failpoint::hit("bus.before_append").map_err(self.io("append to"))?;
        let begin = match appender.append(bytes).map_err(self.io("append to"))? {
            Appended::At(begin) => begin,
            Appended::Failed(error) => return Err(BusError::io("append to", &self.path, error)),
        };
        let mut synced = failpoint::hit("bus.after_append");
        if synced.is_ok() && durable {
            count(&self.hub.counters.syncs, 1);
            synced = appender.sync().and_then(|()| failpoint::hit("bus.after_sync"));
        }
        if let Err(error) = synced {
            // The answer is a failure, so the entries must go; if that fails too they stay, unanswered.
            let _ = appender.cut_if(begin + bytes.len() as u64, begin);
            return Err(BusError::io("sync", &self.path, error));
        }
        Ok(begin)
    }

    /// Renames the live file, which is locked.
    fn rotate_locked(&self) -> Result<PathBuf, BusError> {
        failpoint::hit("bus.before_rotate").map_err(self.io("rotate"))?;
        let target = archive::archive(&self.path).map_err(self.io("rotate"))?;
        failpoint::hit("bus.after_rotate").map_err(self.io("rotate"))?;
        count(&self.hub.counters.rotations, 1);
        self.sync_quietly()?;
        Ok(target)
    }

    /// Moves what stands from `start` on to a file of its own, cuts it off and reports it on the bus.
    fn move_torn(&self, appender: &mut Appender, live: &Arc<Segment>, start: u64) -> Result<PathBuf, BusError> {
        let size = appender.size().map_err(self.io("look at"))?;
        let path = self.save_torn_file(&live.file, start, size)?;
        appender.cut_if(size, start).and_then(|()| appender.sync()).map_err(self.io("repair"))?;
        live.cut(start);
        self.report_torn(appender, size - start, &path)?;
        Ok(path)
    }

    /// Copies an unfinished end to a file of its own.
    fn save_torn_file(&self, from: &File, start: u64, end: u64) -> Result<PathBuf, BusError> {
        let (mut file, path) = archive::create_torn(&self.path).map_err(self.io("save the torn end of"))?;
        let copied = copy_range(from, start, end, &mut file).and_then(|()| file.sync_all());
        copied.and_then(|()| archive::sync_folder(&self.path)).map_err(self.io("save the torn end of"))?;
        Ok(path)
    }

    fn report_torn(&self, appender: &mut Appender, bytes: u64, path: &Path) -> Result<(), BusError> {
        count(&self.hub.counters.torn, 1);
        tracing::warn!(bus = %self.path.display(), saved = %path.display(), "moved the unfinished end of a bus away");
        let body =
            format!("an unfinished entry of {bytes} bytes at the end of this bus was moved to {}", path.display());
        if let Some(draft) = warning(&self.path, body) {
            let mut batch = Batch::default();
            batch.add(&mut [draft], appender.size().map_err(self.io("look at"))? > 0)?;
            let options = BusOptions { durability: Durability::Batch, ..BusOptions::default() };
            self.commit(appender, &options, &batch)?;
        }
        Ok(())
    }

    /// Moves entries that were appended to the archive after its rotation (by a program that had it open) to the live
    /// file, so that all readers meet them in one order and after what they have read. What can't be moved yet is tried
    /// again at the next look.
    fn move_late(&self, appender: &mut Appender, options: &BusOptions) -> Result<(), BusError> {
        let Some((archive, left_at)) = self.chain.previous() else { return Ok(()) };
        let Ok(true) = archive.file.try_lock().map(|()| true) else { return Ok(()) };
        let moved = self.move_late_locked(appender, &archive, left_at, options);
        // Closing would free it too.
        let _ = archive.file.unlock();
        moved
    }

    fn move_late_locked(
        &self,
        appender: &mut Appender,
        archive: &Segment,
        left_at: u64,
        options: &BusOptions,
    ) -> Result<(), BusError> {
        let meta = archive.file.metadata().map_err(self.io("look at the archive of"))?;
        let end = meta.len();
        let mark = Mark { offset: left_at, state: State::between() };
        let walked = walk(&archive.file, mark, end, |_| ControlFlow::Continue(()));
        let whole = match walked.map_err(self.io("read the archive of"))?.tail {
            Some(Tail::Torn { start, .. }) if age(&meta) < options.foreign_torn_grace && start < end => return Ok(()),
            Some(Tail::Torn { start, .. }) => start,
            _ => end,
        };
        let mut bytes = Vec::new();
        copy_range(&archive.file, left_at, whole, &mut bytes).map_err(self.io("read the archive of"))?;
        let torn = if whole < end { Some(self.save_torn_file(&archive.file, whole, end)?) } else { None };
        let size = appender.size().map_err(self.io("look at"))?;
        let live = self.chain.live().filter(|live| live.id == appender.id);
        // Not shown before it is gone from the archive: who reads it may write again.
        if let Some(live) = &live {
            live.freeze(size);
        }
        let cut = self.append_late(appender, &bytes, size).map(|()| cut_late(&archive.file, left_at, end));
        if let Some(live) = &live {
            live.unfreeze(&[], 0, 0);
        }
        self.sync_quietly()?;
        if let Some(path) = torn {
            self.report_torn(appender, end - whole, &path)?;
        }
        match cut? {
            Ok(true) => Ok(()),
            // It has grown without the lock meanwhile, or is not ours to cut: what was moved stays there too.
            Ok(false) => {
                self.chain.left_at(archive, end);
                Ok(())
            }
            Err(error) => Err(BusError::io("cut the archive of", &self.path, error)),
        }
    }

    fn append_late(&self, appender: &mut Appender, bytes: &[u8], size: u64) -> Result<(), BusError> {
        let from = bytes.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        if from == bytes.len() {
            return Ok(());
        }
        let mut text = Vec::with_capacity(bytes.len() + 1);
        if size > 0 {
            text.push(b'\n');
        }
        text.extend_from_slice(&bytes[from..]);
        self.append(appender, &text, true).map(|_| ())
    }
}

/// Cuts an archive that ends at `end` to `size`; says whether it could be cut.
fn cut_late(file: &File, size: u64, end: u64) -> io::Result<bool> {
    if file.metadata()?.len() != end {
        return Ok(false);
    }
    match file.set_len(size).and_then(|()| file.sync_all()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBADF | libc::EPERM)) => Ok(false),
        other => other.map(|()| true),
    }
}

/// How long ago a file was last written; nothing if the clock makes no sense.
fn age(meta: &std::fs::Metadata) -> Duration {
    let modified = meta.modified();
    modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok()).unwrap_or_default()
}

/// Copies the bytes `from..to` of a file.
fn copy_range(file: &std::fs::File, from: u64, to: u64, out: &mut impl io::Write) -> io::Result<()> {
    let mut buf = vec![0; 64 << 10];
    let mut at = from;
    while at < to {
        let length = usize::try_from((to - at).min(buf.len() as u64)).map_err(io::Error::other)?;
        file.read_exact_at(&mut buf[..length], at)?;
        out.write_all(&buf[..length])?;
        at += length as u64;
    }
    Ok(())
}

/// A report on the bus itself; `None` if its path names no project.
fn warning(path: &Path, body: String) -> Option<MessageDraft> {
    let name = |path: Option<&Path>| path?.file_name()?.to_str().map(str::to_owned);
    let task = name(path.parent())?.parse().ok();
    let folder = if task.is_some() { path.parent()?.parent() } else { path.parent() };
    let project: ProjectId = name(folder)?.to_ascii_lowercase().parse().or_else(|_| "unknown".parse()).ok()?;
    Some(MessageDraft {
        kind: "WARNING".to_owned(),
        project,
        task,
        run: None,
        issue: None,
        parents: Vec::new(),
        links: Vec::new(),
        meta: BTreeMap::new(),
        body,
        key: None,
    })
}
