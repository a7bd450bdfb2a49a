//! Codex, headless (`codex exec --json`), with the prompt on standard input. Flags and traps: contract C2 of the agents,
//! seen with codex 0.169.0.

use super::base::{Base, Facts, Folder};
use super::cli::{Draft, Driver};
use super::stream::Vendor;
use super::{PrepareError, RunRequest, with_path};
use crate::config::PermissionMode;

/// The name under which it knows a gateway.
const PROVIDER: &str = "conductor";

static FACTS: Facts = Facts {
    program: "codex",
    package: Some("@openai/codex"),
    // `exec` takes this one, and before its login; OPENAI_API_KEY it does not look at.
    keys: &["CODEX_API_KEY"],
    rivals: &["CODEX_ACCESS_TOKEN", "OPENAI_API_KEY"],
    key_for: |_| "CODEX_API_KEY",
    switches: &[],
    folder: Some(Folder {
        variable: "CODEX_HOME",
        name: ".codex",
        in_home: false,
        logins: &["auth.json"],
        beside: &[],
    }),
    log_in: "run: codex login",
};

/// An agent of type `codex`.
#[derive(Debug)]
pub(crate) struct Codex;

impl Driver for Codex {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn vendor(&self) -> Vendor {
        Vendor::Codex
    }

    /// A provider of its own: the built-in one first tries WebSockets for some seconds, and compresses its requests,
    /// which gateways don't know.
    fn address(&self, url: &str, draft: &mut Draft) {
        let provider = format!(
            "model_providers.{PROVIDER}={{name=\"{PROVIDER}\",base_url={},wire_api=\"responses\",\
             requires_openai_auth=true,supports_websockets=false}}",
            toml_text(&with_path(url, "/v1"))
        );
        draft.push(["-c", &format!("model_provider=\"{PROVIDER}\""), "-c", &provider]);
    }

    /// `exec resume` knows fewer options than `exec`, but holds to those in front of it.
    fn draft(&self, base: &Base, run: &RunRequest, draft: &mut Draft) -> Result<(), PrepareError> {
        let address = std::mem::take(&mut draft.words);
        draft.push(["exec", "--json", "--skip-git-repo-check", "-c", "check_for_update_on_startup=false"]);
        // A login shell's profile sets PATH anew on many systems, without the folder of `conductorctl`.
        draft.push(["-c", "allow_login_shell=false"]);
        match draft.mode {
            PermissionMode::BypassPermissions => draft.push(["--dangerously-bypass-approvals-and-sandbox"]),
            PermissionMode::DangerFullAccess => draft.push(["-s", "danger-full-access"]),
            PermissionMode::ReadOnly | PermissionMode::Plan => draft.push(["-s", "read-only"]),
            _ => draft.push(["-s", "workspace-write"]),
        }
        // Without it a resumed thread goes on with the model that is the default then.
        if let Some(model) = draft.model.clone() {
            draft.push(["-m", &model]);
        }
        draft.words.extend(address);
        draft.push(base.config.args.iter().chain(&run.extra_args).map(String::as_str));
        if let Some(session) = &run.resume_session {
            draft.push(["resume", session]);
        }
        draft.push(["-"]);
        // It reads standard input to its end, whatever the length.
        draft.stdin = Some(base.stand_in(run, "Codex", u64::MAX, &mut draft.notes)?);
        Ok(())
    }
}

