//! What is printed and where: data on standard output, all else on standard error, colour only where it is wanted.

pub(crate) mod details;
pub(crate) mod live;
mod progress;
pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod tree;
pub(crate) mod views;
pub(crate) mod words;

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::cli::Format;
use crate::errors::Failure;
pub(crate) use progress::{Progress, beside};
use table::Table;
pub(crate) use words::Tone;

/// Columns where no terminal says how many: nothing is cut in a pipe.
const PIPE_WIDTH: u16 = 1_000;

/// Narrowest terminal that a table is fitted to.
const MIN_WIDTH: u16 = 40;

/// Both streams, with what the user and the terminal want of them.
pub(crate) struct Screen {
    pub(crate) format: Format,
    pub(crate) width: u16,
    pub(crate) out_is_terminal: bool,
    pub(crate) err_is_terminal: bool,
    /// The terminal can't move its cursor.
    is_dumb: bool,
    out_color: bool,
    err_color: bool,
}

impl Screen {
    pub(crate) fn new(format: Format, no_color: bool) -> Self {
        let out_is_terminal = io::stdout().is_terminal();
        let err_is_terminal = io::stderr().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let forced = std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = |terminal: bool| !no_color && !set("NO_COLOR") && (forced || (terminal && !is_dumb));
        Self {
            format,
            width: width(out_is_terminal),
            out_color: color(out_is_terminal),
            err_color: color(err_is_terminal),
            out_is_terminal,
            err_is_terminal,
            is_dumb,
        }
    }

    /// Whether colours are wanted on standard error, or on standard output.
    pub(crate) fn color(&self, to_stderr: bool) -> bool {
        if to_stderr { self.err_color } else { self.out_color }
    }

    /// Paints for standard output.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        words::paint(self.out_color, tone, text)
    }

    /// Paints for standard error.
    pub(crate) fn paint_err(&self, tone: Tone, text: &str) -> String {
        words::paint(self.err_color, tone, text)
    }

    /// Writes data.
    pub(crate) fn data(&self, bytes: &[u8]) -> Result<(), Failure> {
        let write = || {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        };
        beside(write).map_err(|error| Failure::io("write the output", error))
    }

    /// Writes a line of data.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.data(format!("{text}\n").as_bytes())
    }

    /// Writes a line that is no data. Nobody can be told if that fails.
    pub(crate) fn note(&self, text: &str) {
        let _ = beside(|| writeln!(io::stderr().lock(), "{text}"));
    }

    /// Writes a quiet line that is no data.
    pub(crate) fn aside(&self, text: &str) {
        self.note(&self.paint_err(Tone::Quiet, text));
    }

    /// Says what went wrong.
    pub(crate) fn error(&self, text: &str) {
        self.note(&format!("{} {}", self.paint_err(Tone::Failed, "error:"), printable(text)));
    }

    /// Says what to do about it.
    pub(crate) fn hint(&self, text: &str) {
        self.note(&format!("  {}", self.paint_err(Tone::Quiet, &printable(text))));
    }

    /// Prints a list in the wanted form.
    pub(crate) fn list<T: Resource>(&self, items: &[T]) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide if items.is_empty() => {
                self.aside(T::EMPTY);
                Ok(())
            }
            Format::Table | Format::Wide => self.table(T::table(items, self.format == Format::Wide)),
            Format::Name => items.iter().try_for_each(|item| self.line(&item.name())),
            Format::Json | Format::Yaml => self.value(&items.iter().map(T::view).collect::<Vec<_>>()),
        }
    }

    /// Prints one thing in the wanted form.
    pub(crate) fn show<T: Resource>(&self, item: &T) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide => self.data(details::render(self, &item.details()).as_bytes()),
            Format::Name => self.line(&item.name()),
            Format::Json | Format::Yaml => self.value(&item.view()),
        }
    }

    /// Prints a table, fitted to the width.
    pub(crate) fn table(&self, table: Table) -> Result<(), Failure> {
        let width = if self.format == Format::Wide { PIPE_WIDTH } else { self.width };
        self.data(table.render(width, self.out_color).as_bytes())
    }

    /// Prints a value as YAML or, in every other form, as JSON.
    pub(crate) fn value<V: Serialize>(&self, value: &V) -> Result<(), Failure> {
        if self.format == Format::Yaml {
            let text =
                serde_yaml::to_string(value).map_err(|error| Failure::io("write YAML", io::Error::other(error)))?;
            return self.data(text.as_bytes());
        }
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::io("write JSON", error.into()))?;
        self.line(&text)
    }

    /// Prints a value on one line of JSON, for streams; YAML documents follow each other by `---`.
    pub(crate) fn stream_value<V: Serialize>(&self, value: &V) -> Result<(), Failure> {
        if self.format == Format::Yaml {
            self.line("---")?;
            return self.value(value);
        }
        let text = serde_json::to_string(value).map_err(|error| Failure::io("write JSON", error.into()))?;
        self.line(&text)
    }
}

fn width(terminal: bool) -> u16 {
    let from_env = || std::env::var("COLUMNS").ok()?.parse::<u16>().ok().filter(|columns| *columns > 0);
    let from_terminal = || terminal.then(|| crossterm::terminal::size().ok()).flatten().map(|(columns, _)| columns);
    from_terminal().filter(|columns| *columns > 0).or_else(from_env).unwrap_or(PIPE_WIDTH).max(MIN_WIDTH)
}

/// Something that is listed and shown.
pub(crate) trait Resource {
    /// Its stable form for programs.
    type View: Serialize;
    /// What an empty list says: the command that fills it.
    const EMPTY: &'static str;
    /// Its form for programs.
    fn view(&self) -> Self::View;
    /// Its id.
    fn name(&self) -> String;
    /// Several of them for people.
    fn table(items: &[Self], wide: bool) -> Table
    where
        Self: Sized;
    /// All of it for people.
    fn details(&self) -> Vec<details::Line>;
}

/// Replaces what could change a terminal, on one line.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Replaces what could change a terminal; lines and tabs stay.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}
