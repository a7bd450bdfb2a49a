//! Entries that a change of state posts to a bus, each exactly once.
//!
//! An entry is first an intent in `task.yaml`, with a key that is unique for ever within the task. It is posted with
//! that key in its meta; recovery looks for the key from the recorded position on and posts only if it is absent.

use serde::{Deserialize, Serialize};

use crate::types::{RunId, TaskKey};

/// Which bus an entry goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BusTarget {
    /// The task's own.
    Task,
    /// Its project's.
    Project,
    /// That of the task whose run submitted this one.
    Parent(TaskKey),
}

/// An entry to be posted once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PostIntent {
    /// Unique within the task for ever.
    pub key: String,
    /// Where to.
    pub bus: BusTarget,
    /// Type of the message.
    pub kind: String,
    /// Its text.
    pub body: String,
    /// The run it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Post it only once the run has really started; dropped if it never does.
    #[serde(default)]
    pub when_started: bool,
    /// End of the bus when the intent was recorded: `generation:offset`, opaque here. Filled by the supervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
}
