//! One vendor's program under a conductord of its own, with a fake of its own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conductor_proto::v1::{self, EndReason, Run, RunFile, Task, TaskSpec};
use conductor_tests::client::PROJECT;
use conductor_tests::vendors::programs::Program;
use conductor_tests::vendors::{Fake, Options};
use conductor_tests::{Client, Config, Daemon, Sandbox, Submit};

/// How long a real program may take for a few turns on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What a bench is made with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    /// What the service does.
    pub(crate) scenario: String,
    /// Further keys of the agent, as they stand in a flow mapping: `, args: [a]`.
    pub(crate) keys: String,
    /// Variables of the program.
    pub(crate) env: Vec<(&'static str, &'static str)>,
    /// The key; empty: [`key`] of the program.
    pub(crate) token: String,
}

/// A program, its service and its daemon.
pub(crate) struct Bench<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) fake: Fake,
    pub(crate) scenario: String,
    pub(crate) agent: String,
    pub(crate) client: Client,
    pub(crate) token: String,
    _daemon: Daemon<'a>,
}

/// A key that is none, and that no other text contains.
pub(crate) fn key(agent: &str) -> String {
    format!("sk-dummy-{agent}-0123456789abcdef")
}

/// What each program needs besides: a model that the fake knows, and no calls home.
fn particulars(program: Program) -> (&'static str, Vec<(&'static str, &'static str)>) {
    match program {
        Program::Claude => ("", vec![("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")]),
        Program::Codex => (", model: gpt-fake", vec![]),
        Program::Gemini => (", model: gemini-2.5-flash", vec![]),
        Program::Grok => (", model: grok-4.6", vec![("GROK_TELEMETRY_ENABLED", "0")]),
    }
}

impl<'a> Bench<'a> {
    /// A vendor's program under a new conductord.
    pub(crate) fn new(sandbox: &'a Sandbox, program: Program, setup: &Setup) -> Result<Self> {
        let (keys, mut env) = particulars(program);
        env.extend(&setup.env);
        let keys = format!(", program: '{}'{keys}{}", program.path()?.display(), setup.keys);
        Self::of(sandbox, program.name(), &keys, &Setup { env, ..setup.clone() })
    }

    /// An agent that has the name of its type.
    pub(crate) fn of(sandbox: &'a Sandbox, agent: &str, keys: &str, setup: &Setup) -> Result<Self> {
        let fake = Fake::start(Options::default())?;
        let token = if setup.token.is_empty() { key(agent) } else { setup.token.clone() };
        let file = token_file(sandbox);
        std::fs::create_dir_all(file.parent().context("it is in a folder")?)?;
        std::fs::write(&file, &token)?;
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        let env: Vec<String> = setup.env.iter().map(|(name, value)| format!("{name}: '{value}'")).collect();
        let yaml = format!(
            "{{type: {agent}, base_url: '{}', token_file: '{}', env: {{{}}}{keys}}}",
            fake.url(&setup.scenario),
            file.display(),
            env.join(", ")
        );
        let config = Config::new(sandbox).agent(agent, &yaml);
        let daemon = Daemon::start(sandbox, &config)?;
        let client = daemon.client()?;
        client.create_project(PROJECT, &sandbox.work())?;
        let (scenario, agent) = (setup.scenario.clone(), agent.to_owned());
        Ok(Self { sandbox, fake, scenario, agent, client, token, _daemon: daemon })
    }

    /// Submits a task that runs `commands` and answers.
    pub(crate) fn submit(&self, intro: &str, commands: &[&str], answer: &str) -> Result<Task> {
        self.submit_as(intro, commands, answer, v1::Permissions::Unspecified)
    }

    /// The same with permissions.
    pub(crate) fn submit_as(
        &self,
        intro: &str,
        commands: &[&str],
        answer: &str,
        permissions: v1::Permissions,
    ) -> Result<Task> {
        let script: String = commands.iter().map(|command| format!("FAKE-RUN: {command}\n")).collect();
        let spec = TaskSpec {
            agent: self.agent.clone(),
            max_restarts: 2,
            permissions: permissions.into(),
            ..TaskSpec::default()
        };
        let prompt = format!("{intro}\n{script}FAKE-SAY: {answer}\n");
        Ok(self.client.submit(Submit { prompt, slug: "real-one".to_owned(), spec, ..Submit::default() })?)
    }

    /// Waits until a task is done, and nothing of it lives.
    pub(crate) fn done(&self, task: &Task) -> Result<(Task, Vec<Run>)> {
        let task = self.client.wait_task_for(&task.task_id, PATIENCE).with_context(|| self.told())?;
        let runs = self.client.task_runs(&task)?;
        let reason = task.end.as_ref().map(|end| end.reason());
        ensure!(reason == Some(EndReason::Done), "{task:#?}\n{}", self.report(&runs));
        self.sandbox.assert_no_strays()?;
        Ok((task, runs))
    }

    /// The final answer of a run.
    pub(crate) fn output(&self, run: &Run) -> Result<String> {
        let output = self.client.run_file(run, RunFile::Output)?.context("output.md is there")?;
        Ok(String::from_utf8_lossy(&output).trim_end().to_owned())
    }

    /// A file of the task's folder.
    pub(crate) fn task_file(&self, task: &Task, name: &str) -> PathBuf {
        self.sandbox.root().join(PROJECT).join(&task.task_id).join(name)
    }

    /// The agent as the daemon lists it.
    pub(crate) fn listed(&self) -> Result<v1::Agent> {
        let answer = self.client.wait(self.client.agents().list_agents(v1::ListAgentsRequest { probe: false }))?;
        answer.agents.into_iter().find(|agent| agent.name == self.agent).context("the agent is listed")
    }

    /// What runs printed, for a failure's message.
    pub(crate) fn report(&self, runs: &[Run]) -> String {
        let mut text = self.told();
        for run in runs {
            let at = PathBuf::from(&run.folder);
            text += &format!("--- {}: {:?} {:?} {}\n", run.run_id, run.outcome(), run.limit, run.error_summary);
            text += &format!("{}\n", run.command_line);
            for name in ["agent-stdout.txt", "agent-stderr.txt"] {
                let bytes = std::fs::read(at.join(name)).unwrap_or_default();
                let from = bytes.len().saturating_sub(4000);
                text += &format!("--- {name}\n{}\n", String::from_utf8_lossy(&bytes[from..]));
            }
        }
        text
    }

    /// The requests of the service, for a failure's message.
    fn told(&self) -> String {
        let line = |request: serde_json::Value| {
            format!("{} {} -> {}, aside {}\n", request["method"], request["path"], request["status"], request["aside"])
        };
        self.fake.requests("").unwrap_or_default().into_iter().map(line).collect()
    }
}

/// The file with the key of a bench.
pub(crate) fn token_file(sandbox: &Sandbox) -> PathBuf {
    sandbox.path().join("keys/token")
}
