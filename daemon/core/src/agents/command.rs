//! Agents that are any program: the prompt on standard input or as the path of a file, the answer on standard output.

use std::path::PathBuf;

use secrecy::SecretString;

use super::check::{Finding, Level};
use super::event::{EventParser, StreamSummary};
use super::parser::{Parser, Plain};
use super::program::command_line;
use super::{Adapter, AgentCommand, Base, Classified, ExitFacts, PrepareError, RunRequest, VersionError, env, text};
use crate::config::{AgentKind, Env, PromptBy};

/// Stands for the path of the prompt in the arguments of an agent that takes it as a file.
const PROMPT_PLACE: &str = "{prompt}";

/// An agent of type `command`.
#[derive(Debug)]
pub(crate) struct Command {
    base: Base,
}

impl Command {
    pub(crate) fn new(base: Base) -> Self {
        Self { base }
    }

    fn unsupported(&self, what: &'static str) -> PrepareError {
        PrepareError::Unsupported { agent: self.base.name.clone(), what }
    }
}

impl Adapter for Command {
    fn name(&self) -> &str {
        &self.base.name
    }

    fn kind(&self) -> AgentKind {
        AgentKind::Command
    }

    fn program(&self) -> Result<PathBuf, PrepareError> {
        // The configuration names one: it is checked when it is read.
        self.base.program("", None)
    }

    fn login(&self) -> Result<String, PrepareError> {
        Ok("none".to_owned())
    }

    fn account(&self) -> Result<String, PrepareError> {
        Ok(self.base.config.account.clone().unwrap_or_else(|| format!("command/{}", self.base.name)))
    }

    fn prepare(&self, run: &RunRequest) -> Result<AgentCommand, PrepareError> {
        if run.model.is_some() {
            return Err(self.unsupported("model"));
        }
        if run.resume_session.is_some() {
            return Err(self.unsupported("sessions"));
        }
        let program = self.program()?;
        let prompt = text(&run.prompt)?;
        let mut words: Vec<String> = self.base.config.args.iter().chain(&run.extra_args).cloned().collect();
        let by_file = self.base.config.prompt.unwrap_or_default() == PromptBy::File;
        if by_file {
            let placed = words.iter().any(|word| word.contains(PROMPT_PLACE));
            words.iter_mut().for_each(|word| *word = word.replace(PROMPT_PLACE, &prompt));
            if !placed {
                words.push(prompt.clone());
            }
        }
        let mut argv = vec![text(&program)?];
        argv.extend(words);
        let mut environment = self.base.environment();
        let mut secret_names = self.base.configured_names(&environment);
        secret_names.push(env::TOKEN.to_owned());
        env::add_run(&mut environment, run)?;
        let from = if by_file { String::new() } else { format!(" < {}", command_line([prompt.as_str()])) };
        Ok(AgentCommand {
            display: command_line(argv.iter().map(String::as_str)) + &from,
            argv,
            env: environment.into_iter().collect(),
            secret_names,
            stdin: (!by_file).then(|| run.prompt.clone()),
            cwd: run.cwd.clone(),
            login: "none".to_owned(),
            program,
            model: None,
            notes: Vec::new(),
            agent: self.base.name.clone(),
            state: Vec::new(),
            session: None,
        })
    }

    fn masked(&self, text: &str) -> String {
        self.base.masked(text)
    }

    fn secrets(&self) -> Vec<SecretString> {
        self.base.secrets()
    }

    fn environment(&self) -> Env {
        self.base.environment()
    }

    fn check(&self) -> Vec<Finding> {
        vec![match self.program() {
            Ok(path) => Finding::new(Level::Good, "program", path.display().to_string()),
            Err(error) => Finding::new(Level::Problem, "program", error.to_string()),
        }]
    }

    /// `--version` may mean anything to any program, work included, so it is not asked.
    fn version(&self) -> Result<Option<String>, VersionError> {
        Ok(None)
    }

    fn events(&self) -> Box<dyn EventParser> {
        Box::new(Parser::new(Plain::default()))
    }

