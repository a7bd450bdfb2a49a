//! `conductor-rest-agent`: one turn with a model behind an HTTP API (Perplexity, xAI), as a program that a shim can run
//! like any other agent. It sends a prompt, prints what comes back as it comes, and ends.
//!
//! It runs no tools, keeps no conversation of its own and writes no `output.md`: conductord does that from the `answer`
//! event.
//!
//! ```text
//! conductor-rest-agent --vendor perplexity|xai --prompt-file FILE [--api agent|responses|chat] [--base-url URL]
//!     [--model MODEL] [--preset NAME] [--tool NAME]… [--resume ID] [--done FILE] [limits and timeouts]
//! ```
//!
//! The key comes from `PERPLEXITY_API_KEY` or `XAI_API_KEY`, never from an argument. `HTTPS_PROXY`, `HTTP_PROXY`,
//! `ALL_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` and `SSL_CERT_DIR` hold.
//!
//! # Its stream
//!
//! Standard output is one JSON object a line, each written whole and at once, UTF-8. The fields of version 1 stay; new
//! kinds and new fields may come. A field that is not known is absent or null, never zero. No line holds the key.
//!
//! | `type` | fields | when |
//! | --- | --- | --- |
//! | `request` | `version` (1), `vendor`, `api`, `url`, `model`, `attempt` (from 1), `resumes` | before each try |
//! | `started` | `session`, `model` | the vendor has begun; `session` is what `--resume` takes, null where there is none |
//! | `text` | `delta` (at most 64 KiB) | a piece of the answer |
//! | `thought` | `delta` (at most 64 KiB) | a piece of the reasoning |
//! | `search` | `queries`, `urls` | the vendor searches the web, or reads pages |
//! | `sources` | `sources`: `[{n, url, title, date}]` | sources that were not there before; `n` is their number |
//! | `retry` | `status`, `delay_ms`, `kind` (`rate_limit`, `overloaded`, `server_error`, `timeout`, `network`, `cut`), `error`, `attempt` (the one to come) | before a pause |
//! | `limit` | `kind` (`window`, `daily`, `spend`, `credits`, `overload`, `auth`), `resets_at` (RFC 3339, UTC), `source` (`json`, `header`, `text`, `status`), `status`, `message` | the vendor refuses work, and trying on is no use |
//! | `usage` | `input` (uncached), `cache_read`, `cache_write`, `output` (reasoning included), `reasoning`, `cost_usd`, `model` | what the turn took, as the vendor reports it |
//! | `note` | `text` | what a person may want to know; never an error |
//! | `vendor` | `event`, or `head` and `bytes` where it is over 1 MiB | an event of the vendor's that is not known here |
//! | `answer` | `text` (at most 1 MiB), `bytes` (of the whole), `sources` (how many are listed in it), `complete` | the whole answer, with its sources as numbered links; `complete: false`: what was there when it broke |
//! | `ended` | `reason`, `is_error`, `status`, `error`, `session`, `model` | the last line |
//!
//! | `reason` | exit code | meaning |
//! | --- | --- | --- |
//! | `completed` | 0 | a complete answer |
//! | `incomplete` | 1 | the vendor cut its answer short: length, content filter |
//! | `tool_call` | 1 | the model wants a tool run, which a REST agent can't |
//! | `empty` | 1 | a complete answer without a word |
//! | `refused` | 1 | the vendor says no: an unknown model, a bad parameter |
//! | `session_not_found` | 1 | what `--resume` names is not there any more: start afresh |
//! | `failed` | 1 | the vendor failed, and says that trying again is no use |
//! | `overloaded` | 1 | it is overloaded or broken, all tries used |
//! | `network` | 1 | it can't be reached, all tries used |
//! | `timeout` | 1 | nothing came for the idle timeout, all tries used |
//! | `cut` | 1 | the stream broke off in the middle of the answer |
//! | `invalid` | 1 | what came is no answer of this API: HTML, a redirect, nothing, broken JSON or UTF-8 |
//! | `done_failed` | 1 | the answer is complete, but `--done` could not be written |
//! | `usage` | 2 | bad arguments or prompt |
//! | `no_model` | 2 | xAI without `--model`; `error` lists what the key can use |
//! | `auth` | 3 | no key, or one that is not accepted |
//! | `limit` | 4 | a usage limit, see the `limit` event |
//! | `interrupted` | 130, 143 | SIGINT, SIGTERM |
//!
//! Exit code 2 without any line: the arguments can't be read at all. 141: nobody reads the stream. The error of `ended`
//! goes to standard error, too.
//!
//! # Trying again
//!
//! 408, 429, 5xx, and errors of the network are tried again, after `Retry-After` or else with exponential backoff and full
//! jitter, as long as nothing of the answer was seen (no text, thought, search or source): nothing is printed twice, nor
//! paid for twice. What was seen before a cut stays. A 429 that speaks of quota or credits, or whose reset is farther
//! away than the time that is left for retries, is a `limit` at once.
//!
//! # `DONE`
//!
//! An agent of this kind can't write files. `--done FILE` makes a complete answer finish the task: after the `answer` line
//! is on disk, and before `ended`, FILE is created durably. After an error or a cut stream it never is.

