//! Checks that a person follows: each is printed with its result, and one that fails makes the whole fail.

use std::fmt::Display;
use std::io::IsTerminal as _;

/// The checks of one demonstration.
#[derive(Debug)]
pub struct Checks {
    passed: usize,
    failed: Vec<String>,
    color: bool,
}

impl Default for Checks {
    fn default() -> Self {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { passed: 0, failed: Vec::new(), color }
    }
}

impl Checks {
    /// Prints the title of a scene.
    pub fn scene(&self, title: &str) {
        let (bold, plain) = if self.color { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        println!("\n{bold}== {title}{plain}");
    }

    /// Prints a line of explanation.
    pub fn note(&self, text: impl Display) {
        println!("   {text}");
    }

    /// Checks that something holds.
    pub fn holds(&mut self, what: &str, condition: bool) {
        self.judge(what, condition, "it does not hold");
    }

    /// Checks that `found` is `expected`.
    pub fn equal<T: PartialEq + std::fmt::Debug + ?Sized>(&mut self, what: &str, found: &T, expected: &T) {
        self.judge(&format!("{what}: {found:?}"), found == expected, &format!("expected {expected:?}"));
    }

    fn judge(&mut self, what: &str, passed: bool, problem: &str) {
        let (green, red, plain) = if self.color { ("\x1b[32m", "\x1b[31m", "\x1b[0m") } else { ("", "", "") };
        if passed {
            self.passed += 1;
            println!("   {green}ok{plain}   {what}");
        } else {
            self.failed.push(what.to_owned());
            println!("   {red}FAIL{plain} {what}, {problem}");
        }
    }

    /// Prints the sum; `true` if every check passed.
    #[must_use]
    pub fn finish(&self) -> bool {
        println!("\n{} checks passed, {} failed", self.passed, self.failed.len());
        for what in &self.failed {
            println!("   failed: {what}");
        }
        self.failed.is_empty()
    }
}
