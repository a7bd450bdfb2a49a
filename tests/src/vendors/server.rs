//! The server: finds scenario and service of a request, lets the service answer, and remembers what was asked.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::dialogue::{self, Conversation, Defaults, Turn};
use super::http::{self, Answer, Body, Request};
use super::scenario::{Kind, Meets, Scenario, State};
use super::{anthropic, chat, gemini, perplexity, responses};

/// Requests that `GET /requests` still shows: tests look at the last few.
const KEPT: usize = 200;

/// Scenarios whose state is kept: more than all tests of a process use.
const SCENARIOS: usize = 10_000;

/// How long `nothing` holds a connection: longer than any timeout of the programs.
const SILENCE: Duration = Duration::from_secs(24 * 3600);

/// How the fake behaves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The scenario of requests that name none: its text, with parameters.
    pub scenario: String,
    /// What is said and run where the prompt names nothing.
    pub defaults: Defaults,
    /// Each request is written here: headers without keys, and body.
    pub record: Option<PathBuf>,
    /// Each request is told on standard error.
    pub verbose: bool,
}

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Anthropic,
    OpenAi,
    /// The Responses service as xAI has it.
    Xai,
    Chat,
    Gemini,
    Perplexity,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Xai | Self::Chat => "xai",
            Self::Gemini => "gemini",
            Self::Perplexity => "perplexity",
        }
    }
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Server {
    options: Options,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// By the text of the scenario.
    states: HashMap<String, State>,
    /// Requests so far.
    count: u64,
    /// The last of them.
    last: VecDeque<Value>,
}

impl Server {
    pub(super) fn new(options: Options) -> Arc<Self> {
        Arc::new(Self { options, memory: Mutex::default() })
    }