pub mod args;
pub mod done;
pub mod emit;
pub mod event;
pub mod http;
pub mod key;
pub mod refusal;
pub mod reset;
pub mod retry;
pub mod signals;
pub mod sources;
pub mod sse;
pub mod trouble;
pub mod turn;
pub mod wire;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use args::{Args, ArgsError};
use emit::{Emitter, End};
use event::{Event, LimitKind, Reason};
use key::{Key, KeyError};
use turn::Turn;

/// Bytes of a prompt at most; conductord refuses longer ones, too.
const MAX_PROMPT: u64 = 16 << 20;
/// The exit code when nobody reads the stream: what a shell says of a program that SIGPIPE ended.
const NOBODY_READS: u8 = 141;

/// Why a turn does not begin.
#[derive(Debug, thiserror::Error)]
enum SetupError {
    #[error(transparent)]
    Args(#[from] ArgsError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{0}")]
    Http(#[from] http::HttpError),
    #[error("the prompt {file} can't be read: {error}")]
    Prompt { file: String, error: io::Error },
    #[error("the prompt {0} is empty")]
    EmptyPrompt(String),
    #[error("the prompt {0} is over 16 MiB long")]
    LongPrompt(String),
    #[error("the prompt {0} is not UTF-8")]
    PromptNotUtf8(String),
}

impl SetupError {
    fn reason(&self) -> Reason {
        match self {
            Self::Key(_) => Reason::Auth,
            Self::Http(_) => Reason::Network,
            _ => Reason::Usage,
        }
    }
}

/// Does one turn and gives the exit code. `key` is the value of the key's environment variable.
pub fn run(args: &Args, key: Option<String>, emitter: &Arc<Mutex<Emitter>>) -> u8 {
    let lock = || emitter.lock().unwrap_or_else(PoisonError::into_inner);
    let end = match prepare(args, key, emitter) {
        Ok(turn) => tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
            let end = runtime.block_on(Box::pin(turn.run()));
            // A name service that does not answer must not hold up the end.
            runtime.shutdown_background();
            end
        }),
        Err(error) => {
            let text = format!("{}: {error}", args.vendor);
            let limit = matches!(error, SetupError::Key(_)).then_some(Event::Limit {
                kind: LimitKind::Auth,
                resets_at: None,
                source: "status",
                status: None,
                message: &text,
            });
            limit.map_or(Ok(()), |limit| lock().print(&limit)).map(|()| End::new(error.reason(), text.clone()))
        }
    };
    match end.and_then(|end| lock().end(end, args.done.as_deref())) {
        Ok(reason) => reason.exit_code(),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => NOBODY_READS,
        Err(error) => {
            eprintln!("{}: the stream can't be written: {error}", args.vendor);
            Reason::Failed.exit_code()
        }
    }
}

fn prepare(args: &Args, key: Option<String>, emitter: &Arc<Mutex<Emitter>>) -> Result<Turn, SetupError> {
    let lock = || emitter.lock().unwrap_or_else(PoisonError::into_inner);
    let key = Key::new(args.vendor.key_name(), key)?;
    lock().hide(key.clone());
    let target = args.target()?;
    let prompt = prompt(&args.prompt_file)?;
    // xAI without a model: there is nothing to send.
    let is_complete = target.model.is_some() || args.preset.is_some();
    let body = is_complete
        .then(|| wire::request(&target, args.preset.as_deref(), &args.tools, args.resume.as_deref(), &prompt).into());
    if turn::is_in_the_clear(&target.url) {
        let text = format!("the key goes to {} without encryption", target.url.host_str().unwrap_or_default());
        // If it can't be printed, the next line can't either.
        let _ = lock().print(&Event::Note { text: &text });
    }
    let http = http::Http::new(&target.url, &key, args.connect_timeout, args.idle_timeout)?;
    let budget = retry::Budget::new(args.max_retries, args.max_retry_time);
    Ok(Turn { target, resume: args.resume.clone(), body, budget, http, emitter: Arc::clone(emitter) })
}

fn prompt(path: &Path) -> Result<String, SetupError> {
    let file = path.display().to_string();
    let failed = |error| SetupError::Prompt { file: file.clone(), error };
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_PROMPT + 1).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        File::open(path).and_then(|from| from.take(MAX_PROMPT + 1).read_to_end(&mut bytes)).map_err(failed)?;
    }
    if bytes.len() as u64 > MAX_PROMPT {
        return Err(SetupError::LongPrompt(file));
    }
    let text = String::from_utf8(bytes).map_err(|_| SetupError::PromptNotUtf8(file.clone()))?;
    if text.trim().is_empty() { Err(SetupError::EmptyPrompt(file)) } else { Ok(text) }
}
