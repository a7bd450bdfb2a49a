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
