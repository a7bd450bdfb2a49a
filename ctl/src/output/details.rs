//! One thing in full: a label and a value a line.

use super::{Screen, Tone, printable};

/// One line; a value with several lines is indented.
#[derive(Debug)]
pub(crate) struct Line {
    label: &'static str,
    value: String,
    tone: Tone,
}

/// A line.
pub(crate) fn line(label: &'static str, value: impl Into<String>) -> Line {
    Line { label, value: value.into(), tone: Tone::Plain }
}

/// A line in a tone.
pub(crate) fn toned(label: &'static str, value: impl Into<String>, tone: Tone) -> Line {
    Line { label, value: value.into(), tone }
}

/// A line; `–` stands for what is empty.
pub(crate) fn or_dash(label: &'static str, value: impl Into<String>) -> Line {
    let value = value.into();
    if value.is_empty() { toned(label, "–", Tone::Quiet) } else { line(label, value) }
}

/// All lines as text.
pub(crate) fn render(screen: &Screen, lines: &[Line]) -> String {
    let width = lines.iter().map(|line| line.label.len()).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for line in lines {
        let label = screen.paint(Tone::Quiet, &format!("{:width$}", line.label));
        let value = printable(&line.value).replace('\n', &format!("\n{:width$}", ""));
        text += &format!("{label}{}\n", screen.paint(line.tone, &value));
    }
    text
}

impl Line {
    /// Label, value and tone.
    pub(crate) fn parts(&self) -> (&'static str, &str, Tone) {
        (self.label, &self.value, self.tone)
    }
}