    fn classify(&self, exit: &ExitFacts, _: &StreamSummary) -> Classified {
        exit.classify()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::sync::Arc;

    use crate::agents::tests::request;
    use crate::agents::{
        Agents, EndCause, EventKind, ExitFacts, Host, Level, PrepareError, RunRequest, Stream, StreamSummary,
    };
    use crate::config::{AgentConfig, AgentKind, Config, Env, PromptBy};
    use crate::types::{Outcome, Timestamp};

    fn agents(change: impl Fn(&mut AgentConfig)) -> Agents {
        let mut agent = AgentConfig { program: Some("sh".into()), ..AgentConfig::new(AgentKind::Command) };
        change(&mut agent);
        let mut config = Config::default();
        config.agents.insert("shell".into(), agent);
        let env = Env::from([("PATH".to_owned(), "/bin".to_owned())]);
        Agents::new(&config, &Arc::new(Host { env, programs: Some("/opt/c".into()), root: false }))
    }

    fn argv(change: impl Fn(&mut AgentConfig), run: &RunRequest) -> (Vec<String>, Option<std::path::PathBuf>) {
        let command = agents(change).get("shell").unwrap().prepare(run).unwrap();
        assert_eq!(command.argv[0], "/bin/sh");
        (command.argv[1..].to_vec(), command.stdin)
    }

    #[test]
    fn the_prompt_comes_on_standard_input_or_as_a_path_but_never_as_an_argument() {
        let run = RunRequest { extra_args: vec!["b".into()], ..request(Path::new("/r")) };
        let prompt = run.prompt.to_str().unwrap().to_owned();
        let set = |args: &'static [&'static str], by| {
            move |agent: &mut AgentConfig| {
                agent.args = args.iter().map(|arg| (*arg).to_owned()).collect();
                agent.prompt = by;
            }
        };
        assert_eq!(argv(set(&["a"], None), &run), (vec!["a".into(), "b".into()], Some(run.prompt.clone())));
        let by_file = argv(set(&["a"], Some(PromptBy::File)), &run);
        assert_eq!(by_file, (vec!["a".into(), "b".into(), prompt.clone()], None));
        let placed = argv(set(&["--in={prompt}"], Some(PromptBy::File)), &run);
        assert_eq!(placed, (vec![format!("--in={prompt}"), "b".into()], None));
    }

    #[test]
    fn it_has_no_model_and_no_session() {
        let agents = agents(|_| {});
        let shell = agents.get("shell").unwrap();
        let model = RunRequest { model: Some("m".into()), ..request(Path::new("/r")) };
        let text = shell.prepare(&model).unwrap_err().to_string();
        assert_eq!(text, "agent shell is a plain command and knows no model");
        let session = RunRequest { resume_session: Some("s".into()), ..request(Path::new("/r")) };
        assert!(matches!(shell.prepare(&session), Err(PrepareError::Unsupported { .. })));
    }

    #[test]
    fn its_lines_are_texts_and_its_exit_code_is_its_outcome() {
        let agents = agents(|_| {});
        let shell = agents.get("shell").unwrap();
        let (mut parser, mut found) = (shell.events(), Vec::new());
        for chunk in [&b"a\r\n{\"type\":\"result\"}\n"[..], b"\xff"] {
            parser.feed(Stream::Stdout, chunk, &mut |event| found.push(event));
        }
        parser.finish(&mut |event| found.push(event));
        let texts: Vec<_> = found
            .iter()
            .map(|event| match &event.kind {
                EventKind::Text { text, whole: None, .. } => (event.offset, text.as_str()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(texts, [(0, "a"), (3, r#"{"type":"result"}"#), (21, "\u{fffd}")]);
        assert_eq!(shell.final_answer(parser.summary()), None);
        let exit = ExitFacts {
            code: Some(2),
            signal: None,
            cause: EndCause::Natural,
            oom_kills: 0,
            stderr_tail: "".into(),
            ended: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(shell.classify(&exit, &StreamSummary::default()).outcome, Outcome::Failed);
    }

    #[test]
    fn the_only_installed_agent_is_the_default() {
        let agents = agents(|_| {});
        assert_eq!((agents.installed(), agents.default_agent()), (vec!["shell"], Some("shell")));
        let names = ["claude", "codex", "gemini", "grok", "perplexity", "shell", "xai"];
        assert_eq!(agents.names().collect::<Vec<_>>(), names);
        let shell = agents.get("shell").unwrap();
        assert_eq!((shell.account().unwrap().as_str(), shell.kind().name()), ("command/shell", "command"));
        assert!(shell.check().iter().all(|finding| finding.level == Level::Good));
    }

    #[test]
    fn the_default_is_the_only_vendor_whose_program_or_key_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let add = |name: &str| {
            fs::write(folder.path().join(name), "#!/bin/sh\n").unwrap();
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        let default = |env: &[(&str, &str)]| {
            let mut env: Env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            env.insert("PATH".to_owned(), folder.path().to_str().unwrap().to_owned());
            let agents = Agents::new(&Config::default(), &Arc::new(Host { env, programs: None, root: false }));
            agents.default_agent().map(str::to_owned)
        };
        let key = [("CONDUCTOR_AGENT_PERPLEXITY_TOKEN", "k")];
        add("conductor-rest-agent");
        assert_eq!(default(&[]), None);
        assert_eq!(default(&key).as_deref(), Some("perplexity"));
        add("codex");
        assert_eq!(default(&[]).as_deref(), Some("codex"));
        assert_eq!(default(&key), None);
    }
}
