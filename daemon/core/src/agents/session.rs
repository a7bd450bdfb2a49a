//! Whether a run ended at once because the vendor's session that it was to go on with is not there: it was never written,
//! as Gemini CLI writes none without an answer, or it was removed. Pure.

use super::event::StreamSummary;
use super::outcome::{EndCause, ExitFacts};
use super::stream::Vendor;

/// What a program says of a session that it does not find, on standard error, where it says nothing else.
fn words(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Claude => "No conversation found with session ID",
        Vendor::Codex => "no rollout found for thread id",
        Vendor::Gemini => "Error resuming session:",
        Vendor::Grok => "not found locally, restoring conversation from remote",
        Vendor::Rest => "",
    }
}

/// Whether the session is not there. What a program printed after an answer is not looked at.
pub(super) fn lost(vendor: Vendor, exit: &ExitFacts, parsed: &StreamSummary) -> bool {
    if exit.cause != EndCause::Natural || exit.code == Some(0) || parsed.answer.is_some() {
        return false;
    }
    match vendor {
        Vendor::Rest => parsed.reason.as_deref() == Some("session_not_found"),
        _ => exit.stderr_tail.contains(words(vendor)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    fn exit(code: i32, stderr: &str) -> ExitFacts {
        ExitFacts {
            code: Some(code),
            signal: None,
            cause: EndCause::Natural,
            oom_kills: 0,
            stderr_tail: stderr.to_owned(),
            ended: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_each_program_says_of_a_session_that_is_gone_is_known() {
        let nothing = StreamSummary::default();
        // As the programs print it.
        for (vendor, said) in [
            (Vendor::Claude, "No conversation found with session ID: 5b0e8a52-6c4b-4d5e-9f1a-0c1d2e3f4a5b\n"),
            (
                Vendor::Codex,
                "Error: thread/resume: thread/resume failed: no rollout found for thread id 5b0e8a52 (code -32600)\n",
            ),
            (Vendor::Gemini, "Error resuming session: No previous sessions found for this project.\n"),
            (
                Vendor::Grok,
                "Session \"5b0e\" not found locally, restoring conversation from remote...\nError: Failed\n",
            ),
        ] {
            assert!(lost(vendor, &exit(1, said), &nothing), "{said}");
            assert!(!lost(vendor, &exit(0, said), &nothing), "it went well");
            assert!(!lost(vendor, &exit(1, "Error: overloaded"), &nothing));
            let answered = StreamSummary { answer: Some("It says so itself.".into()), ..StreamSummary::default() };
            assert!(!lost(vendor, &exit(1, said), &answered));
        }
        let gone = StreamSummary { reason: Some("session_not_found".into()), ..StreamSummary::default() };
        assert!(lost(Vendor::Rest, &exit(1, ""), &gone) && !lost(Vendor::Rest, &exit(1, ""), &nothing));
    }
}
