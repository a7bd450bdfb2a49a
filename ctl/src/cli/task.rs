//! `task …` and the short forms that act on tasks.

use clap::{Args, Subcommand, ValueEnum};

use super::Format;
use super::run::StopGraces;
use super::submit::{SpecArgs, Submit};

/// `task …`
#[derive(Subcommand, Debug)]
pub enum TaskCommand {
    /// Submits a task without following it
    Submit(Box<Submit>),
    /// Lists tasks, newest first
    #[command(after_help = "Example: conductorctl task list --phase running --phase backoff")]
    List(TaskList),
    /// Shows everything about a task
    #[command(after_help = "Example: conductorctl task show fix-test -o json")]
    Show(TaskShow),
    /// Says in one sentence why a task is where it is
    #[command(after_help = "Example: conductorctl task why fix-test")]
    Why(TaskName),
    /// Waits until tasks have ended, and passes their result on
    Wait(Wait),
    /// Ends a task's run and loop; `task resume` continues it
    #[command(after_help = "Example: conductorctl task stop fix-test --reason \"wrong branch\"")]
    Stop(TaskStop),
    /// Ends a task for good
    #[command(after_help = "Example: conductorctl task cancel fix-test")]
    Cancel(TaskCancel),
    /// Continues a task that was stopped or has ended; adopts one of another program
    Resume(Box<TaskResume>),
    /// Deletes an ended task with its runs and its bus
    #[command(after_help = "Asks first on a terminal.\n\nExample: conductorctl task delete fix-test --yes")]
    Delete(TaskDelete),
}

/// A task.
#[derive(Args, Debug)]
pub struct TaskName {
    /// The task: its id, a unique prefix, its slug, or PROJECT/TASK
    #[arg(value_name = "TASK", add = crate::completion::tasks())]
    pub task: String,
    /// Look in this project only
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
}

/// `task list`
#[derive(Args, Debug)]
pub struct TaskList {
    /// Only of this project
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
    /// Only in this phase: queued, starting, running, backoff, waiting_limit, waiting_children, stopping or finished; may be repeated
    #[arg(long, value_enum, hide_possible_values = true, value_name = "PHASE")]
    pub phase: Vec<PhaseArg>,
    /// Only of this agent
    #[arg(short, long, value_name = "AGENT", add = crate::completion::agents())]
    pub agent: Option<String>,
    /// Only submitted by the runs of this task
    #[arg(long, value_name = "TASK", add = crate::completion::tasks())]
    pub parent: Option<String>,
    /// Oldest first
    #[arg(short, long)]
    pub reverse: bool,
    /// At most this many, 0: all
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: u32,
}

/// Phases of a task.
#[derive(ValueEnum, Debug, Clone, Copy)]
#[value(rename_all = "snake_case")]
pub enum PhaseArg {
    /// Waits for a slot
    Queued,
    /// Its run is being spawned
    Starting,
    /// Its run lives
    Running,
    /// Waits for its next attempt
    Backoff,
    /// Waits until its account takes work again
    WaitingLimit,
    /// Done, but for its children
    WaitingChildren,
    /// Its run is being ended
    Stopping,
    /// Has ended
    Finished,
}

/// `task show`
#[derive(Args, Debug)]
pub struct TaskShow {
    /// Which.
    #[command(flatten)]
    pub name: TaskName,
    /// Print the prompt instead
    #[arg(long)]
    pub prompt: bool,
}

/// `say`
#[derive(Args, Debug)]
#[command(
    after_help = "Prints the message's id.\n\nExamples:\n  conductorctl say fix-test \"use the staging database\"\n  conductorctl say fix-test --now \"stop, wrong branch\""
)]
pub struct Say {
    /// Which.
    #[command(flatten)]
    pub name: TaskName,
    /// The text; '-', or none and a pipe: from standard input
    #[arg(value_name = "TEXT")]
    pub text: Vec<String>,
    /// End the agent's turn now and continue its session with the text
    #[arg(long)]
    pub now: bool,
    /// Makes a repeated call harmless for 24 hours [default: random]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// `wait`
#[derive(Args, Debug)]
#[command(
    after_help = "Exits 0 if every task is done, 1 if one ended otherwise, 124 when --timeout passes first.\n\nExamples:\n  conductorctl wait fix-test write-docs --timeout 1h\n  conductorctl wait --children"
)]
pub struct Wait {
    /// Tasks
    #[arg(value_name = "TASK", required_unless_present = "children", conflicts_with = "children", add = crate::completion::tasks())]
    pub tasks: Vec<String>,
    /// Inside a run: wait for all tasks that it submitted
    #[arg(long)]
    pub children: bool,
    /// Look in this project only
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
}

/// `stop`
#[derive(Args, Debug)]
#[command(
    after_help = "Returns when it has ended. Of a task, its children are stopped too; `task resume` continues it.\nOf a run, the task's loop goes on with its next attempt.\n\nExamples:\n  conductorctl stop fix-test\n  conductorctl stop fix-test --kill"
)]
pub struct Stop {
    /// Task or run: its id, a unique prefix, a task's slug, or PROJECT/TASK[/RUN]
    #[arg(value_name = "TASK|RUN", add = crate::completion::tasks_and_runs())]
    pub target: String,
    /// Look in this project only
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
    /// How.
    #[command(flatten)]
    pub graces: StopGraces,
    /// Of a task: leave the tasks that its runs submitted alone
    #[arg(long)]
    pub keep_children: bool,
}

/// `task stop`
#[derive(Args, Debug)]
pub struct TaskStop {
    /// Which.
    #[command(flatten)]
    pub name: TaskName,
    /// How.
    #[command(flatten)]
    pub graces: StopGraces,
    /// Leave the tasks that its runs submitted alone
    #[arg(long)]
    pub keep_children: bool,
}

/// `task cancel`
#[derive(Args, Debug)]
pub struct TaskCancel {
    /// Which.
    #[command(flatten)]
    pub name: TaskName,
    /// Why, for people and the records
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Leave the tasks that its runs submitted alone
    #[arg(long)]
    pub keep_children: bool,
    /// Return at once, while it ends
    #[arg(long)]
    pub no_wait: bool,
}

/// `task resume`
#[derive(Args, Debug)]
#[command(
    after_help = "The options below --message say what a task of another program is to do from now on.\n\nExample: conductorctl task resume fix-test --message \"the test server is up again\""
)]
pub struct TaskResume {
    /// Which.
    #[command(flatten)]
    pub name: TaskName,
    /// A USER message for the next attempt
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub message: String,
    /// How, for a foreign task.
    #[command(flatten)]
    pub adopt: SpecArgs,
    /// Working folder of a foreign task's agents
    #[arg(long, value_name = "FOLDER")]
    pub cwd: Option<std::path::PathBuf>,
}

/// `task delete`
#[derive(Args, Debug)]
pub struct TaskDelete {
    /// Which.
    #[command(flatten)]
    pub name: TaskName,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

impl Format {
    /// Whether people read it.
    #[must_use]
    pub fn is_human(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}
