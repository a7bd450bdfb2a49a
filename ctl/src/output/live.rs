//! Events on the screen: lines that stay, and below them on a terminal one that tells what runs at the moment.
//!
//! That line is replaced in place and always gone before anything else is written; a pipe never sees it.

use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};

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

/// Where a line of the moment is shown, of which a program has one at most: [`NOWHERE`], [`OUT`] or [`ERR`].
static SHOWN: AtomicU8 = AtomicU8::new(NOWHERE);
const NOWHERE: u8 = 0;
const OUT: u8 = 1;
const ERR: u8 = 2;

/// Takes that line away before something else is written to the terminal; the next second brings it back.
pub(crate) fn make_way() {
    // If it can't be written, nor can what follows, which says so.
    let _ = match SHOWN.swap(NOWHERE, Ordering::Relaxed) {
        OUT => {
            let mut out = std::io::stdout().lock();
            out.write_all(CLEAR.as_bytes()).and_then(|()| out.flush())
        }
        ERR => std::io::stderr().lock().write_all(CLEAR.as_bytes()),
        _ => Ok(()),
    };
}

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
        let style = Style { width: width(screen), color: screen.color(to_stderr), thoughts, zone: TimeZone::system() };
        Self { renderer: Renderer::new(style), to_stderr, moves: terminal && !screen.is_dumb, is_shown: false }
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
                SHOWN.store(if self.to_stderr { ERR } else { OUT }, Ordering::Relaxed);
                self.put(screen, &text)
            }
            None => {
                self.clear();
                Ok(())
            }
        }
    }

    /// Takes the line of the moment away, so that something else can be written.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            make_way();
        }
    }

    /// No event will follow.
    pub(crate) fn finish(&mut self, screen: &Screen) -> Result<(), Failure> {
        let text = self.renderer.finish();
        self.clear();
        self.write(screen, &text)
    }

    fn write(&mut self, screen: &Screen, text: &str) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        self.clear();
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
        self.clear();
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
