//! Parsers of the vendors' streams: each vendor's lines as normal events. They decide nothing: `limits` does.

mod claude;
mod codex;
mod common;
mod gemini;
mod grok;
mod rest;

use super::event::EventParser;
use super::parser::Parser;

/// Whose streams and limits they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// Grok.
    Grok,
    /// Our own program for vendors that have an HTTP API and no program.
    Rest,
}

/// A parser of a vendor's streams.
#[must_use]
pub fn parser(vendor: Vendor) -> Box<dyn EventParser> {
    match vendor {
        Vendor::Claude => claude(),
        Vendor::Codex => codex(),
        Vendor::Gemini => gemini(),
        Vendor::Grok => grok(),
        Vendor::Rest => rest(),
    }
}

/// `claude -p --output-format stream-json`.
pub(crate) fn claude() -> Box<dyn EventParser> {
    Box::new(Parser::new(claude::Claude::default()))
}

/// `codex exec --json`.
pub(crate) fn codex() -> Box<dyn EventParser> {
    Box::new(Parser::new(codex::Codex::default()))
}

/// `gemini -o stream-json`.
pub(crate) fn gemini() -> Box<dyn EventParser> {
    Box::new(Parser::new(gemini::Gemini::default()))
}

/// `grok --output-format streaming-json`.
pub(crate) fn grok() -> Box<dyn EventParser> {
    Box::new(Parser::new(grok::Grok::default()))
}

/// `conductor-rest-agent`.
pub(crate) fn rest() -> Box<dyn EventParser> {
    Box::new(Parser::new(rest::Rest::default()))
}

#[cfg(test)]
mod tests;
