//! The command line of Conductor, as a library: its grammar can be read by tests, man pages and completion.
//!
//! It reaches the daemon only through `conductor-proto`; nothing of the domain is here.

pub mod cli;
mod commands;
mod completion;
mod connect;
mod environment;
mod errors;
mod follow;
mod launch;
mod output;
pub mod pretty;
mod resolve;

use std::process::ExitCode;

use clap::FromArgMatches as _;

/// Completes, or parses the arguments and runs the command; answers with the exit code of `errors`.
pub fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(cli::command).bin("conductorctl").completer("conductorctl").complete();
    let matches = cli::command().get_matches();
    let cli = match cli::Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let context = commands::Context::new(cli.globals);
    // One thread: a command waits far more than it computes, and it starts faster.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return errors::Failure::io("start the runtime", source).report(&context.screen),
    };
    let result = runtime.block_on(commands::run(&context, cli.command));
    // A follower's background streams must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&context.screen),
    }
}
