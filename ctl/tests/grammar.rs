//! The grammar: help texts, completion, man pages, and `docs/cli.md`, which is written from it.

mod support;

use std::fmt::Write as _;
use std::path::Path;

use support::{Fake, TASK, finish, out, task};

fn each(command: &clap::Command, path: &str, visit: &mut dyn FnMut(&str, &clap::Command)) {
    visit(path, command);
    for child in command.get_subcommands().filter(|child| child.get_name() != "help") {
        each(child, &format!("{path} {}", child.get_name()), visit);
    }
}

#[test]
fn the_grammar_is_sound() {
    conductorctl::cli::command().debug_assert();
}

#[test]
fn every_command_says_what_it_is_for_and_shows_an_example() {
    each(&conductorctl::cli::command(), "conductorctl", &mut |path, command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty() && !about.contains('\n'), "{path}: {about:?}");
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.contains("Example"), "{path} has no example");
        for line in after.lines().filter(|line| line.trim_start().starts_with("Example: ")) {
            assert!(line.contains("conductorctl"), "{path}: {line}");
        }
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{path}: {} has no help", arg.get_id());
        }
    });
}

/// Every example of a help text parses by the real grammar.
#[test]
fn every_example_parses() {
    let mut examples = Vec::new();
    each(&conductorctl::cli::command(), "", &mut |_, command| {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        examples
            .extend(after.lines().filter_map(|line| line.split_once("conductorctl ").map(|(_, rest)| rest.to_owned())));
    });
    assert!(examples.len() > 40, "{}", examples.len());
    for example in examples {
        let words = words(example.trim_end_matches(')').split(" > ").next().expect("a first part"));
        let line = std::iter::once("conductorctl".to_owned()).chain(words);
        conductorctl::cli::command().try_get_matches_from(line).unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}

/// Splits as a shell does, as far as examples need it.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("one at least").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn reference() -> String {
    let mut text = include_str!("data/cli_head.md").to_owned();
    each(&conductorctl::cli::command(), "conductorctl", &mut |path, command| {
        if command.is_hide_set() {
            return;
        }
        let mut command = command.clone().bin_name(path).term_width(100);
        let level = if path.contains(' ') { "###" } else { "##" };
        let mut help = command.render_help().to_string();
        if let (true, Some(at)) = (path.contains(' '), help.find("\nGlobal options:")) {
            let tail = help[at + 1..].find("\n\n").map(|end| help[at + 1 + end..].to_owned()).unwrap_or_default();
            help.truncate(at);
            help += tail.trim_start_matches('\n');
        }
        let body: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        write!(text, "\n{level} `{path}`\n\n```text\n{}\n```\n", body.trim_end()).expect("text");
    });
    text
}

#[test]
fn docs_cli_md_is_what_the_grammar_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let wanted = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).expect("docs/cli.md can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/cli.md is old: UPDATE_DOCS=1 cargo test -p conductorctl --test grammar");
}

#[test]
fn help_of_the_main_commands_is_as_reviewed() {
    for name in ["", "start", "logs", "stop", "bus post"] {
        let args: Vec<&str> = name.split_whitespace().chain(["--help"]).collect();
        let home = tempfile::tempdir().expect("a folder");
        let mut command = support::plain_ctl(home.path(), &args);
        command.env("COLUMNS", "100");
        insta::assert_snapshot!(format!("help_{}", name.replace(' ', "_")), out(&finish(command)));
    }
}

#[test]
fn completion_scripts_ask_this_program() {
    let home = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish"] {
        let text = out(&finish(support::plain_ctl(home.path(), &["completion", shell])));
        assert!(text.contains("COMPLETE") && text.contains("conductorctl"), "{shell}: {text}");
    }
}

fn completed(mut command: std::process::Command, index: usize) -> String {
    command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index.to_string()).env("_CLAP_IFS", "\n");
    out(&finish(command))
}

#[test]
fn names_are_completed_through_the_daemon_and_quietly_not_without_it() {
    let fake = Fake::start();
    fake.with(|world| world.put_task(task(conductor_proto::v1::TaskPhase::Running)));
    let line = ["--", "conductorctl", "logs", "task-2026"];
    assert!(completed(fake.ctl(&line), 2).contains(TASK));
    let home = tempfile::tempdir().expect("a folder");
    assert_eq!(completed(support::plain_ctl(home.path(), &line), 2), "");
    let words = completed(support::plain_ctl(home.path(), &["--", "conductorctl", "ta"]), 1);
    assert!(words.contains("task"), "{words}");
}

#[test]
fn man_pages_are_written_for_every_command() {
    let home = tempfile::tempdir().expect("a folder");
    let output = finish(support::plain_ctl(home.path(), &["man", "pages"]));
    assert_eq!(output.status.code(), Some(0));
    let page = std::fs::read_to_string(home.path().join("pages/conductorctl-task-submit.1")).expect("a page");
    assert!(page.contains(".TH"), "{page}");
}
