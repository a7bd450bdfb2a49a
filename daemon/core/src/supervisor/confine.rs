//! Which permissions a run gets, and its walls. What walls are: [`crate::agents::confine`].

use std::path::{Path, PathBuf};

use super::shared::Shared;
use crate::agents::confine::{self, Walls};
use crate::agents::{AgentCommand, RunRequest};
use crate::types::{Permissions, TaskSpec};

/// What a run gets: the program that confines it, or full permissions.
pub(super) enum Granted {
    /// Confined by this program.
    Confined(PathBuf),
    /// Not confined.
    Full,
}

impl Granted {
    /// For its record.
    pub(super) fn name(&self) -> Permissions {
        match self {
            Self::Confined(_) => Permissions::Confined,
            Self::Full => Permissions::Full,
        }
    }
}

/// The permissions of a task's next run: the task's, else its agent's, else the configured default, else confined. May
/// block for ten seconds, once.
///
/// # Errors
/// It is to be confined and can't be; the sentence names the ways out.
pub(super) fn grant(shared: &Shared, spec: &TaskSpec) -> Result<Granted, String> {
    grant_agent(shared, &spec.agent, spec.permissions)
}

/// The same of an agent, with what a task asks for.
pub(super) fn grant_agent(shared: &Shared, agent: &str, asked: Option<Permissions>) -> Result<Granted, String> {
    let config = shared.config();
    let own = config.agents.get(agent).and_then(|agent| agent.permissions);
    if asked.or(own).or(config.defaults.permissions) == Some(Permissions::Full) {
        return Ok(Granted::Full);
    }
    let path = shared.host.env.get("PATH").cloned().unwrap_or_default();
    shared.trial.get(path.as_ref()).map(Granted::Confined).map_err(|problem| {
        format!(
            "the agent {agent} is to be confined to its folders, and can't be: {problem}. Put that right, or let it write \
             wherever you may: `permissions: full` for the agent in the configuration, or --permissions full for a task"
        )
    })
}

/// Puts the walls around a command.
pub(super) fn apply(shared: &Shared, run: &RunRequest, command: &mut AgentCommand, bwrap: &Path) {
    let config = shared.config();
    let agent = config.agents.values().filter_map(|agent| agent.token_file.clone());
    let folder_of = |path: &Path| path.parent().map(Path::to_owned);
    let shim = shared.runner.shim_program();
    let mut writable = command.state.clone();
    confine::make_state(&command.state);
    writable.push(run.task_folder.clone());
    writable.extend(git_folder(&run.cwd));
    if let Some(agent) = config.agents.get(&command.agent) {
        writable.extend(agent.write_paths.iter().cloned());
    }
    let home = command.env.iter().find(|(name, _)| name == "HOME").map(|(_, value)| PathBuf::from(value));
    // The one that is named may be out of reach; its own is always there.
    for (_, value) in command.env.iter_mut().filter(|(name, _)| name == "TMPDIR") {
        "/tmp".clone_into(value);
    }
    let runtime = shared.host.env.get("XDG_RUNTIME_DIR").map(PathBuf::from);
    let doors = runtime.iter().flat_map(|folder| confine::user_back_doors(folder));
    let walls = Walls {
        cwd: run.cwd.clone(),
        writable,
        visible: [
            folder_of(&shared.socket),
            folder_of(&command.program),
            folder_of(shim),
            folder_of(&run.task_folder),
            home,
            command.env.iter().find(|(name, _)| name == "SSH_AUTH_SOCK").and_then(|(_, path)| folder_of(path.as_ref())),
        ]
        .into_iter()
        .flatten()
        .collect(),
        hidden: std::iter::once(shared.root.conductor_file("")).chain(agent).chain(doors).collect(),
    };
    command.argv = confine::wrap(std::mem::take(&mut command.argv), bwrap, shim, &walls);
}

/// Where the commits of a linked git worktree go: outside of it.
fn git_folder(cwd: &Path) -> Option<PathBuf> {
    let file = cwd.ancestors().map(|up| up.join(".git")).find(|path| path.exists())?;
    if file.is_dir() {
        // The top of the repository may be above the working folder.
        return Some(file);
    }
    let text = std::fs::read_to_string(&file).ok()?;
    let folder = file.parent()?.join(text.strip_prefix("gitdir:")?.trim());
    // `<repository>/.git/worktrees/<name>`, which shares objects and branches with the repository.
    let shared = std::fs::read_to_string(folder.join("commondir")).ok()?;
    Some(folder.join(shared.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_of_a_worktree_is_found() {
        let place = tempfile::tempdir().expect("folder");
        let (tree, git) = (place.path().join("tree/src"), place.path().join("repo/.git"));
        std::fs::create_dir_all(&tree).expect("made");
        std::fs::create_dir_all(git.join("worktrees/tree")).expect("made");
        assert_eq!(git_folder(&tree), None);
        std::fs::write(place.path().join("tree/.git"), format!("gitdir: {}/worktrees/tree\n", git.display()))
            .expect("written");
        std::fs::write(git.join("worktrees/tree/commondir"), "../..\n").expect("written");
        let found = git_folder(&tree).expect("found");
        assert_eq!(std::fs::canonicalize(found).expect("there"), std::fs::canonicalize(&git).expect("there"));
        assert_eq!(git_folder(&place.path().join("repo")), Some(git));
    }
}
