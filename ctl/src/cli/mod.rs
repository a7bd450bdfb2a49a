//! The grammar of the command line. No behaviour: `commands` has it.

mod bus;
mod daemon;
mod project;
mod run;
mod submit;
mod task;
mod usage;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

pub use bus::{BusCommand, BusPost, BusRead, BusTail, BusWhere};
pub use daemon::{AgentCommand, AgentList, AgentName, AgentProbe, ConfigCommand, DaemonCommand, DaemonStop, Doctor};
pub use project::{ProjectCommand, ProjectCreate, ProjectDelete, ProjectName};
pub use run::{Logs, RunCommand, RunLimit, RunName, RunShow, RunStop, RunTree, StopGraces};
pub use submit::{ChildPolicyArg, ExitPolicyArg, PermissionsArg, PromptArgs, SpecArgs, Start, Submit, TargetArgs};
pub use task::{
    PhaseArg, Say, Stop, TaskCancel, TaskCommand, TaskDelete, TaskList, TaskName, TaskResume, TaskShow, TaskStop, Wait,
};
pub use usage::{Usage, UsageBy};
pub use values::{bytes, duration, moment};

/// How long a follower waits for a daemon that has gone: longer than a restart of a machine's services takes.
pub const DEFAULT_RECONNECT: &str = "60s";

/// The whole grammar, for completion, man pages and tests that parse command lines.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs and follows AI coding agents under the Conductor daemon.
#[derive(Parser, Debug)]
#[command(
    name = "conductorctl",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 denied, 5 daemon unreachable, 6 conflict, 124 timeout, 130 interrupted.\n\nExample: conductorctl start \"fix the failing test\""
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Debug, Clone)]
pub struct Globals {
    /// The daemon's socket [default: $CONDUCTOR_SOCKET, the user's, the system's]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    pub socket: Option<PathBuf>,
    /// Form of lists and details
    #[arg(short, long, global = true, value_enum, hide_possible_values = true,
        value_name = "table|wide|json|yaml|name", default_value_t = Format::Table, hide_default_value = true,
        help_heading = "Global options")]
    pub output: Format,
    /// No colours, as with NO_COLOR
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_color: bool,
    /// Longest time for one call [default: 30s], or for all of a wait [default: none]
    #[arg(long, global = true, value_parser = duration, value_name = "TIME", help_heading = "Global options")]
    pub timeout: Option<Duration>,
    /// How long a follower waits for a daemon that restarts
    #[arg(long, global = true, value_parser = duration, value_name = "TIME", default_value = DEFAULT_RECONNECT, help_heading = "Global options")]
    pub reconnect: Duration,
}

/// Forms of lists and details.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Columns that fit the screen
    Table,
    /// All columns, whole ids
    Wide,
    /// JSON with the names of the proto
    Json,
    /// The same as YAML
    Yaml,
    /// Ids only
    Name,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Submits a task and follows it to its end
    Start(Box<Start>),
    /// Lists what lives: tasks with their runs
    #[command(after_help = "Example: conductorctl ps -a -o wide")]
    Ps(Ps),
    /// Prints the logs of a task (all attempts) or of a run
    Logs(Logs),
    /// Prints the final answer of a task or a run
    #[command(after_help = "Example: conductorctl output task-20261122-101500-fix-test > answer.md")]
    Output(Target),
    /// Sends a message to a task; its next attempt reads it
    Say(Say),
    /// Waits until tasks have ended, and passes their result on
    Wait(Wait),
    /// Ends a task (its loop and its run) or a single run
    Stop(Stop),
    /// Shows live tasks on the whole screen
    #[command(after_help = "Keys: arrows select, enter details, l logs, s stop, q quit.\n\nExample: conductorctl top")]
    Top(Top),
    /// Works with tasks
    #[command(subcommand, after_help = "Example: conductorctl task list")]
    Task(TaskCommand),
    /// Works with single runs
    #[command(subcommand, after_help = "Example: conductorctl run tree fix-test")]
    Run(RunCommand),
    /// Posts and reads messages
    #[command(subcommand, after_help = "Example: conductorctl bus tail -f --task fix-test")]
    Bus(BusCommand),
    /// Works with projects
    #[command(subcommand, after_help = "Example: conductorctl project list")]
    Project(ProjectCommand),
    /// Adds up what agents used: tokens and cost
    Usage(Usage),
    /// Shows the agents, and tries them out
    #[command(subcommand, after_help = "Example: conductorctl agent list")]
    Agent(AgentCommand),
    /// Checks what would keep an agent from working, and says what to do
    Doctor(Doctor),
    /// Shows, starts, reloads and stops the daemon
    #[command(subcommand, after_help = "Example: conductorctl daemon info")]
    Daemon(DaemonCommand),
    /// Shows the daemon's configuration
    #[command(subcommand, after_help = "Example: conductorctl config show")]
    Config(ConfigCommand),
    /// Prints what a shell needs for completion
    #[command(after_help = "Example: source <(conductorctl completion bash)")]
    Completion(Completion),
    /// Writes the man pages into a folder
    #[command(hide = true, after_help = "Example: conductorctl man target/man")]
    Man(Man),
    /// Prints the versions of this program and of the daemon
    #[command(after_help = "Example: conductorctl version")]
    Version,
}

/// `ps`
#[derive(Args, Debug)]
pub struct Ps {
    /// Ended tasks too, newest first
    #[arg(short, long)]
    pub all: bool,
    /// Only of this project
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
    /// At most this many, 0: all
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: u32,
}

/// `top`
#[derive(Args, Debug)]
pub struct Top {
    /// Only of this project
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
}

/// A task or a run.
#[derive(Args, Debug)]
pub struct Target {
    /// Task or run: its id, a unique prefix, a task's slug, or PROJECT/TASK[/RUN]
    #[arg(value_name = "TASK|RUN", add = crate::completion::tasks_and_runs())]
    pub target: String,
    /// Look in this project only
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
}

/// `completion`
#[derive(Args, Debug)]
pub struct Completion {
    /// The shell
    #[arg(value_enum, hide_possible_values = true, value_name = "bash|zsh|fish")]
    pub shell: Shell,
}

/// Shells with completion.
#[derive(ValueEnum, Debug, Clone, Copy)]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

/// `man`
#[derive(Args, Debug)]
pub struct Man {
    /// The folder
    pub folder: PathBuf,
}
