//! Which scenario a request is part of, and what it remembers between requests.
//!
//! A scenario is the first segment of the path, or the header `x-fake-scenario`: a name, then parameters, all separated
//! by commas: `/limit,resets_in=3s,key=a/v1/messages`. Its whole text is the key of its state.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When a limit without a given end is over, in seconds of the epoch: 2030, so that no test waits for it.
const RESET: u64 = 1_900_000_000;

/// What may go wrong, or not, with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Runs what the prompt's lines `FAKE-RUN: …` say, then answers.
    Script,
    /// Answers; never calls a tool.
    Answer,
    /// As `script`; a prompt without such a line has one command run all the same.
    Tool,
    /// Answers at length: `lines` (200), one every `every` (0).
    Long,
    /// As `script`, but the first byte comes after `first` (2s), each further piece after `every` (200ms).
    Slow,
    /// A usage limit of some hours. Before it `after` requests (0) pass; it ends after `resets_in`, or in 2030.
    Limit,
    /// A limit of the day; parameters as of `limit`.
    Daily,
    /// A limit of what may be spent; parameters as of `limit`.
    Spend,
    /// Credits are used up; parameters as of `limit`.
    Credits,
    /// The first `times` (2) requests meet an overloaded service: `status` 529 at Anthropic, else 503.
    Overload,
    /// The first `times` (1) requests fail with `status` (500).
    Flaky,
    /// The first `times` (all) streams end in the middle.
    Cut,
    /// The key is not valid: `status` 401, or 403.
    Auth,
    /// The administrator has switched the access off.
    Disabled,
    /// The answer is one line of `bytes` (1 MiB).
    Bigline,
    /// A page of HTML with `status` (200), as from a proxy.
    Html,
    /// 204, no content.
    Nocontent,
    /// 302 to an address that does not exist.
    Redirect,
    /// The connection stays open and nothing comes.
    Nothing,
    /// The connection is closed without an answer.
    Closed,
}

/// A scenario as a request names it.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) kind: Kind,
    /// Its whole text: what its state is kept by.
    pub(super) key: String,
    parameters: Vec<(String, String)>,
}

impl Scenario {
    /// A scenario without parameters.
    pub(super) fn of(kind: Kind) -> Self {
        Self { kind, key: String::new(), parameters: Vec::new() }
    }

    /// Reads it; `None` if the text does not begin with a scenario's name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(',');
        let kind = <Kind as clap::ValueEnum>::from_str(words.next()?, false).ok()?;
        let pair = |word: &str| {
            word.split_once('=').map_or((word.to_owned(), String::new()), |(a, b)| (a.to_owned(), b.to_owned()))
        };
        Some(Self { kind, key: text.to_owned(), parameters: words.map(pair).collect() })
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A number, or what holds without one.
    pub(super) fn number(&self, name: &str, default: u64) -> u64 {
        self.parameter(name).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// `1` or `0`; `None` if it is not said.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.parameter(name).map(|value| value == "1")
    }

    /// A duration (`3s`, `200ms`, `5m`, `2h`, a bare number is seconds), or what holds without one.
    pub(super) fn duration(&self, name: &str, default: Duration) -> Duration {
        self.parameter(name).and_then(duration).unwrap_or(default)
    }
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let value: u64 = digits.parse().ok()?;
    match &text[digits.len()..] {
        "ms" => Some(Duration::from_millis(value)),
        "" | "s" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_secs(value * 60)),
        "h" => Some(Duration::from_secs(value * 3600)),
        _ => None,
    }
}

/// What is remembered of a scenario.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Requests of the main conversation so far.
    calls: u64,
    /// When the limit ends, in seconds of the epoch; set by the first request that meets it.
    reset: Option<u64>,
}

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meets {
    /// The model speaks.
    Model,
    /// The model speaks, and the stream is cut.
    Cut,
    /// A refusal, with the end of a limit in seconds of the epoch.
    Refusal(u64),
}

impl State {
    /// What the next request meets; counts it.
    pub(super) fn next(&mut self, scenario: &Scenario) -> Meets {
        let call = self.calls;
        self.calls += 1;
        let first = |default| if call < scenario.number("times", default) { Meets::Refusal(0) } else { Meets::Model };
        match scenario.kind {
            Kind::Script | Kind::Answer | Kind::Tool | Kind::Long | Kind::Slow | Kind::Bigline => Meets::Model,
            Kind::Limit | Kind::Daily | Kind::Spend | Kind::Credits => self.limit(scenario, call),
            Kind::Overload => first(2),
            Kind::Flaky => first(1),
            Kind::Cut if first(u64::MAX) == Meets::Model => Meets::Model,
            Kind::Cut => Meets::Cut,
            Kind::Auth | Kind::Disabled => Meets::Refusal(0),
            Kind::Html | Kind::Nocontent | Kind::Redirect | Kind::Nothing | Kind::Closed => Meets::Refusal(0),
        }
    }

    /// Requests so far.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    fn limit(&mut self, scenario: &Scenario, call: u64) -> Meets {
        if call < scenario.number("after", 0) {
            return Meets::Model;
        }
        let reset = *self.reset.get_or_insert_with(|| match scenario.parameter("resets_in").and_then(duration) {
            // Services name whole seconds: rounded up, so that a limit never ends before its time.
            Some(after) => now() + after.as_secs().max(1) + 1,
            None => scenario.number("resets_at", RESET),
        });
        if now() < reset { Meets::Refusal(reset) } else { Meets::Model }
    }
}

/// Seconds of the epoch.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meets(text: &str, requests: usize) -> Vec<Meets> {
        let scenario = Scenario::parse(text).expect("a scenario");
        let mut state = State::default();
        (0..requests).map(|_| state.next(&scenario)).collect()
    }

    #[test]
    fn a_segment_that_is_no_scenario_is_part_of_the_address() {
        assert!(Scenario::parse("v1").is_none());
        assert!(Scenario::parse("").is_none());
        assert_eq!(Scenario::parse("limit,key=a").expect("a scenario").kind, Kind::Limit);
    }

    #[test]
    fn an_overload_ends_after_its_number_of_requests() {
        let refused = Meets::Refusal(0);
        assert_eq!(meets("overload", 3), [refused, refused, Meets::Model]);
        assert_eq!(meets("flaky,times=3", 4), [refused, refused, refused, Meets::Model]);
        assert_eq!(meets("cut,times=1", 2), [Meets::Cut, Meets::Model]);
        assert_eq!(meets("cut", 2), [Meets::Cut, Meets::Cut]);
    }

    #[test]
    fn a_limit_begins_after_the_requests_that_pass_and_ends_at_its_reset() {
        assert_eq!(meets("limit,after=1", 2), [Meets::Model, Meets::Refusal(RESET)]);
        assert_eq!(meets("limit,resets_at=1000", 2), [Meets::Model, Meets::Model]);
        let Meets::Refusal(reset) = meets("limit,resets_in=5s", 1)[0] else { panic!("the limit holds") };
        assert!((5..=7).contains(&(reset - now())), "{reset}");
    }

    #[test]
    fn durations_have_units_and_a_bare_number_is_seconds() {
        let texts = ["3", "3s", "200ms", "5m", "1h", "s", "3x"];
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let expected =
            [seconds(3), seconds(3), Some(Duration::from_millis(200)), seconds(300), seconds(3600), None, None];
        assert_eq!(texts.map(duration), expected);
    }
}
