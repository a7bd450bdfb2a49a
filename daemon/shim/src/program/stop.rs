//! The stop sequence as a state machine: no clock, no signals, no files of its own.
//!
//! ```text
//! Running ─► Requested ─► Interrupted ─(INT grace)─► Terminated ─(TERM grace)─► Killed
//! ```
//! A grace of 0 skips its step. A newer request can only shorten what is left, and takes effect at once.

use conductor_shim::protocol::{Cause, Graces};
use std::time::{Duration, Instant};

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// SIGINT to the agent's group.
    Interrupt,
    /// SIGTERM, then SIGCONT, to every process of the tree.
    Terminate,
    /// SIGKILL to all.
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Requested,
    Interrupted { since: Instant },
    Terminated { since: Instant },
    Killed,
}

/// Where the stop of this run stands.
#[derive(Debug)]
pub(super) struct StopState {
    phase: Phase,
    graces: Graces,
    cause: Option<Cause>,
}

impl StopState {
    /// No stop was asked for.
    pub(super) fn new() -> Self {
        Self { phase: Phase::Running, graces: Graces { int_ms: u64::MAX, term_ms: u64::MAX }, cause: None }
    }

    /// Asks for a stop. The first cause stays; graces only shrink.
    pub(super) fn request(&mut self, graces: Graces, cause: Cause) {
        self.graces.int_ms = self.graces.int_ms.min(graces.int_ms);
        self.graces.term_ms = self.graces.term_ms.min(graces.term_ms);
        self.cause.get_or_insert(cause);
        if self.phase == Phase::Running {
            self.phase = Phase::Requested;
        }
    }

    /// The stop came before the gate was opened: the agent ends by itself and gets no signal, unless it doesn't.
    pub(super) fn keep_from_exec(&mut self, now: Instant) {
        self.graces.term_ms = self.graces.term_ms.max(Graces::default().term_ms);
        self.phase = Phase::Terminated { since: now };
    }

    /// Whether a stop was asked for.
    pub(super) fn is_requested(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Why, if a stop was asked for.
    pub(super) fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// When [`StopState::step`] has something to do next, if nobody asks before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Interrupted { since } => since.checked_add(Duration::from_millis(self.graces.int_ms)),
            Phase::Terminated { since } => since.checked_add(Duration::from_millis(self.graces.term_ms)),
            Phase::Running | Phase::Requested | Phase::Killed => None,
        }
    }

    /// The action that is due, if one is.
    pub(super) fn step(&mut self, now: Instant) -> Option<Action> {
        let due = self.deadline().is_some_and(|deadline| now >= deadline);
        match self.phase {
            Phase::Requested if self.graces.int_ms > 0 => {
                self.phase = Phase::Interrupted { since: now };
                Some(Action::Interrupt)
            }
            Phase::Requested => Some(self.terminate(now)),
            Phase::Interrupted { .. } if due => Some(self.terminate(now)),
            Phase::Terminated { .. } if due => {
                self.phase = Phase::Killed;
                Some(Action::Kill)
            }
            _ => None,
        }
    }

    fn terminate(&mut self, now: Instant) -> Action {
        if self.graces.term_ms > 0 {
            self.phase = Phase::Terminated { since: now };
            Action::Terminate
        } else {
            self.phase = Phase::Killed;
            Action::Kill
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn asked(int_ms: u64, term_ms: u64) -> StopState {
        let mut stop = StopState::new();
        stop.request(Graces { int_ms, term_ms }, Cause::WallTime);
        stop
    }

    #[test]
    fn each_step_comes_once_and_after_its_grace() {
        let begin = Instant::now();
        let mut stop = asked(2000, 1000);
        assert_eq!(stop.step(begin), Some(Action::Interrupt));
        assert_eq!(stop.step(begin + SECOND), None);
        assert_eq!(stop.deadline(), Some(begin + 2 * SECOND));
        assert_eq!(stop.step(begin + 2 * SECOND), Some(Action::Terminate));
        assert_eq!(stop.step(begin + 2 * SECOND), None);
        assert_eq!(stop.step(begin + 3 * SECOND), Some(Action::Kill));
        assert_eq!(stop.step(begin + 9 * SECOND), None);
    }

    #[test]
    fn a_grace_of_zero_skips_its_step() {
        let begin = Instant::now();
        assert_eq!(asked(0, 0).step(begin), Some(Action::Kill));
        assert_eq!(asked(0, 5).step(begin), Some(Action::Terminate));
        let mut stop = asked(1000, 0);
        assert_eq!(stop.step(begin), Some(Action::Interrupt));
        assert_eq!(stop.step(begin + SECOND), Some(Action::Kill));
    }

    #[test]
    fn a_second_request_shortens_the_graces_and_never_lengthens_them_or_changes_the_cause() {
        let begin = Instant::now();
        let mut stop = asked(60_000, 60_000);
        stop.step(begin);
        stop.request(Graces { int_ms: 0, term_ms: 0 }, Cause::LogLimit);
        assert_eq!(stop.step(begin), Some(Action::Kill));
        assert_eq!(stop.cause(), Some(&Cause::WallTime));
        let mut stop = asked(1000, 1000);
        stop.step(begin);
        stop.request(Graces { int_ms: 60_000, term_ms: 60_000 }, Cause::LogLimit);
        assert_eq!(stop.step(begin + SECOND), Some(Action::Terminate));
    }

    #[test]
    fn an_agent_that_never_ran_gets_no_signal_while_it_ends_by_itself() {
        let begin = Instant::now();
        let mut stop = StopState::new();
        stop.request(Graces { int_ms: 0, term_ms: 0 }, Cause::WallTime);
        stop.keep_from_exec(begin);
        assert_eq!(stop.step(begin + SECOND), None);
        assert_eq!(stop.step(begin + 6 * SECOND), Some(Action::Kill));
    }

    #[test]
    fn a_grace_beyond_every_clock_never_comes_due() {
        let begin = Instant::now();
        let mut stop = asked(u64::MAX, 0);
        stop.step(begin);
        assert_eq!(stop.step(begin + 1_000_000 * SECOND), None);
    }
}
