//! The events of runs, derived from their logs: from the beginning, after a place, from the end, and followed while the
//! run lives.
//!
//! What an event means may depend on lines before it (a session, a refusal that was told already), so every stream
//! parses the logs from their first byte and leaves out what is not wanted. That costs a read of the logs, and memory
//! for one line (at most 16 MiB) and its events; nothing is kept between streams.
//!
//! ```text
//! logs ─ 64 KiB of each ─> parser ─> events ─ not wanted? ─> tail (only at first) ─> answers of some 32 KiB ─> reader
//! ```
//!
//! A slow reader holds its own stream back: the logs are files and wait.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use conductor_core::agents::event::{Event, EventParser, Stream};
use conductor_core::store::root::run_rel;
use conductor_core::types::{RunKey, Timestamp};
use conductor_proto::{reason, v1};
use prost::Message as _;
use tonic::{Code, Status};

use super::context::{Answers, Call, Context, send};
use super::events_proto::Encoder;
use super::file_watch::Watched;
use super::log::{STDERR, STDOUT, blocking, has_ended, io_error, open};
use super::{error, from_proto};
use crate::auth::Action;

/// Bytes of each log that one turn reads: their events are in memory at once.
const READ: usize = 64 * 1024;
/// Events of one answer at most.
const BATCH_EVENTS: usize = 256;
/// Bytes of texts after which an answer is sent (as for logs); one event may be longer.
const BATCH_BYTES: usize = 32 * 1024;
/// Events that a tail may have.
const MAX_TAIL: u32 = 10_000;
/// Bytes of texts that a tail may hold.
const MAX_TAIL_BYTES: usize = 8 << 20;

type Sender = tokio::sync::mpsc::Sender<Result<v1::StreamRunEventsResponse, Status>>;

/// `StreamRunEvents`.
pub(super) async fn stream(
    call: Call,
    request: &v1::StreamRunEventsRequest,
) -> Result<Answers<v1::StreamRunEventsResponse>, Status> {
    let key = from_proto::needed_run_key(request.run.as_ref())?;
    call.allow(Action::Read(&key.task.project))?;
    if request.tail > MAX_TAIL {
        return Err(error::field("tail", format!("at most {MAX_TAIL}")));
    }
    let supervisor = &call.context.supervisor;
    let run = supervisor.catalog().run(&key).ok_or_else(|| error::not_found("run", format!("no run {key}"), &[]))?;
    let ended = has_ended(&call.context, &key);
    let folder = run_rel(&key);
    let logs = [Source::new(folder.join(STDOUT), Stream::Stdout), Source::new(folder.join(STDERR), Stream::Stderr)];
    let mut reading = Reading { parser: supervisor.event_parser(&run.agent), logs };
    reading.open(&call.context).await?;
    if ended {
        reading.check(request.after.unwrap_or_default())?;
    }
    let events = Events {
        encoder: Encoder::new(supervisor.masks().await),
        context: Arc::clone(&call.context),
        key,
        after: request.after.unwrap_or_default(),
        at: v1::EventPosition::default(),
        tail: (request.tail > 0 && request.after.is_none()).then(|| Tail::new(request.tail)),
        live: false,
    };
    let follow = request.follow;
    Ok(call.stream(move |_, sender| async move { events.send_all(reading, follow, &sender).await }))
}

/// One log.
struct Source {
    rel: PathBuf,
    stream: Stream,
    file: Option<File>,
    offset: u64,
}

impl Source {
    fn new(rel: PathBuf, stream: Stream) -> Self {
        Self { rel, stream, file: None, offset: 0 }
    }
}

/// Both logs and their parser: what goes to a thread for blocking work and comes back.
struct Reading {
    parser: Box<dyn EventParser>,
    logs: [Source; 2],
}

impl Reading {
    /// Opens what was not there yet.
    async fn open(&mut self, context: &Arc<Context>) -> Result<(), Status> {
        for log in &mut self.logs {
            if log.file.is_none() {
                log.file = open(context, &log.rel).await?;
            }
        }
        Ok(())
    }

    /// Refuses a place that can't be of these logs, which will not grow.
    fn check(&self, after: v1::EventPosition) -> Result<(), Status> {
        for (log, offset) in self.logs.iter().zip([after.stdout_offset, after.stderr_offset]) {
            let length = match &log.file {
                Some(file) => file.metadata().map_err(|error| io_error(&error))?.len(),
                None => 0,
            };
            if offset > length {
                let message = format!("a log has {length} bytes, and the run has ended");
                return Err(error::status(Code::OutOfRange, reason::BEYOND_END, message));
            }
        }
        Ok(())
    }

    /// The next piece of each log, parsed. `true`: there is no more now. With `finish` last lines need no end then.
    fn turn(&mut self, finish: bool) -> std::io::Result<(Vec<Event>, bool)> {
        let (mut events, mut at_end) = (Vec::new(), true);
        let mut bytes = vec![0; READ];
        for log in &mut self.logs {
            let Some(file) = &log.file else { continue };
            let count = file.read_at(&mut bytes, log.offset)?;
            log.offset += count as u64;
            at_end &= count < READ;
            self.parser.feed(log.stream, &bytes[..count], &mut |event| events.push(event));
        }
        if at_end && finish {
            self.parser.finish(&mut |event| events.push(event));
        }
        Ok((events, at_end))
    }
}

