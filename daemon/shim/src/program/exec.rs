//! `conductor-shim --exec ignore|default PROGRAM ARGUMENT…`: sets how the process takes the signals of a stop, then
//! becomes the program.
//!
//! For agents that run inside a wrapper of another project (bubblewrap): a stop begins with SIGINT to the whole group,
//! which such a wrapper would die of, taking the agent's exit code along. So the wrapper is started with these signals
//! ignored, which it inherits, and the agent inside gets them back.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What a stop sends before it kills, and what a terminal would.
const SIGNALS: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
/// Exit code where the program could not be executed, as of a shell.
const EXIT_NOT_EXECUTED: i32 = 126;

/// Does not return unless it fails; the exit code then.
pub(crate) fn exec(how: &OsString, argv: &[OsString]) -> i32 {
    let action = match how.as_bytes() {
        b"ignore" => libc::SIG_IGN,
        b"default" => libc::SIG_DFL,
        _ => return super::EXIT_FAILED,
    };
    let Some((program, arguments)) = argv.split_first() else { return super::EXIT_FAILED };
    for signal in SIGNALS {
        // SAFETY: both dispositions are constants; no handler of ours is replaced.
        unsafe { libc::signal(signal, action) };
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("conductor-shim: {}: {error}", program.to_string_lossy());
    EXIT_NOT_EXECUTED
}
