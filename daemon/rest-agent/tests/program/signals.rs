//! How it ends when somebody else decides.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::answers::{created, hello, text};
use crate::server::{Act, Server, stream};
use crate::{Guard, command};

/// How long an end may take; the machine of a test may be busy.
const SOON: Duration = Duration::from_millis(100);
/// Tries of a measurement: a busy machine may spoil some.
const TRIES: u32 = 5;

/// An answer, and the line to wait for.
type Case = (fn() -> Act, &'static str);

/// Starts it, waits for a line of a kind, sends a signal; gives the exit code, the time and the rest of the lines.
fn interrupted(act: Act, wait_for: &str, signal: Signal) -> (Option<i32>, Duration, Vec<Value>, bool) {
    let server = Server::new(vec![act]);
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), &["--vendor", "xai", "--model", "m", "--base-url", &server.url()]);
    let mut child = Guard(command.stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains(&format!("\"type\":\"{wait_for}\""))).unwrap().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.0.id()).unwrap());
    let before = Instant::now();
    kill(pid, signal).unwrap();
    let code = child.0.wait().unwrap().code();
    let took = before.elapsed();
    let rest = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    (code, took, rest, folder.path().join("DONE").exists())
}

#[test]
fn int_and_term_end_it_cleanly_at_once_wherever_it_is() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let acts: [Case; 2] =
            [(|| Act::Hold(stream(&[created(), text("Hel")])), "text"), (|| Act::Hold(Vec::new()), "request")];
        for (act, wait_for) in acts {
            let mut fastest = Duration::MAX;
            for _ in 0..TRIES {
                let (exit, took, rest, done) = interrupted(act(), wait_for, signal);
                assert_eq!((exit, done), (Some(code), false));
                let ended = rest.last().unwrap();
                assert_eq!((&ended["type"], &ended["reason"]), (&"ended".into(), &"interrupted".into()));
                if wait_for == "text" {
                    assert_eq!((&rest[0]["text"], &rest[0]["complete"]), (&"Hel".into(), &false.into()));
                }
                fastest = fastest.min(took);
                if fastest < SOON {
                    break;
                }
            }
            assert!(fastest < SOON, "{signal} while {wait_for}: {fastest:?}");
        }
    }
}

#[test]
fn a_pipe_that_nobody_empties_does_not_hold_up_the_end() {
    let server = Server::new(vec![Act::Hold(stream(&[text(&"x".repeat(4 << 20))]))]);
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), &["--vendor", "xai", "--model", "m", "--base-url", &server.url()]);
    let mut child = Guard(command.spawn().unwrap());
    let mut out = child.0.stdout.take().unwrap();
    // The pipe is full soon after the first text is in it.
    let mut head = vec![0; 4096];
    out.read_exact(&mut head).unwrap();
    kill(Pid::from_raw(i32::try_from(child.0.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(143));
}

#[test]
fn a_stream_that_nobody_reads_ends_it_quietly() {
    let server = Server::new(vec![Act::Send(hello())]);
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), &["--vendor", "xai", "--model", "m", "--base-url", &server.url()]);
    let mut child = Guard(command.spawn().unwrap());
    drop(child.0.stdout.take());
    let mut error = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!((child.0.wait().unwrap().code(), error.as_str()), (Some(141), ""));
    assert!(!folder.path().join("DONE").exists());
}
