//! The events of a run, resumed by their position.

use conductor_proto::reason;
use conductor_proto::v1::{RunEvent, RunRef, StreamRunEventsRequest, StreamRunEventsResponse};
use tonic::Streaming;

use crate::connect::Daemon;
use crate::errors::{self, Failure};

const ACTION: &str = "read the events";

/// Reads events, each once.
pub(crate) struct EventReader {
    daemon: Daemon,
    request: StreamRunEventsRequest,
    open: Option<Streaming<StreamRunEventsResponse>>,
    done: bool,
}

impl EventReader {
    /// From the first, or `tail` events before the end; with `follow` until the run has ended.
    pub(crate) fn new(daemon: &Daemon, run: RunRef, tail: Option<u32>, follow: bool) -> Self {
        let request = StreamRunEventsRequest { run: Some(run), after: None, tail: tail.unwrap_or(0), follow };
        Self { daemon: daemon.clone(), request, open: None, done: false }
    }

    /// The next events; `None` at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<RunEvent>>, Failure> {
        while !self.done {
            let Some(stream) = &mut self.open else {
                self.connect().await?;
                continue;
            };
            match stream.message().await {
                Ok(Some(answer)) => {
                    self.done = answer.end;
                    if let Some(last) = answer.events.last() {
                        self.request.after = last.next;
                        return Ok(Some(answer.events));
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
        match Box::pin(self.daemon.runs().stream_run_events(self.request.clone())).await {
            Ok(response) => {
                self.daemon.outage.over();
                self.open = Some(response.into_inner());
                Ok(())
            }
            // The log is shorter than what we have of it: there is nothing more to come.
            Err(status) if errors::reason_of(&status).as_deref() == Some(reason::BEYOND_END) => {
                self.done = true;
                Ok(())
            }
            Err(status) => self.daemon.outage.lost(ACTION, Some(status)).await,
        }
    }
}
