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
        let text = self.exchange(&format!("GET /requests{query} HTTP/1.1\r\nhost: localhost\r\n\r\n"))?;
        let (head, body) = text.split_once("\r\n\r\n").context("no body")?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let mut answer: Value = serde_json::from_str(body)?;
        Ok(serde_json::from_value(answer["requests"].take())?)
    }

    /// Sends a request as it is and reads until the connection ends.
    fn exchange(&self, request: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.url.trim_start_matches("http://"))?;
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn post(fake: &Fake, path: &str, headers: &str, body: &Value) -> String {
        let body = body.to_string();
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{headers}\r\n");
        fake.exchange(&(head + &body)).expect("an answer")
    }

    fn fake() -> Fake {
        Fake::start(Options::default()).expect("the fake")
    }

    fn chat(stream: bool) -> Value {
        let options = json!({"include_usage": true});
        json!({"model": "grok-4.6", "stream": stream, "stream_options": options, "messages": [{"role": "user", "content": "FAKE-SAY: Hi there."}]})
    }

    #[test]
    fn a_chat_is_streamed_with_its_usage_and_an_end() {
        let text = post(&fake(), "/v1/chat/completions", "", &chat(true));
        assert!(text.contains("\"content\":\"Hi \"") && text.contains("\"content\":\"there.\""), "{text}");
        assert!(text.contains("\"prompt_tokens\":100") && text.contains("data: [DONE]"), "{text}");
        assert!(text.ends_with("0\r\n\r\n"), "the stream has its end: {text}");
    }

    #[test]
    fn perplexity_answers_with_sources_and_cost() {
        let body = json!({"preset": "fast", "input": "FAKE-SAY: Found.", "stream": true});
        let text = post(&fake(), "/answer/v1/agent", "", &body);
        assert!(text.contains("event: response.completed") && text.contains("\"type\":\"search_results\""), "{text}");
        assert!(text.contains("\"total_cost\":0.006") && text.contains("\"model\":\"perplexity/sonar\""), "{text}");
    }

    #[test]
    fn a_scenario_in_a_header_or_in_the_path_has_state_of_its_own() {
        let fake = fake();
        let status = |path: &str, headers: &str| post(&fake, path, headers, &chat(false))[9..12].to_owned();
        let path = "/overload,times=1,key=a/v1/chat/completions";
        assert_eq!((status(path, ""), status(path, "")), ("503".to_owned(), "200".to_owned()));
        let header = "x-fake-scenario: overload,times=1,key=b\r\n";
        let at = "/v1/chat/completions";
        assert_eq!((status(at, header), status(at, header)), ("503".to_owned(), "200".to_owned()));
        assert_eq!(status("/auth,status=403/v1/chat/completions", ""), "403");
        assert_eq!(fake.calls("overload,times=1,key=a").expect("its requests").len(), 2);
    }

    #[test]
    fn a_cut_stream_has_no_end() {
        let text = post(&fake(), "/cut/v1/chat/completions", "", &chat(true));
        assert!(text.starts_with("HTTP/1.1 200 ") && !text.ends_with("0\r\n\r\n"), "{text}");
    }

    #[test]
    fn a_key_is_neither_shown_nor_recorded() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options { record: Some(folder.path().to_owned()), ..Options::default() };
        let fake = Fake::start(options).expect("the fake");
        post(&fake, "/v1/chat/completions", "authorization: Bearer sk-secret\r\nx-other: kept\r\n", &chat(true));
        let file = std::fs::read_to_string(folder.path().join("00001.json")).expect("the record");
        assert!(file.contains("kept") && file.contains("Hi there.") && !file.contains("sk-secret"), "{file}");
        let shown = format!("{:?}", fake.requests("").expect("its requests"));
        assert!(shown.contains("kept") && !shown.contains("sk-secret"), "{shown}");
    }
}
