//! Writes one entry. The order of keys and the style of values are those of conductor-loop, byte for byte.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{X_CRC, X_ESC, X_KEY, X_LEN, body, checksum, scalar};
use crate::types::{Link, Parent};

/// What goes into an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) id: &'a str,
    /// RFC 3339, UTC, without trailing zeros.
    pub(crate) time: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) project: &'a str,
    pub(crate) task: &'a str,
    pub(crate) run: &'a str,
    pub(crate) issue: Option<&'a str>,
    pub(crate) parents: &'a [Parent],
    pub(crate) links: &'a [Link],
    pub(crate) meta: &'a BTreeMap<String, String>,
    pub(crate) key: Option<&'a str>,
    pub(crate) body: &'a str,
}

/// Appends the entry to `out`, without the newline that separates it from an earlier one; says how long its header is.
pub(crate) fn entry(out: &mut String, fields: &Fields<'_>) -> usize {
    let (stored, escaped) = body::escape(fields.body);
    let length = decimal(stored.len() as u64);
    let crc = hex8(checksum(fields.id, stored.as_bytes()));
    let mut checks = vec![(X_CRC, crc.as_str()), (X_LEN, length.as_str())];
    if escaped {
        checks.push((X_ESC, "1"));
    }
    if let Some(key) = fields.key {
        checks.push((X_KEY, key));
    }
    checks.sort_unstable_by_key(|(key, _)| *key);
    let begin = out.len();
    header(out, fields, &checks);
    let size = out.len() - begin;
    out.push_str(&stored);
    out.push('\n');
    size
}

/// The header with both its delimiters. `checks` are the `x-` keys, sorted; they are double-quoted whatever they are.
pub(crate) fn header(out: &mut String, fields: &Fields<'_>, checks: &[(&str, &str)]) {
    out.push_str("---\nmsg_id: ");
    scalar::emit(out, fields.id, 4);
    out.push_str("\nts: ");
    out.push_str(fields.time);
    for (name, value) in
        [("type", fields.kind), ("project_id", fields.project), ("task_id", fields.task), ("run_id", fields.run)]
    {
        pair(out, "\n", name, value, 4);
    }
    if let Some(issue) = fields.issue.filter(|issue| !issue.is_empty()) {
        pair(out, "\n", "issue_id", issue, 4);
    }
    if !fields.parents.is_empty() {
        out.push_str("\nparents:");
        for parent in fields.parents {
            pair(out, "\n    - ", "msg_id", &parent.id, 8);
            optional(out, "kind", &parent.kind);
            if !parent.meta.is_empty() {
                out.push_str("\n      meta:");
                for (key, value) in &parent.meta {
                    pair(out, "\n        ", key, value, 12);
                }
            }
        }
    }
    if !fields.links.is_empty() {
        out.push_str("\nlinks:");
        for link in fields.links {
            pair(out, "\n    - ", "url", &link.url, 8);
            optional(out, "label", &link.label);
            optional(out, "kind", &link.kind);
        }
    }
    meta(out, fields.meta, checks);
    out.push_str("\n---\n");
}

fn meta(out: &mut String, meta: &BTreeMap<String, String>, checks: &[(&str, &str)]) {
    if meta.is_empty() && checks.is_empty() {
        return;
    }
    out.push_str("\nmeta:");
    let mut checks = checks.iter().peekable();
    for (key, value) in meta {
        while let Some((check, text)) = checks.next_if(|(check, _)| *check < key.as_str()) {
            quoted(out, check, text);
        }
        pair(out, "\n    ", key, value, 8);
    }
    for (check, text) in checks {
        quoted(out, check, text);
    }
}

fn quoted(out: &mut String, key: &str, value: &str) {
    out.push_str("\n    ");
    out.push_str(key);
    out.push_str(": ");
    scalar::double_quoted(out, value);
}

fn pair(out: &mut String, before: &str, key: &str, value: &str, indent: usize) {
    out.push_str(before);
    scalar::emit(out, key, indent);
    out.push_str(": ");
    scalar::emit(out, value, indent);
}

fn optional(out: &mut String, key: &str, value: &str) {
    if !value.is_empty() {
        pair(out, "\n      ", key, value, 8);
    }
}

fn decimal(number: u64) -> String {
    number.to_string()
}

fn hex8(number: u32) -> String {
    let mut text = String::with_capacity(8);
    write!(text, "{number:08x}").expect("writing to a string does not fail");
    text
}
