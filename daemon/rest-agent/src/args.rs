//! The command line, checked: what is asked for, and where it goes.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use reqwest::Url;

/// The model of Perplexity where none is named: its own. A preset may go to another company's.
const PERPLEXITY_MODEL: &str = "perplexity/sonar";

/// One turn with a model behind an HTTP API.
#[derive(Clone, Debug, Parser)]
#[command(name = "conductor-rest-agent", version, about, max_term_width = 100)]
pub struct Args {
    /// Whose API it is
    #[arg(long, value_enum)]
    pub vendor: Vendor,
    /// Which of its APIs [default: agent for perplexity, responses for xai]
    #[arg(long, value_enum)]
    pub api: Option<Api>,
    /// Where it is, with scheme and without key [default: the vendor's own]
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// The model; xai has no default
    #[arg(long)]
    pub model: Option<String>,
    /// Perplexity's choice of model and search in place of a model
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// A tool that the vendor runs, like web_search; may be repeated
    #[arg(long = "tool", value_name = "NAME")]
    pub tools: Vec<String>,
    /// The prompt, UTF-8; - is standard input
    #[arg(long, value_name = "FILE")]
    pub prompt_file: PathBuf,
    /// The session to go on with, as an earlier turn printed it
    #[arg(long, value_name = "ID")]
    pub resume: Option<String>,
    /// A file to create after a complete answer
    #[arg(long, value_name = "FILE")]
    pub done: Option<PathBuf>,
    /// Retries at most: with the backoff about a minute; a longer outage is for the caller to wait out
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub max_retries: u32,
    /// Pauses before retries, all together; a reset that is farther away is a usage limit
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub max_retry_time: Duration,
    /// Time to reach the server
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub connect_timeout: Duration,
    /// Time without a byte; models that reason or search are silent for minutes
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub idle_timeout: Duration,
}

/// Whose API it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Vendor {
    /// Perplexity
    Perplexity,
    /// xAI
    Xai,
}

impl Vendor {
    /// The variable that holds its key.
    #[must_use]
    pub fn key_name(self) -> &'static str {
        match self {
            Self::Perplexity => "PERPLEXITY_API_KEY",
            Self::Xai => "XAI_API_KEY",
        }
    }

    /// Where it is, if nobody says otherwise.
    fn base_url(self) -> &'static str {
        match self {
            Self::Perplexity => "https://api.perplexity.ai",
            Self::Xai => "https://api.x.ai",
        }
    }
}

/// Which API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Api {
    /// Perplexity's agent API
    Agent,
    /// Responses
    Responses,
    /// Chat completions, for gateways
    Chat,
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Perplexity { "perplexity" } else { "xai" })
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Responses => "responses",
            Self::Chat => "chat",
        })
    }
}

/// What is asked for, without contradictions.
#[derive(Clone, Debug)]
pub struct Target {
    /// Whose API it is.
    pub vendor: Vendor,
    /// Which one.
    pub api: Api,
    /// Where requests go.
    pub url: Url,
    /// Where the list of models is.
    pub models_url: Url,
    /// The model.
    pub model: Option<String>,
}

/// Why arguments contradict each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// That API is another vendor's.
    #[error("xai has no agent API: --api responses or --api chat")]
    NoAgentApi,
    /// Something that the chat API does not have.
    #[error("--api chat knows no {0}")]
    NotInChat(&'static str),
    /// A model is needed.
    #[error("--api chat needs --model with perplexity: what it is called depends on the gateway")]
    ModelNeeded,
    /// Presets are Perplexity's.
    #[error("--preset is for perplexity")]
    Preset,
    /// No address.
    #[error("the base URL {0:?} is none: it has to begin with https:// or http:// and name a host")]
    BaseUrl(String),
    /// An address with more than an address.
    #[error("the base URL may not hold a {0}: the key comes from the environment")]
    BaseUrlExtra(&'static str),
}

impl Args {
    /// Checks what belongs together.
    ///
    /// # Errors
    /// [`ArgsError`].
    pub fn target(&self) -> Result<Target, ArgsError> {
        let api = match (self.vendor, self.api) {
            (Vendor::Xai, Some(Api::Agent)) => return Err(ArgsError::NoAgentApi),
            (_, Some(api)) => api,
            (Vendor::Perplexity, None) => Api::Agent,
            (Vendor::Xai, None) => Api::Responses,
        };
        if self.preset.is_some() && self.vendor != Vendor::Perplexity {
            return Err(ArgsError::Preset);
        }
        if api == Api::Chat {
            let extra = [
                (self.resume.is_some(), "--resume: it keeps nothing"),
                (self.preset.is_some(), "--preset"),
                (!self.tools.is_empty(), "--tool"),
            ];
            if let Some((_, what)) = extra.into_iter().find(|(given, _)| *given) {
                return Err(ArgsError::NotInChat(what));
            }
        }
        let model = match (&self.model, self.vendor) {
            (Some(model), _) => Some(model.clone()),
            (None, Vendor::Perplexity) if api == Api::Chat => return Err(ArgsError::ModelNeeded),
            (None, Vendor::Perplexity) if self.preset.is_none() => Some(PERPLEXITY_MODEL.to_owned()),
            (None, _) => None,
        };
        let base = base_url(self.base_url.as_deref().unwrap_or(self.vendor.base_url()))?;
        let path = match (self.vendor, api) {
            (_, Api::Agent) => "v1/agent",
            (_, Api::Responses) => "v1/responses",
            // Perplexity's had no version in its path.
            (Vendor::Perplexity, Api::Chat) if !versioned(&base) => "chat/completions",
            (_, Api::Chat) => "v1/chat/completions",
        };
        Ok(Target { vendor: self.vendor, api, url: join(&base, path), models_url: join(&base, "v1/models"), model })
    }
}

/// An address that a request can be made of.
fn base_url(text: &str) -> Result<Url, ArgsError> {
    let bad = || ArgsError::BaseUrl(text.chars().take(200).collect());
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    if !lower.starts_with("http://") && !lower.starts_with("https://") {
        return Err(bad());
    }
    let url = Url::parse(text).map_err(|_| bad())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ArgsError::BaseUrlExtra("user or password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(ArgsError::BaseUrlExtra("query or fragment"));
    }
    if url.host_str().is_none_or(str::is_empty) { Err(bad()) } else { Ok(url) }
}

/// Whether the address names the version already.
fn versioned(base: &Url) -> bool {
    base.path().trim_end_matches('/').ends_with("/v1")
}

/// `path` below `base`, whose own final `/v1` counts as the path's.
fn join(base: &Url, path: &str) -> Url {
    let folder = base.path().trim_end_matches('/');
    let folder = if path.starts_with("v1/") { folder.strip_suffix("/v1").unwrap_or(folder) } else { folder };
    let mut url = base.clone();
    url.set_path(&format!("{folder}/{path}"));
    url
}

/// `90s`, `5m`, `500ms`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().map_err(|_| "a time is a number with a unit, like 90s".to_owned())?;
    let time = match &text[split..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => return Err("a time needs a unit: ms, s, m or h".to_owned()),
    };
    time.filter(|time| *time <= MAX_TIME).ok_or_else(|| "a time is at most 24h".to_owned())
}

