//! Bus files as a foreign program sees them: entries by their separator lines, nothing of our own reader's code.

use std::collections::BTreeSet;
use std::path::Path;

/// One entry of a bus file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value of `msg_id`.
    pub id: String,
    /// The value of `type`.
    pub kind: String,
    /// The key of a state change, `x-key`.
    pub key: Option<String>,
    /// The text between header and next entry, without its last newline.
    pub body: String,
}

/// The entries of a bus file in their order; nothing if there is no file.
#[must_use]
pub fn read(path: &Path) -> Vec<Entry> {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let mut entries = Vec::new();
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        if line.trim_end() != "---" {
            continue;
        }
        let header: Vec<&str> = lines.by_ref().take_while(|line| line.trim_end() != "---").collect();
        let mut body = String::new();
        while let Some(line) = lines.next_if(|line| line.trim_end() != "---") {
            body.push_str(line);
        }
        let value = |name: &str| {
            let found = header.iter().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'));
            found.map(|value| value.trim().trim_matches('"').trim_matches('\'').to_owned())
        };
        entries.push(Entry {
            id: value("msg_id").unwrap_or_default(),
            kind: value("type").unwrap_or_default(),
            key: value("x-key"),
            body: body.trim_end_matches('\n').to_owned(),
        });
    }
    entries
}

/// Keys of state changes that occur more than once: there must be none.
#[must_use]
pub fn repeated_keys(entries: &[Entry]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    entries.iter().filter_map(|entry| entry.key.clone()).filter(|key| !seen.insert(key.clone())).collect()
}

/// Ids that occur more than once: there must be none.
#[must_use]
pub fn repeated_ids(entries: &[Entry]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    entries.iter().map(|entry| entry.id.clone()).filter(|id| !seen.insert(id.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_with_their_keys_and_bodies() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bus.md");
        let text = "---\nmsg_id: MSG-1\ntype: FACT\nmeta:\n    x-key: \"a\"\n---\none\ntwo\n\n---\nmsg_id: MSG-2\ntype: INFO\nmeta:\n    x-key: \"a\"\n---\n\n";
        std::fs::write(&path, text).unwrap();
        let entries = read(&path);
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].id.as_str(), entries[0].body.as_str()), ("MSG-1", "one\ntwo"));
        assert_eq!(repeated_keys(&entries), ["a"]);
        assert!(repeated_ids(&entries).is_empty());
    }
}
