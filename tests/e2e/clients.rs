//! Clients of other languages, and the contract's own rules.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use conductor_proto::FILE_DESCRIPTOR_SET;
use conductor_tests::{in_sandbox, python};

use crate::common::start;

#[test]
fn a_stock_python_client_with_no_options_calls_the_daemon_over_its_socket() {
    in_sandbox(|sandbox| {
        let python = python::interpreter()?;
        let (_daemon, _client) = start(sandbox)?;
        let descriptors = sandbox.path().join("descriptors.bin");
        std::fs::write(&descriptors, FILE_DESCRIPTOR_SET)?;
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/client.py");
        let mut command = sandbox.command(&python);
        let output = command.arg(script).arg(sandbox.socket()).arg(&descriptors).stdin(Stdio::null()).output()?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
        let lines: Vec<&str> = stdout.lines().collect();
        assert_eq!(lines, ["unary ok", "error ok", "stream ok", "health ok", "reflection ok"]);
        Ok(())
    });
}

#[test]
fn the_command_line_speaks_json_and_has_its_exit_codes() {
    in_sandbox(|sandbox| {
        let (daemon, _client) = start(sandbox)?;
        let project = ["--project", conductor_tests::client::PROJECT];
        let submit = |text: &str| -> Result<serde_json::Value> {
            let arguments = ["task", "submit", project[0], project[1], "--agent", "fake", "-o", "json", "--", text];
            sandbox.ctl(&arguments)?.json()
        };
        let task = submit("@fake print hello\n@fake output fine\n@fake done")?;
        let id = task["task_id"].as_str().context("a task id")?.to_owned();
        assert_eq!(sandbox.ctl(&["wait", &id])?.code, 0);
        assert_eq!(sandbox.ctl(&["output", &id])?.ok()?.trim_end(), "fine");
        assert!(sandbox.ctl(&["logs", &id])?.ok()?.contains("hello"));
        let shown = sandbox.ctl(&["task", "show", &id, "-o", "json"])?.json()?;
        assert_eq!(shown["task_id"], task["task_id"]);
        assert_eq!(sandbox.ctl(&["task", "show", "task-20200101-000000-nothing"])?.code, 3, "not found");
        assert_eq!(sandbox.ctl(&["no-such-command"])?.code, 2, "usage");
        assert_eq!(sandbox.ctl(&["task", "delete", &id, "--yes"])?.code, 0);
        daemon.terminate()?;
        let output = sandbox.ctl(&["ps"])?;
        assert_eq!(output.code, 5, "unreachable: {}", output.stderr);
        assert!(output.stderr.contains("conductord") || output.stderr.contains("daemon"), "{}", output.stderr);
        Ok(())
    });
}

#[test]
fn start_without_configuration_or_daemon_starts_one_and_follows_the_task() {
    in_sandbox(|sandbox| {
        // The configuration names the agent, since no vendor's program is installed here; nothing else is there.
        std::fs::write(sandbox.config_path(), conductor_tests::Config::new(sandbox).yaml())?;
        let output = sandbox.ctl(&["start", "--once", "--", "@fake print it works"])?;
        ensure!(output.code == 0, "{output:#?}");
        assert!(output.stdout.contains("it works") || output.stderr.contains("it works"), "{output:#?}");
        let stopped = sandbox.ctl(&["daemon", "stop"])?;
        ensure!(stopped.code == 0, "{stopped:#?}");
        sandbox.assert_no_strays()
    });
}
