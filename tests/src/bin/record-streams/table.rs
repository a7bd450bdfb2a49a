//! What is recorded: one row for each file.

use std::time::Duration;

use conductor_tests::vendors::programs::Program;

/// The session's id, where a program lets one choose it.
pub(crate) const SESSION: &str = "5b0e8a52-6c4b-4d5e-9f1a-0c1d2e3f4a5b";

/// A prompt that is answered at once.
const HI: &str = "Say hi.\nFAKE-SAY: Hello from the fake service.\n";

/// A prompt with a call of the shell tool.
const TOOL: &str = "Run a command.\nFAKE-RUN: echo conductor; echo to stderr >&2\nFAKE-SAY: The command was run.\n";

/// A prompt with a call that fails.
const FAILING: &str = "Run a command.\nFAKE-RUN: echo no >&2; exit 3\nFAKE-SAY: The command failed.\n";

/// A prompt with a call that is still running when the signal comes.
const SLEEP: &str = "Wait.\nFAKE-RUN: touch started; sleep 300\n";

/// How a run ends.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// By itself.
    Itself,
    /// By a signal to its group while a tool runs.
    Signal(i32),
    /// It would try again for minutes and is killed after this time.
    Killed(Duration),
}

/// A row.
pub(crate) struct Recording {
    /// Name of the file.
    pub(crate) name: &'static str,
    pub(crate) program: Program,
    pub(crate) scenario: &'static str,
    /// The prompt of an earlier run of the session, which is then resumed.
    pub(crate) first: Option<&'static str>,
    pub(crate) prompt: &'static str,
    pub(crate) end: End,
    /// Further arguments.
    pub(crate) arguments: &'static [&'static str],
    /// Whether standard error is kept too.
    pub(crate) stderr: bool,
}

const fn row(name: &'static str, program: Program, scenario: &'static str, prompt: &'static str) -> Recording {
    Recording { name, program, scenario, first: None, prompt, end: End::Itself, arguments: &[], stderr: false }
}

const fn with_stderr(mut row: Recording) -> Recording {
    row.stderr = true;
    row
}

const fn resumed(mut row: Recording) -> Recording {
    row.first = Some(TOOL);
    row
}

const fn with(mut row: Recording, arguments: &'static [&'static str]) -> Recording {
    row.arguments = arguments;
    row
}

const fn ended(mut row: Recording, end: End) -> Recording {
    row.end = end;
    row
}

const INT: End = End::Signal(libc::SIGINT);
const TERM: End = End::Signal(libc::SIGTERM);

/// Every file that is recorded.
pub(crate) const TABLE: &[Recording] = &[
    row("claude-two-tools", Program::Claude, "script", "FAKE-RUN: echo one\nFAKE-RUN: echo two\nFAKE-SAY: Both.\n"),
    row("claude-tool-failed", Program::Claude, "script", FAILING),
    row("claude-spend", Program::Claude, "spend", HI),
    row("claude-credits", Program::Claude, "credits", HI),
    row("claude-disabled", Program::Claude, "disabled", HI),
    row("claude-auth", Program::Claude, "auth", HI),
    ended(row("claude-auth-retry", Program::Claude, "auth,retry=1", HI), End::Killed(Duration::from_secs(12))),
    row("claude-cut", Program::Claude, "cut,times=1", HI),
    row("codex-two-tools", Program::Codex, "script", "FAKE-RUN: echo one\nFAKE-RUN: echo two\nFAKE-SAY: Both.\n"),
    row("codex-tool-failed", Program::Codex, "script", FAILING),
    row("codex-window", Program::Codex, "limit", HI),
    row("codex-daily", Program::Codex, "daily", HI),
    row("codex-credits", Program::Codex, "credits", HI),
    row("codex-auth", Program::Codex, "auth", HI),
    row("codex-disabled", Program::Codex, "disabled", HI),
    row("codex-overload", Program::Codex, "overload,times=1", HI),
    row("codex-cut", Program::Codex, "cut,times=1", HI),
    resumed(row("codex-resumed", Program::Codex, "script", HI)),
    row("gemini-two-tools", Program::Gemini, "script", "FAKE-RUN: echo one\nFAKE-RUN: echo two\nFAKE-SAY: Both.\n"),
    row("gemini-tool-failed", Program::Gemini, "script", FAILING),
    with_stderr(row("gemini-window", Program::Gemini, "limit", HI)),
    with_stderr(row("gemini-daily", Program::Gemini, "daily", HI)),
    with_stderr(row("gemini-auth", Program::Gemini, "auth", HI)),
    with_stderr(row("gemini-disabled", Program::Gemini, "disabled", HI)),
    with_stderr(row("gemini-overload", Program::Gemini, "overload,times=1", HI)),
    with_stderr(ended(row("gemini-spend", Program::Gemini, "spend", HI), End::Killed(Duration::from_secs(20)))),
    resumed(row("gemini-resumed", Program::Gemini, "script", HI)),
    row("grok-hi", Program::Grok, "script", HI),
    row("grok-tool", Program::Grok, "script", TOOL),
    row("grok-two-tools", Program::Grok, "script", "FAKE-RUN: echo one\nFAKE-RUN: echo two\nFAKE-SAY: Both.\n"),
    row("grok-tool-failed", Program::Grok, "script", FAILING),
    with(row("grok-max-turns", Program::Grok, "script", TOOL), &["--max-turns", "1"]),
    resumed(row("grok-resume", Program::Grok, "script", HI)),
    with_stderr(row("grok-limit", Program::Grok, "limit", HI)),
    row("grok-daily", Program::Grok, "daily", HI),
    row("grok-spend", Program::Grok, "spend", HI),
    row("grok-credits", Program::Grok, "credits", HI),
    row("grok-auth", Program::Grok, "auth", HI),
    row("grok-disabled", Program::Grok, "disabled", HI),
    row("grok-overload", Program::Grok, "overload,times=1", HI),
    row("grok-cut", Program::Grok, "cut,times=1", HI),
    ended(row("grok-sigINT", Program::Grok, "script", SLEEP), INT),
    ended(row("grok-sigTERM", Program::Grok, "script", SLEEP), TERM),
];
