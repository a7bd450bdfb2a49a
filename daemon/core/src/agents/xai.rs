//! xAI: its program `grok` where that is installed, else its HTTP API, which needs a key. Decides which of the two; what
//! they do is `grok` and `rest`.

use std::path::PathBuf;

use secrecy::SecretString;

use super::base::Base;
use super::check::Finding;
use super::cli::Cli;
use super::event::{Event, EventParser, Stream, StreamSummary};
use super::grok::Grok;
use super::rest::Rest;
use super::stream::{self, Vendor};
use super::{Adapter, AgentCommand, Classified, ExitFacts, PrepareError, RunRequest, VersionError};
use crate::config::{AgentConfig, AgentKind, Env};

/// How the first line of our own program's stream begins.
const REST_STREAM: &[u8] = br#"{"type":"request""#;
/// Bytes of standard error that are kept until the first line of standard output says whose stream it is.
const MAX_EARLY: usize = 64 << 10;

/// An agent of type `xai`.
#[derive(Debug)]
pub(crate) struct Xai {
    program: Cli<Grok>,
    service: Cli<Rest>,
}

impl Xai {
    pub(crate) fn new(base: Base) -> Self {
        // What is said of the program does not hold for the service.
        let config = AgentConfig { program: None, version: None, config_dir: None, ..base.config.clone() };
        let service = Cli::new(Base { config, ..base.clone() }, Rest::Xai);
        Self { program: Cli::new(base, Grok), service }
    }

    /// The program, where it is there or named; the service, where only a key is there. With neither the program, whose
    /// error says what is missing.
    fn chosen(&self) -> &dyn Adapter {
        let named = self.program.base().config.program.is_some();
        if named || !self.by_service() { &self.program } else { &self.service }
    }

    fn by_service(&self) -> bool {
        self.service.has_key() && matches!(self.program.program(), Err(PrepareError::ProgramMissing { .. }))
    }

    /// The error of a missing program with the other way out.
    fn explained(&self, error: PrepareError) -> PrepareError {
        match error {
            PrepareError::ProgramMissing { agent, program, install }
                if self.program.base().config.program.is_none() && !self.service.has_key() =>
            {
                let missing = PrepareError::ProgramMissing { agent: agent.clone(), program, install };
                PrepareError::NoKey { agent, or: Some(Box::new(missing)) }
            }
            other => other,
        }
    }
}

impl Adapter for Xai {
    fn name(&self) -> &str {
        self.program.name()
    }

    fn kind(&self) -> AgentKind {
        AgentKind::Xai
    }

    fn program(&self) -> Result<PathBuf, PrepareError> {
        self.chosen().program().map_err(|error| self.explained(error))
    }

    /// By its key alone: the program by itself is the agent `grok`.
    fn installed(&self) -> bool {
        self.service.has_key() && self.program().is_ok()
    }

    fn login(&self) -> Result<String, PrepareError> {
        self.chosen().login()
    }

    fn account(&self) -> Result<String, PrepareError> {
        self.chosen().account()
    }

    fn prepare(&self, run: &RunRequest) -> Result<AgentCommand, PrepareError> {
        let chosen = self.chosen();
        // A session is of the way that it was begun with: the program's ids are UUIDs.
        let foreign = run.resume_session.as_deref().is_some_and(|id| is_uuid(id) == self.by_service());
        if !foreign {
            return chosen.prepare(run).map_err(|error| self.explained(error));
        }
        let mut command = chosen.prepare(&RunRequest { resume_session: None, ..run.clone() })?;
        command.notes.push(
            "a session of its own was begun, since the last one was begun the other way (the program grok, or xAI's API)"
                .to_owned(),
        );
        Ok(command)
    }

    fn version(&self) -> Result<Option<String>, VersionError> {
        self.chosen().version()
    }

    fn events(&self) -> Box<dyn EventParser> {
        Box::new(Either::default())
    }

    fn classify(&self, exit: &ExitFacts, parsed: &StreamSummary) -> Classified {
        // Which of the two it was shows in its session.
        let service = parsed.session.as_deref().map_or_else(|| self.by_service(), |id| !is_uuid(id));
        if service { self.service.classify(exit, parsed) } else { self.program.classify(exit, parsed) }
    }

    fn session_lost(&self, exit: &ExitFacts, parsed: &StreamSummary) -> bool {
        self.program.session_lost(exit, parsed) || self.service.session_lost(exit, parsed)
    }

    fn masked(&self, text: &str) -> String {
        self.program.masked(text)
    }

    fn secrets(&self) -> Vec<SecretString> {
        self.program.secrets()
    }

    fn environment(&self) -> Env {
        self.chosen().environment()
    }

    fn check(&self) -> Vec<Finding> {
        self.chosen().check()
    }
}

/// Whether a text has the shape of a UUID.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, b)| match place {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// A parser that tells by the first line whose stream it is: a run may be read long after it, when `grok` was installed
/// or removed.
#[derive(Default)]
struct Either {
    parser: Option<Box<dyn EventParser>>,
    /// What came before it was clear: the beginning of a line, and of standard error.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    nothing: StreamSummary,
}

