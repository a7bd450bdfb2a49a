//! What the commands do: one file for each word that the user types.

mod agent;
mod bus;
mod completion;
mod config;
mod daemon;
mod doctor;
mod follow_task;
mod logs;
mod man;
mod output;
mod probe;
mod project;
mod prompt;
mod ps;
mod run;
mod say;
mod start;
mod stop;
mod task;
mod top;
mod tree;
mod usage;
mod version;
mod wait;

use std::io::IsTerminal as _;

use crate::cli::{Command, Globals};
use crate::connect::{self, Daemon};
use crate::environment::Inside;
use crate::errors::Failure;
use crate::follow::Outage;
use crate::output::Screen;

/// Largest page of a list that the server sends.
pub(crate) const PAGE: u32 = 500;

/// What every command has.
pub(crate) struct Context {
    pub(crate) globals: Globals,
    pub(crate) screen: Screen,
    pub(crate) inside: Option<Inside>,
    pub(crate) outage: Outage,
}

impl Context {
    pub(crate) fn new(globals: Globals) -> Self {
        let screen = Screen::new(globals.output, globals.no_color);
        let outage = Outage::new(globals.reconnect);
        Self { globals, screen, inside: Inside::from_env(), outage }
    }

    /// Reaches the daemon.
    pub(crate) async fn daemon(&self) -> Result<Daemon, Failure> {
        self.reach(&connect::candidates(self.globals.socket.as_deref())).await
    }

    pub(crate) async fn reach(&self, paths: &[std::path::PathBuf]) -> Result<Daemon, Failure> {
        let reached = Daemon::reach(paths, self.inside.as_ref(), self.globals.timeout, self.outage.clone()).await;
        let daemon = reached.map_err(Failure::from)?;
        if paths.len() > 1 && paths.first() != Some(&daemon.socket) && self.screen.err_is_terminal {
            self.screen.aside(&format!("using the daemon at {}", daemon.socket.display()));
        }
        Ok(daemon)
    }

    /// The typed project; inside a run its own if none was typed; else none: all.
    pub(crate) fn project_or_own(&self, typed: &str) -> String {
        match &self.inside {
            Some(inside) if typed.is_empty() => inside.project.clone(),
            _ => typed.to_owned(),
        }
    }

    /// Asks a person; without one the answer is yes, as for a script that typed the command.
    pub(crate) fn confirm(&self, question: &str) -> Result<(), Failure> {
        if !std::io::stdin().is_terminal() || !self.screen.err_is_terminal {
            return Ok(());
        }
        eprint!("{question} [y/N] ");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map_err(|error| Failure::io("read the answer", error))?;
        if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Failure::Declined) }
    }
}

/// Carries a command out.
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Start(args) => Box::pin(start::run(context, &args)).await,
        Command::Ps(args) => Box::pin(ps::run(context, &args)).await,
        Command::Logs(args) => Box::pin(logs::run(context, &args)).await,
        Command::Output(args) => Box::pin(output::run(context, &args)).await,
        Command::Say(args) => Box::pin(say::run(context, &args)).await,
        Command::Wait(args) => Box::pin(wait::run(context, &args)).await,
        Command::Stop(args) => Box::pin(stop::run(context, &args)).await,
        Command::Top(args) => Box::pin(top::run(context, &args)).await,
        Command::Task(command) => Box::pin(task::run(context, command)).await,
        Command::Run(command) => Box::pin(run::run(context, command)).await,
        Command::Bus(command) => Box::pin(bus::run(context, command)).await,
        Command::Project(command) => Box::pin(project::run(context, command)).await,
        Command::Usage(args) => Box::pin(usage::run(context, &args)).await,
        Command::Agent(command) => Box::pin(agent::run(context, command)).await,
        Command::Doctor(args) => Box::pin(doctor::run(context, &args)).await,
        Command::Daemon(command) => Box::pin(daemon::run(context, command)).await,
        Command::Config(command) => Box::pin(config::run(context, command)).await,
        Command::Completion(args) => completion::run(context, &args),
        Command::Man(args) => man::run(context, &args),
        Command::Version => Box::pin(version::run(context)).await,
    }
}

/// A random id in the form of a UUID, so that a repeated call is told from a second one.
pub(crate) fn request_id(given: Option<&str>) -> String {
    use std::io::Read as _;
    if let Some(given) = given {
        return given.to_owned();
    }
    let mut bytes = [0_u8; 16];
    let random = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    if random.is_err() {
        // Without a random device, time and pid still tell two calls of one machine apart.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = (now.as_nanos() << 24 | u128::from(std::process::id() & 0xff_ffff)).to_be_bytes();
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Returns at Ctrl-C.
pub(crate) async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler Ctrl-C ends the program itself.
        std::future::pending::<()>().await;
    }
}

/// How to come back to a task after Ctrl-C.
pub(crate) fn say_detached(context: &Context, what: &str, name: &str) {
    context.screen.note(&format!("\ndetached; the {what} goes on"));
    context.screen.hint(&format!("again:  conductorctl logs -f {name}"));
    context.screen.hint(&format!("stop:   conductorctl stop {name}"));
}
