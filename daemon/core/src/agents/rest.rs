//! Vendors that have an HTTP API and no program, or whose program is not installed: our own program does one turn with
//! them. Contracts C5 and C6 of the agents; its command line and its stream are the crate's `conductor-rest-agent`.

use super::base::{Base, Facts};
use super::cli::{Draft, Driver};
use super::stream::Vendor;
use super::{PrepareError, RunRequest, text};

/// The file by which an agent says that its task is finished, in the task's folder.
const DONE: &str = "DONE";

static PERPLEXITY: Facts = Facts {
    program: "conductor-rest-agent",
    package: None,
    keys: &["PERPLEXITY_API_KEY"],
    rivals: &[],
    key_for: |_| "PERPLEXITY_API_KEY",
    switches: &[],
    folder: None,
    log_in: "",
};

static XAI: Facts = Facts { keys: &["XAI_API_KEY"], key_for: |_| "XAI_API_KEY", ..PERPLEXITY };

/// An agent behind an HTTP API.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rest {
    /// Perplexity's.
    Perplexity,
    /// xAI's.
    Xai,
}

impl Driver for Rest {
    fn facts(&self) -> &'static Facts {
        match self {
            Self::Perplexity => &PERPLEXITY,
            Self::Xai => &XAI,
        }
    }

    fn vendor(&self) -> Vendor {
        Vendor::Rest
    }

    fn address(&self, url: &str, draft: &mut Draft) {
        draft.push(["--base-url", url]);
    }

    fn draft(&self, base: &Base, run: &RunRequest, draft: &mut Draft) -> Result<(), PrepareError> {
        if draft.key.is_none() {
            return Err(PrepareError::NoKey { agent: base.name.clone(), or: None });
        }
        let address = std::mem::take(&mut draft.words);
        let vendor = match self {
            Self::Perplexity => "perplexity",
            Self::Xai => "xai",
        };
        draft.push(["--vendor", vendor, "--prompt-file", &text(&run.prompt)?]);
        draft.words.extend(address);
        if let Some(model) = draft.model.clone() {
            draft.push(["--model", &model]);
        }
        if let Some(session) = &run.resume_session {
            draft.push(["--resume", session]);
        }
        // One turn is all that it does, and it runs no tools: a complete answer is its DONE.
        draft.push(["--done", &text(&run.task_folder.join(DONE))?]);
        draft.push(base.config.args.iter().chain(&run.extra_args).map(String::as_str));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::agents::tests::{Bench, value};
    use crate::config::{AgentConfig, AgentKind};

    const TOKEN: [(&str, &str); 1] = [("CONDUCTOR_AGENT_PERPLEXITY_TOKEN", "pplx-secret")];

    #[test]
    fn the_command_has_the_exact_flags_and_the_key_in_its_environment_alone() {
        let config = AgentConfig {
            base_url: Some("http://127.0.0.1:1".into()),
            model: Some("perplexity/sonar".into()),
            args: vec!["--tool".into(), "web_search".into()],
            ..AgentConfig::new(AgentKind::Perplexity)
        };
        let bench = Bench::new("conductor-rest-agent", config, &TOKEN);
        let command = bench.prepared(|run| run.resume_session = Some("resp_1".into()));
        let expected = format!(
            "--vendor perplexity --prompt-file {} --base-url http://127.0.0.1:1 --model perplexity/sonar --resume resp_1 \
             --done {}/DONE --tool web_search",
            bench.request.prompt.display(),
            bench.request.task_folder.display()
        );
        assert_eq!(bench.words(&command), expected);
        assert_eq!((value(&command, "PERPLEXITY_API_KEY"), &command.stdin), (Some("pplx-secret"), &None));
        assert_eq!(command.secret_names, ["CONDUCTOR_TOKEN", "PERPLEXITY_API_KEY"]);
        assert!(!format!("{command:?}{}", command.display).contains("pplx"));
    }

    #[test]
    fn without_a_key_it_is_not_installed_and_says_how_to_get_one() {
        let bench = Bench::new("conductor-rest-agent", AgentConfig::new(AgentKind::Perplexity), &[]);
        let text = bench.adapter.prepare(&bench.request).unwrap_err().to_string();
        assert_eq!(
            text,
            "agent perplexity: it needs a key: set agents.perplexity.token_file, or CONDUCTOR_AGENT_PERPLEXITY_TOKEN"
        );
        assert!(!bench.adapter.installed());
        assert_eq!(bench.adapter.login().unwrap(), "no key");
        assert_eq!(bench.adapter.account().unwrap(), "perplexity/no-key");
        assert!(
            Bench::new("conductor-rest-agent", AgentConfig::new(AgentKind::Perplexity), &TOKEN).adapter.installed()
        );
    }
}
