//! Claude Code, headless (`claude -p`), with the prompt on standard input. Flags and traps: contract C1 of the agents,
//! seen with claude 2.1.197. Its stream is read by `stream`, its refusals by `limits`.

use super::base::{Base, Facts, Folder};
use super::cli::{Draft, Driver};
use super::stream::Vendor;
use super::{PrepareError, RunRequest};
use crate::config::PermissionMode;

/// Claude Code reads at most 10 MB from standard input (its documentation); a longer prompt is handed over by path.
const MAX_STDIN: u64 = 10_000_000;
/// Beginning of the long-lived tokens that `claude setup-token` makes, which go into a variable of their own.
const OAUTH_PREFIX: &str = "sk-ant-oat";

static FACTS: Facts = Facts {
    program: "claude",
    package: Some("@anthropic-ai/claude-code"),
    keys: &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"],
    rivals: &[],
    key_for: |token| if token.starts_with(OAUTH_PREFIX) { "CLAUDE_CODE_OAUTH_TOKEN" } else { "ANTHROPIC_API_KEY" },
    // A run is not the moment to change the program, and an update would change what is being used by others.
    switches: &[("DISABLE_AUTOUPDATER", "1")],
    folder: Some(Folder {
        variable: "CLAUDE_CONFIG_DIR",
        name: ".claude",
        in_home: false,
        logins: &[".credentials.json"],
        beside: &[".claude.json"],
    }),
    log_in: "run claude and log in, or make a token with: claude setup-token",
};

/// An agent of type `claude`.
#[derive(Debug)]
pub(crate) struct Claude;

impl Driver for Claude {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn vendor(&self) -> Vendor {
        Vendor::Claude
    }

    fn address(&self, url: &str, draft: &mut Draft) {
        draft.set("ANTHROPIC_BASE_URL", url);
    }

    fn draft(&self, base: &Base, run: &RunRequest, draft: &mut Draft) -> Result<(), PrepareError> {
        draft.push(["-p", "--input-format", "text", "--output-format", "stream-json", "--verbose"]);
        draft.push(["--permission-mode", draft.mode.name()]);
        if let Some(model) = draft.model.clone() {
            draft.push(["--model", &model]);
        }
        if let Some(session) = &run.resume_session {
            draft.push(["--resume", session]);
        }
        draft.push(base.config.args.iter().chain(&run.extra_args).map(String::as_str));
        if base.host.root && draft.mode == PermissionMode::BypassPermissions {
            // As root it refuses to bypass permissions unless it is told that it is in a sandbox.
            draft.set("IS_SANDBOX", "1");
            draft.shown.push(("IS_SANDBOX", "1".to_owned()));
            draft
                .notes
                .push("IS_SANDBOX=1 is set, since Claude Code refuses bypassPermissions as root without it".to_owned());
        }
        draft.stdin = Some(base.stand_in(run, "Claude Code", MAX_STDIN, &mut draft.notes)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
