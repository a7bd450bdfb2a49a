//! `daemon …`, `agent …` and `config …`

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
    /// Lists agents: program, version, login
    #[command(after_help = "Example: conductorctl agent list --probe")]
    List(AgentList),
}

/// `agent list`
#[derive(Args, Debug)]
pub struct AgentList {
    /// Ask each program for its version (up to 10 s each)
    #[arg(long)]
    pub probe: bool,
}

/// `config …`
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Prints the configuration in force, without secrets
    #[command(after_help = "Example: conductorctl config show")]
    Show,
}