    /// Serves until it is dropped.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener) -> Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            let server = Arc::clone(&self);
            tokio::spawn(async move {
                if let Err(error) = server.serve(stream).await
                    && server.options.verbose
                {
                    eprintln!("connection: {error:#}");
                }
            });
        }
    }

    /// One request, one answer, then the connection is closed.
    async fn serve(&self, mut stream: TcpStream) -> Result<()> {
        let Some(request) = http::read(&mut stream).await? else { return Ok(()) };
        let answer = if request.method == "GET" && request.path == "/requests" {
            self.requests(&request.query)
        } else {
            let (answer, note) = self.answer(&request);
            self.remember(&request, &answer, note)?;
            answer
        };
        http::write(&mut stream, &answer).await
    }

    /// The answer, and what `GET /requests` says of the request.
    fn answer(&self, request: &Request) -> (Answer, Value) {
        let (scenario, path) = self.scenario(request);
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let Some((service, mut conversation)) = conversation(request, path, &body) else {
            return (side(&request.method, path), json!({"scenario": scenario.key}));
        };
        // Grok numbers the turns of its main conversation; summaries of a turn repeat it without a number.
        if request.header("x-grok-session-id").is_some() && request.header("x-grok-turn-idx").is_none() {
            conversation.aside = true;
        }
        let (meets, number) = if conversation.aside { (Meets::Model, 0) } else { self.next(&scenario) };
        let note = json!({
            "scenario": scenario.key, "service": service.name(), "model": conversation.model,
            "aside": conversation.aside, "prompt_bytes": conversation.prompt_bytes(),
        });
        let answer = match meets {
            Meets::Refusal(reset) => refuse(service, &scenario, reset),
            _ => self.speak(service, &scenario, &conversation, &body, number, meets == Meets::Cut),
        };
        (answer, note)
    }

    /// What a request of the main conversation meets, and its number within its scenario.
    fn next(&self, scenario: &Scenario) -> (Meets, u64) {
        let states = &mut self.memory.lock().expect("no thread panics while it holds the lock").states;
        if states.len() >= SCENARIOS && !states.contains_key(&scenario.key) {
            return (Meets::Model, 0);
        }
        let state = states.entry(scenario.key.clone()).or_default();
        (state.next(scenario), state.calls())
    }

    fn speak(
        &self,
        service: Service,
        scenario: &Scenario,
        conversation: &Conversation,
        body: &Value,
        number: u64,
        cut: bool,
    ) -> Answer {
        let turn = match service {
            Service::Gemini if conversation.aside => gemini::aside(),
            _ if conversation.aside => Turn::Text(vec!["A title".to_owned()]),
            _ => dialogue::next(conversation, scenario, &self.options.defaults),
        };
        let (mut pieces, whole) = match service {
            Service::Anthropic => anthropic::answer(conversation, &turn, number),
            Service::OpenAi | Service::Xai => responses::answer(conversation, &turn, number),
            Service::Chat => chat::answer(body, conversation, &turn, number),
            Service::Gemini => gemini::answer(conversation, &turn, number),
            Service::Perplexity => perplexity::answer(conversation, &turn, number),
        };
        let (delay, pause) = match scenario.kind {
            Kind::Slow => {
                let first = scenario.duration("first", Duration::from_secs(2));
                (first, scenario.duration("every", Duration::from_millis(200)))
            }
            Kind::Long => (Duration::ZERO, scenario.duration("every", Duration::ZERO)),
            _ => (Duration::ZERO, Duration::ZERO),
        };
        if !conversation.stream {
            return Answer { delay, ..Answer::json(200, &whole) };
        }
        if cut {
            pieces.truncate(pieces.len() / 2);
        }
        let headers = vec![("content-type", "text/event-stream".to_owned())];
        Answer { status: 200, delay, headers, body: Body::Pieces { pieces, pause, cut } }
    }

    /// The scenario that a request names, and its path below it.
    fn scenario<'a>(&self, request: &'a Request) -> (Scenario, &'a str) {
        let path = request.path.trim_start_matches('/');
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        let decoded = first.replace("%2C", ",").replace("%2c", ",").replace("%3D", "=").replace("%3d", "=");
        if let Some(scenario) = Scenario::parse(&decoded) {
            return (scenario, rest);
        }
        let named = request.header("x-fake-scenario").or(Some(&self.options.scenario)).and_then(Scenario::parse);
        (named.unwrap_or_else(|| Scenario::of(Kind::Script)), path)
    }

    fn remember(&self, request: &Request, answer: &Answer, mut note: Value) -> Result<()> {
        let headers: serde_json::Map<String, Value> =
            request.public_headers().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let mut memory = self.memory.lock().expect("no thread panics while it holds the lock");
        memory.count += 1;
        note["number"] = json!(memory.count);
        note["method"] = json!(request.method);
        note["path"] = json!(request.path);
        note["status"] = json!(answer.status);
        note["body_bytes"] = json!(request.body.len());
        note["headers"] = Value::Object(headers);
        if self.options.verbose {
            eprintln!("{} {} -> {}", request.method, request.path, answer.status);
        }
        if let Some(folder) = &self.options.record {
            let mut record = note.clone();
            record["body"] = serde_json::from_slice(&request.body)
                .unwrap_or_else(|_| String::from_utf8_lossy(&request.body).into_owned().into());
            let file = folder.join(format!("{:05}.json", memory.count));
            std::fs::write(file, serde_json::to_string_pretty(&record)?)?;
        }
        if memory.last.len() == KEPT {
            memory.last.pop_front();
        }
        memory.last.push_back(note);
        Ok(())
    }

    /// `GET /requests?scenario=…`: how many there were, and the last of them.
    fn requests(&self, query: &str) -> Answer {
        let wanted = query.split('&').find_map(|pair| pair.strip_prefix("scenario="));
        let memory = self.memory.lock().expect("no thread panics while it holds the lock");
        let last: Vec<&Value> =
            memory.last.iter().filter(|note| wanted.is_none_or(|wanted| note["scenario"] == wanted)).collect();
        Answer::json(200, &json!({"count": memory.count, "requests": last}))
    }
}

