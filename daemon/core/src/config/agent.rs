//! One agent's settings: its kind, program, key, account and what it may do.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::Permissions;

use super::{Env, Secret, Token, TokenError, VersionRange, load, token};

/// One agent. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// What kind of program it is.
    #[serde(rename = "type")]
    pub kind: AgentKind,
    /// The program: a name that is looked up in PATH, or a path. Default: the vendor's; type command needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Versions of the program that may run: exact (`2.1.197`), or a range (`>=2.1, <3`); another one starts nothing. Not
    /// for type command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionRange>,
    /// Arguments, put behind those that Conductor gives. Everybody on the machine can read them: no secrets here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Variables to set for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "load::variables")]
    pub env: BTreeMap<String, String>,
    /// Variables of conductord's environment that it gets, besides the usual ones; `NAME*` stands for all that begin so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_pass: Vec<String>,
    /// Its key (not for type command). Better is `token_file`. `CONDUCTOR_AGENT_<NAME>_TOKEN` overrides all three. Without
    /// any, the program's own login is used; perplexity, and xai without its program, need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// File with its key (not for type command): regular, private (mode 0600), one line. `~/` is the home folder, a
    /// relative path is relative to this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Variable of conductord's environment that holds its key (not for type command).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// Whose limits it shares: agents with the same account wait together. Default: one account for each login or key of a
    /// vendor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Model, where a task names none (not for type command).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What it may do without asking (types claude, codex, gemini, grok and xai, each with values of its own). Default:
    /// bypassPermissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_mode: Option<PermissionMode>,
    /// What it may write to. Default: `defaults.permissions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::permissions")]
    pub permissions: Option<Permissions>,
    /// Folders that it may write to when it is confined, besides its working folder, its task's and its program's own:
    /// caches of build tools, say. `~/` is the home folder, a relative path is relative to this file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub write_paths: Vec<PathBuf>,
    /// How it gets its prompt (type command). Default: stdin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<PromptBy>,
    /// Address of the vendor's service or of a gateway to it, http:// or https:// (not for type command).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The program's own folder of settings and login (types claude, codex, gemini, grok and xai). Default: the program's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_dir: Option<PathBuf>,
}

/// Kinds of agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentKind {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// Grok, xAI's program.
    Grok,
    /// xAI: its program where it is installed, else its HTTP API.
    Xai,
    /// Perplexity, by its HTTP API.
    Perplexity,
    /// Any program.
    Command,
}

impl AgentKind {
    /// Kinds that have an agent of their name without being configured.
    pub const BUILT_IN: [Self; 6] = [Self::Claude, Self::Codex, Self::Gemini, Self::Grok, Self::Xai, Self::Perplexity];

    /// The name used in the configuration, on the wire and on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::Grok => "grok",
            Self::Xai => "xai",
            Self::Perplexity => "perplexity",
            Self::Command => "command",
        }
    }

    /// Whose logins, keys and limits it uses: Grok's are xAI's.
    #[must_use]
    pub fn vendor(self) -> &'static str {
        if self == Self::Grok { "xai" } else { self.name() }
    }

    /// Permission modes that it knows; the first is the default. Empty: it has none.
    #[must_use]
    pub fn permission_modes(self) -> &'static [PermissionMode] {
        use PermissionMode as Mode;
        match self {
            Self::Claude | Self::Grok | Self::Xai => {
                &[Mode::BypassPermissions, Mode::AcceptEdits, Mode::DontAsk, Mode::Auto, Mode::Plan, Mode::Default]
            }
            Self::Codex => &[
                Mode::BypassPermissions,
                Mode::DangerFullAccess,
                Mode::AcceptEdits,
                Mode::WorkspaceWrite,
                Mode::Plan,
                Mode::ReadOnly,
            ],
            Self::Gemini => {
                &[Mode::BypassPermissions, Mode::Yolo, Mode::AcceptEdits, Mode::AutoEdit, Mode::Plan, Mode::Default]
            }
            Self::Perplexity | Self::Command => &[],
        }
    }
}

