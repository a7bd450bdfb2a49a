//! The steps of a script.
//!
//! | step | does |
//! | --- | --- |
//! | `print TEXT`, `stderr TEXT` | writes a line |
//! | `output TEXT` | writes `output.md` |
//! | `done`, `done-folder` | makes `DONE`, a file or a folder |
//! | `touch NAME`, `wait-file NAME`, `append NAME TEXT` | a file of the task folder |
//! | `sleep MS`, `exit CODE`, `crash SIGNAL` | |
//! | `ctl ARG…` | runs `conductorctl`; ends with 90 if that fails |
//! | `post TYPE TEXT` | posts to the task's bus through `conductorctl` |
//! | `child SLUG STEP \| STEP…` | submits a child task with these steps through `conductorctl` |
//! | `sh COMMAND` | runs a shell command; ends with 91 if that fails |
//! | `on-attempt N STEP`, `until N STEP`, `from N STEP` | the step on attempt N, before it, from it on |
//!
//! Hostile steps are in `hostile.rs`. An unknown step ends the program with 99.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use crate::{Place, hostile};

/// How long `wait-file` waits at most, so that a forgotten agent ends by itself.
const FILE_DEADLINE: Duration = Duration::from_secs(120);

/// Runs the steps in order and returns the exit code.
pub(crate) fn run(place: &Place, steps: &[String]) -> i32 {
    for (index, step) in steps.iter().enumerate() {
        if let Some(code) = one(place, step, &steps[index + 1..]) {
            return code;
        }
    }
    0
}

/// One step; `Some` ends the program.
fn one(place: &Place, step: &str, rest: &[String]) -> Option<i32> {
    let (verb, value) = step.split_once(' ').unwrap_or((step, ""));
    match verb {
        "print" => println!("{value}"),
        "stderr" => eprintln!("{value}"),
        "output" => write(place.run.join("output.md"), value),
        "done" => write(place.task.join("DONE"), ""),
        "done-folder" => fs::create_dir(place.task.join("DONE")).expect("making a folder"),
        "touch" => write(place.task.join(value), ""),
        "append" => append(place, value),
        "wait-file" => wait_file(place, value),
        "sleep" => std::thread::sleep(Duration::from_millis(number(value))),
        "exit" => return Some(i32::try_from(number(value)).expect("an exit code")),
        "ctl" => return ctl(&words(value)),
        "post" => {
            let (kind, text) = value.split_once(' ').unwrap_or((value, ""));
            return ctl(&["bus", "post", "--type", kind, text].map(str::to_owned));
        }
        "child" => return child(value),
        "sh" => {
            let status = Command::new("/bin/sh").args(["-c", value]).status().expect("starting a shell");
            return (!status.success()).then_some(91);
        }
        "on-attempt" | "until" | "from" => return conditional(place, verb, value, rest),
        _ => return hostile::one(place, verb, value, rest),
    }
    None
}

fn conditional(place: &Place, verb: &str, value: &str, rest: &[String]) -> Option<i32> {
    let (attempt, step) = value.split_once(' ').expect("a number and a step");
    let wanted: usize = attempt.parse().expect("an attempt");
    let holds = match verb {
        "on-attempt" => place.attempt == wanted,
        "until" => place.attempt < wanted,
        _ => place.attempt >= wanted,
    };
    if holds { one(place, step, rest) } else { None }
}

fn write(path: std::path::PathBuf, text: &str) {
    fs::write(&path, text).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
}

fn append(place: &Place, value: &str) {
    let (name, text) = value.split_once(' ').unwrap_or((value, ""));
    let file = fs::OpenOptions::new().append(true).create(true).open(place.task.join(name));
    writeln!(file.expect("opening a file"), "{text}").expect("appending a line");
}

fn wait_file(place: &Place, name: &str) {
    let start = std::time::Instant::now();
    while !place.task.join(name).exists() && start.elapsed() < FILE_DEADLINE {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A number with an optional `K`, `M` or `G` for powers of 1024.
pub(crate) fn number(text: &str) -> u64 {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let unit = match text.strip_prefix(digits) {
        Some("K") => 1 << 10,
        Some("M") => 1 << 20,
        Some("G") => 1 << 30,
        _ => 1,
    };
    digits.parse::<u64>().unwrap_or_else(|_| panic!("{text:?} is no number")) * unit
}

/// Words at spaces; `'…'` holds spaces together.
fn words(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, part) in text.split('\'').enumerate() {
        if index % 2 == 1 {
            found.push(part.to_owned());
        } else {
            found.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    found
}

fn ctl(arguments: &[String]) -> Option<i32> {
    let output = Command::new("conductorctl").args(arguments).output().expect("starting conductorctl");
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        print!("{text}");
        return None;
    }
    eprintln!("conductorctl {arguments:?}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    Some(90)
}

fn child(value: &str) -> Option<i32> {
    let (slug, steps) = value.split_once(' ').expect("a slug and steps");
    let prompt: Vec<String> = steps.split('|').map(|step| format!("@fake {}", step.trim())).collect();
    ctl(&["task", "submit", "--slug", slug, "--", &prompt.join("\n")].map(str::to_owned))
}