/// The service and what it is asked; `None` if the path is none of a model.
fn conversation(request: &Request, path: &str, body: &Value) -> Option<(Service, Conversation)> {
    if request.method != "POST" {
        return None;
    }
    // With and without the version: what a user takes for the base of a service differs.
    let path = path.strip_prefix("v1/").unwrap_or(path);
    let xai = request.header("user-agent").is_some_and(|agent| agent.contains("grok"))
        || body["model"].as_str().is_some_and(|model| model.contains("grok"));
    match path {
        "messages" => Some((Service::Anthropic, anthropic::conversation(body))),
        "responses" if xai => Some((Service::Xai, responses::conversation(body))),
        "responses" => Some((Service::OpenAi, responses::conversation(body))),
        "chat/completions" => Some((Service::Chat, chat::conversation(body))),
        "agent" => Some((Service::Perplexity, perplexity::conversation(body))),
        _ => {
            let (model, verb) = path.rsplit('/').next()?.split_once(':')?;
            let stream = match verb {
                "streamGenerateContent" => true,
                "generateContent" => false,
                _ => return None,
            };
            Some((Service::Gemini, gemini::conversation(model, stream, body)))
        }
    }
}

/// What is no call of a model: lists, counts, and what does not exist.
fn side(method: &str, path: &str) -> Answer {
    let models = ["claude-fake", "gpt-fake", "gemini-fake", "grok-4.6", "perplexity/sonar"];
    match (method, path) {
        // Codex tries a WebSocket first and takes this for a service that has none.
        ("GET", "v1/responses" | "responses") => Answer::text(426, "text/plain", "no WebSocket here".to_owned()),
        ("HEAD", _) => Answer::text(200, "application/json", String::new()),
        ("POST", path) if path.ends_with("count_tokens") => Answer::json(200, &json!({"input_tokens": 100})),
        ("POST", path) if path.ends_with(":countTokens") => Answer::json(200, &json!({"totalTokens": 100})),
        ("GET", "v1/models" | "models") => {
            let list =
                models.map(|id| json!({"id": id, "object": "model", "created": 1_795_360_000, "owned_by": "fake"}));
            Answer::json(200, &json!({"object": "list", "data": list, "models": []}))
        }
        ("GET", "") => Answer::text(200, "text/plain; charset=utf-8", super::HELP.to_owned()),
        _ => Answer::json(404, &json!({"error": {"message": "the fake has no such address", "type": "not_found"}})),
    }
}

fn refuse(service: Service, scenario: &Scenario, reset: u64) -> Answer {
    let kind = scenario.kind;
    let page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in to the network.</body></html>";
    let status = |default: u64| u16::try_from(scenario.number("status", default)).unwrap_or(500);
    match kind {
        Kind::Html => return Answer::text(status(200), "text/html; charset=utf-8", page.to_owned()),
        Kind::Nocontent => return Answer { headers: Vec::new(), ..Answer::text(204, "", String::new()) },
        Kind::Redirect => return Answer::text(302, "text/plain", String::new()).with("location", "/elsewhere"),
        Kind::Nothing => return Answer { delay: SILENCE, ..Answer::text(0, "", String::new()) },
        Kind::Closed => return Answer::text(0, "", String::new()),
        _ => {}
    }
    let status = match kind {
        Kind::Overload if service == Service::Anthropic => status(529),
        Kind::Overload => status(503),
        Kind::Auth => status(401),
        _ => status(500),
    };
    let mut answer = match service {
        Service::Anthropic => anthropic::refuse(kind, status, reset),
        Service::OpenAi => responses::refuse(kind, status, reset),
        Service::Xai | Service::Chat => chat::refuse(kind, status, reset),
        Service::Gemini if kind == Kind::Limit && scenario.flag("retry") == Some(false) => gemini::exhausted(reset),
        Service::Gemini => gemini::refuse(kind, status, reset),
        Service::Perplexity => perplexity::refuse(kind, status, reset),
    };
    match scenario.flag("retry") {
        Some(true) => answer.headers.retain(|(name, _)| *name != "x-should-retry"),
        Some(false) => answer.headers.retain(|(name, _)| *name != "retry-after"),
        None => {}
    }
    answer
}
