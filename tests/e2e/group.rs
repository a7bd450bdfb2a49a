//! The socket of a group: who of another user is let in, and as whom. Needs root, to be other users.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::EndReason;
use conductor_tests::{Config, DEADLINE, Daemon, Sandbox, in_sandbox, wait_until};

use crate::common::{finish, reason, script, start_with};

/// A group that every Linux has.
const GROUP: (&str, &str) = ("daemon", "1");
/// A user that no machine has.
const STRANGER: &str = "54321";
/// Exit code of a client that reaches no daemon.
const UNREACHABLE: i32 = 5;

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

/// Runs `conductorctl` as a user of no name with these further groups; exit code and both outputs.
fn as_stranger(sandbox: &Sandbox, groups: &[&str], args: &[&str]) -> Result<(i32, String)> {
    // A copy, since the folder of the build may be closed to others.
    let program = sandbox.path().join("tmp/conductorctl");
    if !program.exists() {
        std::fs::copy(sandbox.program("conductorctl"), &program)?;
    }
    for folder in [".", "tmp", "run", "work"] {
        set_mode(&sandbox.path().join(folder), 0o755)?;
    }
    let mut command = sandbox.command("setpriv");
    command.args(["--reuid", STRANGER, "--regid", STRANGER]);
    match groups {
        [] => command.arg("--clear-groups"),
        groups => command.args(["--groups", &groups.join(",")]),
    };
    let output = command.arg(program).args(args).output().context("setpriv")?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn members_of_the_group_are_operators_and_nobody_else_is_let_in() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not tried: only root can be another user");
        return;
    }
    in_sandbox(|sandbox| {
        let (_daemon, client) = start_with(sandbox, &Config::new(sandbox).set("socket_group", GROUP.0))?;
        let socket = sandbox.socket();
        let folder = socket.parent().context("a folder")?;
        let facts = |path: &Path| path.metadata().map(|meta| (meta.mode() & 0o777, meta.gid().to_string()));
        ensure!(facts(&socket)? == (0o660, GROUP.1.to_owned()), "{:?}", facts(&socket)?);
        ensure!(facts(folder)? == (0o750, GROUP.1.to_owned()), "{:?}", facts(folder)?);

        let task = finish(&client, script("theirs", &["done"]))?;
        ensure!(reason(&task) == EndReason::Done, "{task:?}");
        let (code, said) = as_stranger(sandbox, &["2", GROUP.1], &["task", "list", "-o", "name"])?;
        ensure!(code == 0 && said.contains(&task.task_id), "a member sees all: {code} {said}");
        let (code, said) = as_stranger(sandbox, &[GROUP.1], &["task", "delete", &task.task_id])?;
        ensure!(code == 0, "a member may do all: {code} {said}");
        // Written beside the work, so a moment later.
        let of_delete = || {
            let audit = std::fs::read_to_string(sandbox.root().join(".conductor/audit.jsonl")).unwrap_or_default();
            audit.lines().find(|line| line.contains("DeleteTask")).map(str::to_owned)
        };
        wait_until("it is audited", DEADLINE, || of_delete().is_some())?;
        let line = of_delete().context("an audit line")?;
        ensure!(line.contains(&format!("user (uid {STRANGER}, pid ")), "{line}");

        let (code, said) = as_stranger(sandbox, &["2"], &["task", "list"])?;
        ensure!(code == UNREACHABLE, "the file system keeps others out: {code} {said}");
        // Even where it would not, the kernel's word on the connection counts.
        set_mode(folder, 0o755)?;
        set_mode(&socket, 0o666)?;
        let (code, said) = as_stranger(sandbox, &["2"], &["task", "list"])?;
        ensure!(code == UNREACHABLE, "and so does the daemon: {code} {said}");
        client.daemon_info()?;
        Ok(())
    });
}

#[test]
fn a_group_that_is_not_there_is_an_error_with_its_place() {
    in_sandbox(|sandbox| {
        std::fs::write(sandbox.config_path(), Config::new(sandbox).set("socket_group", "no-such-group").yaml())?;
        let mut daemon = Daemon::spawn(sandbox, &[])?;
        let status = daemon.wait_end(conductor_tests::DEADLINE)?;
        let log = daemon.log_text();
        ensure!(status.code() == Some(78), "{status} {log}");
        ensure!(log.contains("conductor.yaml: socket_group: there is no group \"no-such-group\""), "{log}");
        Ok(())
    });
}
