//! A fake of the services of all five vendors on a loopback port, that their own programs accept.
//!
//! [`Fake`] runs it in this process or as the program `conductor-fake-vendors`; [`programs`] says how the vendors'
//! programs are pointed at it. `docs/fake-vendors.md` has the scenarios and the script of a prompt. It checks no key.

pub mod anthropic;
pub mod chat;
mod dialogue;
pub mod gemini;
mod http;
pub mod perplexity;
pub mod programs;
pub mod responses;
mod scenario;
mod server;
mod sse;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use dialogue::Defaults;
pub use scenario::Kind;
pub use server::Options;

/// What `GET /` says.
const HELP: &str = include_str!("../../../docs/fake-vendors.md");

/// A running fake. Dropping it ends it.
pub struct Fake {
    url: String,
    running: Running,
}

enum Running {
    Here { stop: Option<oneshot::Sender<()>>, thread: Option<JoinHandle<()>> },
    Program(Child),
}

impl Fake {
    /// Starts it in this process, on a free port.
    ///
    /// # Errors
    /// No port, or no thread.
    pub fn start(options: Options) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let url = format!("http://{}", listener.local_addr()?);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("fake-vendors".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = server::Server::new(options).run(listener) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { url, running: Running::Here { stop: Some(stop), thread: Some(thread) } })
    }

    /// Starts the program `conductor-fake-vendors`.
    ///
    /// # Errors
    /// It can't be started, or does not say where it listens.
    pub fn spawn(program: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe was asked for")?).read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line).with_context(|| format!("{line:?}"))?;
        let url = told["url"].as_str().context("no url")?.to_owned();
        Ok(Self { url, running: Running::Program(child) })
    }

    /// The address of a scenario (`limit,resets_in=3s,key=mine`), without a slash at its end; empty: of the default one.
    #[must_use]
    pub fn url(&self, scenario: &str) -> String {
        if scenario.is_empty() { self.url.clone() } else { format!("{}/{scenario}", self.url) }
    }

    /// The last requests of a scenario, oldest first, as `GET /requests` has them; empty: of all.
    ///
    /// # Errors
    /// It does not answer.
    pub fn requests(&self, scenario: &str) -> Result<Vec<Value>> {
        let query = if scenario.is_empty() { String::new() } else { format!("?scenario={scenario}") };
        let mut stream = TcpStream::connect(self.url.trim_start_matches("http://"))?;
        write!(stream, "GET /requests{query} HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").context("no body")?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let mut answer: Value = serde_json::from_str(body)?;
        Ok(serde_json::from_value(answer["requests"].take())?)
    }

    /// The requests of a scenario's main conversation.
    ///
    /// # Errors
    /// As [`Fake::requests`].
    pub fn calls(&self, scenario: &str) -> Result<Vec<Value>> {
        let requests = self.requests(scenario)?;
        Ok(requests.into_iter().filter(|request| request["aside"] == false).collect())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        match &mut self.running {
            Running::Here { stop, thread } => {
                let _ = stop.take().map(|stop| stop.send(()));
                let _ = thread.take().map(JoinHandle::join);
            }
            Running::Program(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// Serves on a port of the loopback (0: any free one) until the process ends; prints `{"url":"http://127.0.0.1:PORT"}`.
///
/// # Errors
/// The port is taken, or the folder for records can't be made.
pub async fn serve(port: u16, options: Options) -> Result<()> {
    if let Some(folder) = &options.record {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let listener = TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("port {port}"))?;
    println!("{}", serde_json::json!({"url": format!("http://{}", listener.local_addr()?)}));
    server::Server::new(options).run(listener).await
}
