//! From how a process ended to the outcome of its run. What a vendor's stream adds is the adapter's.

use crate::types::{Limit, Outcome, Timestamp};

/// How the process of a run ended, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitFacts {
    /// Its exit code; `None`: a signal ended it, or it is not known.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why it ended, as far as that was our doing.
    pub cause: EndCause,
    /// Processes of the run that the kernel ended for want of memory.
    pub oom_kills: u64,
    /// The last part of its standard error, for the summary.
    pub stderr_tail: String,
    /// When it ended: what a vendor's "resets 5pm" counts from.
    pub ended: Timestamp,
}

/// Why a process ended, as far as that was our doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// By itself.
    Natural,
    /// A stop was asked for.
    Stop,
    /// Its wall time was used up.
    WallTime,
    /// It showed no sign of life; the sentence, for people.
    Idle(String),
    /// A log reached its limit.
    LogLimit,
    /// It could not be executed.
    SpawnFailed {
        /// What failed: `chdir`, `stdin`, `exec`, …
        step: String,
        /// The error number.
        errno: i32,
    },
    /// Nobody saw its end; the reason, for people.
    Unknown(String),
}

/// The outcome of a run and one sentence on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    /// The outcome.
    pub outcome: Outcome,
    /// One sentence; `None` for a success.
    pub summary: Option<String>,
    /// What refused it, where the outcome is [`Outcome::UsageLimited`] or [`Outcome::AuthFailed`], and for a failure by an
    /// overloaded service.
    pub limit: Option<Limit>,
}

impl Classified {
    fn new(outcome: Outcome, summary: impl Into<String>) -> Self {
        Self { outcome, summary: Some(summary.into()), limit: None }
    }
}

/// Characters of a summary taken over from an agent's own words.
const MAX_WORDS: usize = 300;

impl ExitFacts {
    /// The outcome without any knowledge of the agent. What we did to it says more than its exit code.
    #[must_use]
    pub fn classify(&self) -> Classified {
        match &self.cause {
            EndCause::Stop => Classified::new(Outcome::Stopped, "stopped on request"),
            EndCause::WallTime => Classified::new(Outcome::TimedOut, "its wall time was used up"),
            EndCause::Idle(sentence) => Classified::new(Outcome::TimedOut, sentence.clone()),
            EndCause::LogLimit => Classified::new(Outcome::LogLimit, "a log reached its size limit"),
            EndCause::SpawnFailed { step, errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                Classified::new(Outcome::SpawnFailed, format!("could not be executed ({step}): {error}"))
            }
            EndCause::Unknown(reason) => Classified::new(Outcome::Lost, reason.clone()),
            EndCause::Natural => self.natural(),
        }
    }

    fn natural(&self) -> Classified {
        match (self.code, self.signal) {
            (Some(0), _) => Classified { outcome: Outcome::Completed, summary: None, limit: None },
            _ if self.oom_kills > 0 => Classified::new(Outcome::Oom, "ended by the kernel: out of memory"),
            (Some(code), _) => {
                let words = self.last_words().map(|words| format!(": {words}")).unwrap_or_default();
                Classified::new(Outcome::Failed, format!("exit code {code}{words}"))
            }
            (None, Some(signal)) => {
                Classified::new(Outcome::Signaled, format!("ended by {}, not sent by Conductor", signal_name(signal)))
            }
            (None, None) => Classified::new(Outcome::Lost, "how it ended is not known"),
        }
    }

    /// The last line of its standard error that says something.
    fn last_words(&self) -> Option<String> {
        let line = self.stderr_tail.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(one_line(line))
    }
}

/// A text of an agent as one line of bounded length, without control characters.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == MAX_WORDS {
            line.push('…');
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line
}

/// `SIGKILL (9)`.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(known) => format!("{} ({signal})", known.as_str()),
        Err(_) => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn natural(code: Option<i32>, signal: Option<i32>) -> ExitFacts {
        ExitFacts {
            code,
            signal,
            cause: EndCause::Natural,
            oom_kills: 0,
            stderr_tail: "a\n last words \n\n".into(),
            ended: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn an_exit_by_itself_is_told_by_code_signal_and_memory() {
        assert_eq!(
            natural(Some(0), None).classify(),
            Classified { outcome: Outcome::Completed, summary: None, limit: None }
        );
        assert_eq!(natural(Some(3), None).classify().summary.unwrap(), "exit code 3: last words");
        let signaled = natural(None, Some(11)).classify();
        assert_eq!(signaled.outcome, Outcome::Signaled);
        assert_eq!(signaled.summary.unwrap(), "ended by SIGSEGV (11), not sent by Conductor");
        let oom = ExitFacts { oom_kills: 1, ..natural(None, Some(9)) };
        assert_eq!(oom.classify().outcome, Outcome::Oom);
        assert_eq!(natural(None, None).classify().outcome, Outcome::Lost);
    }

    #[test]
    fn what_we_did_says_more_than_the_exit_code() {
        let with = |cause| ExitFacts { cause, ..natural(Some(0), None) }.classify().outcome;
        assert_eq!(with(EndCause::Stop), Outcome::Stopped);
        assert_eq!(with(EndCause::WallTime), Outcome::TimedOut);
        assert_eq!(with(EndCause::Idle("idle".into())), Outcome::TimedOut);
        assert_eq!(with(EndCause::LogLimit), Outcome::LogLimit);
        assert_eq!(with(EndCause::SpawnFailed { step: "exec".into(), errno: 2 }), Outcome::SpawnFailed);
        assert_eq!(with(EndCause::Unknown("reboot".into())), Outcome::Lost);
    }

    #[test]
    fn words_of_an_agent_become_one_bounded_line() {
        assert_eq!(one_line(" a\nb\u{1b}[31m "), "a b [31m");
        assert_eq!(one_line(&"x".repeat(1000)).chars().count(), 301);
    }
}
