//! The sources of an answer: each once, numbered, and as Markdown.

use std::fmt::Write as _;

use crate::event::Source;

/// Sources that are kept at most; deep research reads some hundred pages.
const MAX_SOURCES: usize = 1000;
/// Bytes of an address at most; longer ones are no links that anybody follows.
const MAX_URL: usize = 4096;
/// Bytes of a title or a date at most.
const MAX_TITLE: usize = 512;

/// Bytes of the section from which on no more is listed: most of an answer's 1 MiB is for the answer.
const MAX_SECTION: usize = 128 << 10;

/// A source as the vendor names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its number, if the vendor gives one; marks like `[3]` in the answer mean it.
    pub number: Option<u32>,
    /// Its address.
    pub url: String,
    /// Its title.
    pub title: Option<String>,
    /// When it was published.
    pub date: Option<String>,
}

/// The sources so far.
#[derive(Debug, Default)]
pub struct Sources {
    list: Vec<Source>,
}

impl Sources {
    /// Adds those that are new, and gives them with their numbers.
    pub fn add(&mut self, found: impl IntoIterator<Item = Found>) -> Vec<Source> {
        let before = self.list.len();
        for one in found {
            if self.list.len() < MAX_SOURCES
                && let Some(url) = link(&one.url)
                && let Some(n) = self.number(one.number, &url)
            {
                let title = one.title.map(|title| one_line(&title)).filter(|title| !title.is_empty());
                self.list.push(Source { n, url, title, date: one.date.map(|date| one_line(&date)) });
            }
        }
        self.list[before..].to_vec()
    }

    /// The section that goes behind an answer, and how many sources it lists; empty without sources.
    #[must_use]
    pub fn section(&self) -> (String, usize) {
        if self.list.is_empty() {
            return (String::new(), 0);
        }
        let mut sorted: Vec<&Source> = self.list.iter().collect();
        sorted.sort_by_key(|source| source.n);
        let mut text = String::from("\n\n## Sources\n\n");
        for (listed, source) in sorted.into_iter().enumerate() {
            if text.len() > MAX_SECTION {
                let _ = writeln!(text, "\nand {} more", self.list.len() - listed);
                return (text, listed);
            }
            let title = escape(source.title.as_deref().unwrap_or(&source.url));
            let date = source.date.as_deref().filter(|date| !date.is_empty());
            let date = date.map(|date| format!(" ({})", escape(date))).unwrap_or_default();
            // Writing into a string can't fail.
            let _ = writeln!(text, "{}. [{title}]({}){date}", source.n, source.url);
        }
        (text, self.list.len())
    }

    /// The number of a new source; `None`: it is there already. A number that the vendor gives is kept where it is free,
    /// even if the address is known under another one, so that the marks in the answer stay right.
    fn number(&self, wanted: Option<u32>, url: &str) -> Option<u32> {
        let free = |n: u32| self.list.iter().all(|source| source.n != n);
        let known = self.list.iter().any(|source| source.url == url);
        match wanted.filter(|&n| n > 0 && n as usize <= MAX_SOURCES) {
            Some(n) if free(n) => Some(n),
            _ if known => None,
            _ => (1..).find(|&n| free(n)),
        }
    }
}

/// An address that is safe as the target of a Markdown link.
fn link(url: &str) -> Option<String> {
    let url = url.trim();
    let scheme = url.get(..8).unwrap_or(url).to_ascii_lowercase();
    if url.len() > MAX_URL || !(scheme.starts_with("http://") || scheme.starts_with("https://")) {
        return None;
    }
    let mut link = String::with_capacity(url.len());
    for character in url.chars() {
        match character {
            '(' | ')' | '<' | '>' | '\\' | '"' | ' ' | '\u{7f}' | '\0'..='\u{1f}' => {
                let _ = write!(link, "%{:02X}", character as u32);
            }
            other => link.push(other),
        }
    }
    Some(link)
}

/// Without line breaks and control characters, at most [`MAX_TITLE`] bytes.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split(|character: char| character.is_whitespace() || character.is_control()) {
        if line.len() + word.len() > MAX_TITLE {
            break;
        }
        if !line.is_empty() && !word.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// Characters that mean something inside a link's text.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '[' | ']' | '\\' | '`' | '<' | '*') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(number: u32, url: &str, title: &str) -> Found {
        Found { number: (number > 0).then_some(number), url: url.into(), title: Some(title.into()), date: None }
    }

    #[test]
    fn sources_are_numbered_as_the_vendor_does_and_listed_once() {
        let mut sources = Sources::default();
        let first = sources.add([found(2, "https://b.org", "B"), found(1, "https://a.org", "A [x]")]);
        assert_eq!(first.iter().map(|source| source.n).collect::<Vec<_>>(), [2, 1]);
        // The same again, with its number and without; a new one without; a taken number; a known page, new number.
        let again = sources.add([
            found(1, "https://a.org", "A"),
            found(0, "https://b.org", "B"),
            found(0, "https://c.org/x (1)", ""),
            found(1, "https://d.org", "D\n\n# forged"),
            found(9, "https://a.org", "A"),
        ]);
        assert_eq!(again.iter().map(|source| source.n).collect::<Vec<_>>(), [3, 4, 9]);
        assert_eq!(
            sources.section().0,
            "\n\n## Sources\n\n1. [A \\[x\\]](https://a.org)\n2. [B](https://b.org)\n\
             3. [https://c.org/x%20%281%29](https://c.org/x%20%281%29)\n4. [D # forged](https://d.org)\n9. [A](https://a.org)\n"
        );
    }

    #[test]
    fn only_web_addresses_become_links() {
        let mut sources = Sources::default();
        let added = sources
            .add(["javascript:alert(1)", "file:///etc/passwd", "", "é", "HTTPS://ok.org"].map(|url| found(0, url, "")));
        assert_eq!(added.len(), 1);
        assert_eq!(Sources::default().section(), (String::new(), 0));
    }

    #[test]
    fn sources_are_bounded() {
        let mut sources = Sources::default();
        sources.add((0..2 * MAX_SOURCES).map(|n| found(0, &format!("https://{n}.org"), "")));
        assert_eq!(sources.list.len(), MAX_SOURCES);
        sources = Sources::default();
        sources.add((0..MAX_SOURCES).map(|n| found(0, &format!("https://{n}.org/{}", "x".repeat(4000)), "")));
        let (text, listed) = sources.section();
        assert!(text.len() < MAX_SECTION + 16_000 && listed < MAX_SOURCES && text.ends_with("more\n"));
    }
}
