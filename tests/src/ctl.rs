//! `conductorctl` run as a person runs it, its output captured.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{Sandbox, wait_until};

/// How long one command may take; a command that follows something is given as a child instead.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Its data.
    pub stdout: String,
    /// What it said to people.
    pub stderr: String,
}

impl Output {
    /// Standard output, if the command succeeded.
    ///
    /// # Errors
    /// It did not: everything that it printed is in the message.
    pub fn ok(self) -> Result<String> {
        ensure!(self.code == 0, "conductorctl ended with {}\n{}\n{}", self.code, self.stdout, self.stderr);
        Ok(self.stdout)
    }

    /// Standard output as JSON, if the command succeeded.
    ///
    /// # Errors
    /// It did not, or the output is no JSON.
    pub fn json(self) -> Result<serde_json::Value> {
        let text = self.ok()?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }
}

impl Sandbox {
    /// Runs `conductorctl` with `args` and waits for its end.
    ///
    /// # Errors
    /// It can't be started, or does not end in a minute.
    pub fn ctl(&self, args: &[&str]) -> Result<Output> {
        self.ctl_with(args, &[], b"")
    }

    /// The same with further variables and a standard input.
    ///
    /// # Errors
    /// As [`Sandbox::ctl`].
    pub fn ctl_with(&self, args: &[&str], variables: &[(&str, &str)], input: &[u8]) -> Result<Output> {
        let mut child = self.ctl_child(args, variables)?;
        let mut stdin = child.stdin.take().context("a pipe was asked for")?;
        let input = input.to_owned();
        // A thread, since a command may print before it has read all of its input; one that reads nothing ends it.
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
        let mut status = None;
        let waited = wait_until("conductorctl ends", COMMAND_DEADLINE, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
        if waited.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = writer.join();
        let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
        };
        let (stdout, stderr) = (text(out), text(err));
        let status = status.with_context(|| format!("conductorctl {args:?} does not end\n{stdout}\n{stderr}"))?;
        Ok(Output { code: status.code().unwrap_or(-1), stdout, stderr })
    }

    /// Starts `conductorctl` with pipes, for a command that follows something.
    ///
    /// # Errors
    /// It can't be started.
    pub fn ctl_child(&self, args: &[&str], variables: &[(&str, &str)]) -> Result<Child> {
        let mut command = self.command(self.program("conductorctl"));
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, value) in variables {
            command.env(name, value);
        }
        command.spawn().context("starting conductorctl")
    }
}

fn drain(pipe: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}
