//! Messages of a bus, as callers see them: without the `x-` keys that the file format adds.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{MessageId, ProjectId, RunId, TaskId};

/// A message as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id: unique in its bus.
    pub id: MessageId,
    /// When it was written; `None` if a foreign entry does not say.
    pub time: Option<Timestamp>,
    /// What it is: `FACT`, `PROGRESS`, `QUESTION`, … Free text, never empty (`""` only from a foreign entry).
    pub kind: String,
    /// The project it names. Text, since foreign entries may name anything.
    pub project: String,
    /// The task it names, `""` for none.
    pub task: String,
    /// The run it names, `""` for none.
    pub run: String,
    /// The issue it belongs to.
    pub issue: Option<String>,
    /// Messages that it answers or follows from.
    pub parents: Vec<Parent>,
    /// What it points to.
    pub links: Vec<Link>,
    /// Further facts; keys of the file format (`x-…`) are left out.
    pub meta: BTreeMap<String, String>,
    /// The text, byte for byte as it was posted.
    pub body: String,
}

/// A message to be written: id and time are given by the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageDraft {
    /// See [`Message::kind`]; not empty.
    pub kind: String,
    /// The project.
    pub project: ProjectId,
    /// The task, if it is about one.
    pub task: Option<TaskId>,
    /// The run that posts, if one does.
    pub run: Option<RunId>,
    /// The issue; for kind `ISSUE` and `None` the message's own id.
    pub issue: Option<String>,
    /// Messages that it answers or follows from.
    pub parents: Vec<Parent>,
    /// What it points to.
    pub links: Vec<Link>,
    /// Further facts. Keys that begin with `x-` are refused from callers.
    pub meta: BTreeMap<String, String>,
    /// The text, at most 1 MiB.
    pub body: String,
    /// Key of a state change (`x-key` in the file), by which recovery finds what it already posted.
    pub key: Option<String>,
}

/// A reference from one message to an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parent {
    /// The earlier message. Text, since foreign entries may name anything.
    pub id: String,
    /// How they relate: `reply`, `depends_on`, `source_run_event`, …; `""` if not said.
    pub kind: String,
    /// Further facts.
    pub meta: BTreeMap<String, String>,
}

/// Something outside the bus that a message points to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Address or path.
    pub url: String,
    /// Text for people.
    pub label: String,
    /// What it is: `run_info`, `output`, `task_done`, …
    pub kind: String,
}
