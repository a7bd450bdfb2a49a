//! What the environment says: whether we are inside a run, and where a user's state is. Read once.

use std::path::PathBuf;

/// Ids and token of the run from inside which we are called.
#[derive(Clone)]
pub(crate) struct Inside {
    /// `CONDUCTOR_PROJECT_ID`
    pub(crate) project: String,
    /// `CONDUCTOR_TASK_ID`
    pub(crate) task: String,
    /// `CONDUCTOR_RUN_ID`
    pub(crate) run: String,
    /// `CONDUCTOR_TOKEN`; kept out of every message
    pub(crate) token: Option<String>,
}

/// A variable that is set, not empty, and UTF-8.
pub(crate) fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Inside {
    /// The run that we are inside of, if any.
    pub(crate) fn from_env() -> Option<Self> {
        Some(Self {
            run: var("CONDUCTOR_RUN_ID")?,
            project: var("CONDUCTOR_PROJECT_ID").unwrap_or_default(),
            task: var("CONDUCTOR_TASK_ID").unwrap_or_default(),
            token: var("CONDUCTOR_TOKEN"),
        })
    }

    /// The run on the wire; `None` unless all three ids are known.
    pub(crate) fn run_ref(&self) -> Option<conductor_proto::v1::RunRef> {
        (!self.project.is_empty() && !self.task.is_empty()).then(|| conductor_proto::v1::RunRef {
            project_id: self.project.clone(),
            task_id: self.task.clone(),
            run_id: self.run.clone(),
        })
    }
}

/// Folder of the user's state: `$XDG_STATE_HOME/conductor`, else `~/.local/state/conductor`.
pub(crate) fn state_folder() -> Option<PathBuf> {
    let base = var("XDG_STATE_HOME").filter(|path| path.starts_with('/')).map(PathBuf::from);
    base.or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".local/state")))
        .map(|folder| folder.join("conductor"))
}
