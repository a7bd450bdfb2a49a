//! `daemon …`, `agent …`, `doctor` and `config …`

use clap::{Args, Subcommand};

/// `daemon …`
#[derive(Subcommand, Debug)]
pub enum DaemonCommand {
    /// Shows what the daemon is, where it keeps its data and what it counts
    #[command(after_help = "Example: conductorctl daemon info")]
    Info,
    /// Starts a user daemon in the background, unless one answers
    #[command(after_help = "Example: conductorctl daemon start")]
    Start,
    /// Makes the daemon read its configuration again
    #[command(after_help = "Example: conductorctl daemon reload")]
    Reload,
    /// Ends the daemon; runs go on
    #[command(after_help = "Example: conductorctl daemon stop --runs")]
    Stop(DaemonStop),
}

/// `daemon stop`
#[derive(Args, Debug)]
pub struct DaemonStop {
    /// Stop the runs first; their loops go on when the daemon starts again
    #[arg(long)]
    pub runs: bool,
}

/// `agent …`
#[derive(Subcommand, Debug)]
pub enum AgentCommand {
    /// Lists agents: state, version, login, what they may write to, program
    #[command(after_help = "Example: conductorctl agent list -o wide")]
    List(AgentList),
    /// Shows everything about an agent
    #[command(after_help = "Example: conductorctl agent show claude")]
    Show(AgentName),
    /// Tries an agent out with one tiny request, as an ordinary run in this folder
    #[command(
        after_help = "It starts although the agent's account takes no work for now; where it succeeds, the tasks that wait for that account go on.\nThe exit code is 0 if the agent answered, else 1.\n\nExample: conductorctl agent probe claude"
    )]
    Probe(AgentProbe),
}

/// `agent list`
#[derive(Args, Debug)]
pub struct AgentList {
    /// Don't ask the programs for their versions
    #[arg(long)]
    pub no_probe: bool,
}

/// `agent show`
#[derive(Args, Debug)]
pub struct AgentName {
    /// The agent
    #[arg(value_name = "AGENT", add = crate::completion::agents())]
    pub agent: String,
}

/// `agent probe`
#[derive(Args, Debug)]
pub struct AgentProbe {
    /// The agent
    #[arg(value_name = "AGENT", add = crate::completion::agents())]
    pub agent: String,
    /// Model [default: the agent's]
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// What the agent may write to [default: as configured]
    #[arg(long, value_enum, hide_possible_values = true, value_name = "confined|full")]
    pub permissions: Option<super::PermissionsArg>,
    /// Keep the task and its run, to look at its logs
    #[arg(long)]
    pub keep: bool,
}

/// `doctor`
#[derive(Args, Debug)]
#[command(
    after_help = "Looks at the daemon, the machine, each agent as a run would get it, the variables of this shell and this folder.\nThe exit code is 0 if nothing is a problem, 1 if something is, 5 if no daemon answers. Nothing is changed.\n\nExamples:\n  conductorctl doctor\n  conductorctl doctor claude -o json"
)]
pub struct Doctor {
    /// Only these agents [default: all]
    #[arg(value_name = "AGENT", add = crate::completion::agents())]
    pub agents: Vec<String>,
}

/// `config …`
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Prints the configuration in force, without secrets
    #[command(after_help = "Example: conductorctl config show")]
    Show,
}
