//! Wire types to domain types, with the field named that has no valid value. Nothing is looked up here.

use std::path::PathBuf;
use std::time::Duration;

use conductor_core::store::catalog::{Order, PageRequest};
use conductor_core::supervisor::{MAX_REQUEST_ID, SpecDraft};
use conductor_core::types::{
    ChildPolicy, ExitPolicy, IdError, Link, MessageDraft, Mode, Parent, Permissions, Phase, ProjectId, RunId, RunKey,
    RunStatus, TaskId, TaskKey,
};
use conductor_proto::v1;
use tonic::Status;

use super::error::field;

/// An id.
pub(super) fn id<T: std::str::FromStr<Err = IdError>>(name: &str, text: &str) -> Result<T, Status> {
    text.parse().map_err(|error| field(name, error))
}

/// An id that may be left out.
pub(super) fn optional_id<T: std::str::FromStr<Err = IdError>>(name: &str, text: &str) -> Result<Option<T>, Status> {
    if text.is_empty() { Ok(None) } else { id(name, text).map(Some) }
}

/// A text that may be left out.
pub(super) fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// The id of a request, for idempotency.
pub(super) fn request_id(text: &str) -> Result<Option<String>, Status> {
    if text.len() > MAX_REQUEST_ID || text.chars().any(char::is_control) {
        return Err(field("request_id", format!("at most {MAX_REQUEST_ID} printable bytes")));
    }
    Ok(optional(text.to_owned()))
}

/// A span of time that may be left out.
pub(super) fn duration(name: &str, span: Option<prost_types::Duration>) -> Result<Option<Duration>, Status> {
    let span = span.map(|span| Duration::try_from(span).map_err(|_| field(name, "a duration of 0 or more is needed")));
    span.transpose()
}

/// An absolute path that may be left out.
pub(super) fn path(name: &str, text: &str) -> Result<Option<PathBuf>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    if !text.starts_with('/') || text.contains('\0') {
        return Err(field(name, format!("{text:?} is not an absolute path")));
    }
    Ok(Some(text.into()))
}

/// The key of a task, whose ids are whole.
pub(super) fn task_key(project: &str, task: &str) -> Result<TaskKey, Status> {
    Ok(TaskKey::new(id::<ProjectId>("project_id", project)?, id::<TaskId>("task_id", task)?))
}

/// The key of a run that may be left out.
pub(super) fn run_key(name: &str, run: Option<&v1::RunRef>) -> Result<Option<RunKey>, Status> {
    let Some(run) = run else { return Ok(None) };
    let project = id(&format!("{name}.project_id"), &run.project_id)?;
    let task = id(&format!("{name}.task_id"), &run.task_id)?;
    Ok(Some(TaskKey::new(project, task).run(id::<RunId>(&format!("{name}.run_id"), &run.run_id)?)))
}

/// The key of a run that is needed.
pub(super) fn needed_run_key(run: Option<&v1::RunRef>) -> Result<RunKey, Status> {
    run_key("run", run)?.ok_or_else(|| field("run", "a run is needed"))
}

/// Which page of a list.
pub(super) fn page(size: u32, token: String, order: i32) -> Result<PageRequest, Status> {
    let order =
        match v1::ListOrder::try_from(order).map_err(|_| field("order", "this value is not known to this version"))? {
            v1::ListOrder::OldestFirst => Order::OldestFirst,
            v1::ListOrder::Unspecified | v1::ListOrder::NewestFirst => Order::NewestFirst,
        };
    Ok(PageRequest { size, token: optional(token), order })
}

/// A phase to filter by.
pub(super) fn phase(value: i32) -> Result<Phase, Status> {
    Ok(match v1::TaskPhase::try_from(value) {
        Ok(v1::TaskPhase::Queued) => Phase::Queued,
        Ok(v1::TaskPhase::Starting) => Phase::Starting,
        Ok(v1::TaskPhase::Running) => Phase::Running,
        Ok(v1::TaskPhase::Backoff) => Phase::Backoff,
        Ok(v1::TaskPhase::WaitingLimit) => Phase::WaitingLimit,
        Ok(v1::TaskPhase::WaitingChildren) => Phase::WaitingChildren,
        Ok(v1::TaskPhase::Stopping) => Phase::Stopping,
        Ok(v1::TaskPhase::Finished) => Phase::Finished,
        Ok(v1::TaskPhase::Unspecified) | Err(_) => return Err(field("phases", "a phase to look for is needed")),
    })
}

/// A state to filter by.
pub(super) fn run_status(value: i32) -> Result<RunStatus, Status> {
    Ok(match v1::RunStatus::try_from(value) {
        Ok(v1::RunStatus::Running) => RunStatus::Running,
        Ok(v1::RunStatus::Completed) => RunStatus::Completed,
        Ok(v1::RunStatus::Failed) => RunStatus::Failed,
        Ok(v1::RunStatus::Unknown) => RunStatus::Unknown,
        Ok(v1::RunStatus::Unspecified) | Err(_) => return Err(field("statuses", "a state to look for is needed")),
    })
}

