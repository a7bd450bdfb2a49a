//! What the tests of all agents share.

use std::path::Path;

use crate::agents::RunRequest;
use crate::types::{Limits, TaskKey};

/// A first attempt below a root that need not exist.
pub(crate) fn request(root: &Path) -> RunRequest {
    let task = TaskKey::new("demo".parse().unwrap(), "task-20260101-000000-demo".parse().unwrap());
    let key = task.run("20260101-0000000000-1-1".parse().unwrap());
    let task_folder = root.join("demo/task-20260101-000000-demo");
    let run_folder = task_folder.join("runs/20260101-0000000000-1-1");
    RunRequest {
        key,
        parent: None,
        attempt: 1,
        max_attempts: 100,
        root: root.to_owned(),
        prompt: run_folder.join("prompt.md"),
        task_folder,
        run_folder,
        cwd: "/work".into(),
        model: None,
        extra_args: vec![],
        resume_session: None,
        token: "run-token".to_owned().into(),
        socket: "/run/conductor/conductor.sock".into(),
        limits: Limits::default(),
    }
}
