//! The idle clock of one run: how long it has shown no sign of life, and what follows from that. Pure: time and signs are
//! arguments.
//!
//! ```text
//!            quiet for idle_warn             quiet for idle_timeout
//!   Active ──────────────────────► Warned ─────────────────────────► Acted
//!     ▲  │                           │ │                               │
//!     │  └── quiet for idle_timeout ─┼─┼──────────────────────────────►│
//!     └───────── a sign of life ─────┘ └◄── the order can't be given ──┘
//! ```

use std::time::{Duration, Instant};

/// Looks within the shorter limit: a warning and an end come at most a tenth later than they could.
const LOOKS: u32 = 10;
/// Longest pause between two looks: limits of hours are still kept to the minute.
const LONGEST_PERIOD: Duration = Duration::from_secs(60);
/// Shortest pause: limits of seconds, which are for trying things out, must not keep conductord busy.
const SHORTEST_PERIOD: Duration = Duration::from_millis(100);

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Warn of it; once for each time that it falls silent.
    Warn,
    /// It lives after all.
    Alive,
    /// End it.
    Act,
}

/// Limits of one run; both `None`: there is nothing to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Quiet time until a warning.
    pub(super) warn: Option<Duration>,
    /// Quiet time until the end.
    pub(super) act: Option<Duration>,
}

impl Limits {
    /// The pause between two looks. `None`: no look is needed.
    fn period(self) -> Option<Duration> {
        let shorter = self.warn.into_iter().chain(self.act).min()?;
        Some((shorter / LOOKS).clamp(SHORTEST_PERIOD, LONGEST_PERIOD))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Active,
    Warned,
    Acted,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    limits: Limits,
    period: Duration,
    state: State,
    quiet: Duration,
    last: Instant,
}

impl Clock {
    /// A clock that begins now with a sign of life. `None`: there is no limit.
    pub(super) fn new(limits: Limits, now: Instant) -> Option<Self> {
        let period = limits.period()?;
        Some(Self { limits, period, state: State::Active, quiet: Duration::ZERO, last: now })
    }

    /// What a look found: whether there was a sign of life since the one before.
    ///
    /// A pause counts for two periods at most. While nobody looked for longer, the run may have been frozen together
    /// with us (a paused container or machine), or we alone were: no proof of its idleness.
    pub(super) fn look(&mut self, now: Instant, alive: bool) -> Option<Verdict> {
        let passed = now.saturating_duration_since(self.last);
        self.last = now;
        if self.state == State::Acted {
            return None;
        }
        if alive {
            self.quiet = Duration::ZERO;
            return (std::mem::replace(&mut self.state, State::Active) == State::Warned).then_some(Verdict::Alive);
        }
        self.quiet += passed.min(2 * self.period);
        if self.limits.act.is_some_and(|limit| self.quiet >= limit) {
            self.state = State::Acted;
            return Some(Verdict::Act);
        }
        if self.state == State::Active && self.limits.warn.is_some_and(|limit| self.quiet >= limit) {
            self.state = State::Warned;
            return Some(Verdict::Warn);
        }
        None
    }

    /// The end could not be asked for: the next look tries again.
    pub(super) fn try_again(&mut self) {
        if self.state == State::Acted {
            self.state = State::Warned;
        }
    }

    /// How long it has been quiet, as far as that is known.
    pub(super) fn quiet(&self) -> Duration {
        self.quiet
    }

    /// The time between two looks.
    pub(super) fn period(&self) -> Duration {
        self.period
    }

    /// When to look next. `None`: nothing is left to be decided.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.state == State::Acted {
            return None;
        }
        let limits = [self.limits.act, self.limits.warn.filter(|_| self.state == State::Active)];
        let rest = limits.into_iter().flatten().map(|limit| limit.saturating_sub(self.quiet)).min();
        let pause = rest.map_or(self.period, |rest| rest.clamp(SHORTEST_PERIOD, self.period));
        Some(self.last + pause)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limits(warn: u32, act: u32) -> Limits {
        let minutes = |count| (count > 0).then_some(MINUTE * count);
        Limits { warn: minutes(warn), act: minutes(act) }
    }

