//! Messages of a bus, resumed by message id.

use conductor_proto::v1::{BusMessage, BusRef, FollowMessagesRequest, FollowMessagesResponse, ReadMessagesRequest};
use tonic::Streaming;

use crate::connect::Daemon;
use crate::errors::Failure;

const ACTION: &str = "read the bus";

/// Messages of one page: the largest that the server sends.
const PAGE: u32 = 1_000;

/// Reads a bus message by message, each once.
pub(crate) struct BusReader {
    daemon: Daemon,
    bus: BusRef,
    after: String,
    tail: u32,
    open: Option<Streaming<FollowMessagesResponse>>,
}

impl BusReader {
    /// After the message `after` (empty: from the beginning), or from `tail` messages before the end.
    pub(crate) fn new(daemon: &Daemon, bus: BusRef, after: String, tail: u32) -> Self {
        Self { daemon: daemon.clone(), bus, after, tail, open: None }
    }

    /// The next message, as soon as there is one.
    pub(crate) async fn next(&mut self) -> Result<BusMessage, Failure> {
        loop {
            let Some(stream) = &mut self.open else {
                self.connect().await?;
                continue;
            };
            match stream.message().await {
                Ok(Some(FollowMessagesResponse { message: Some(message) })) => {
                    self.after.clone_from(&message.msg_id);
                    self.tail = 0;
                    return Ok(message);
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.open = None;
                    self.daemon.outage.lost(ACTION, None).await?;
                }
                Err(status) => {
                    self.open = None;
                    self.daemon.outage.lost(ACTION, Some(status)).await?;
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        let request = FollowMessagesRequest { bus: Some(self.bus.clone()), after: self.after.clone(), tail: self.tail };
        match Box::pin(self.daemon.buses().follow_messages(request)).await {
            Ok(response) => {
                self.daemon.outage.over();
                self.open = Some(response.into_inner());
                Ok(())
            }
            Err(status) => self.daemon.outage.lost(ACTION, Some(status)).await,
        }
    }
}

/// Messages that are there now: after `after`, or the last `tail`.
pub(crate) struct BusPages<'a> {
    daemon: &'a Daemon,
    request: ReadMessagesRequest,
    done: bool,
    /// Entries that could not be read.
    pub(crate) skipped: u64,
}

impl<'a> BusPages<'a> {
    pub(crate) fn new(daemon: &'a Daemon, bus: BusRef, after: String, tail: u32) -> Self {
        let page_size = if tail == 0 { PAGE } else { tail };
        let request = ReadMessagesRequest { bus: Some(bus), after, tail, page_size };
        Self { daemon, request, done: false, skipped: 0 }
    }

    /// The next page; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<BusMessage>>, Failure> {
        if self.done {
            return Ok(None);
        }
        let read = async |request| self.daemon.buses().read_messages(request).await;
        let page = self.daemon.call(ACTION, self.request.clone(), read).await?;
        self.skipped += page.skipped;
        self.done = !page.more || self.request.tail > 0;
        self.request.after = page.next_after;
        Ok(Some(page.messages))
    }
}
