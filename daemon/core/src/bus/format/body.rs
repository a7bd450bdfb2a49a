//! Bodies that no line-based reader takes for the begin of another entry.
//!
//! A line that matches `^ *---\r*$` is stored with one more leading space; reading removes one space from each line
//! that matches `^ +---\r*$`. Whether that was done is in the header (`x-esc`), so other bodies stay as they are.

use std::borrow::Cow;

/// Whether `line` (without its newline) is `---` after spaces, with any number of carriage returns behind.
fn is_rule(line: &[u8]) -> bool {
    let spaces = line.iter().take_while(|byte| **byte == b' ').count();
    let rest = &line[spaces..];
    rest.starts_with(b"---") && rest[3..].iter().all(|byte| *byte == b'\r')
}

/// Whether any line of `body` has to be indented.
pub(crate) fn needs_escape(body: &[u8]) -> bool {
    // Most bodies have no three dashes at all, and `windows` over three bytes is vectorised.
    body.windows(3).any(|three| three == b"---") && body.split(|byte| *byte == b'\n').any(is_rule)
}

/// The body as it is stored, and whether it was changed.
pub(crate) fn escape(body: &str) -> (Cow<'_, str>, bool) {
    if !needs_escape(body.as_bytes()) {
        return (Cow::Borrowed(body), false);
    }
    let mut stored = String::with_capacity(body.len() + 16);
    for line in body.split_inclusive('\n') {
        if is_rule(line.strip_suffix('\n').unwrap_or(line).as_bytes()) {
            stored.push(' ');
        }
        stored.push_str(line);
    }
    (Cow::Owned(stored), true)
}

/// The reverse of [`escape`], for a body whose header says that it was escaped.
pub(crate) fn unescape(stored: &str) -> String {
    let mut body = String::with_capacity(stored.len());
    for line in stored.split_inclusive('\n') {
        let content = line.strip_suffix('\n').unwrap_or(line);
        let escaped = content.starts_with(' ') && is_rule(content.as_bytes());
        body.push_str(if escaped { &line[1..] } else { line });
    }
    body
}
