//! What the model says next, the same for every vendor: by the prompt's lines and by what was run since.
//!
//! A line of the prompt that begins with `FAKE-RUN:` is a command that the agent is made to run with its shell tool, one
//! call for each line, in their order. `FAKE-SAY:` is the final answer. The newest message of the user that has such
//! lines counts; results of tools after it say how far the script has come, so that a resumed session goes on in it.

use serde_json::{Value, json};

use super::scenario::{Kind, Scenario};

/// Marks a command in a prompt.
const RUN: &str = "FAKE-RUN:";

/// Marks the final answer in a prompt.
const SAY: &str = "FAKE-SAY:";

/// Words of an answer that come together: a short answer has two pieces.
const WORDS: usize = 2;

/// Shell tools of the programs, each with the shape of its input.
const SHELLS: &[&str] =
    &["Bash", "exec_command", "shell_command", "run_terminal_command", "run_shell_command", "shell"];

/// A part of a conversation, as every vendor has it.
#[derive(Debug)]
pub(super) enum Item {
    /// Text of the user, or what the program says in the user's name.
    User(String),
    /// The result of a tool.
    Result,
}

/// A request to a model, as every vendor has it.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub(super) model: String,
    /// Whether the answer is streamed.
    pub(super) stream: bool,
    /// Names of the tools that are offered.
    pub(super) tools: Vec<String>,
    pub(super) items: Vec<Item>,
    /// A request that the program makes for itself (a title, a choice of the model): never part of a scenario.
    pub(super) aside: bool,
}

impl Conversation {
    /// The shell tool that is offered.
    fn shell(&self) -> Option<&str> {
        SHELLS.iter().copied().find(|shell| self.tools.iter().any(|tool| tool == shell))
    }

    /// Bytes of the longest text of the user: tests see by it that a prompt arrived whole.
    pub(super) fn prompt_bytes(&self) -> usize {
        let texts = self.items.iter().filter_map(|item| match item {
            Item::User(text) => Some(text.len()),
            Item::Result => None,
        });
        texts.max().unwrap_or(0)
    }
}

/// What the model says.
#[derive(Debug, PartialEq)]
pub(super) enum Turn {
    /// A call of a tool.
    Call { tool: String, input: Value },
    /// Text, in the pieces in which it is streamed.
    Text(Vec<String>),
}

impl Turn {
    /// The text as a whole.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(pieces) => pieces.concat(),
            Self::Call { .. } => String::new(),
        }
    }
}

/// The final answer and the command of prompts that name none.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The final answer.
    pub answer: String,
    /// The command of the scenario `tool`.
    pub command: String,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { answer: "All done.".to_owned(), command: "echo hi".to_owned() }
    }
}

/// What the model says next.
pub(super) fn next(conversation: &Conversation, scenario: &Scenario, defaults: &Defaults) -> Turn {
    let script = Script::of(conversation);
    let mut commands = script.commands;
    if scenario.kind == Kind::Tool && commands.is_empty() {
        commands.push(defaults.command.clone());
    }
    let ahead = commands.into_iter().nth(script.done).filter(|_| scenario.kind != Kind::Answer);
    if let (Some(command), Some(shell)) = (ahead, conversation.shell()) {
        return Turn::Call { tool: shell.to_owned(), input: input(shell, &command) };
    }
    match scenario.kind {
        Kind::Long => {
            let lines = 1..=scenario.number("lines", 200);
            Turn::Text(lines.map(|line| format!("Line {line} of a long answer.\n")).collect())
        }
        Kind::Bigline => {
            let bytes = usize::try_from(scenario.number("bytes", 1 << 20)).unwrap_or(1 << 20);
            Turn::Text(vec![noise(bytes)])
        }
        _ => Turn::Text(pieces(&script.answer.unwrap_or_else(|| defaults.answer.clone()))),
    }
}

/// The lines of a prompt that are for the fake.
#[derive(Debug, Default)]
struct Script {
    commands: Vec<String>,
    answer: Option<String>,
    /// Results of tools since.
    done: usize,
}

