//! `completion`: the script that makes a shell ask this program.

use clap_complete::env::Shells;

use super::Context;
use crate::cli::{Completion, Shell};
use crate::errors::Failure;

pub(super) fn run(context: &Context, args: &Completion) -> Result<(), Failure> {
    let name = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let shells = Shells::builtins();
    let shell = shells.completer(name).expect("bash, zsh and fish are built in");
    let mut script = Vec::new();
    shell
        .write_registration("COMPLETE", "conductorctl", "conductorctl", "conductorctl", &mut script)
        .map_err(|error| Failure::io("write the script", error))?;
    context.screen.data(&script)
}
