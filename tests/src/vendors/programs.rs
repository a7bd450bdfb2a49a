//! The vendors' own programs, pointed at the fake: which flags, variables and files each needs.
//!
//! For tests that run them directly and for the recorder of streams. What Conductor itself passes is the business of its
//! adapters.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A key that is none.
const KEY: &str = "sk-test-not-a-key";

/// A program of a vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// Grok.
    Grok,
}

/// All of them.
pub const ALL: [Program; 4] = [Program::Claude, Program::Codex, Program::Gemini, Program::Grok];

/// How a run begins.
#[derive(Clone, Copy, Debug)]
pub enum Session<'a> {
    /// A new one, with this id where the program lets one choose it.
    New(&'a str),
    /// A session goes on.
    Resume(&'a str),
}

impl Program {
    /// Its name, as in `PATH`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::Grok => "grok",
        }
    }

    /// The installed program: `CONDUCTOR_VENDORS_DIR` names the folder.
    ///
    /// # Errors
    /// It is not there.
    pub fn path(self) -> Result<PathBuf> {
        let folder = std::env::var_os("CONDUCTOR_VENDORS_DIR").context("use make test-vendors")?;
        let program = PathBuf::from(folder).join(self.name());
        ensure!(program.exists(), "{} is not installed; use make test-vendors", program.display());
        Ok(program)
    }

    /// A headless run in an empty environment, with its prompt in a file and its home in a folder.
    ///
    /// `service` is an address of [`super::Fake::url`]. Standard input must be the prompt's file, which Grok ignores.
    ///
    /// # Errors
    /// The program is not there.
    pub fn command(self, service: &str, home: &Path, prompt: &Path, session: Session<'_>) -> Result<Command> {
        let mut command = Command::new(self.path()?);
        command.env_clear().env("HOME", home).env("TERM", "dumb").env("LANG", "C.UTF-8").env("NO_COLOR", "1");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        match self {
            Self::Claude => claude(&mut command, service, session),
            Self::Codex => codex(&mut command, service, session),
            Self::Gemini => gemini(&mut command, service, home, session)?,
            Self::Grok => grok(&mut command, service, prompt, session),
        }
        Ok(command)
    }
}

fn claude(command: &mut Command, service: &str, session: Session<'_>) {
    command.env("ANTHROPIC_BASE_URL", service).env("ANTHROPIC_API_KEY", KEY);
    // Root may not skip permissions unless it says that it is in a sandbox.
    command.env("IS_SANDBOX", "1").env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    command.args(["-p", "--output-format", "stream-json", "--verbose", "--permission-mode", "bypassPermissions"]);
    match session {
        Session::New(id) => command.args(["--session-id", id]),
        Session::Resume(id) => command.args(["--resume", id]),
    };
}

fn codex(command: &mut Command, service: &str, session: Session<'_>) {
    // `codex exec` takes a key of the environment from this variable alone.
    command.env("CODEX_API_KEY", KEY);
    command.arg("exec");
    if let Session::Resume(id) = session {
        command.args(["resume", id]);
    }
    let base = format!("openai_base_url=\"{service}/v1\"");
    command.args(["--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]);
    command.args(["-m", "gpt-fake", "-c", &base, "-c", "check_for_update_on_startup=false", "-"]);
}

/// Without its type of login in its settings it takes a base URL for one of a kind that it then refuses (exit 41).
fn gemini(command: &mut Command, service: &str, home: &Path, session: Session<'_>) -> Result<()> {
    let folder = home.join(".gemini");
    std::fs::create_dir_all(&folder)?;
    let settings = r#"{"security":{"auth":{"selectedType":"gemini-api-key"}},"general":{"enableAutoUpdate":false}}"#;
    std::fs::write(folder.join("settings.json"), settings)?;
    command.env("GOOGLE_GEMINI_BASE_URL", service).env("GEMINI_API_KEY", KEY);
    command.args(["-o", "stream-json", "--approval-mode", "yolo", "--skip-trust", "-m", "gemini-2.5-flash"]);
    match session {
        Session::New(id) => command.args(["--session-id", id]),
        Session::Resume(id) => command.args(["-r", id]),
    };
    Ok(())
}

fn grok(command: &mut Command, service: &str, prompt: &Path, session: Session<'_>) {
    command.env("XAI_API_KEY", KEY).env("GROK_XAI_API_BASE_URL", format!("{service}/v1"));
    command.env("GROK_DISABLE_AUTOUPDATER", "1").env("GROK_TELEMETRY_ENABLED", "0");
    // Without `--verbatim` a prompt over some 99 kB is sent as an excerpt that points to a file.
    command.arg("--prompt-file").arg(prompt).arg("--verbatim");
    command.args(["-m", "grok-4.6", "--output-format", "streaming-json", "--always-approve", "--no-auto-update"]);
    match session {
        Session::New(id) => command.args(["-s", id]),
        Session::Resume(id) => command.args(["-r", id]),
    };
}
