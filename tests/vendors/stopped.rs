//! A stop while a tool runs, and a resume.

use anyhow::ensure;
use conductor_proto::v1::{EndReason, RunOutcome};
use conductor_tests::vendors::programs::Program;
use conductor_tests::{in_sandbox, wait_until};

use crate::bench::{Bench, PATIENCE, Setup};

/// A tool that lasts at its first start alone, with a child in a session of its own.
const COMMAND: &str =
    "test -e begun && touch \"$CONDUCTOR_TASK_FOLDER/DONE\" || { touch begun; setsid sleep 300 & sleep 301; }";

pub(crate) fn in_the_middle_of_a_tool(program: Program) {
    in_sandbox(|sandbox| {
        let setup = Setup { scenario: "script,of=stop".to_owned(), ..Setup::default() };
        let bench = Bench::new(sandbox, program, &setup)?;
        let submitted = bench.submit("Go.", &[COMMAND], "Gone.")?;
        wait_until("the tool runs", PATIENCE, || sandbox.work().join("begun").exists())?;
        bench.client.stop(&submitted.task_id, 3000)?;
        let task = bench.client.wait_task(&submitted.task_id)?;
        let runs = bench.client.task_runs(&task)?;
        let report = bench.report(&runs);
        ensure!(task.end.as_ref().map(|end| end.reason()) == Some(EndReason::Stopped), "{task:#?}\n{report}");
        ensure!(runs.len() == 1 && runs[0].outcome() == RunOutcome::Stopped, "{report}");
        let session = runs[0].session_id.clone();
        ensure!(session.len() == 36, "its session is known: {session:?}\n{report}");
        sandbox.assert_no_strays()?;

        bench.client.resume(&submitted.task_id, "")?;
        let (_, runs) = bench.done(&submitted)?;
        let report = bench.report(&runs);
        ensure!(runs.len() == 2 && runs[1].outcome() == RunOutcome::Completed, "{report}");
        ensure!(runs[1].session_id == session && runs[1].command_line.contains(&session), "{report}");
        assert_eq!(bench.output(&runs[1])?, "Gone.", "{report}");
        Ok(())
    });
}