impl Script {
    fn of(conversation: &Conversation) -> Self {
        let mut script = Self::default();
        for item in &conversation.items {
            match item {
                Item::Result => script.done += 1,
                Item::User(text) if text.contains(RUN) || text.contains(SAY) => {
                    let marked = |mark| text.lines().filter_map(move |line| line.trim().strip_prefix(mark));
                    let commands: Vec<String> = marked(RUN).map(|command| command.trim().to_owned()).collect();
                    let answer = marked(SAY).next_back().map(|answer| answer.trim().to_owned());
                    if !commands.is_empty() || answer.is_some() {
                        script = Self { commands, answer, done: 0 };
                    }
                }
                Item::User(_) => {}
            }
        }
        script
    }
}

/// The input of a shell tool that runs a command.
fn input(shell: &str, command: &str) -> Value {
    match shell {
        // Codex hands a command over that takes longer than this, as the result of the call.
        "exec_command" => json!({"cmd": command, "yield_time_ms": 30_000}),
        "shell_command" => json!({"command": command}),
        "shell" => json!({"command": ["bash", "-lc", command]}),
        _ => json!({"command": command, "description": "Run a command of the prompt"}),
    }
}

/// Digits without a pattern: Gemini CLI ends a run whose answer repeats itself.
fn noise(bytes: usize) -> String {
    let mut state: u64 = 1;
    let mut text = String::with_capacity(bytes + 20);
    while text.len() < bytes {
        // Knuth's linear congruential generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&(state >> 16).to_string());
    }
    text.truncate(bytes);
    text
}

fn pieces(answer: &str) -> Vec<String> {
    let words: Vec<&str> = answer.split_inclusive(' ').collect();
    words.chunks(words.len().div_ceil(WORDS).max(1)).map(<[&str]>::concat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(items: Vec<Item>) -> Conversation {
        Conversation { tools: vec!["Read".to_owned(), "Bash".to_owned()], items, ..Conversation::default() }
    }

    fn says(items: Vec<Item>, kind: Kind) -> String {
        match next(&conversation(items), &Scenario::of(kind), &Defaults::default()) {
            Turn::Call { tool, input } => format!("{tool}: {}", input["command"].as_str().unwrap_or_default()),
            text => text.text(),
        }
    }

    fn user(text: &str) -> Item {
        Item::User(text.to_owned())
    }

    const PROMPT: &str = "Do it.\n  FAKE-RUN: touch \"$X/DONE\"\nFAKE-RUN: ls\nFAKE-SAY: It is done.\n";

    #[test]
    fn commands_of_the_prompt_are_run_in_their_order_and_then_it_answers() {
        assert_eq!(says(vec![user(PROMPT)], Kind::Script), "Bash: touch \"$X/DONE\"");
        assert_eq!(says(vec![user(PROMPT), user("<reminder>"), Item::Result], Kind::Script), "Bash: ls");
        assert_eq!(says(vec![user(PROMPT), Item::Result, Item::Result], Kind::Script), "It is done.");
    }

    #[test]
    fn a_resumed_session_goes_on_where_its_script_was() {
        assert_eq!(says(vec![user(PROMPT), Item::Result, user("go on")], Kind::Script), "Bash: ls");
        let done = vec![user(PROMPT), Item::Result, Item::Result, user("FAKE-RUN: pwd")];
        assert_eq!(says(done, Kind::Script), "Bash: pwd", "a new script begins anew");
    }

    #[test]
    fn a_prompt_without_a_script_is_answered_unless_a_tool_is_asked_for() {
        assert_eq!(says(vec![user("hi")], Kind::Script), "All done.");
        assert_eq!(says(vec![user("hi")], Kind::Tool), "Bash: echo hi");
        assert_eq!(says(vec![user(PROMPT)], Kind::Answer), "It is done.");
    }

    #[test]
    fn an_answer_comes_in_pieces_that_are_the_answer() {
        assert_eq!(pieces("All done."), ["All ", "done."]);
        assert_eq!(pieces("a b c d e").concat(), "a b c d e");
        assert_eq!(pieces("").concat(), "");
    }
}
