//! Looking for words that a program is known to print. Knows no vendor.

use crate::agents::event::head;

/// Bytes of a text that are looked at.
const LOOKED_AT: usize = 8 << 10;

/// A text made comparable: lower case, straight apostrophes.
#[derive(Debug)]
pub(super) struct Words(String);

impl Words {
    pub(super) fn of(text: &str) -> Self {
        Self(head(text, LOOKED_AT).to_lowercase().replace(['’', '‘'], "'"))
    }

    /// The last part of a long text.
    pub(super) fn of_end(text: &str) -> Self {
        let mut from = text.len().saturating_sub(LOOKED_AT);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        Self::of(&text[from..])
    }

    /// Whether one of these is in it; all are lower case.
    pub(super) fn any(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.0.contains(phrase))
    }

    /// Whether it begins with one of these.
    pub(super) fn begin(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.0.trim_start().starts_with(phrase))
    }

    /// The HTTP status behind one of these: `last status: 429`.
    pub(super) fn status(&self, before: &[&str]) -> Option<u16> {
        before.iter().find_map(|phrase| {
            let (_, rest) = self.0.rsplit_once(phrase)?;
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse().ok().filter(|code| (400..600).contains(code))
        })
    }
}

/// Words of all vendors that no waiting helps against: an administrator said no.
pub(super) const FORBIDDEN: [&str; 4] = [
    "disabled by your admin",
    "disabled by your organization",
    "organization has disabled",
    "organization has been disabled",
];

/// Words of all vendors for a limit of money that somebody set.
pub(super) const SPEND: [&str; 7] = [
    "spend limit",
    "spending limit",
    "spend cap",
    "spending cap",
    "spend_limit",
    "shared budget",
    "individual usage limit",
];