    /// Looks when the clock wants it to, for some minutes; the verdicts with their minute.
    fn watch(clock: &mut Clock, from: Instant, minutes: u32, alive: impl Fn(u32) -> bool) -> Vec<(u32, Verdict)> {
        let mut found = Vec::new();
        while let Some(now) = clock.next().filter(|now| *now <= from + MINUTE * minutes) {
            let minute = u32::try_from((now - from).as_secs() / 60).unwrap();
            found.extend(clock.look(now, alive(minute)).map(|verdict| (minute, verdict)));
        }
        found
    }

    #[test]
    fn a_silent_run_is_warned_of_once_and_then_ended() {
        let begin = Instant::now();
        let mut clock = Clock::new(limits(10, 30), begin).unwrap();
        assert_eq!(watch(&mut clock, begin, 100, |_| false), [(10, Verdict::Warn), (30, Verdict::Act)]);
        assert_eq!(clock.next(), None);
        assert_eq!(clock.look(begin + 200 * MINUTE, false), None, "only once");
    }

    #[test]
    fn a_sign_of_life_begins_anew_and_the_next_silence_is_warned_of_again() {
        let begin = Instant::now();
        let mut clock = Clock::new(limits(10, 30), begin).unwrap();
        let found = watch(&mut clock, begin, 100, |minute| minute == 25);
        assert_eq!(found, [(10, Verdict::Warn), (25, Verdict::Alive), (35, Verdict::Warn), (55, Verdict::Act)]);
    }

    #[test]
    fn either_limit_may_be_absent_and_a_warning_that_comes_too_late_is_left_out() {
        let begin = Instant::now();
        let run = |limits| watch(&mut Clock::new(limits, begin).unwrap(), begin, 100, |_| false);
        assert_eq!(run(limits(10, 0)), [(10, Verdict::Warn)]);
        assert_eq!(run(limits(0, 30)), [(30, Verdict::Act)]);
        assert_eq!(run(limits(30, 10)), [(10, Verdict::Act)]);
        assert_eq!(run(limits(10, 10)), [(10, Verdict::Act)]);
        assert!(Clock::new(limits(0, 0), begin).is_none());
    }

    #[test]
    fn time_in_which_nobody_looked_proves_nothing() {
        let begin = Instant::now();
        let mut clock = Clock::new(limits(10, 30), begin).unwrap();
        assert_eq!(clock.look(begin + 600 * MINUTE, false), None);
        assert_eq!(clock.quiet(), 2 * MINUTE);
    }

    #[test]
    fn an_end_that_could_not_be_asked_for_is_tried_again() {
        let begin = Instant::now();
        let mut clock = Clock::new(limits(0, 1), begin).unwrap();
        assert_eq!(watch(&mut clock, begin, 2, |_| false).last(), Some(&(1, Verdict::Act)));
        clock.try_again();
        let now = clock.next().unwrap();
        assert_eq!(clock.look(now, false), Some(Verdict::Act));
    }

    proptest! {
        /// Against a plain count of the quiet time.
        #[test]
        fn verdicts_follow_from_the_quiet_time_alone(
            warn in 0u32..40,
            act in 0u32..40,
            looks in proptest::collection::vec((0u64..200, proptest::bool::weighted(0.1)), 1..200),
        ) {
            let begin = Instant::now();
            let Some(mut clock) = Clock::new(limits(warn, act), begin) else { return Ok(()) };
            let most = 2 * clock.period();
            let (mut now, mut quiet, mut warned, mut ended) = (begin, Duration::ZERO, false, false);
            for (seconds, alive) in looks {
                let pause = Duration::from_secs(seconds);
                now += pause;
                let verdict = clock.look(now, alive);
                if ended {
                    prop_assert_eq!(verdict, None);
                    continue;
                }
                quiet = if alive { Duration::ZERO } else { quiet + pause.min(most) };
                let over = |limit: u32| limit > 0 && !alive && quiet >= MINUTE * limit;
                let expected = if alive {
                    std::mem::take(&mut warned).then_some(Verdict::Alive)
                } else if over(act) {
                    Some(Verdict::Act)
                } else if over(warn) && !warned {
                    warned = true;
                    Some(Verdict::Warn)
                } else {
                    None
                };
                ended = expected == Some(Verdict::Act);
                prop_assert_eq!(verdict, expected);
                prop_assert_eq!(clock.next().is_none(), ended);
                prop_assert!(clock.next().is_none_or(|next| next > now && next <= now + clock.period()));
            }
        }
    }
}
