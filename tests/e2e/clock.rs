//! A wall clock that jumps: conductord under libfaketime, whose offset the tests change while it runs. Only the wall
//! clock is moved, and only conductord's: shims and agents have the machine's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::{EndReason, LogStream};
use conductor_tests::client::{PROJECT, project_bus};
use conductor_tests::{Client, Config, Daemon, Sandbox, in_sandbox};

use crate::common::{reason, script};

/// Where Debian's package `libfaketime` puts it, by architecture.
const FOLDERS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime"];
/// An hour, which no pause of these tests comes near.
const HOUR: i64 = 3600;
/// Longer than any of it takes, far shorter than the jump.
const SOON: Duration = Duration::from_secs(40);

/// A daemon with a wall clock of its own.
struct Moved<'a> {
    offset: PathBuf,
    daemon: Daemon<'a>,
    client: Client,
}

impl<'a> Moved<'a> {
    fn start(sandbox: &'a Sandbox, seconds: i64) -> Result<Self> {
        let library =
            FOLDERS.iter().map(|folder| Path::new(folder).join("libfaketime.so.1")).find(|path| path.exists());
        let library = library.context("libfaketime is not there; install it: apt-get install libfaketime")?;
        let offset = sandbox.path().join("clock");
        set(&offset, seconds)?;
        let (library, file) = (library.display().to_string(), offset.display().to_string());
        let mut daemon = Daemon::spawn(
            sandbox,
            &[
                ("LD_PRELOAD", &library),
                ("FAKETIME_TIMESTAMP_FILE", &file),
                ("FAKETIME_NO_CACHE", "1"),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                ("NO_FAKE_STAT", "1"),
            ],
        )?;
        daemon.ready()?;
        let client = daemon.client()?;
        Ok(Self { offset, daemon, client })
    }

    fn jump(&self, seconds: i64) -> Result<()> {
        set(&self.offset, seconds)
    }

    /// The daemon's idea of now, from a message that it stamps.
    fn now(&self) -> Result<i64> {
        let id = self.client.post(&project_bus(PROJECT), "FACT", "what time is it?")?;
        let messages = self.client.messages(&project_bus(PROJECT))?;
        let message = messages.into_iter().find(|message| message.msg_id == id).context("posted")?;
        Ok(message.time.context("stamped")?.seconds)
    }
}

fn set(path: &Path, seconds: i64) -> Result<()> {
    // By rename: libfaketime may read at any moment.
    let new = path.with_extension("new");
    std::fs::write(&new, format!("{seconds:+}\n"))?;
    Ok(std::fs::rename(new, path)?)
}

#[test]
fn a_wall_clock_that_jumps_neither_shortens_nor_stretches_a_pause_and_ids_stay_unique() {
    in_sandbox(|sandbox| {
        let config = Config::new(sandbox).set("defaults.restart_delay", "2s");
        std::fs::write(sandbox.config_path(), config.yaml())?;
        let moved = Moved::start(sandbox, 0)?;
        let real = jiff::Timestamp::now().as_second();
        moved.client.create_project(PROJECT, &sandbox.work())?;
        ensure!((moved.now()? - real).abs() < 60, "the offset is none at first");
        let began = Instant::now();
        let task = moved.client.submit(script("jumping", &["until 4 exit 0", "done"]))?;
        let mut seen = BTreeSet::new();
        for (number, offset) in [HOUR, -HOUR, 0].into_iter().enumerate() {
            let attempt = u32::try_from(number)? + 1;
            moved.client.wait_task_until(&task.task_id, "at its next attempt", SOON, |task| task.attempt >= attempt)?;
            moved.jump(offset)?;
            ensure!((moved.now()? - real - offset).abs() < 120, "the clock of the daemon has jumped by {offset} s");
            seen.insert(moved.client.post(&project_bus(PROJECT), "FACT", &format!("at {offset}"))?);
        }
        let ended = moved.client.wait_task_for(&task.task_id, SOON)?;
        ensure!(reason(&ended) == EndReason::Done && ended.attempt == 4, "{ended:#?}");
        // Three pauses of 2 s, whatever the clock said.
        let took = began.elapsed();
        ensure!(took >= Duration::from_secs(6) && took < SOON, "{took:?}");
        let runs = moved.client.task_runs(&ended)?;
        let ids: BTreeSet<&str> = runs.iter().map(|run| run.run_id.as_str()).collect();
        ensure!(ids.len() == 4 && seen.len() == 3, "{ids:?} {seen:?}");
        let attempts: Vec<u32> = runs.iter().map(|run| run.attempt).collect();
        ensure!(attempts.iter().collect::<BTreeSet<_>>().len() == 4, "{attempts:?}");
        // Messages are in the order in which they were posted.
        let bodies: Vec<String> = moved
            .client
            .messages(&project_bus(PROJECT))?
            .into_iter()
            .map(|message| message.body)
            .filter(|body| body.starts_with("at "))
            .collect();
        ensure!(bodies == ["at 3600", "at -3600", "at 0"], "{bodies:?}");
        moved.daemon.kill9()?;
        Ok(())
    });
}

#[test]
fn a_pause_is_over_in_time_also_if_the_clock_was_set_back_while_conductord_was_away() {
    in_sandbox(|sandbox| {
        let config = Config::new(sandbox).set("defaults.restart_delay", "5s");
        std::fs::write(sandbox.config_path(), config.yaml())?;
        let moved = Moved::start(sandbox, HOUR)?;
        moved.client.create_project(PROJECT, &sandbox.work())?;
        let task = moved.client.submit(script("pausing", &["until 2 exit 0", "print again", "done"]))?;
        moved.client.wait_task_until(&task.task_id, "pausing", SOON, |task| task.next_attempt_time.is_some())?;
        moved.daemon.kill9()?;
        // An hour earlier than the pause was written at: it is 5 s at most all the same.
        let moved = Moved::start(sandbox, 0)?;
        let ended = moved.client.wait_task_for(&task.task_id, SOON)?;
        ensure!(reason(&ended) == EndReason::Done, "{ended:#?}");
        // By id: its time is the earlier one, and runs are listed by their times.
        let runs = moved.client.task_runs(&ended)?;
        let run = runs.into_iter().find(|run| run.run_id == ended.last_run_id).context("the last run")?;
        ensure!(moved.client.log(&run, LogStream::Stdout, 0, false)? == b"again\n");
        Ok(())
    });
}
