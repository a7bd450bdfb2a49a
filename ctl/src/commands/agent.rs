//! `agent …`; `agent probe` is in `probe`.

use std::time::Duration;

use conductor_proto::v1::Agent;

use super::{Context, probe, start};
use crate::cli::{AgentCommand, AgentList, Format};
use crate::connect::Daemon;
use crate::errors::Failure;

/// How long the versions of all programs may take: each has 10 s.
pub(super) const ALL_VERSIONS: Duration = Duration::from_secs(90);

pub(super) async fn run(context: &Context, command: AgentCommand) -> Result<(), Failure> {
    match command {
        AgentCommand::List(args) => list(context, &args).await,
        AgentCommand::Show(args) => {
            let daemon = context.daemon().await?.patient(ALL_VERSIONS);
            context.screen.show(&find(&daemon, &args.agent, true).await?)
        }
        AgentCommand::Probe(args) => Box::pin(probe::run(context, &args)).await,
    }
}

async fn list(context: &Context, args: &AgentList) -> Result<(), Failure> {
    let daemon = context.daemon().await?.patient(ALL_VERSIONS);
    let progress = context.screen.progress("asking the programs for their versions …");
    let agents = start::list_agents(&daemon, !args.no_probe && context.screen.format != Format::Name).await?;
    drop(progress);
    context.screen.list(&agents)?;
    let broken = |agent: &Agent| agent.installed && !(agent.problem.is_empty() && agent.permissions_problem.is_empty());
    if context.screen.format == Format::Table && agents.iter().any(broken) {
        context.screen.aside("what is wrong, and what to do: conductorctl doctor");
    }
    Ok(())
}

/// A configured agent, by its name.
pub(super) async fn find(daemon: &Daemon, name: &str, versions: bool) -> Result<Agent, Failure> {
    let agents = start::list_agents(daemon, versions).await?;
    let names: Vec<String> = agents.iter().map(|agent| agent.name.clone()).collect();
    let found = agents.into_iter().find(|agent| agent.name == name);
    found.ok_or_else(|| Failure::Vanished(format!("no agent {name:?} is configured; there are: {}", names.join(", "))))
}
