//! Agents that are any program: the prompt on standard input or as the path of a file, the answer on standard output.

use std::path::PathBuf;

use super::event::{Event, EventKind, EventParser, MAX_TEXT, StreamSummary, head};
use super::lines::{Line, Lines};
use super::program::command_line;
use super::{Adapter, AgentCommand, Base, Classified, ExitFacts, PrepareError, RunRequest, VersionError, env, text};
use crate::config::{AgentKind, PromptBy};

/// Stands for the path of the prompt in the arguments of an agent that takes it as a file.
const PROMPT_PLACE: &str = "{prompt}";

/// An agent of type `command`.
#[derive(Debug)]
pub(crate) struct Command {
    base: Base,
}

impl Command {
    pub(crate) fn new(base: Base) -> Self {
        Self { base }
    }

    fn unsupported(&self, what: &'static str) -> PrepareError {
        PrepareError::Unsupported { agent: self.base.name.clone(), what }
    }
}

impl Adapter for Command {
    fn name(&self) -> &str {
        &self.base.name
    }

    fn kind(&self) -> AgentKind {
        AgentKind::Command
    }

    fn program(&self) -> Result<PathBuf, PrepareError> {
        // The configuration names one: it is checked when it is read.
        self.base.program("", None)
    }

    fn login(&self) -> Result<String, PrepareError> {
        Ok("none".to_owned())
    }

    fn prepare(&self, run: &RunRequest) -> Result<AgentCommand, PrepareError> {
        if run.model.is_some() {
            return Err(self.unsupported("model"));
        }
        if run.resume_session.is_some() {
            return Err(self.unsupported("sessions"));
        }
        let program = self.program()?;
        let prompt = text(&run.prompt)?;
        let mut words: Vec<String> = self.base.config.args.iter().chain(&run.extra_args).cloned().collect();
        let by_file = self.base.config.prompt.unwrap_or_default() == PromptBy::File;
        if by_file {
            let placed = words.iter().any(|word| word.contains(PROMPT_PLACE));
            words.iter_mut().for_each(|word| *word = word.replace(PROMPT_PLACE, &prompt));
            if !placed {
                words.push(prompt.clone());
            }
        }
        let mut argv = vec![text(&program)?];
        argv.extend(words);
        let mut environment = self.base.environment();
        env::add_run(&mut environment, run)?;
        let from = if by_file { String::new() } else { format!(" < {}", command_line([prompt.as_str()])) };
        Ok(AgentCommand {
            display: command_line(argv.iter().map(String::as_str)) + &from,
            argv,
            env: environment.into_iter().collect(),
            secret_names: vec![env::TOKEN.to_owned()],
            stdin: (!by_file).then(|| run.prompt.clone()),
            cwd: run.cwd.clone(),
            login: "none".to_owned(),
            program,
            model: None,
            notes: Vec::new(),
        })
    }

    /// `--version` may mean anything to any program, work included, so it is not asked.
    fn version(&self) -> Result<Option<String>, VersionError> {
        Ok(None)
    }

    fn events(&self) -> Box<dyn EventParser> {
        Box::new(Text { lines: Lines::new(), summary: StreamSummary::default() })
    }

    fn classify(&self, exit: &ExitFacts, _: &StreamSummary) -> Classified {
        exit.classify()
    }
}

/// Every line is a text.
#[derive(Debug)]
struct Text {
    lines: Lines,
    summary: StreamSummary,
}

/// The event of a line that is only text.
pub(super) fn text_event(offset: u64, line: &Line<'_>) -> Event {
    let (bytes, length) = match line {
        Line::Whole(bytes) => (*bytes, bytes.len() as u64),
        Line::Cut(bytes, length) => (*bytes, *length),
    };
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_suffix('\r').unwrap_or(&text);
    let shown = head(text, MAX_TEXT);
    let cut = shown.len() < text.len() || matches!(line, Line::Cut(..));
    Event { offset, kind: EventKind::Text { text: shown.to_owned(), whole: cut.then_some(length) } }
}

impl EventParser for Text {
    fn feed(&mut self, chunk: &[u8], sink: &mut dyn FnMut(Event)) {
        let summary = &mut self.summary;
        self.lines.feed(chunk, &mut |offset, line| {
            summary.lines += 1;
            sink(text_event(offset, &line));
        });
    }

    fn finish(&mut self, sink: &mut dyn FnMut(Event)) {
        let summary = &mut self.summary;
        self.lines.finish(&mut |offset, line| {
            summary.lines += 1;
            sink(text_event(offset, &line));
        });
    }

    fn summary(&self) -> &StreamSummary {
        &self.summary
    }
}