impl Either {
    fn decide(&mut self, sink: &mut dyn FnMut(Event)) -> &mut Box<dyn EventParser> {
        let (stdout, stderr) = (std::mem::take(&mut self.stdout), std::mem::take(&mut self.stderr));
        self.parser.get_or_insert_with(|| {
            let vendor = if stdout.starts_with(REST_STREAM) { Vendor::Rest } else { Vendor::Grok };
            let mut parser = stream::parser(vendor);
            parser.feed(Stream::Stderr, &stderr, sink);
            parser.feed(Stream::Stdout, &stdout, sink);
            parser
        })
    }
}

impl EventParser for Either {
    fn feed(&mut self, stream: Stream, chunk: &[u8], sink: &mut dyn FnMut(Event)) {
        if let Some(parser) = &mut self.parser {
            return parser.feed(stream, chunk, sink);
        }
        let early = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        early.extend_from_slice(chunk);
        let clear = self.stdout.len() >= REST_STREAM.len() || !REST_STREAM.starts_with(&self.stdout);
        if clear || self.stderr.len() >= MAX_EARLY {
            self.decide(sink);
        }
    }

    fn finish(&mut self, sink: &mut dyn FnMut(Event)) {
        self.decide(sink).finish(sink);
    }

    fn summary(&self) -> &StreamSummary {
        self.parser.as_ref().map_or(&self.nothing, |parser| parser.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::tests::{Bench, value};

    const UUID: &str = "01a204d1-5d86-7a91-b00a-99db9bcac873";

    fn plain() -> AgentConfig {
        AgentConfig::new(AgentKind::Xai)
    }

    const KEY: [(&str, &str); 1] = [("CONDUCTOR_AGENT_XAI_TOKEN", "xai-secret")];

    #[test]
    fn the_program_is_used_where_it_is_installed_and_the_api_where_only_a_key_is_there() {
        let bench = Bench::new("grok", plain(), &KEY);
        let command = bench.prepared(|_| {});
        assert!(command.program.ends_with("grok") && command.display.contains("streaming-json"), "{}", command.display);
        assert_eq!(value(&command, "XAI_API_KEY"), Some("xai-secret"));
        let bench = Bench::new("conductor-rest-agent", plain(), &KEY);
        let command = bench.prepared(|run| run.model = Some("grok-4.6".into()));
        assert!(bench.words(&command).starts_with("--vendor xai --prompt-file /"), "{}", command.display);
        assert_eq!(
            (value(&command, "XAI_API_KEY"), command.login.as_str()),
            (Some("xai-secret"), "key from CONDUCTOR_AGENT_XAI_TOKEN")
        );
        assert!(bench.adapter.installed());
    }

    #[test]
    fn with_neither_program_nor_key_both_ways_out_are_named() {
        let bench = Bench::new("conductor-rest-agent", plain(), &[]);
        let text = bench.adapter.prepare(&bench.request).unwrap_err().to_string();
        assert_eq!(
            text,
            "agent xai: program grok was not found; install it with: npm install -g @xai-official/grok; or give it a key \
             for the HTTP API: set agents.xai.token_file, or CONDUCTOR_AGENT_XAI_TOKEN"
        );
        assert!(!bench.adapter.installed());
        assert!(!Bench::new("grok", plain(), &[]).adapter.installed(), "without a key it is the agent grok");
    }

    #[test]
    fn a_session_goes_on_only_the_way_it_was_begun() {
        let bench = Bench::new("grok", plain(), &KEY);
        assert!(bench.prepared(|run| run.resume_session = Some(UUID.into())).display.contains("-r 01a2"));
        let command = bench.prepared(|run| run.resume_session = Some("resp_1".into()));
        assert!(!command.display.contains("resp_1") && command.notes[0].contains("session"), "{:?}", command.notes);
        let bench = Bench::new("conductor-rest-agent", plain(), &KEY);
        assert!(bench.prepared(|run| run.resume_session = Some("resp_1".into())).display.contains("--resume resp_1"));
        assert!(!bench.prepared(|run| run.resume_session = Some(UUID.into())).display.contains(UUID));
    }

    #[test]
    fn whose_stream_it_is_shows_in_its_first_line_whatever_the_pieces() {
        let rest = b"{\"type\":\"request\",\"version\":1}\n{\"type\":\"note\",\"text\":\"x\"}\n".as_slice();
        let grok = b"{\"type\":\"text\",\"data\":\"hi\"}\n".as_slice();
        for (stream, vendor) in [(rest, Vendor::Rest), (grok, Vendor::Grok), (b"", Vendor::Grok), (b"{", Vendor::Grok)]
        {
            for size in [1, 7, 4096] {
                let (mut either, mut plain) = (Either::default(), stream::parser(vendor));
                let (mut found, mut expected) = (Vec::new(), Vec::new());
                for chunk in stream.chunks(size) {
                    either.feed(Stream::Stdout, chunk, &mut |event| found.push(event));
                    plain.feed(Stream::Stdout, chunk, &mut |event| expected.push(event));
                }
                either.finish(&mut |event| found.push(event));
                plain.finish(&mut |event| expected.push(event));
                assert_eq!(found, expected);
                assert_eq!(either.summary(), plain.summary());
            }
        }
    }
}
