//! YAML scalars in the style of Go's yaml.v3, which wrote the files that we continue: plain where it stays a string,
//! double-quoted where plain would be a number, a boolean, a null or a time, single-quoted where plain would be
//! structure, `|-` for several lines.
//!
//! One difference: what ends in a newline, or begins with white space and has several lines, is double-quoted, so that
//! no header ends in a blank line (the scanner relies on it).

use std::fmt::Write as _;

/// Appends `text` as a scalar. `indent` is that of the lines of a literal block.
pub(crate) fn emit(out: &mut String, text: &str, indent: usize) {
    if text.contains('\n') {
        if literal_allowed(text) { literal(out, text, indent) } else { double_quoted(out, text) }
    } else if text.is_empty() || resolves_to_other(text) || has_special(text) || text.contains('\t') {
        double_quoted(out, text);
    } else if plain_allowed(text) {
        out.push_str(text);
    } else {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    }
}

/// Appends `text` in double quotes, whatever it is.
pub(crate) fn double_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0' => out.push_str("\\0"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\x1b' => out.push_str("\\e"),
            '\u{85}' => out.push_str("\\N"),
            '\u{a0}' => out.push_str("\\_"),
            '\u{2028}' => out.push_str("\\L"),
            '\u{2029}' => out.push_str("\\P"),
            c if printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let written = match code {
                    0..=0xff => write!(out, "\\x{code:02X}"),
                    0x100..=0xffff => write!(out, "\\u{code:04X}"),
                    _ => write!(out, "\\U{code:08X}"),
                };
                written.expect("writing to a string does not fail");
            }
        }
    }
    out.push('"');
}

fn literal_allowed(text: &str) -> bool {
    !text.ends_with(['\n', ' '])
        && !text.starts_with([' ', '\n', '\t'])
        && !text.contains(" \n")
        && text.chars().all(|c| c == '\n' || c == '\t' || !special(c))
}

fn literal(out: &mut String, text: &str, indent: usize) {
    out.push_str("|-");
    for line in text.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str(line);
        }
    }
}

/// What yaml.v3 prints as it is, beyond what has an escape of its own.
fn printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a1}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

fn special(c: char) -> bool {
    !printable(c) || matches!(c, '\u{2028}' | '\u{2029}')
}

fn has_special(text: &str) -> bool {
    text.chars().any(special)
}

/// libyaml's analysis for a block context; `text` is one printable, non-empty line.
fn plain_allowed(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes[0] == b' ' || bytes[bytes.len() - 1] == b' ' || text.starts_with("---") || text.starts_with("...") {
        return false;
    }
    let spaced = |index: usize| bytes.get(index).is_none_or(|byte| *byte == b' ');
    match bytes[0] {
        b'#' | b',' | b'[' | b']' | b'{' | b'}' | b'&' | b'*' | b'!' | b'|' | b'>' | b'\'' | b'"' | b'%' | b'@'
        | b'`' => return false,
        b'?' | b':' | b'-' if spaced(1) => return false,
        _ => {}
    }
    (1..bytes.len()).all(|index| match bytes[index] {
        b':' => !spaced(index + 1),
        b'#' => bytes[index - 1] != b' ',
        _ => true,
    })
}

/// Whether a plain scalar with this text would be read as something else than a string, by YAML 1.1 or 1.2.
fn resolves_to_other(text: &str) -> bool {
    const WORDS: &[&str] = &[
        "~", "<<", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", "y", "Y", "yes", "Yes",
        "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF", ".nan", ".NaN", ".NAN", ".inf",
        ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF",
    ];
    match text.as_bytes()[0] {
        b'0'..=b'9' | b'+' | b'-' | b'.' => {
            WORDS.contains(&text) || is_integer(text) || is_float(text) || is_base60(text) || is_time(text)
        }
        _ => WORDS.contains(&text),
    }
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

fn is_integer(text: &str) -> bool {
    let digits = unsigned(text).replace('_', "");
    let all = |rest: &str, radix: u32| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix));
    match digits.get(..2) {
        Some("0x" | "0X") => all(&digits[2..], 16),
        Some("0o" | "0O") => all(&digits[2..], 8),
        Some("0b" | "0B") => all(&digits[2..], 2),
        _ => all(&digits, 10),
    }
}

fn is_float(text: &str) -> bool {
    let text = unsigned(text).replace('_', "");
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(unsigned(&text[at + 1..]))),
        None => (text.as_str(), None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|part| !part.is_empty() && digits(part))
}

/// YAML 1.1 sexagesimals such as `12:30`.
fn is_base60(text: &str) -> bool {
    let text = unsigned(text);
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or("");
    let mut count = 0;
    let rest = parts.all(|part| {
        count += 1;
        let whole = part.split('.').next().unwrap_or("");
        !whole.is_empty() && whole.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'_')
    });
    count > 0 && rest && !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
}

/// Anything that begins as a date, `2006-1-2`, and goes on like a time: more than YAML's timestamps, never less.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || !bytes[..4].iter().all(u8::is_ascii_digit) || bytes[4] != b'-' {
        return false;
    }
    let mut date = text[5..].splitn(2, '-');
    let month = date.next().unwrap_or("");
    let Some(rest) = date.next() else { return false };
    let day = rest.bytes().take_while(u8::is_ascii_digit).count();
    let tail = &rest[day..];
    (1..=2).contains(&month.len())
        && month.bytes().all(|byte| byte.is_ascii_digit())
        && (1..=2).contains(&day)
        && (tail.is_empty()
            || (tail.starts_with(['T', 't', ' '])
                && tail[1..].bytes().all(|b| b.is_ascii_digit() || b":.+-Zz ".contains(&b))))
}
