//! A scripted agent for `command` agents: it does exactly what its prompt says, the hostile things included.
//!
//! Every prompt line that begins with `@fake ` is a step; arguments of the program are steps too, and come first. The
//! table of steps is in `steps.rs`. It counts its executions in `TASK_FOLDER/fake-attempts`, one line each.

mod hostile;
mod steps;

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

/// Before each step of a prompt.
const MARK: &str = "@fake ";

/// Where the agent is: what it was told by its environment, or by `--task-folder` once that was cleared.
struct Place {
    task: PathBuf,
    run: PathBuf,
    attempt: usize,
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let place = match arguments.first().map(String::as_str) {
        // What is left of a script after `clear-env`.
        Some("--place") => {
            let mut place = arguments.drain(..4).skip(1);
            let mut next = || place.next().expect("--place has three values");
            Place { task: next().into(), run: next().into(), attempt: next().parse().expect("a number") }
        }
        _ => Place::of_environment(),
    };
    if arguments.is_empty() {
        arguments = prompt_steps();
    }
    let code = steps::run(&place, &arguments);
    std::process::exit(code);
}

impl Place {
    fn of_environment() -> Self {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).unwrap_or_else(|| ".".into());
        let (task, run) = (folder("CONDUCTOR_TASK_FOLDER"), folder("CONDUCTOR_RUN_FOLDER"));
        let counter = task.join("fake-attempts");
        if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(&counter) {
            let _ = writeln!(file, "{}", std::env::var("CONDUCTOR_RUN_ID").unwrap_or_default());
        }
        let attempt = std::fs::read_to_string(&counter).map_or(1, |text| text.lines().count());
        Self { task, run, attempt }
    }
}

/// The steps of the prompt on standard input.
fn prompt_steps() -> Vec<String> {
    let mut bytes = Vec::new();
    let _ = std::io::stdin().lock().read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    text.lines().filter_map(|line| line.strip_prefix(MARK)).map(str::to_owned).collect()
}
