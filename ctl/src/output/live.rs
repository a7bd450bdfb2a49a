//! Events on the screen: lines that stay, and below them on a terminal one that tells what runs at the moment.
//!
//! That line is replaced in place and always gone before anything else is written; a pipe never sees it.

use std::io::Write as _;

use conductor_proto::v1::RunEvent;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Screen;
use crate::errors::Failure;
use crate::pretty::{Renderer, Style};

/// Back to the first column, and the rest of the line empty: every terminal that is not dumb knows it.
const CLEAR: &str = "\r\x1b[2K";

/// Columns where no terminal says how many.
const PIPE_WIDTH: usize = 120;

/// One run's events on one of the two streams.
pub(crate) struct Live {
    renderer: Renderer,
    to_stderr: bool,
    /// The stream is a terminal that can clear a line.
    moves: bool,
    is_shown: bool,
}

impl Live {
    pub(crate) fn new(screen: &Screen, thoughts: bool, to_stderr: bool) -> Self {
        let terminal = if to_stderr { screen.err_is_terminal } else { screen.out_is_terminal };
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let style = Style { width: width(screen), color: screen.color(to_stderr), thoughts, zone: TimeZone::system() };
        Self { renderer: Renderer::new(style), to_stderr, moves: terminal && !is_dumb, is_shown: false }
    }

    /// Whether there is a line that [`Self::tick`] keeps up to date.
    pub(crate) fn is_shown(&self) -> bool {
        self.is_shown
    }

    /// Shows events.
    pub(crate) fn show(&mut self, screen: &Screen, events: &[RunEvent]) -> Result<(), Failure> {
        self.renderer.resize(width(screen));
        let now = Timestamp::now();
        let text: String = events.iter().map(|event| self.renderer.event(event, now)).collect();
        self.write(screen, &text)?;
        self.tick(screen)
    }

    /// Shows what runs now.
    pub(crate) fn tick(&mut self, screen: &Screen) -> Result<(), Failure> {
        if !self.moves {
            return Ok(());
        }
        match self.renderer.status(Timestamp::now()) {
            Some(status) => {
                let text = format!("{CLEAR}{status}");
                self.is_shown = true;
                self.put(screen, &text)
            }
            None => self.clear(screen),
        }
    }

    /// Takes the line of the moment away, so that something else can be written.
    pub(crate) fn clear(&mut self, screen: &Screen) -> Result<(), Failure> {
        if std::mem::take(&mut self.is_shown) { self.put(screen, CLEAR) } else { Ok(()) }
    }

    /// No event will follow.
    pub(crate) fn finish(&mut self, screen: &Screen) -> Result<(), Failure> {
        let text = self.renderer.finish();
        self.write(screen, &text)?;
        self.clear(screen)
    }

    fn write(&mut self, screen: &Screen, text: &str) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        self.clear(screen)?;
        self.put(screen, text)
    }

    fn put(&self, screen: &Screen, text: &str) -> Result<(), Failure> {
        if self.to_stderr {
            let mut err = std::io::stderr().lock();
            return err
                .write_all(text.as_bytes())
                .and_then(|()| err.flush())
                .map_err(|error| Failure::io("write the output", error));
        }
        screen.data(text.as_bytes())
    }
}

impl Drop for Live {
    /// A reader that is interrupted leaves no line of a moment that is over.
    fn drop(&mut self) {
        if self.is_shown {
            let _ = if self.to_stderr {
                std::io::stderr().lock().write_all(CLEAR.as_bytes())
            } else {
                let mut out = std::io::stdout().lock();
                out.write_all(CLEAR.as_bytes()).and_then(|()| out.flush())
            };
        }
    }
}

/// The width at this moment.
fn width(screen: &Screen) -> usize {
    if screen.out_is_terminal || screen.err_is_terminal {
        let now = crossterm::terminal::size().ok().map(|(columns, _)| columns).filter(|columns| *columns > 0);
        return now.map_or(usize::from(screen.width), usize::from).max(usize::from(super::MIN_WIDTH));
    }
    usize::from(screen.width).min(PIPE_WIDTH)
}