/// A text as a basic string of TOML.
fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::tests::{Bench, value};
    use crate::config::{AgentConfig, AgentKind};

    fn plain() -> AgentConfig {
        AgentConfig::new(AgentKind::Codex)
    }

    #[test]
    fn the_command_has_the_exact_flags_and_the_prompt_on_its_input() {
        let bench = Bench::new("codex", plain(), &[]);
        let command = bench.prepared(|_| {});
        assert_eq!(
            bench.words(&command),
            "exec --json --skip-git-repo-check -c check_for_update_on_startup=false -c allow_login_shell=false \
             --dangerously-bypass-approvals-and-sandbox -"
        );
        assert_eq!(command.stdin.as_deref(), Some(bench.request.prompt.as_path()));
        assert_eq!((command.login.as_str(), command.model.as_deref()), ("login", None));
        assert!(command.notes.is_empty() && command.display.ends_with("/prompt.md"), "{}", command.display);
    }

    #[test]
    fn a_session_goes_on_with_its_model_behind_all_options() {
        let config =
            AgentConfig { model: Some("gpt-a".into()), args: vec!["--add-dir".into(), "/x".into()], ..plain() };
        let bench = Bench::new("codex", config, &[]);
        let command = bench.prepared(|run| {
            run.resume_session = Some("01a2".into());
            run.extra_args = vec!["-p".into(), "fast".into()];
        });
        let words = bench.words(&command);
        assert!(words.ends_with("-sandbox -m gpt-a --add-dir /x -p fast resume 01a2 -"), "{words}");
        assert!(bench.words(&bench.prepared(|run| run.model = Some("gpt-b".into()))).contains("-m gpt-b --add-dir"));
    }

    #[test]
    fn every_permission_mode_is_a_sandbox_of_its_own() {
        for (mode, flags) in [
            (PermissionMode::AcceptEdits, " -s workspace-write "),
            (PermissionMode::WorkspaceWrite, " -s workspace-write "),
            (PermissionMode::Plan, " -s read-only "),
            (PermissionMode::ReadOnly, " -s read-only "),
            (PermissionMode::DangerFullAccess, " -s danger-full-access "),
        ] {
            let bench = Bench::new("codex", AgentConfig { permission_mode: Some(mode), ..plain() }, &[]);
            let words = bench.words(&bench.prepared(|_| {}));
            assert!(words.contains(flags) && !words.contains("bypass"), "{words}");
        }
    }

    #[test]
    fn a_gateway_is_a_provider_that_speaks_http_with_the_same_login() {
        let config = AgentConfig { base_url: Some("http://127.0.0.1:1".into()), ..plain() };
        let command = Bench::new("codex", config, &[]).prepared(|_| {});
        let provider = "model_providers.conductor={name=\"conductor\",base_url=\"http://127.0.0.1:1/v1\",\
                        wire_api=\"responses\",requires_openai_auth=true,supports_websockets=false}";
        let place = command.argv.iter().position(|word| word == provider).unwrap();
        assert_eq!(command.argv[place - 3..place], ["-c", "model_provider=\"conductor\"", "-c"]);
        assert_eq!(toml_text("a\"b\\c"), r#""a\"b\\c""#);
    }

    #[test]
    fn a_token_is_the_only_key_and_a_folder_of_its_own_is_told() {
        let config = AgentConfig {
            env_pass: vec!["OPENAI_*".into(), "CODEX_*".into()],
            config_dir: Some("/c".into()),
            ..plain()
        };
        let env =
            [("OPENAI_API_KEY", "sk-shell"), ("CODEX_ACCESS_TOKEN", "t"), ("CONDUCTOR_AGENT_CODEX_TOKEN", "sk-1")];
        let command = Bench::new("codex", config.clone(), &env).prepared(|_| {});
        assert_eq!(value(&command, "CODEX_API_KEY"), Some("sk-1"));
        assert_eq!(value(&command, "CODEX_HOME"), Some("/c"));
        assert!(value(&command, "OPENAI_API_KEY").is_none() && value(&command, "CODEX_ACCESS_TOKEN").is_none());
        assert!(command.secret_names.contains(&"CODEX_API_KEY".to_owned()));
        assert!(!format!("{command:?}{}{:?}", command.display, command.argv).contains("sk-1"));
        let command = Bench::new("codex", config.clone(), &[("CODEX_API_KEY", "sk-shell")]).prepared(|_| {});
        assert_eq!(command.login, "key from variable CODEX_API_KEY");
        assert_eq!(Bench::new("codex", config, &env[..1]).prepared(|_| {}).login, "login");
    }
}
