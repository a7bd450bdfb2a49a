//! `say`: a message for a task's agent.

use conductor_proto::v1::SayToTaskRequest;

use super::{Context, prompt, request_id};
use crate::cli::Say;
use crate::errors::Failure;
use crate::resolve;

pub(super) async fn run(context: &Context, args: &Say) -> Result<(), Failure> {
    let text = prompt::from_words(&args.text, "a text: conductorctl say TASK \"…\", or a pipe")?;
    if text.trim().is_empty() {
        return Err(Failure::Usage("the text is empty".into()));
    }
    let daemon = context.daemon().await?;
    let typed = resolve::parse(&args.name.task, args.name.project.as_deref())?;
    let request = SayToTaskRequest {
        project_id: context.project_or_own(typed.project),
        task_id: typed.name.to_owned(),
        text,
        now: args.now,
        request_id: request_id(args.request_id.as_deref()),
    };
    let call = async |request| daemon.tasks().say_to_task(request).await;
    let answer = daemon.call("send the message", request, call).await?;
    context.screen.line(&answer.msg_id)?;
    if let (Some(task), true) = (answer.task, context.screen.err_is_terminal) {
        let when = if args.now { "its agent's turn is being ended for it" } else { "its next attempt reads it" };
        context.screen.aside(&format!("{}: {when}", task.task_id));
    }
    Ok(())
}
