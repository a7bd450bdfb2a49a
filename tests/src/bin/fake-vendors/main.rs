//! A fake of the Anthropic Messages service on a loopback port, for the real Claude Code.
//!
//! It prints `http://127.0.0.1:PORT` and serves until it is ended. One scenario holds for all requests; each request is
//! a line on standard error. It checks no key and knows no other vendor yet.

mod http;
mod messages;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use tokio::net::{TcpListener, TcpStream};

/// A fake of vendors' services.
#[derive(Debug, Parser)]
struct Arguments {
    /// What happens to each conversation.
    #[arg(long, value_enum, default_value_t = Scenario::Answer)]
    scenario: Scenario,
    /// The command that `tool` has the agent run.
    #[arg(long, default_value = "echo hi")]
    command: String,
    /// The final answer.
    #[arg(long, default_value = "All done.")]
    answer: String,
    /// Port; 0: any free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// What happens to each conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// The final answer at once.
    Answer,
    /// A call of the tool Bash, then the final answer.
    Tool,
    /// 429: the usage limit is reached.
    Limit,
    /// 529 at the first request, then as `answer`.
    Overloaded,
    /// 401: the key is not valid.
    Denied,
}

/// What all connections share.
#[derive(Debug)]
struct Server {
    arguments: Arguments,
    /// Calls of the model so far.
    calls: AtomicU32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(("127.0.0.1", arguments.port)).await?;
    println!("http://{}", listener.local_addr()?);
    let server = Arc::new(Server { arguments, calls: AtomicU32::new(0) });
    loop {
        let (stream, _) = listener.accept().await?;
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            if let Err(error) = serve(&server, stream).await {
                eprintln!("connection: {error:#}");
            }
        });
    }
}

/// One request, one answer, then the connection is closed.
async fn serve(server: &Server, mut stream: TcpStream) -> Result<()> {
    let Some(request) = http::read(&mut stream).await? else { return Ok(()) };
    let answer = messages::answer(server, &request);
    eprintln!("{} {} -> {}", request.method, request.path, answer.status);
    http::write(&mut stream, &answer).await
}
