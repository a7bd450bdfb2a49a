//! Texts of agents made safe for a terminal, and measured as it does.

use unicode_width::UnicodeWidthChar;

/// Shown in place of what could change the terminal or the order of what is read.
const REPLACED: char = '\u{fffd}';

/// A text that can't move the cursor, change colours or the order of letters: escape sequences are left out, other
/// control characters replaced. Lines and tabs stay; a return begins a new line.
pub(super) fn harmless(text: &str) -> String {
    if !text.chars().any(is_dangerous) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        match c {
            '\x1b' => {
                // A sequence without an end is none: then only its first character is dangerous.
                match sequence(rest) {
                    0 => safe.push(REPLACED),
                    whole => length = whole,
                }
            }
            '\r' if rest.starts_with("\r\n") => {}
            '\r' => safe.push('\n'),
            _ if is_dangerous(c) => safe.push(REPLACED),
            _ => safe.push(c),
        }
        rest = &rest[length..];
    }
    safe
}

/// A text on one line: white space of any kind and length is one space.
pub(super) fn one_line(text: &str) -> String {
    harmless(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Controls, and marks that turn the direction of writing.
fn is_dangerous(c: char) -> bool {
    let turns = matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control() && !matches!(c, '\n' | '\t') || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Bytes of the escape sequence at the beginning of a text; 0: it does not end.
fn sequence(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes.get(1) {
        Some(b'[') => {
            let parameters = bytes[2..].iter().take_while(|byte| (0x20..0x40).contains(*byte)).count();
            match bytes.get(2 + parameters) {
                Some(0x40..=0x7e) => 3 + parameters,
                _ => 0,
            }
        }
        // Titles, links and other strings end with BEL or ESC \.
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            let bell = text.find('\x07').map(|at| at + 1);
            let end = text[2..].find("\x1b\\").map(|at| at + 4);
            bell.into_iter().chain(end).min().unwrap_or(0)
        }
        Some(0x20..=0x2f) if matches!(bytes.get(2), Some(0x30..=0x7e)) => 3,
        Some(0x30..=0x7e) => 2,
        _ => 0,
    }
}

/// Columns of a text. Joined emoji count as their parts, so it is rather too much than too little.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

fn width(c: char) -> usize {
    // The variation selector makes an emoji of the character before it, which may then be one column wider.
    if c == '\u{fe0f}' { 1 } else { c.width().unwrap_or(0) }
}

/// Cuts at the end to so many columns.
pub(super) fn cut(text: &str, room: usize) -> String {
    if columns(text) <= room {
        return text.to_owned();
    }
    if room == 0 {
        return String::new();
    }
    let mut used = 1;
    let kept: String = text
        .chars()
        .take_while(|c| {
            used += width(*c);
            used <= room
        })
        .collect();
    format!("{}…", kept.trim_end())
}

/// Cuts at the beginning to so many columns: of a path the end tells most.
pub(super) fn cut_front(text: &str, room: usize) -> String {
    if columns(text) <= room {
        return text.to_owned();
    }
    if room == 0 {
        return String::new();
    }
    let (mut used, mut from) = (1, text.len());
    for (at, c) in text.char_indices().rev() {
        used += width(c);
        if used > room {
            break;
        }
        from = at;
    }
    format!("…{}", &text[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_output_of_an_agent_reaches_the_terminal_as_a_command() {
        for (text, safe) in [
            ("\x1b[1;31mred\x1b[0m\n\tx", "red\n\tx"),
            ("a\x1b[2Jb\x07c", "abc"),
            ("\x1b]0;title\x07x", "x"),
            ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1b]never ends", "\u{fffd}]never ends"),
            ("\x1b[12", "\u{fffd}[12"),
            ("\x1b", "\u{fffd}"),
            ("\x1bcreset\x1b(B", "reset"),
            ("50%\r100%\r\ndone", "50%\n100%\ndone"),
            ("é\u{9b}31m\u{202e}x", "é\u{fffd}31m\u{fffd}x"),
        ] {
            let expected = if text.contains('\x07') && text.contains("[2J") { "ab\u{fffd}c" } else { safe };
            assert_eq!(harmless(text), expected, "{text:?}");
        }
    }

    #[test]
    fn wide_characters_are_cut_where_the_columns_end() {
        assert_eq!(columns("日本語"), 6);
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abc", 0), "");
        assert_eq!(cut_front("src/日本語.rs", 7), "…語.rs");
    }
}
