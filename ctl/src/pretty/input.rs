//! What of a tool's input says most: the command, the path, the pattern; never JSON.

use serde_json::Value;

use super::text::one_line;

/// Keys whose values say what a tool does, the most telling first.
const TELLING: [&str; 20] = [
    "command",
    "cmd",
    "script",
    "file_path",
    "notebook_path",
    "absolute_path",
    "pattern",
    "path",
    "dir_path",
    "query",
    "queries",
    "url",
    "skill",
    "subject",
    "description",
    "prompt",
    "message",
    "name",
    "task_id",
    "id",
];
/// Of those, the ones that are paths.
const PATHS: [&str; 5] = ["file_path", "notebook_path", "absolute_path", "path", "dir_path"];
/// Of those, the ones that are commands.
const COMMANDS: [&str; 2] = ["command", "cmd"];
/// Shells that vendors wrap commands in.
const SHELLS: [&str; 3] = ["bash", "sh", "zsh"];

/// What is shown of an input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Telling {
    /// One line, harmless.
    pub(super) text: String,
    /// It is a path: its end says more than its beginning.
    pub(super) is_path: bool,
}

/// The most telling part of an input.
pub(super) fn telling(input: &str) -> Telling {
    let plain = |text: String| Telling { text, is_path: false };
    let fields = match serde_json::from_str::<Value>(input) {
        Ok(Value::Object(fields)) => fields,
        Ok(value) => return plain(words("", &value)),
        // Cut, or no JSON at all.
        Err(_) => return plain(one_line(&input.replace(['{', '}', '[', ']', '"'], " "))),
    };
    let known = TELLING.iter().map(|key| (*key, fields.get(*key).map(|value| words(key, value)).unwrap_or_default()));
    if let Some((key, text)) = known.into_iter().find(|(_, text)| !text.is_empty()) {
        if key != "pattern" {
            return Telling { text, is_path: PATHS.contains(&key) };
        }
        // A search is told by what is looked for, and where.
        let place = ["path", "dir_path", "glob"].iter().find_map(|key| fields.get(*key)?.as_str());
        return plain(text + &place.map(|place| format!("  in {}", one_line(place))).unwrap_or_default());
    }
    if let Some(changes) = fields.get("changes").and_then(Value::as_array) {
        return changed(changes);
    }
    plain(pairs(&fields))
}

/// Files that are changed at once: the first, and how many more.
fn changed(changes: &[Value]) -> Telling {
    let mut paths = changes.iter().filter_map(|change| change.get("path")?.as_str());
    let first = paths.next().map(one_line).unwrap_or_default();
    match paths.count() {
        0 => Telling { text: first, is_path: true },
        more => Telling { text: format!("{first} and {more} more"), is_path: false },
    }
}

fn pairs(fields: &serde_json::Map<String, Value>) -> String {
    let parts = fields.iter().map(|(key, value)| (key, words(key, value))).filter(|(_, words)| !words.is_empty());
    one_line(&parts.map(|(key, words)| format!("{key}={words}")).collect::<Vec<_>>().join(" "))
}

/// A value in words.
fn words(key: &str, value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if COMMANDS.contains(&key) => command(text),
        Value::String(text) => first_line(text),
        Value::Array(items) if COMMANDS.contains(&key) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            match items[..] {
                [shell, option, script] if is_shell(shell) && option.starts_with('-') => first_line(script),
                _ => one_line(&items.join(" ")),
            }
        }
        Value::Array(items) if items.iter().all(Value::is_string) => {
            first_line(&items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) if items.len() == 1 => "1 item".to_owned(),
        Value::Array(items) => format!("{} items", items.len()),
        Value::Object(fields) => pairs(fields),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn is_shell(program: &str) -> bool {
    SHELLS.contains(&program.rsplit('/').next().unwrap_or_default())
}

/// A command without the shell that it was wrapped in.
fn command(text: &str) -> String {
    let inner = text.split_once(' ').filter(|(shell, _)| is_shell(shell)).and_then(|(_, rest)| {
        let (option, script) = rest.split_once(' ')?;
        (option.starts_with('-') && option.ends_with('c')).then_some(script)
    });
    let Some(script) = inner else { return first_line(text) };
    let quoted = |quote: char| {
        let inside = script.strip_prefix(quote)?.strip_suffix(quote)?;
        (!inside.contains(quote)).then_some(inside)
    };
    first_line(quoted('\'').or_else(|| quoted('"')).unwrap_or(script))
}

/// The first line that is not empty, and a sign that there are more.
fn first_line(text: &str) -> String {
    let mut lines = text.lines().map(one_line).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first} …") } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_argument_is_shown_and_never_json() {
        for (input, text) in [
            (r#"{"command":"echo hi","description":"say hi"}"#, "echo hi"),
            (r#"{"command":"/bin/bash -lc 'sleep 33'"}"#, "sleep 33"),
            (r#"{"command":["bash","-lc","cargo test\ncargo fmt"]}"#, "cargo test …"),
            (r#"{"command":"bash -lc 'a'b'"}"#, "'a'b'"),
            (r#"{"file_path":"/src/a.rs","old_string":"x"}"#, "/src/a.rs"),
            (r#"{"pattern":"fn main","path":"src"}"#, "fn main  in src"),
            (r#"{"todos":[{"content":"a"},{"content":"b"}]}"#, "todos=2 items"),
            (r#"{"changes":[{"path":"a","kind":"add"},{"path":"b","kind":"add"}]}"#, "a and 1 more"),
            (r#"{"queries":["a","b"],"urls":[]}"#, "a, b"),
            (r#"{"depth":3,"on":true}"#, "depth=3 on=true"),
            (r#"{"command":"cut off he"#, "command : cut off he"),
            ("null", ""),
            ("", ""),
            ("free text", "free text"),
        ] {
            assert_eq!(telling(input).text, text, "{input}");
        }
        assert!(telling(r#"{"path":"a"}"#).is_path);
    }
}
