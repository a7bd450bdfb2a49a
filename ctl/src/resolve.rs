//! What a typed name means: a task or a run, perhaps with its project. Prefixes and slugs are the daemon's matter.

use conductor_proto::v1::{GetRunRequest, GetTaskRequest, Run, RunRef, Task};

use crate::commands::Context;
use crate::connect::Daemon;
use crate::errors::Failure;

/// A typed name, taken apart: `[[PROJECT/]TASK/]NAME`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Typed<'a> {
    pub(crate) project: &'a str,
    pub(crate) task: &'a str,
    pub(crate) name: &'a str,
}

/// Takes `text` apart; `project` is that of `--project` and must not contradict.
pub(crate) fn parse<'a>(text: &'a str, project: Option<&'a str>) -> Result<Typed<'a>, Failure> {
    let parts: Vec<&str> = text.split('/').collect();
    let (own, task, name) = match parts[..] {
        [name] => ("", "", name),
        [project, name] => (project, "", name),
        [project, task, name] => (project, task, name),
        _ => return Err(Failure::Usage(format!("{text:?} is no name: expected PROJECT/TASK/RUN at most"))),
    };
    if name.is_empty() || (parts.len() > 1 && own.is_empty()) || (parts.len() == 3 && task.is_empty()) {
        return Err(Failure::Usage(format!("{text:?} is no name: a part of it is empty")));
    }
    match project {
        Some(project) if !own.is_empty() && own != project => {
            Err(Failure::Usage(format!("{text:?} is not in the project {project:?} of --project")))
        }
        Some(project) => Ok(Typed { project, task, name }),
        None => Ok(Typed { project: own, task, name }),
    }
}

/// Whether it can only be a run: `YYYYMMDD-…`, which no task id or slug of ours looks like.
pub(crate) fn looks_like_run(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() >= 8 && bytes[..8].iter().all(u8::is_ascii_digit) && bytes.get(8).is_none_or(|byte| *byte == b'-')
}

/// A task or a run.
#[derive(Debug)]
pub(crate) enum Found {
    Task(Box<Task>),
    Run(Box<Run>),
}

/// Finds a task.
pub(crate) async fn task(
    context: &Context,
    daemon: &Daemon,
    text: &str,
    project: Option<&str>,
) -> Result<Task, Failure> {
    let typed = parse(text, project)?;
    let request = GetTaskRequest { project_id: context.project_or_own(typed.project), task_id: typed.name.to_owned() };
    let answer = daemon.call("find the task", request, async |request| daemon.tasks().get_task(request).await).await?;
    answer.task.ok_or_else(|| Failure::Vanished(format!("the daemon sent no task for {text:?}")))
}

/// Finds a run.
pub(crate) async fn run(context: &Context, daemon: &Daemon, text: &str, project: Option<&str>) -> Result<Run, Failure> {
    let typed = parse(text, project)?;
    let request = GetRunRequest {
        project_id: context.project_or_own(typed.project),
        task_id: typed.task.to_owned(),
        run_id: typed.name.to_owned(),
    };
    let answer = daemon.call("find the run", request, async |request| daemon.runs().get_run(request).await).await?;
    answer.run.ok_or_else(|| Failure::Vanished(format!("the daemon sent no run for {text:?}")))
}

/// Finds a task or a run by one name.
pub(crate) async fn any(
    context: &Context,
    daemon: &Daemon,
    text: &str,
    project: Option<&str>,
) -> Result<Found, Failure> {
    let typed = parse(text, project)?;
    if !typed.task.is_empty() {
        return Ok(Found::Run(Box::new(run(context, daemon, text, project).await?)));
    }
    if looks_like_run(typed.name) {
        // A slug may begin with digits too.
        return match run(context, daemon, text, project).await {
            Err(failure) if failure.is_not_found() => match task(context, daemon, text, project).await {
                Ok(task) => Ok(Found::Task(Box::new(task))),
                Err(_) => Err(failure),
            },
            other => Ok(Found::Run(Box::new(other?))),
        };
    }
    // Anything else is no run: a run's id and each of its prefixes begin with digits.
    if typed.name.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(run) = run(context, daemon, text, project).await
    {
        return Ok(Found::Run(Box::new(run)));
    }
    Ok(Found::Task(Box::new(task(context, daemon, text, project).await?)))
}

/// Names the run on the wire.
pub(crate) fn run_ref(run: &Run) -> RunRef {
    RunRef { project_id: run.project_id.clone(), task_id: run.task_id.clone(), run_id: run.run_id.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_carry_their_project_and_task() {
        let all = parse("app/task-1/2026", None).expect("three parts");
        assert_eq!(all, Typed { project: "app", task: "task-1", name: "2026" });
        assert_eq!(parse("fix", Some("app")).expect("plain").project, "app");
        assert_eq!(parse("app/fix", None).expect("two parts").project, "app");
    }

    #[test]
    fn names_that_mean_nothing_are_refused_as_usage() {
        for bad in ["", "/", "app/", "/fix", "a/b/c/d", "a//c"] {
            assert_eq!(parse(bad, None).expect_err(bad).code(), 2, "{bad}");
        }
        assert!(parse("app/fix", Some("other")).is_err());
    }

    #[test]
    fn runs_are_told_by_their_date() {
        assert!(looks_like_run("20261122-1511320000-11729-1"));
        assert!(looks_like_run("20261122"));
        assert!(!looks_like_run("task-20261122-151132-x"));
        assert!(!looks_like_run("2026112"));
        assert!(!looks_like_run("20261122x"));
    }
}
