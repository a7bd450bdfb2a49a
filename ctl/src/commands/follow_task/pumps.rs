//! One pump for each stream of a followed task: reads it, resumes it, passes it on. Nothing is shown here.

use conductor_proto::v1::{BusMessage, Run, RunEvent};
use tokio::sync::mpsc;

use super::View;
use crate::commands::logs::Form;
use crate::connect::Daemon;
use crate::errors::Failure;
use crate::follow::{BusReader, Change, EventReader, LogReader, Watcher};
use crate::resolve::run_ref;

/// A run whose log is wanted, whole or from so many lines before its end.
pub(super) type Wanted = (Box<Run>, Option<u32>);

/// What comes from a stream.
pub(super) enum Item {
    Change(Change),
    Attempt(Box<Run>),
    Bytes(Vec<u8>),
    Events(Vec<RunEvent>),
    LogEnd,
    NoMoreLogs,
    Message(Box<BusMessage>),
    Failed(Failure),
}

/// Passes changes on.
pub(super) async fn watch(mut watcher: Watcher, items: mpsc::Sender<Item>) {
    loop {
        let (item, last) = match watcher.next().await {
            Ok(change) => (Item::Change(change), false),
            Err(failure) => (Item::Failed(failure), true),
        };
        if items.send(item).await.is_err() || last {
            return;
        }
    }
}

/// Passes messages on.
pub(super) async fn bus(mut reader: BusReader, items: mpsc::Sender<Item>) {
    loop {
        let (item, last) = match reader.next().await {
            Ok(message) => (Item::Message(Box::new(message)), false),
            Err(failure) => (Item::Failed(failure), true),
        };
        if items.send(item).await.is_err() || last {
            return;
        }
    }
}

/// A log in the form that is wanted.
enum Reader {
    Bytes(LogReader),
    Events(EventReader),
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Item>, Failure> {
        Ok(match self {
            Self::Bytes(reader) => reader.next().await?.map(Item::Bytes),
            Self::Events(reader) => reader.next().await?.map(Item::Events),
        })
    }
}

/// Passes the logs of the wanted runs on, one after the other, each to its end.
pub(super) async fn logs(
    daemon: Daemon,
    view: View,
    mut wanted: mpsc::UnboundedReceiver<Wanted>,
    items: mpsc::Sender<Item>,
) {
    while let Some((run, tail)) = wanted.recv().await {
        // What another program runs never tells its end here.
        let (place, follow) = (run_ref(&run), !run.external);
        let mut reader = match view.form {
            Form::Pretty { .. } => Reader::Events(EventReader::new(&daemon, place, tail, follow)),
            Form::Bytes | Form::Raw => Reader::Bytes(LogReader::new(&daemon, place, view.stream, tail, follow)),
        };
        if items.send(Item::Attempt(run)).await.is_err() {
            return;
        }
        loop {
            let item = match reader.next().await {
                Ok(Some(item)) => item,
                Ok(None) => break,
                // A run that failed to start may have no log at all.
                Err(failure) if failure.is_not_found() => break,
                Err(failure) => {
                    let _ = items.send(Item::Failed(failure)).await;
                    return;
                }
            };
            if items.send(item).await.is_err() {
                return;
            }
        }
        if items.send(Item::LogEnd).await.is_err() {
            return;
        }
    }
    let _ = items.send(Item::NoMoreLogs).await;
}