/// The longest time that can be asked for: nobody waits for one request longer, and clocks can add it.
const MAX_TIME: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn target(words: &str) -> Result<Target, ArgsError> {
        let words = format!("conductor-rest-agent --prompt-file p {words}");
        Args::try_parse_from(words.split_whitespace()).unwrap().target()
    }

    #[test]
    fn the_vendors_defaults_are_their_own_api_and_no_model_of_xai() {
        let perplexity = target("--vendor perplexity").unwrap();
        assert_eq!(perplexity.url.as_str(), "https://api.perplexity.ai/v1/agent");
        assert_eq!(perplexity.model.as_deref(), Some("perplexity/sonar"));
        assert_eq!(target("--vendor perplexity --preset fast").unwrap().model, None);
        let xai = target("--vendor xai").unwrap();
        assert_eq!((xai.url.as_str(), xai.model), ("https://api.x.ai/v1/responses", None));
        assert_eq!(xai.models_url.as_str(), "https://api.x.ai/v1/models");
    }

    #[test]
    fn a_base_url_may_end_in_v1_or_a_slash_and_have_a_path() {
        for (base, api, url) in [
            ("http://gw:1/v1", "responses", "http://gw:1/v1/responses"),
            ("http://gw:1/v1/", "responses", "http://gw:1/v1/responses"),
            ("http://gw:1/xai/", "chat", "http://gw:1/xai/v1/chat/completions"),
            ("HTTP://127.0.0.1:9/limit", "responses", "http://127.0.0.1:9/limit/v1/responses"),
        ] {
            let words = format!("--vendor xai --api {api} --base-url {base}");
            assert_eq!(target(&words).unwrap().url.as_str(), url);
        }
        let old = "--vendor perplexity --api chat --model sonar --base-url http://gw";
        assert_eq!(target(old).unwrap().url.as_str(), "http://gw/chat/completions");
        assert_eq!(target(&format!("{old}/v1")).unwrap().url.as_str(), "http://gw/v1/chat/completions");
    }

    #[test]
    fn addresses_without_scheme_or_with_more_than_an_address_are_refused() {
        for bad in ["api.x.ai", "localhost:80", "ftp://x", "https://", "http:x", "//x"] {
            let error = target(&format!("--vendor xai --base-url {bad}")).unwrap_err();
            assert!(error.to_string().contains("https://"), "{bad}: {error}");
        }
        for bad in ["https://user:key@x", "https://x/?key=1", "https://x#k"] {
            let error = target(&format!("--vendor xai --base-url {bad}")).unwrap_err();
            assert!(matches!(error, ArgsError::BaseUrlExtra(_)), "{bad}: {error}");
        }
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        assert_eq!(target("--vendor xai --api agent").unwrap_err(), ArgsError::NoAgentApi);
        assert_eq!(target("--vendor xai --preset fast").unwrap_err(), ArgsError::Preset);
        assert!(matches!(target("--vendor xai --api chat --resume r").unwrap_err(), ArgsError::NotInChat(_)));
        assert!(matches!(target("--vendor xai --api chat --tool t").unwrap_err(), ArgsError::NotInChat(_)));
        assert_eq!(target("--vendor perplexity --api chat").unwrap_err(), ArgsError::ModelNeeded);
    }

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "5", "5x", "-1s", "25h", "99999999999999999999h", "18446744073709551615m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
