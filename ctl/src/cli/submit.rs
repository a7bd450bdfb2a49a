//! `start` and `task submit`: a prompt and what is to be done with it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::{bytes, duration, duration_or_off};

/// `start`
#[derive(Args, Debug)]
#[command(
    after_help = "Ctrl-C detaches; the task goes on. The exit code is 0 if the task is done, else 1.\n\nExamples:\n  conductorctl start \"fix the failing test\"\n  conductorctl start -f prompt.md --agent claude --max-restarts 10\n  git diff | conductorctl start --once \"review the diff below\" -f -"
)]
pub struct Start {
    /// What to do.
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How.
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Print the id and return; do not follow
    #[arg(short, long)]
    pub detach: bool,
    /// Exit 5 where no daemon answers instead of starting one
    #[arg(long)]
    pub no_start: bool,
}

/// `task submit`
#[derive(Args, Debug)]
#[command(
    after_help = "Prints the new task's id.\n\nExample: conductorctl task submit --slug fix-test \"fix the failing test\""
)]
pub struct Submit {
    /// What to do.
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// Where.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How.
    #[command(flatten)]
    pub spec: SpecArgs,
}

/// The prompt.
#[derive(Args, Debug)]
pub struct PromptArgs {
    /// The prompt; several words are joined. '-', or none and a pipe: from standard input
    #[arg(value_name = "PROMPT")]
    pub words: Vec<String>,
    /// Read the prompt from a file, '-': standard input; PROMPT, if given, comes before it
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Further arguments for the agent's program (without a PROMPT before '--', the first is the PROMPT)
    #[arg(last = true, value_name = "ARGS")]
    pub rest: Vec<String>,
}

/// Where a task belongs.
#[derive(Args, Debug)]
pub struct TargetArgs {
    /// The project [default: the one of this folder's git repository, else of this folder]
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
    /// Working folder of the agents [default: this folder]
    #[arg(long, value_name = "FOLDER")]
    pub cwd: Option<PathBuf>,
    /// Last part of the task's id [default: from the prompt's words]
    #[arg(long, value_name = "SLUG", conflicts_with = "task_id")]
    pub slug: Option<String>,
    /// The whole id of the new task: task-YYYYMMDD-HHMMSS-SLUG
    #[arg(long, value_name = "ID")]
    pub task_id: Option<String>,
    /// Makes a repeated call harmless for 24 hours [default: random]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// How a task is done.
#[derive(Args, Debug)]
pub struct SpecArgs {
    /// The agent [default: the configured one, else the only one installed]
    #[arg(short, long, value_name = "AGENT", add = crate::completion::agents())]
    pub agent: Option<String>,
    /// Model [default: the agent's]
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// A single run without a loop: its exit is the end
    #[arg(long)]
    pub once: bool,
    /// Attempts at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with = "once")]
    pub max_restarts: Option<u32>,
    /// Pause after an exit without DONE
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "once")]
    pub restart_delay: Option<Duration>,
    /// Wall time of one run
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wall_time: Option<Duration>,
    /// Time without output, message or CPU use of a run until its task is warned, or off
    #[arg(long, value_name = "TIME", value_parser = duration_or_off)]
    pub idle_warn: Option<Duration>,
    /// Time without output, message or CPU use until a run is ended, or off
    #[arg(long, value_name = "TIME", value_parser = duration_or_off)]
    pub idle_timeout: Option<Duration>,
    /// Size of a log at which its run is stopped
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub log_limit: Option<u64>,
    /// What happens to processes that the agent leaves behind
    #[arg(long, value_enum, hide_possible_values = true, value_name = "sweep|report|keep")]
    pub on_exit: Option<ExitPolicyArg>,
    /// What the agent may write to: its folders only, or whatever its user may [default: as configured]
    #[arg(long, value_enum, hide_possible_values = true, value_name = "confined|full")]
    pub permissions: Option<PermissionsArg>,
    /// How long DONE waits for live children
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub child_wait: Option<Duration>,
    /// What happens to live children then
    #[arg(long, value_enum, hide_possible_values = true, value_name = "detach|stop|wait")]
    pub on_child_timeout: Option<ChildPolicyArg>,
}

/// What an agent may write to.
#[derive(ValueEnum, Debug, Clone, Copy)]
pub enum PermissionsArg {
    /// Its working folder, its task's folder, its vendor's own state and a private /tmp
    Confined,
    /// Whatever its user may
    Full,
}

/// What happens to processes that an agent leaves behind.
#[derive(ValueEnum, Debug, Clone, Copy)]
pub enum ExitPolicyArg {
    /// They are ended
    Sweep,
    /// They are left and named in the run
    Report,
    /// They are left
    Keep,
}

/// What happens to live children of a finished task.
#[derive(ValueEnum, Debug, Clone, Copy)]
pub enum ChildPolicyArg {
    /// They go on
    Detach,
    /// They are stopped
    Stop,
    /// The task waits on
    Wait,
}