/// What a task is to do.
pub(super) fn spec(spec: v1::TaskSpec) -> Result<SpecDraft, Status> {
    let unknown = |name: &str| field(name, "this value is not known to this version");
    Ok(SpecDraft {
        agent: optional(spec.agent),
        mode: match v1::TaskMode::try_from(spec.mode).map_err(|_| unknown("spec.mode"))? {
            v1::TaskMode::Unspecified | v1::TaskMode::Loop => Mode::Loop,
            v1::TaskMode::Once => Mode::Once,
        },
        cwd: path("spec.cwd", &spec.cwd)?,
        model: optional(spec.model),
        extra_args: spec.extra_args,
        max_restarts: (spec.max_restarts > 0).then_some(spec.max_restarts),
        restart_delay: duration("spec.restart_delay", spec.restart_delay)?,
        child_wait_timeout: duration("spec.child_wait_timeout", spec.child_wait_timeout)?,
        on_child_timeout: match v1::ChildPolicy::try_from(spec.on_child_timeout)
            .map_err(|_| unknown("spec.on_child_timeout"))?
        {
            v1::ChildPolicy::Unspecified => None,
            v1::ChildPolicy::Detach => Some(ChildPolicy::Detach),
            v1::ChildPolicy::Stop => Some(ChildPolicy::Stop),
            v1::ChildPolicy::Wait => Some(ChildPolicy::Wait),
        },
        wall_time: duration("spec.wall_time", spec.wall_time)?,
        log_limit: (spec.log_limit_bytes > 0).then_some(spec.log_limit_bytes),
        on_exit: match v1::ExitPolicy::try_from(spec.on_exit).map_err(|_| unknown("spec.on_exit"))? {
            v1::ExitPolicy::Unspecified | v1::ExitPolicy::Sweep => ExitPolicy::Sweep,
            v1::ExitPolicy::Report => ExitPolicy::Report,
            v1::ExitPolicy::Keep => ExitPolicy::Keep,
        },
        idle_warn: duration("spec.idle_warn", spec.idle_warn)?,
        idle_timeout: duration("spec.idle_timeout", spec.idle_timeout)?,
        permissions: match v1::Permissions::try_from(spec.permissions) {
            Ok(v1::Permissions::Unspecified) => None,
            Ok(v1::Permissions::Confined) => Some(Permissions::Confined),
            Ok(v1::Permissions::Full) => Some(Permissions::Full),
            Err(_) => return Err(field("spec.permissions", "this value is not known to this version")),
        },
        probe: spec.probe,
    })
}

/// A message for a bus, posted by `run`.
pub(super) fn message(
    message: v1::PostMessageRequest,
    project: ProjectId,
    task: Option<TaskId>,
    run: Option<RunId>,
) -> MessageDraft {
    let parents = message.parents.into_iter();
    let links = message.links.into_iter();
    MessageDraft {
        kind: message.r#type,
        project,
        task,
        run,
        issue: optional(message.issue_id),
        parents: parents
            .map(|parent| Parent { id: parent.msg_id, kind: parent.kind, meta: parent.meta.into_iter().collect() })
            .collect(),
        links: links.map(|link| Link { url: link.url, label: link.label, kind: link.kind }).collect(),
        meta: message.meta.into_iter().collect(),
        body: message.body,
        key: None,
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    fn violated(error: &Status) -> String {
        error.get_details_bad_request().expect("of a field").field_violations[0].field.clone()
    }

    #[test]
    fn the_field_without_a_valid_value_is_named() {
        let run = v1::RunRef { project_id: "p".into(), task_id: "../x".into(), run_id: String::new() };
        assert_eq!(violated(&run_key("parent", Some(&run)).expect_err("bad")), "parent.task_id");
        assert_eq!(violated(&id::<ProjectId>("project_id", "A").expect_err("bad")), "project_id");
        let relative = v1::TaskSpec { cwd: "here".into(), ..v1::TaskSpec::default() };
        assert_eq!(violated(&spec(relative).expect_err("bad")), "spec.cwd");
        let unknown = v1::TaskSpec { mode: 99, ..v1::TaskSpec::default() };
        assert_eq!(violated(&spec(unknown).expect_err("bad")), "spec.mode");
        let negative = prost_types::Duration { seconds: -1, nanos: 0 };
        assert_eq!(violated(&duration("timeout", Some(negative)).expect_err("bad")), "timeout");
        assert_eq!(violated(&request_id(&"x".repeat(129)).expect_err("bad")), "request_id");
        assert_eq!(violated(&page(0, String::new(), 9).expect_err("bad")), "order");
    }

    #[test]
    fn what_is_left_out_is_none() {
        assert_eq!(spec(v1::TaskSpec::default()).expect("all defaults"), SpecDraft::default());
        assert_eq!(request_id("").expect("none"), None);
        assert_eq!(path("root_path", "").expect("none"), None);
    }
}
