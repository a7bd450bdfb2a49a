//! Arguments, signals, one turn, the exit code.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::Parser;
use conductor_rest_agent::args::Args;
use conductor_rest_agent::emit::Emitter;
use conductor_rest_agent::{run, signals};

fn main() -> ExitCode {
    let args = Args::parse();
    // Unbuffered, so that every line is there as soon as it is printed, and can be made durable.
    let started = std::io::stdout().as_fd().try_clone_to_owned().and_then(|out| {
        let emitter = Arc::new(Mutex::new(Emitter::new(Box::new(File::from(out)))));
        signals::block()?;
        signals::watch(Arc::clone(&emitter))?;
        Ok(emitter)
    });
    match started {
        Ok(emitter) => run(&args, std::env::var(args.vendor.key_name()).ok(), &emitter).into(),
        Err(error) => {
            eprintln!("{}: can't start: {error}", args.vendor);
            ExitCode::FAILURE
        }
    }
}