impl AsRef<str> for AgentKind {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

/// What an agent may do without asking: words that several vendors share, and the vendors' own for the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PermissionMode {
    /// Everything is allowed.
    #[default]
    #[serde(rename = "bypassPermissions")]
    BypassPermissions,
    /// Edits are allowed, the rest by its settings; for Codex: writing in the working folder.
    #[serde(rename = "acceptEdits")]
    AcceptEdits,
    /// What its settings don't allow is denied without asking.
    #[serde(rename = "dontAsk")]
    DontAsk,
    /// It decides by itself.
    #[serde(rename = "auto")]
    Auto,
    /// It plans and changes nothing.
    #[serde(rename = "plan")]
    Plan,
    /// By its settings.
    #[serde(rename = "default")]
    Default,
    /// Codex: no sandbox.
    #[serde(rename = "danger-full-access")]
    DangerFullAccess,
    /// Codex: its sandbox, writing in the working folder.
    #[serde(rename = "workspace-write")]
    WorkspaceWrite,
    /// Codex: its sandbox, writing nothing.
    #[serde(rename = "read-only")]
    ReadOnly,
    /// Gemini CLI: everything is allowed.
    #[serde(rename = "yolo")]
    Yolo,
    /// Gemini CLI: edits are allowed.
    #[serde(rename = "auto_edit")]
    AutoEdit,
}

impl PermissionMode {
    /// The name used in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BypassPermissions => "bypassPermissions",
            Self::AcceptEdits => "acceptEdits",
            Self::DontAsk => "dontAsk",
            Self::Auto => "auto",
            Self::Plan => "plan",
            Self::Default => "default",
            Self::DangerFullAccess => "danger-full-access",
            Self::WorkspaceWrite => "workspace-write",
            Self::ReadOnly => "read-only",
            Self::Yolo => "yolo",
            Self::AutoEdit => "auto_edit",
        }
    }
}

/// How a prompt travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PromptBy {
    /// On standard input.
    #[default]
    Stdin,
    /// As the path of a file: where `{prompt}` stands in `args`, else as the last argument.
    File,
}

impl fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut view = self.clone();
        view.hide();
        f.write_str(&serde_json::to_string(&view).map_err(|_| fmt::Error)?)
    }
}

impl AgentConfig {
    /// Replaces the values of variables: any of them may be a key. A token hides itself.
    pub(super) fn hide(&mut self) {
        self.env.values_mut().for_each(|value| "***".clone_into(value));
    }

    /// An agent of a kind with nothing else said.
    #[must_use]
    pub fn new(kind: AgentKind) -> Self {
        Self {
            kind,
            program: None,
            version: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            env_pass: Vec::new(),
            token: None,
            token_file: None,
            token_env: None,
            account: None,
            model: None,
            permission_mode: None,
            prompt: None,
            base_url: None,
            config_dir: None,
            permissions: None,
            write_paths: Vec::new(),
        }
    }

    /// Its key, read anew; `None`: it uses the program's own login.
    ///
    /// # Errors
    /// [`TokenError`] where a source is named that gives no token.
    pub fn resolve_token(&self, name: &str, env: &Env) -> Result<Option<Token>, TokenError> {
        if self.kind == AgentKind::Command {
            return Ok(None);
        }
        token::resolve(name, self.token_file.as_deref(), self.token_env.as_deref(), self.token.as_ref(), env)
    }

    /// The key of this configuration that names the source of its token, for messages: `agents.NAME.token_file`.
    #[must_use]
    pub fn token_key(&self, name: &str, env: &Env) -> String {
        let variable = token::token_variable(name);
        let field = match () {
            () if env.contains_key(&variable) => return variable,
            () if self.token_file.is_some() => "token_file",
            () if self.token_env.is_some() => "token_env",
            () => "token",
        };
        format!("agents.{name}.{field}")
    }
}
