//! Texts from arguments, files and standard input.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use crate::cli::PromptArgs;
use crate::errors::Failure;

/// The largest prompt that the server takes; more is not even read.
const MAX_PROMPT: u64 = 16 * 1024 * 1024;

/// The prompt, and the further arguments for the agent's program.
pub(crate) fn read(args: &PromptArgs) -> Result<(String, Vec<String>), Failure> {
    let mut words = args.words.clone();
    let mut rest = args.rest.clone();
    if words.is_empty() && args.file.is_none() && !rest.is_empty() {
        words.push(rest.remove(0));
    }
    let typed = words.join(" ");
    let text = match &args.file {
        Some(file) if typed.is_empty() => from_file(file)?,
        Some(file) => format!("{typed}\n\n{}", from_file(file)?),
        None => from_words(&words, "a prompt: conductorctl start \"what to do\", -f FILE, or a pipe")?,
    };
    if text.trim().is_empty() {
        return Err(Failure::Usage("the prompt is empty".into()));
    }
    Ok((text, rest))
}

/// A text that was typed, or `-` or a pipe; `wanted` is what to ask for where there is neither.
pub(crate) fn from_words(words: &[String], wanted: &str) -> Result<String, Failure> {
    match words {
        [dash] if dash == "-" => from_stdin(),
        [] if !std::io::stdin().is_terminal() => from_stdin(),
        [] => Err(Failure::Usage(format!("expected {wanted}"))),
        words => Ok(words.join(" ")),
    }
}

fn from_file(path: &Path) -> Result<String, Failure> {
    if path == Path::new("-") {
        return from_stdin();
    }
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| Failure::Usage(format!("can't open {name}: {error}")))?;
    text(file, &name)
}

fn from_stdin() -> Result<String, Failure> {
    text(std::io::stdin().lock(), "standard input")
}

fn text(from: impl std::io::Read, name: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    from.take(MAX_PROMPT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Usage(format!("can't read {name}: {error}")))?;
    if bytes.len() as u64 > MAX_PROMPT {
        return Err(Failure::Usage(format!("{name} is too long: at most 16 MiB are taken")));
    }
    String::from_utf8(bytes).map_err(|error| {
        Failure::Usage(format!("{name} is not UTF-8 text: byte {} does not fit", error.utf8_error().valid_up_to()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str], rest: &[&str]) -> PromptArgs {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        PromptArgs { words: own(words), file: None, rest: own(rest) }
    }

    #[test]
    fn words_are_joined_and_a_prompt_may_follow_the_dashes() {
        assert_eq!(read(&args(&["fix", "it"], &[])).expect("words").0, "fix it");
        assert_eq!(read(&args(&[], &["--fix it"])).expect("after --").0, "--fix it");
        let (prompt, rest) = read(&args(&["fix"], &["--verbose"])).expect("both");
        assert_eq!((prompt.as_str(), rest), ("fix", vec!["--verbose".to_owned()]));
    }

    #[test]
    fn an_empty_prompt_is_a_usage_error() {
        assert_eq!(read(&args(&["  "], &[])).expect_err("empty").code(), 2);
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_with_its_place() {
        let failure = text(&b"ab\xff"[..], "x").expect_err("invalid");
        assert!(failure.to_string().contains("byte 2"), "{failure}");
    }
}
