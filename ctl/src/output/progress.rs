//! A line on a terminal that moves while a command waits. It is on standard error, gone at the end, and never in a pipe.
//!
//! A terminal that can't move its cursor (`TERM=dumb`) gets the text once, as a line of its own.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Screen, Tone};

/// Time between two frames: quick enough to be alive, slow enough for a line over the sea.
const FRAME: Duration = Duration::from_millis(120);
/// Sign, time so far, text; the text is cut at the terminal's edge, since a line that wraps can't be cleared.
const TEMPLATE: &str = "{spinner} {elapsed:>3} {wide_msg}";
/// The frames; the last one would be that of the end, which is cleared.
const FRAMES: &str = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ";

/// The line that is shown now: whatever prints meanwhile has to get it out of the way.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// The line. Dropped, it is cleared.
pub(crate) struct Progress(Option<ProgressBar>);

/// Prints something else, with the line out of the way.
pub(crate) fn beside<T>(print: impl FnOnce() -> T) -> T {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

impl Screen {
    /// Shows what is waited for, where somebody sees it.
    pub(crate) fn progress(&self, text: &str) -> Progress {
        if !self.err_is_terminal {
            return Progress(None);
        }
        let text = self.paint_err(Tone::Quiet, text);
        if self.is_dumb {
            self.note(&text);
            return Progress(None);
        }
        let style = ProgressStyle::with_template(TEMPLATE).expect("the template is valid").tick_chars(FRAMES);
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
        bar.set_message(text);
        bar.enable_steady_tick(FRAME);
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Progress(Some(bar))
    }
}

impl Progress {
    /// Replaces the text.
    pub(crate) fn set(&self, screen: &Screen, text: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(screen.paint_err(Tone::Quiet, text));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            SHOWN.lock().unwrap_or_else(PoisonError::into_inner).take();
            bar.finish_and_clear();
        }
    }
}
