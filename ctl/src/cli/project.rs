//! `project …`

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `project …`
#[derive(Subcommand, Debug)]
pub enum ProjectCommand {
    /// Lists projects
    #[command(after_help = "Example: conductorctl project list -o wide")]
    List,
    /// Shows a project
    #[command(after_help = "Example: conductorctl project show my-app")]
    Show(ProjectName),
    /// Creates a project
    #[command(after_help = "Example: conductorctl project create my-app --root ~/src/my-app")]
    Create(ProjectCreate),
    /// Deletes a project with all its tasks
    #[command(after_help = "Asks first on a terminal.\n\nExample: conductorctl project delete my-app --yes")]
    Delete(ProjectDelete),
}

/// A project.
#[derive(Args, Debug)]
pub struct ProjectName {
    /// The project's id
    #[arg(value_name = "PROJECT", add = crate::completion::projects())]
    pub project: String,
}

/// `project create`
#[derive(Args, Debug)]
pub struct ProjectCreate {
    /// The new id: 1 to 63 of a-z, 0-9 and '-'
    #[arg(value_name = "PROJECT")]
    pub project: String,
    /// The source tree it is bound to
    #[arg(long, value_name = "FOLDER")]
    pub root: Option<PathBuf>,
}

/// `project delete`
#[derive(Args, Debug)]
pub struct ProjectDelete {
    /// Which.
    #[command(flatten)]
    pub name: ProjectName,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}
