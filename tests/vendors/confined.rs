//! What a confined agent may do, and one with full permissions.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::Permissions;
use conductor_tests::client::task_bus;
use conductor_tests::vendors::programs::Program;
use conductor_tests::{Sandbox, in_given_sandbox};

use crate::bench::{Bench, Setup};

/// What every agent must be able to do.
const INSIDE: &str = "echo here > here.txt && echo 'Written by the agent.' > \"$CONDUCTOR_RUN_FOLDER/output.md\" && conductorctl \
                      bus post --type FACT 'from inside' && echo tmp > /tmp/cdt-scratch-$$ && rm /tmp/cdt-scratch-$$";
/// What only one with full permissions can.
const OUTSIDE: &str = "touch \"$HOME/outside\"; echo $? > \"$CONDUCTOR_TASK_FOLDER/code\"";
const DONE: &str = "touch \"$CONDUCTOR_TASK_FOLDER/DONE\"";

pub(crate) fn confined(program: Program) {
    both(program, Permissions::Confined, "confined");
}

pub(crate) fn full(program: Program) {
    both(program, Permissions::Full, "full");
}

/// A sandbox that is not in `/tmp`, which is private for a confined agent.
fn place() -> Result<Sandbox> {
    let cache = PathBuf::from(std::env::var_os("HOME").context("a home folder")?).join(".cache/conductor");
    std::fs::create_dir_all(&cache)?;
    Sandbox::beneath(&cache)
}

fn both(program: Program, permissions: Permissions, name: &str) {
    in_given_sandbox(place().expect("a sandbox"), |sandbox| {
        let setup = Setup { scenario: "script,of=walls".to_owned(), ..Setup::default() };
        let bench = Bench::new(sandbox, program, &setup)?;
        let submitted = bench.submit_as("Go.", &[INSIDE, OUTSIDE, DONE], "Gone.", permissions)?;
        let (task, runs) = bench.done(&submitted)?;
        let report = bench.report(&runs);
        ensure!(runs.len() == 1, "{report}");
        assert_eq!(sandbox.read("work/here.txt"), "here\n", "{report}");
        assert_eq!(bench.output(&runs[0])?, "Written by the agent.", "{report}");
        let messages = bench.client.messages(&task_bus(&task))?;
        ensure!(messages.iter().any(|message| message.r#type == "FACT" && message.body == "from inside"), "{report}");
        let code = std::fs::read_to_string(bench.task_file(&task, "code"))?;
        let (written, full) = (sandbox.path().join("home/outside").exists(), permissions == Permissions::Full);
        ensure!(written == full && (code.trim() == "0") == full, "outside: {written}, exit code {code}\n{report}");
        ensure!(runs[0].permissions() == permissions, "{report}");
        let shown = sandbox.ctl(&["run", "show", &runs[0].run_id])?.ok()?;
        ensure!(shown.lines().any(|line| line.contains("permissions") && line.contains(name)), "{shown}");
        Ok(())
    });
}
