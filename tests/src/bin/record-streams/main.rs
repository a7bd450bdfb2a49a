//! `make record-streams`: runs the vendors' own programs against the fake and refreshes `tests/data/streams`.
//!
//! Ports, paths, ids and times are replaced, so that a second recording differs little from the first. It records only
//! what its table names: what was recorded by hand or constructed stays as it is.

mod scrub;
mod table;

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use conductor_tests::vendors::programs::Session;
use conductor_tests::vendors::{Fake, Options};
use conductor_tests::{procs, wait_for};

use table::{End, Recording};

/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Refreshes the recorded streams.
#[derive(Debug, Parser)]
struct Arguments {
    /// Folder of the streams.
    folder: PathBuf,
    /// Only files whose name begins with this.
    #[arg(default_value = "")]
    prefix: String,
}

fn main() -> Result<()> {
    let Arguments { folder, prefix } = Arguments::parse();
    let fake = Fake::start(Options::default())?;
    for recording in table::TABLE.iter().filter(|recording| recording.name.starts_with(&prefix)) {
        let status = record(&fake, recording, &folder).with_context(|| recording.name.to_owned())?;
        println!("{}.jsonl: {}", recording.name, told(status));
    }
    Ok(())
}

/// The code or signal that a run ended with.
fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    }
}

/// One run, in folders of its own.
fn record(fake: &Fake, recording: &Recording, folder: &Path) -> Result<ExitStatus> {
    let sandbox = tempfile::Builder::new().prefix("cdt-").tempdir_in("/tmp")?;
    let root = sandbox.path();
    for name in ["home", "work", "tmp"] {
        std::fs::create_dir(root.join(name))?;
    }
    let service = fake.url(&format!("{},key={}", recording.scenario, recording.name));
    let mut session = table::SESSION.to_owned();
    if let Some(first) = recording.first {
        let status = end(start(recording, &service, root, first, Session::New(&session))?, recording, root, false)?;
        if !status.success() {
            bail!("the first run: {}", told(status));
        }
        // Codex chooses the id of a session by itself.
        let text = std::fs::read_to_string(root.join("out"))?;
        if let Some((_, rest)) = text.split_once("\"thread_id\":\"") {
            session = rest.split('"').next().unwrap_or_default().to_owned();
        }
    }
    let kind = if recording.first.is_some() { Session::Resume(&session) } else { Session::New(&session) };
    let status = end(start(recording, &service, root, recording.prompt, kind)?, recording, root, true)?;
    for (file, suffix) in [("out", "jsonl"), ("err", "stderr.txt")] {
        let text = String::from_utf8_lossy(&std::fs::read(root.join(file))?).into_owned();
        let path = folder.join(format!("{}.{suffix}", recording.name));
        if file == "err" && !recording.stderr {
            continue;
        }
        std::fs::write(path, scrub::scrub(&text, root, &fake.url("")))?;
    }
    Ok(status)
}

fn start(recording: &Recording, service: &str, root: &Path, prompt: &str, session: Session<'_>) -> Result<Child> {
    let file = root.join("prompt");
    std::fs::write(&file, prompt)?;
    let mut command = recording.program.command(service, &root.join("home"), &file, session)?;
    command
        .args(recording.arguments)
        .current_dir(root.join("work"))
        .env("TMPDIR", root.join("tmp"))
        .stdin(File::open(&file)?);
    command.stdout(File::create(root.join("out"))?).stderr(File::create(root.join("err"))?);
    // A group of its own, so that a signal to the group reaches nothing else.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    Ok(command.spawn()?)
}

/// Waits for the end of a run, which a signal brings about if the recording says so; ends what it left.
fn end(mut child: Child, recording: &Recording, root: &Path, signalled: bool) -> Result<ExitStatus> {
    let mut limit = PATIENCE;
    if signalled {
        match recording.end {
            End::Itself => {}
            End::Killed(after) => limit = after,
            End::Signal(signal) => {
                wait_for("the tool runs", PATIENCE, || root.join("work/started").exists().then_some(()))?;
                let group = i32::try_from(child.id())?;
                // SAFETY: kill takes no pointers; the child is not reaped, so that its group is its own.
                unsafe { libc::kill(-group, signal) };
            }
        }
    }
    let status = match wait_for("the program ends", limit, || child.try_wait().ok().flatten()) {
        Ok(status) => status,
        Err(_) if matches!(recording.end, End::Killed(_)) => {
            child.kill()?;
            child.wait()?
        }
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
    };
    for process in procs::of_folder(root) {
        procs::signal(&process, libc::SIGKILL);
    }
    Ok(status)
}
