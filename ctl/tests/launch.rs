//! Starting a daemon that does not answer yet, with a script in place of conductord.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};

use support::{Fake, TASK, agent, err, finish, out};

/// One test at a time: a fork of one, while another still writes its program, makes that program "busy".
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn script(folder: &Path, text: &str) {
    let path = folder.join("conductord");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
}

/// A copy of the program beside what is in `bin`: beside the original there may be the real conductord.
fn ctl(home: &Path, bin: &Path, args: &[&str]) -> std::process::Command {
    let own = bin.join("conductorctl");
    std::fs::copy(env!("CARGO_BIN_EXE_conductorctl"), &own).expect("a copy");
    let mut command = std::process::Command::new(own);
    command.args(args).env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").current_dir(home);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn start_starts_the_daemon_in_a_session_of_its_own_and_says_so() {
    let _alone = alone();
    let mut fake = Fake::start();
    fake.with(|world| world.agents = vec![agent("claude", true)]);
    let bin = tempfile::tempdir().expect("a folder");
    // It makes the real socket appear by a signal file: the fake daemon then begins to listen.
    let pids = bin.path().join("pids");
    script(
        bin.path(),
        &format!("echo hello from conductord $*; echo $$ $(ps -o sid= -p $$) > {}; exec sleep 60", pids.display()),
    );
    fake.kill();
    let socket = fake.socket();
    let command =
        ctl(fake.folder.path(), bin.path(), &["start", "-d", "fix it", "--socket", socket.to_str().expect("text")]);
    let child = command_spawn(command);
    support::until("conductord", || std::fs::read_to_string(&pids).is_ok_and(|text| text.ends_with('\n')));
    fake.serve();
    let output = child.wait_with_output().expect("it ends");
    let pids = std::fs::read_to_string(&pids).expect("pids");
    let ids: Vec<i32> = pids.split_whitespace().map(|id| id.parse().expect("a number")).collect();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(ids[0]), nix::sys::signal::Signal::SIGKILL).expect("it lives on");
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), format!("{TASK}\n"));
    assert!(err(&output).contains("started") && err(&output).contains("in the background"), "{}", err(&output));
    assert_eq!(ids[0], *ids.last().expect("a session"), "it leads its own session");
    let log = fake.folder.path().join(".local/state/conductor/conductord.log");
    let text = std::fs::read_to_string(log).expect("a log");
    assert!(text.contains(&format!("hello from conductord --socket {}", socket.display())), "{text}");
}

fn command_spawn(mut command: std::process::Command) -> std::process::Child {
    command.spawn().expect("the program runs")
}

#[test]
fn a_daemon_that_fails_is_shown_with_its_last_lines() {
    let _alone = alone();
    let home = tempfile::tempdir().expect("a folder");
    script(home.path(), "echo conductor.yaml:3:1: unknown key >&2; exit 78");
    let output = finish(ctl(home.path(), home.path(), &["start", "fix it"]));
    assert_eq!(output.status.code(), Some(5));
    let text = err(&output);
    assert!(text.contains("exit status: 78") && text.contains("conductor.yaml:3:1: unknown key"), "{text}");
}

#[test]
fn a_missing_daemon_is_named() {
    let _alone = alone();
    let home = tempfile::tempdir().expect("a folder");
    let mut command = ctl(home.path(), home.path(), &["daemon", "start"]);
    command.env("PATH", "/nonexistent");
    let output = finish(command);
    assert_eq!(output.status.code(), Some(5));
    assert!(err(&output).contains("neither beside"), "{}", err(&output));
}

#[test]
fn a_daemon_that_is_only_on_the_path_is_found() {
    let _alone = alone();
    let home = tempfile::tempdir().expect("a folder");
    let elsewhere = tempfile::tempdir().expect("a folder");
    script(elsewhere.path(), "echo found on the path; exit 3");
    let mut command = ctl(home.path(), home.path(), &["daemon", "start"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", elsewhere.path().display()));
    let output = finish(command);
    assert_eq!(output.status.code(), Some(5));
    assert!(err(&output).contains("found on the path"), "{}", err(&output));
}
