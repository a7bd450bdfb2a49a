//! `run …` and `logs`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::values::duration;

/// `run …`
#[derive(Subcommand, Debug)]
pub enum RunCommand {
    /// Lists runs, newest first
    #[command(after_help = "Example: conductorctl run list --task fix-test")]
    List(RunLimit),
    /// Shows everything about a run
    #[command(after_help = "Example: conductorctl run show 20261122-1015000001-4711-1 --processes")]
    Show(RunShow),
    /// Prints the log of a run
    Logs(Logs),
    /// Ends a run; its task's loop goes on
    #[command(after_help = "Example: conductorctl run stop 20261122-1015000001-4711-1")]
    Stop(RunStop),
    /// Draws a task with its runs and the tasks that they submitted
    #[command(after_help = "Example: conductorctl run tree fix-test")]
    Tree(RunTree),
}

/// A run.
#[derive(Args, Debug)]
pub struct RunName {
    /// The run: its id, a unique prefix, or PROJECT/TASK/RUN
    #[arg(value_name = "RUN", add = crate::completion::runs())]
    pub run: String,
    /// Look in this project only
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
}

/// `run list`
#[derive(Args, Debug)]
pub struct RunLimit {
    /// Only of this project
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
    /// Only of this task
    #[arg(short, long, value_name = "TASK", add = crate::completion::tasks())]
    pub task: Option<String>,
    /// Only of this agent
    #[arg(short, long, value_name = "AGENT", add = crate::completion::agents())]
    pub agent: Option<String>,
    /// Only those that live
    #[arg(short, long)]
    pub live: bool,
    /// Oldest first
    #[arg(short, long)]
    pub reverse: bool,
    /// At most this many, 0: all
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: u32,
}

/// `run show`
#[derive(Args, Debug)]
pub struct RunShow {
    /// Which.
    #[command(flatten)]
    pub name: RunName,
    /// List its live processes instead
    #[arg(long, conflicts_with = "prompt")]
    pub processes: bool,
    /// Print what the agent was given instead
    #[arg(long)]
    pub prompt: bool,
}

/// `logs`
#[derive(Args, Debug)]
#[command(
    after_help = "On a terminal what the agent wrote is shown as events, whatever the vendor: its text, one line for each tool (name, input, duration, \
result), retries, limits and the end. Else the bytes of its log are written as they are. A header line on standard error names each attempt. \
Configured tokens are masked in both. Ctrl-C detaches; the work goes on.\n\nExamples:\n  conductorctl logs -f fix-test\n  \
conductorctl logs --thoughts fix-test\n  conductorctl logs --stderr --tail 50 20261122-1015000001-4711-1"
)]
pub struct Logs {
    /// Task or run: its id, a unique prefix, a task's slug, or PROJECT/TASK[/RUN]
    #[arg(value_name = "TASK|RUN", add = crate::completion::tasks_and_runs())]
    pub target: String,
    /// Look in this project only
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
    /// Go on until it has ended
    #[arg(short, long)]
    pub follow: bool,
    /// What the agent wrote to standard error
    #[arg(long)]
    pub stderr: bool,
    /// Begin this many lines (or events) before the end; of a task, of its latest attempt
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tail: Option<u32>,
    /// Events for people [default: on a terminal]
    #[arg(long, conflicts_with_all = ["raw", "stderr"])]
    pub pretty: bool,
    /// Show what the agent thought too
    #[arg(long, conflicts_with_all = ["raw", "stderr"])]
    pub thoughts: bool,
    /// Bytes as they are, without header lines, even if they could change the terminal
    #[arg(long)]
    pub raw: bool,
}

/// How something is ended.
#[derive(Args, Debug, Clone)]
pub struct StopGraces {
    /// Without graces: kill at once
    #[arg(long, visible_alias = "now", conflicts_with_all = ["int_grace", "term_grace"])]
    pub kill: bool,
    /// Pause between SIGINT and SIGTERM [default: as configured, 10s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub int_grace: Option<Duration>,
    /// Pause between SIGTERM and the kill [default: as configured, 5s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub term_grace: Option<Duration>,
    /// Why, for people and the records
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Return at once, while it ends
    #[arg(long)]
    pub no_wait: bool,
}

/// `run stop`
#[derive(Args, Debug)]
pub struct RunStop {
    /// Which.
    #[command(flatten)]
    pub name: RunName,
    /// How.
    #[command(flatten)]
    pub graces: StopGraces,
}

/// `run tree`
#[derive(Args, Debug)]
pub struct RunTree {
    /// The task: its id, a unique prefix, its slug, or PROJECT/TASK [default: all tasks without a parent that live]
    #[arg(value_name = "TASK", add = crate::completion::tasks())]
    pub task: Option<String>,
    /// Look in this project only
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
}
