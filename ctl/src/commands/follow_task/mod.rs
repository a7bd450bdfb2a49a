//! Follows a task from attempt to attempt: its phases, the agent's output, its bus. Used by `start` and `logs -f`.
//!
//! ```text
//! watch ──┐
//! bus   ──┼─ pumps (one stream each, resumed after a restart) ──> one bounded queue ──> the screen
//! logs  ──┘  in the order of attempts, each to its end
//! ```

mod pumps;
mod story;

use conductor_proto::v1::{BusRef, EndReason, LogStream, Task};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::logs::Form;
use super::{Context, interrupted, say_detached};
use crate::connect::Daemon;
use crate::errors::Failure;
use crate::follow::{BusReader, Watcher};
use story::Story;
pub(super) use story::header;

/// Items between the streams and the screen: a slow terminal holds the streams back instead of filling memory.
const QUEUE: usize = 64;

/// What is shown.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub(super) stream: LogStream,
    /// Lines or events before the end of the latest attempt; `None`: all attempts whole.
    pub(super) tail: Option<u32>,
    pub(super) form: Form,
    /// Phases, bus and end of the task.
    pub(super) story: bool,
    /// The agent's output is no data: it goes to standard error.
    pub(super) quiet_data: bool,
}

/// Follows until the task has ended, and answers with it. Ctrl-C detaches.
pub(super) async fn follow(context: &Context, daemon: &Daemon, task: &Task, view: View) -> Result<Task, Failure> {
    let (items, mut queue) = mpsc::channel(QUEUE);
    // As long as the task's attempts at most; what waits in it are ids, not output.
    let (runs, wanted) = mpsc::unbounded_channel();
    let watcher = Watcher::new(daemon, &task.project_id, &task.task_id, false);
    let mut pumps = vec![
        tokio::spawn(pumps::watch(watcher, items.clone())),
        tokio::spawn(pumps::logs(daemon.clone(), view, wanted, items.clone())),
    ];
    if view.story {
        let reader = BusReader::new(daemon, bus_of(task), String::new(), 0);
        pumps.push(tokio::spawn(pumps::bus(reader, items)));
    }
    let mut story = Story::new(context, task, view, runs);
    let result = tokio::select! {
        biased;
        () = interrupted() => Err(Failure::Interrupted),
        result = story.tell(&mut queue) => result,
    };
    story.clear();
    if matches!(result, Err(Failure::Interrupted)) {
        say_detached(context, "task", &task.task_id);
    }
    pumps.iter().for_each(JoinHandle::abort);
    let ended = result?;
    if view.story {
        story.rest_of_bus(daemon, &mut queue).await?;
        story.end(&ended);
    }
    Ok(ended)
}

fn bus_of(task: &Task) -> BusRef {
    BusRef { project_id: task.project_id.clone(), task_id: task.task_id.clone() }
}

/// Whether a task ended as wished.
pub(super) fn is_done(task: &Task) -> bool {
    task.end.as_ref().is_some_and(|end| end.reason() == EndReason::Done)
}

/// `Ok` if the task is done; what else happened was said already.
pub(super) fn result_of(task: &Task) -> Result<(), Failure> {
    if is_done(task) { Ok(()) } else { Err(Failure::NotDone) }
}
