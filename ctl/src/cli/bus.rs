//! `bus …`

use clap::{Args, Subcommand};

/// `bus …`
#[derive(Subcommand, Debug)]
pub enum BusCommand {
    /// Posts a message and prints its id
    Post(BusPost),
    /// Prints messages
    #[command(
        after_help = "Inside a run: its task's bus, unless another is named.\n\nExample: conductorctl bus read --task fix-test --type FACT --type ERROR"
    )]
    Read(BusRead),
    /// Prints the last messages; -f: and those to come
    #[command(
        after_help = "Inside a run: its task's bus, unless another is named.\n\nExample: conductorctl bus tail -f --project my-app"
    )]
    Tail(BusTail),
}

/// Which bus.
#[derive(Args, Debug, Clone)]
pub struct BusWhere {
    /// The bus of this task
    #[arg(short, long, value_name = "TASK", add = crate::completion::tasks())]
    pub task: Option<String>,
    /// Alone: the project's bus; with --task: the task's project
    #[arg(short, long, value_name = "PROJECT", add = crate::completion::projects())]
    pub project: Option<String>,
}

/// `bus post`
#[derive(Args, Debug)]
#[command(
    after_help = "Inside a run: its task's bus, unless another is named.\n\nExamples:\n  conductorctl bus post --type FACT \"the parser is done\"\n  conductorctl bus post --task fix-test --type ANSWER --reply-to MSG-… \"yes\"\n  git log -1 | conductorctl bus post --project my-app --type INFO"
)]
pub struct BusPost {
    /// Which.
    #[command(flatten)]
    pub bus: BusWhere,
    /// FACT, PROGRESS, DECISION, QUESTION, ANSWER, ERROR, USER or any other word
    #[arg(long = "type", value_name = "TYPE", default_value = "INFO")]
    pub kind: String,
    /// The message that this one answers; may be repeated
    #[arg(long, value_name = "MSG")]
    pub reply_to: Vec<String>,
    /// The issue it belongs to
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub issue: String,
    /// A link; may be repeated
    #[arg(long, value_name = "URL")]
    pub link: Vec<String>,
    /// A further fact; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub meta: Vec<(String, String)>,
    /// Makes a repeated call harmless for 24 hours [default: random]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// The text; '-', or none and a pipe: from standard input
    #[arg(value_name = "TEXT")]
    pub text: Vec<String>,
}

/// `bus read`
#[derive(Args, Debug)]
pub struct BusRead {
    /// Which.
    #[command(flatten)]
    pub bus: BusWhere,
    /// Only messages after this one
    #[arg(long, value_name = "MSG", default_value = "", hide_default_value = true)]
    pub after: String,
    /// Only the last this many
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), conflicts_with = "after")]
    pub tail: Option<u32>,
    /// Only of this type; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    pub kinds: Vec<String>,
}

/// `bus tail`
#[derive(Args, Debug)]
pub struct BusTail {
    /// Which.
    #[command(flatten)]
    pub bus: BusWhere,
    /// Go on with messages to come
    #[arg(short, long)]
    pub follow: bool,
    /// How many of the last
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub tail: u32,
    /// Only of this type; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    pub kinds: Vec<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".into()),
    }
}
