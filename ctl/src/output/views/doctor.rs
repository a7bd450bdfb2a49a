//! What `doctor` found: lines for people, and one flat list for programs.

use conductor_proto::v1::{Finding, FindingLevel};
use serde::Serialize;

use super::super::table::chars;
use super::super::{Screen, Tone, plain};

/// Blanks between a subject and what is said of it.
const GAP: usize = 2;
/// Columns before a subject: two blanks, the mark, a blank.
const INDENT: usize = 4;
/// A text is not squeezed below this, however narrow the screen is.
const MIN_TEXT: usize = 24;

/// What a section is about.
pub(crate) enum About {
    /// Conductor and its machine.
    Conductor,
    /// An agent that can be looked at.
    Agent { name: String, is_default: bool },
    /// Agents that are not here; their names are the subjects.
    Others,
    /// Variables that agents won't see; their names are the subjects.
    Shell,
    /// The current folder.
    Folder(String),
}

/// Findings that belong together.
pub(crate) struct Section {
    pub(crate) about: About,
    pub(crate) findings: Vec<Finding>,
}

/// All findings.
pub(crate) struct Report {
    pub(crate) sections: Vec<Section>,
}

/// The report for programs.
#[derive(Serialize)]
pub(crate) struct ReportView {
    ok: bool,
    problems: usize,
    notices: usize,
    findings: Vec<FindingView>,
}

#[derive(Serialize)]
struct FindingView {
    about: &'static str,
    agent: Option<String>,
    level: &'static str,
    subject: String,
    text: String,
    fix: String,
}

impl Report {
    /// How many findings are of a level.
    pub(crate) fn count(&self, level: FindingLevel) -> usize {
        self.findings().filter(|(_, finding)| finding.level() == level).count()
    }

    fn findings(&self) -> impl Iterator<Item = (&About, &Finding)> {
        self.sections.iter().flat_map(|section| section.findings.iter().map(|finding| (&section.about, finding)))
    }

    /// `subject` or `agent/subject` of each problem.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        self.findings().filter(|(_, finding)| finding.level() == FindingLevel::Problem).map(|(about, finding)| {
            match about {
                About::Agent { name, .. } => format!("{name}/{}", finding.subject),
                _ => finding.subject.clone(),
            }
        })
    }

    /// Its form for programs.
    pub(crate) fn view(&self) -> ReportView {
        ReportView {
            ok: self.count(FindingLevel::Problem) == 0,
            problems: self.count(FindingLevel::Problem),
            notices: self.count(FindingLevel::Notice),
            findings: self
                .findings()
                .map(|(about, finding)| FindingView {
                    about: about.word(),
                    agent: match about {
                        About::Agent { name, .. } => Some(name.clone()),
                        About::Others => Some(finding.subject.clone()),
                        _ => None,
                    },
                    level: level_word(finding.level()),
                    subject: finding.subject.clone(),
                    text: finding.text.clone(),
                    fix: finding.fix.clone(),
                })
                .collect(),
        }
    }

    /// Its form for people.
    pub(crate) fn render(&self, screen: &Screen) -> String {
        let mut text = String::new();
        for section in &self.sections {
            text += &format!("{}\n", section.about.heading(screen));
            text += &match section.about {
                About::Shell => variables(screen, &section.findings),
                _ => lines(screen, &section.findings),
            };
            text.push('\n');
        }
        text + &self.sum(screen)
    }

    fn sum(&self, screen: &Screen) -> String {
        let of = |count: usize, one: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {one}s"),
        };
        let notices = of(self.count(FindingLevel::Notice), "notice");
        match self.count(FindingLevel::Problem) {
            0 => format!("{}, {notices}\n", screen.paint(Tone::Good, "no problems")),
            count => format!("{}, {notices}\n", screen.paint(Tone::Failed, &of(count, "problem"))),
        }
    }
}

impl About {
    fn word(&self) -> &'static str {
        match self {
            Self::Conductor => "conductor",
            Self::Agent { .. } | Self::Others => "agent",
            Self::Shell => "shell",
            Self::Folder(_) => "folder",
        }
    }

    fn heading(&self, screen: &Screen) -> String {
        let strong = |text: &str| screen.paint(Tone::Strong, &plain(text));
        match self {
            Self::Conductor => strong("conductor"),
            Self::Agent { name, is_default: false } => strong(name),
            Self::Agent { name, is_default: true } => {
                format!("{} {}", strong(name), screen.paint(Tone::Quiet, "(default)"))
            }
            Self::Others => strong("agents that can't be used here"),
            Self::Shell => strong("variables of this shell that agents won't see"),
            Self::Folder(path) => format!("{} {}", strong("this folder"), screen.paint(Tone::Quiet, &plain(path))),
        }
    }
}

fn level_word(level: FindingLevel) -> &'static str {
    match level {
        FindingLevel::Good => "good",
        FindingLevel::Problem => "problem",
        FindingLevel::Notice | FindingLevel::Unspecified => "notice",
    }
}

fn mark(screen: &Screen, level: FindingLevel) -> String {
    match level {
        FindingLevel::Good => screen.paint(Tone::Good, "✓"),
        FindingLevel::Problem => screen.paint(Tone::Failed, "✗"),
        FindingLevel::Notice | FindingLevel::Unspecified => screen.paint(Tone::Waiting, "!"),
    }
}

/// One line for each finding, and one for what to do.
fn lines(screen: &Screen, findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| chars(&finding.subject)).max().unwrap_or(0);
    let left = INDENT + width + GAP;
    let room = usize::from(screen.width).saturating_sub(left).max(MIN_TEXT);
    let mut text = String::new();
    for finding in findings {
        let subject = plain(&finding.subject);
        let words = wrap(&plain(&finding.text), room);
        let mark = mark(screen, finding.level());
        let blanks = " ".repeat(width - chars(&subject).min(width) + GAP);
        text += &format!("  {mark} {}{blanks}", screen.paint(Tone::Quiet, &subject));
        text += &format!("{}\n", words.join(&format!("\n{:left$}", "")));
        if !finding.fix.is_empty() {
            let words = wrap(&plain(&finding.fix), room.saturating_sub(2));
            text += &format!("{:left$}→ {}\n", "", words.join(&format!("\n{:left$}  ", "")));
        }
    }
    text
}

/// The names of which the same is to be said, and then that.
fn variables(screen: &Screen, findings: &[Finding]) -> String {
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for finding in findings {
        let name = plain(&finding.subject);
        match groups.iter_mut().find(|(text, _)| *text == finding.text) {
            Some((_, names)) => names.push(name),
            None => groups.push((&finding.text, vec![name])),
        }
    }
    let room = usize::from(screen.width).saturating_sub(INDENT).max(MIN_TEXT);
    let break_line = format!("\n{:INDENT$}", "");
    let mut text = String::new();
    for (said, names) in groups {
        let names = wrap(&names.join(" "), room).join(&break_line);
        let said = wrap(&plain(said), room).join(&break_line);
        text += &format!(
            "  {} {names}\n{:INDENT$}{}\n",
            mark(screen, FindingLevel::Notice),
            "",
            screen.paint(Tone::Quiet, &said)
        );
    }
    text
}

/// Lines of at most `width` columns. A word that is longer, such as a path, is left whole, so that it can be copied.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            line.push_str(word);
        } else if chars(line) + 1 + chars(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_wrapped_and_a_long_one_stays_whole() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a /very/long/path b", 6), ["a", "/very/long/path", "b"]);
        assert_eq!(wrap("", 6), [""]);
    }
}
