//! `output`: the final answer of a run, or of the latest attempt of a task that has one.

use conductor_proto::v1::{ListRunsRequest, ReadRunFileRequest, Run, RunFile};

use super::Context;
use crate::cli::Target;
use crate::connect::Daemon;
use crate::errors::Failure;
use crate::resolve::{self, Found, run_ref};

/// Attempts that are looked through for an answer.
const ATTEMPTS: u32 = 50;

pub(super) async fn run(context: &Context, args: &Target) -> Result<(), Failure> {
    let daemon = context.daemon().await?;
    let task = match resolve::any(context, &daemon, &args.target, args.project.as_deref()).await? {
        Found::Run(run) => return copy(context, &daemon, &run, RunFile::Output).await,
        Found::Task(task) => task,
    };
    let request = ListRunsRequest {
        project_id: task.project_id.clone(),
        task_id: task.task_id.clone(),
        ..ListRunsRequest::default()
    };
    let (runs, _) = super::run::pages(&daemon, request, ATTEMPTS).await?;
    for (back, run) in runs.iter().enumerate() {
        match copy(context, &daemon, run, RunFile::Output).await {
            Err(failure) if failure.is_not_found() => {}
            result => {
                if back > 0 && result.is_ok() {
                    context.screen.aside(&format!("of attempt {}: the {back} after it have no answer", run.attempt));
                }
                return result;
            }
        }
    }
    let why = if task.why.is_empty() { String::new() } else { format!(": {}", task.why) };
    Err(Failure::Vanished(format!("the task {} has no answer yet{why}", task.task_id)))
}

/// Copies a file of a run to standard output.
pub(super) async fn copy(context: &Context, daemon: &Daemon, run: &Run, file: RunFile) -> Result<(), Failure> {
    let request = ReadRunFileRequest { run: Some(run_ref(run)), file: file.into() };
    let call = async |request| daemon.runs().read_run_file(request).await;
    let mut pieces = daemon.call("read the file", request, call).await?;
    let mut last = b'\n';
    while let Some(piece) = pieces.message().await.map_err(|status| Failure::status("read the file", status))? {
        last = piece.data.last().copied().unwrap_or(last);
        super::logs::write_log(context, &piece.data, false, false)?;
    }
    if last != b'\n' && context.screen.out_is_terminal { context.screen.data(b"\n") } else { Ok(()) }
}