/// The last events of what was there at first.
struct Tail {
    most: usize,
    events: VecDeque<v1::RunEvent>,
    bytes: usize,
}

impl Tail {
    fn new(most: u32) -> Self {
        Self { most: usize::try_from(most).unwrap_or(usize::MAX), events: VecDeque::new(), bytes: 0 }
    }

    fn push(&mut self, event: v1::RunEvent) {
        self.bytes += size(&event);
        self.events.push_back(event);
        while self.events.len() > self.most || self.bytes > MAX_TAIL_BYTES {
            let Some(first) = self.events.pop_front() else { return };
            self.bytes -= size(&first);
        }
    }
}

/// One reader's stream.
struct Events {
    context: Arc<Context>,
    key: RunKey,
    encoder: Encoder,
    /// What the reader has already.
    after: v1::EventPosition,
    /// The last event that was parsed.
    at: v1::EventPosition,
    /// Until the end of what is there at first.
    tail: Option<Tail>,
    /// What is read from now on is new.
    live: bool,
}

impl Events {
    async fn send_all(mut self, mut reading: Reading, follow: bool, sender: &Sender) -> Result<(), Status> {
        let root = self.context.supervisor.root().path().to_owned();
        // Before the first read, so that nothing is missed between.
        let mut changes =
            follow.then(|| reading.logs.each_ref().map(|log| self.context.files.follow(&root.join(&log.rel))));
        let mut revisions = self.context.supervisor.catalog().watch();
        loop {
            // Before the read: what an ended run wrote is in its files by then.
            let ended = has_ended(&self.context, &self.key);
            reading.open(&self.context).await?;
            loop {
                let work = move || {
                    let (events, at_end) = reading.turn(ended).map_err(|error| io_error(&error))?;
                    Ok((reading, events, at_end))
                };
                let (back, events, at_end) = blocking(work).await?;
                reading = back;
                if !self.pass(events, sender).await {
                    return Ok(());
                }
                if at_end {
                    break;
                }
            }
            if let Some(tail) = self.tail.take()
                && !send_batches(tail.events.into(), sender).await
            {
                return Ok(());
            }
            if ended {
                send(sender, v1::StreamRunEventsResponse { events: Vec::new(), end: true }).await;
                return Ok(());
            }
            let Some(changes) = &mut changes else { return Ok(()) };
            self.live = true;
            self.wait(changes, &mut revisions).await;
        }
    }

    /// Sends those events that are wanted, or keeps them for the tail. `false`: the reader is gone.
    async fn pass(&mut self, events: Vec<Event>, sender: &Sender) -> bool {
        let time = self.live.then(Timestamp::now);
        let mut batch = Vec::new();
        let mut bytes = 0;
        for event in events {
            let wanted = self.advance(&event);
            // Unwanted ones too: a token may begin in one and end in the next.
            let event = self.encoder.event(event, self.at, time);
            if !wanted {
                continue;
            }
            if let Some(tail) = &mut self.tail {
                tail.push(event);
                continue;
            }
            bytes += size(&event);
            batch.push(event);
            if batch.len() == BATCH_EVENTS || bytes >= BATCH_BYTES {
                bytes = 0;
                if !send_batches(std::mem::take(&mut batch), sender).await {
                    return false;
                }
            }
        }
        send_batches(batch, sender).await
    }

    /// Moves on to an event, and says whether the reader has it not yet.
    fn advance(&mut self, event: &Event) -> bool {
        let (at, count, after, seen) = match event.stream {
            Stream::Stdout => {
                let after = (self.after.stdout_offset, self.after.stdout_events);
                (&mut self.at.stdout_offset, &mut self.at.stdout_events, after.0, after.1)
            }
            Stream::Stderr => {
                let after = (self.after.stderr_offset, self.after.stderr_events);
                (&mut self.at.stderr_offset, &mut self.at.stderr_events, after.0, after.1)
            }
        };
        *count = if *at == event.offset { count.saturating_add(1) } else { 1 };
        *at = event.offset;
        (*at, *count) > (after, seen)
    }

    /// Waits until a log may have grown or the run may have ended.
    async fn wait(&self, changes: &mut [Watched; 2], revisions: &mut tokio::sync::watch::Receiver<u64>) {
        let ended = async {
            // Every change of anything wakes this; most are of other runs.
            while revisions.changed().await.is_ok() && !has_ended(&self.context, &self.key) {}
        };
        let [stdout, stderr] = changes;
        tokio::select! {
            () = stdout.changed() => {}
            () = stderr.changed() => {}
            () = ended => {}
        }
    }
}

/// Sends events in answers of a good size. `false`: the reader is gone.
async fn send_batches(events: Vec<v1::RunEvent>, sender: &Sender) -> bool {
    let mut events = events.into_iter().peekable();
    while events.peek().is_some() {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && batch.len() < BATCH_EVENTS
            && let Some(event) = events.next()
        {
            bytes += size(&event);
            batch.push(event);
        }
        if !send(sender, v1::StreamRunEventsResponse { events: batch, end: false }).await {
            return false;
        }
    }
    true
}

/// Bytes of an event on the wire.
fn size(event: &v1::RunEvent) -> usize {
    event.encoded_len()
}
