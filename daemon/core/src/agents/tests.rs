//! What the tests of all agents share.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::agents::{Adapter, AgentCommand, Agents, Host, RunRequest};
use crate::config::{AgentConfig, Config, Env};
use crate::types::{Limits, TaskKey};

/// A first attempt below a root that need not exist.
pub(crate) fn request(root: &Path) -> RunRequest {
    let task = TaskKey::new("demo".parse().unwrap(), "task-20260101-000000-demo".parse().unwrap());
    let key = task.run("20260101-0000000000-1-1".parse().unwrap());
    let task_folder = root.join("demo/task-20260101-000000-demo");
    let run_folder = task_folder.join("runs/20260101-0000000000-1-1");
    RunRequest {
        key,
        parent: None,
        attempt: 1,
        max_attempts: 100,
        root: root.to_owned(),
        prompt: run_folder.join("prompt.md"),
        task_folder,
        run_folder,
        cwd: "/work".into(),
        model: None,
        extra_args: vec![],
        resume_session: None,
        token: "run-token".to_owned().into(),
        socket: "/run/conductor/conductor.sock".into(),
        limits: Limits::default(),
    }
}

/// An agent of the name of its kind, with the only program there, which says that it is version 1.2.3, and an empty home
/// folder.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
    pub(crate) adapter: Arc<dyn Adapter>,
    pub(crate) request: RunRequest,
}

impl Bench {
    pub(crate) fn new(program: &str, config: AgentConfig, env: &[(&str, &str)]) -> Self {
        Self::on(program, config, env, false)
    }

    pub(crate) fn on(program: &str, config: AgentConfig, env: &[(&str, &str)], root: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (programs, home) = (folder.path().join("bin"), folder.path().join("home"));
        fs::create_dir(&programs).unwrap();
        fs::create_dir(&home).unwrap();
        fs::write(programs.join(program), "#!/bin/sh\necho 'program 1.2.3'\n").unwrap();
        fs::set_permissions(programs.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        let mut all: Env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        all.insert("PATH".to_owned(), programs.to_str().unwrap().to_owned());
        all.insert("HOME".to_owned(), home.to_str().unwrap().to_owned());
        let name = config.kind.name().to_owned();
        let config = Config { agents: [(name.clone(), config)].into(), ..Config::default() };
        let adapter =
            Agents::new(&config, &Arc::new(Host { env: all, programs: None, root })).get(&name).unwrap().clone();
        let request = request(&folder.path().join("root"));
        fs::create_dir_all(&request.run_folder).unwrap();
        fs::write(&request.prompt, "do it").unwrap();
        Self { folder, adapter, request }
    }

    /// The user's home folder.
    pub(crate) fn home(&self) -> std::path::PathBuf {
        self.folder.path().join("home")
    }

    /// The folder that the program is in.
    pub(crate) fn programs(&self) -> std::path::PathBuf {
        self.folder.path().join("bin")
    }

    pub(crate) fn prepared(&self, change: impl Fn(&mut RunRequest)) -> AgentCommand {
        let mut run = self.request.clone();
        change(&mut run);
        self.adapter.prepare(&run).unwrap()
    }

    /// The arguments behind the program, which is the one that is there.
    pub(crate) fn words(&self, command: &AgentCommand) -> String {
        assert!(command.program.starts_with(self.programs()) && command.argv[0] == command.program.to_str().unwrap());
        command.argv[1..].join(" ")
    }
}

/// A variable of a command.
pub(crate) fn value<'a>(command: &'a AgentCommand, name: &str) -> Option<&'a str> {
    command.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}
