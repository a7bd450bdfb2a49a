//! `agent …`

use super::{Context, start};
use crate::cli::AgentCommand;
use crate::errors::Failure;

pub(super) async fn run(context: &Context, command: AgentCommand) -> Result<(), Failure> {
    let AgentCommand::List(args) = command;
    let daemon = context.daemon().await?;
    context.screen.list(&start::list_agents(&daemon, args.probe).await?)
}
