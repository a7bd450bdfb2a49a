//! The configuration that tests give to the daemon, written as a person would.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Sandbox;

/// A `conductor.yaml` in the making. The default: one agent `fake` that reads its script from the prompt, hardly any
/// pause between attempts, and short graces.
#[derive(Clone, Debug)]
pub struct Config {
    agents: BTreeMap<String, String>,
    sections: BTreeMap<String, BTreeMap<String, String>>,
    top: BTreeMap<String, String>,
}

impl Config {
    /// The default of the tests.
    #[must_use]
    pub fn new(sandbox: &Sandbox) -> Self {
        let empty = Self { agents: BTreeMap::new(), sections: BTreeMap::new(), top: BTreeMap::new() };
        empty
            .agent(
                "fake",
                &format!("{{type: command, program: {}}}", sandbox.program("conductor-fake-agent").display()),
            )
            .set("defaults.agent", "fake")
            .set("defaults.permissions", "full")
            .set("defaults.restart_delay", "50ms")
            .set("backoff.base", "50ms")
            .set("backoff.max", "200ms")
            .set("stop.int_grace", "2s")
            .set("stop.term_grace", "1s")
            .set("stop.exit_grace", "200ms")
            .set("log.filter", "debug,h2=info,hyper=info,tower=info")
    }

    /// Adds or replaces an agent; `yaml` is a flow mapping of its keys.
    #[must_use]
    pub fn agent(mut self, name: &str, yaml: &str) -> Self {
        self.agents.insert(name.to_owned(), yaml.to_owned());
        self
    }

    /// Sets a key, `section.key` or `key`, to a YAML value.
    #[must_use]
    pub fn set(mut self, path: &str, value: &str) -> Self {
        match path.split_once('.') {
            Some((section, key)) => {
                self.sections.entry(section.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
            }
            None => {
                self.top.insert(path.to_owned(), value.to_owned());
            }
        }
        self
    }

    /// The text of the file.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut text = String::from("agents:\n");
        for (name, keys) in &self.agents {
            let _ = writeln!(text, "  {name}: {keys}");
        }
        for (section, keys) in &self.sections {
            let _ = writeln!(text, "{section}:");
            for (key, value) in keys {
                let _ = writeln!(text, "  {key}: {value}");
            }
        }
        for (key, value) in &self.top {
            let _ = writeln!(text, "{key}: {value}");
        }
        text
    }
}
