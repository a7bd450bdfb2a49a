//! `usage`

use clap::{Args, ValueEnum};

use super::values::moment;

/// `usage`
#[derive(Args, Debug)]
#[command(
    after_help = "A cost that the vendor does not report is unknown, not zero: ≥ means that some is missing, ~ that it is an estimate.\nRuns count when they have ended; deleted tasks count on.\n\nExamples:\n  conductorctl usage --by day --since 7d\n  conductorctl usage fix-test --tree --by agent"
)]
pub struct Usage {
    /// Only of this task
    #[arg(value_name = "TASK", add = crate::completion::tasks())]
    pub task: Option<String>,
    /// With TASK: also of all tasks that its runs submitted, to any depth
    #[arg(long, requires = "task")]
    pub tree: bool,
    /// Only of this project
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
    /// One row for each
    #[arg(long, value_enum, hide_possible_values = true, value_name = "task|agent|model|project|day|account", default_value_t = UsageBy::Agent)]
    pub by: UsageBy,
    /// Only runs that ended since: 2026-11-22, 2026-11-22T15:00:00Z, or 7d for the last seven days
    #[arg(long, value_parser = moment, value_name = "WHEN")]
    pub since: Option<jiff::Timestamp>,
    /// Only runs that ended before; in the same forms
    #[arg(long, value_parser = moment, value_name = "WHEN")]
    pub until: Option<jiff::Timestamp>,
}

/// What usage is grouped by.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageBy {
    /// By task
    Task,
    /// By agent
    Agent,
    /// By model
    Model,
    /// By project
    Project,
    /// By day (UTC)
    Day,
    /// By account
    Account,
}
