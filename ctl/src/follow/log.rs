//! A log of a run, resumed by offset.

use conductor_proto::reason;
use conductor_proto::v1::{LogStream, RunRef, StreamRunLogRequest, StreamRunLogResponse};
use tonic::Streaming;

use crate::connect::Daemon;
use crate::errors::{self, Failure};

const ACTION: &str = "read the log";

/// Reads a log piece by piece, each byte once.
pub(crate) struct LogReader {
    daemon: Daemon,
    request: StreamRunLogRequest,
    open: Option<Streaming<StreamRunLogResponse>>,
    done: bool,
}

impl LogReader {
    /// From the beginning, or `tail` lines before the end; with `follow` until the run has ended.
    pub(crate) fn new(daemon: &Daemon, run: RunRef, stream: LogStream, tail: Option<u32>, follow: bool) -> Self {
        let request = StreamRunLogRequest {
            run: Some(run),
            stream: stream.into(),
            offset: 0,
            tail_lines: tail.unwrap_or(0),
            follow,
        };
        Self { daemon: daemon.clone(), request, open: None, done: false }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        while !self.done {
            let Some(stream) = &mut self.open else {
                self.connect().await?;
                continue;
            };
            match stream.message().await {
                Ok(Some(piece)) => {
                    if let Some(bytes) = self.take(piece) {
                        return Ok(Some(bytes));
                    }
                }
                Ok(None) if !self.request.follow => self.done = true,
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
        Ok(None)
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        match Box::pin(self.daemon.runs().stream_run_log(self.request.clone())).await {
            Ok(response) => {
                self.daemon.outage.over();
                self.open = Some(response.into_inner());
                Ok(())
            }
            // We have all of it: the run ended while the daemon was away.
            Err(status) if errors::reason_of(&status).as_deref() == Some(reason::BEYOND_END) => {
                self.done = true;
                Ok(())
            }
            Err(status) => self.daemon.outage.lost(ACTION, Some(status)).await,
        }
    }

    /// Moves the position on; what was read before is left out.
    fn take(&mut self, piece: StreamRunLogResponse) -> Option<Vec<u8>> {
        self.done = piece.end;
        let end = piece.offset + piece.data.len() as u64;
        let mut data = piece.data;
        // The first piece of a tail says where we are.
        if self.request.tail_lines == 0 {
            let known = self.request.offset.saturating_sub(piece.offset);
            data.drain(..usize::try_from(known).unwrap_or(usize::MAX).min(data.len()));
        }
        self.request.offset = self.request.offset.max(end);
        self.request.tail_lines = 0;
        (!data.is_empty()).then_some(data)
    }
}
