//! `man`: writes the man pages of all commands; for packages.

use super::Context;
use crate::cli::Man;
use crate::errors::Failure;

pub(super) fn run(context: &Context, args: &Man) -> Result<(), Failure> {
    let folder = &args.folder;
    let action = || format!("write the man pages into {}", folder.display());
    std::fs::create_dir_all(folder).map_err(|error| Failure::io(action(), error))?;
    clap_mangen::generate_to(crate::cli::command(), folder).map_err(|error| Failure::io(action(), error))?;
    let pages = std::fs::read_dir(folder).map_err(|error| Failure::io(action(), error))?.count();
    context.screen.aside(&format!("{pages} files in {}", folder.display()));
    Ok(())
}
