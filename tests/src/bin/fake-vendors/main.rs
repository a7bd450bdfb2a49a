//! `conductor-fake-vendors`: a fake of the services of all five vendors, for trying Conductor without keys.
//!
//! It prints one line of JSON with its URL and serves until it is ended. See `docs/fake-vendors.md`; the service itself
//! is in `conductor_tests::vendors`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use conductor_tests::vendors::{Defaults, Options, serve};

/// A fake of the services of Anthropic, OpenAI, Google, xAI and Perplexity on a loopback port.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Scenario of requests that name none in their path: `script`, `limit,resets_in=1m`, …
    #[arg(long, default_value = "script")]
    scenario: String,
    /// The command that the scenario `tool` has the agent run.
    #[arg(long, default_value = "echo hi")]
    command: String,
    /// The final answer.
    #[arg(long, default_value = "All done.")]
    answer: String,
    /// Port of the loopback; 0: any free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Folder in which each request is kept, without its key.
    #[arg(long)]
    record: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Arguments { scenario, command, answer, port, record } = Arguments::parse();
    let options = Options { scenario, defaults: Defaults { answer, command }, record, verbose: true };
    serve(port, options).await
}
