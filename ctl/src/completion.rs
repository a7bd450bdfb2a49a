//! Live names for completion, through the daemon. If it does not answer at once, there are none: a shell that hangs
//! at TAB is worse than one that knows less.

use std::time::Duration;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use conductor_proto::v1::{ListAgentsRequest, ListProjectsRequest, ListRunsRequest, ListTasksRequest};

use crate::connect::{self, Daemon};
use crate::environment::Inside;
use crate::follow::Outage;
use crate::output::words;

/// Longest time for all of it.
const LIMIT: Duration = Duration::from_millis(800);

/// Names that are offered at most: more than anybody reads.
const NAMES: u32 = 100;

type Names = Vec<(String, String)>;

pub(crate) fn tasks() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &std::ffi::OsStr| offer(typed, async |daemon| task_names(&daemon).await))
}

pub(crate) fn runs() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &std::ffi::OsStr| offer(typed, async |daemon| run_names(&daemon).await))
}

pub(crate) fn tasks_and_runs() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &std::ffi::OsStr| {
        // Runs begin with a digit: they are offered once one is typed, and don't crowd the tasks out.
        let wants_runs = typed.to_str().is_some_and(|text| text.starts_with(|c: char| c.is_ascii_digit()));
        offer(typed, async move |daemon| if wants_runs { run_names(&daemon).await } else { task_names(&daemon).await })
    })
}

pub(crate) fn projects() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &std::ffi::OsStr| {
        offer(typed, async |daemon| {
            let request = ListProjectsRequest { page_size: NAMES, ..ListProjectsRequest::default() };
            let answer = daemon.projects().list_projects(request).await.ok()?.into_inner();
            Some(answer.projects.into_iter().map(|project| (project.project_id, project.root_path)).collect())
        })
    })
}

pub(crate) fn agents() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &std::ffi::OsStr| {
        offer(typed, async |daemon| {
            let answer = daemon.agents().list_agents(ListAgentsRequest { probe: false }).await.ok()?.into_inner();
            let installed = |yes: bool| if yes { "installed" } else { "not installed" };
            Some(answer.agents.into_iter().map(|agent| (agent.name, installed(agent.installed).to_owned())).collect())
        })
    })
}

async fn task_names(daemon: &Daemon) -> Option<Names> {
    let request = ListTasksRequest { page_size: NAMES, ..ListTasksRequest::default() };
    let answer = daemon.tasks().list_tasks(request).await.ok()?.into_inner();
    Some(answer.tasks.into_iter().map(|task| (task.task_id.clone(), words::task_state(&task))).collect())
}

async fn run_names(daemon: &Daemon) -> Option<Names> {
    let request = ListRunsRequest { page_size: NAMES, ..ListRunsRequest::default() };
    let answer = daemon.runs().list_runs(request).await.ok()?.into_inner();
    Some(answer.runs.into_iter().map(|run| (run.run_id.clone(), words::run_state(&run))).collect())
}

/// Asks the daemon for names and offers those that begin with what was typed.
fn offer(typed: &std::ffi::OsStr, ask: impl AsyncFnOnce(Daemon) -> Option<Names>) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let names = runtime.block_on(async {
        tokio::time::timeout(LIMIT, async {
            let inside = Inside::from_env();
            let paths = connect::candidates(socket_typed().as_deref());
            let daemon = Daemon::reach(&paths, inside.as_ref(), Some(LIMIT), Outage::new(Duration::ZERO)).await.ok()?;
            ask(daemon).await
        })
        .await
    });
    let names = names.ok().flatten().unwrap_or_default();
    let fits = |name: &str| name.starts_with(typed);
    names
        .into_iter()
        .filter(|(name, _)| fits(name))
        .map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into())))
        .collect()
}

/// `--socket PATH` of the line that is being completed.
fn socket_typed() -> Option<std::path::PathBuf> {
    let mut words = std::env::args_os();
    while let Some(word) = words.next() {
        if word == "--socket" {
            return words.next().map(Into::into);
        }
        if let Some(path) = word.to_str().and_then(|word| word.strip_prefix("--socket=")) {
            return Some(path.into());
        }
    }
    None
}
