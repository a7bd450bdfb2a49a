//! When to try again: a bounded number of times, within a bounded time. Pure.

use std::time::Duration;

/// The first pause is up to this long; each next one up to twice as long.
const BASE: Duration = Duration::from_secs(1);
/// No pause of the backoff is longer: an outage that takes longer is not helped by waiting longer.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// No pause is shorter: a server in trouble should not be hit at once.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// A pause that the server asks for is lengthened by up to this, so that those who got the same answer don't come back
/// at the same moment.
const SPREAD: Duration = Duration::from_secs(1);

/// What is left to spend.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    retries: u32,
    used: u32,
    time: Duration,
}

impl Budget {
    /// At most `retries`, with pauses of `time` together.
    #[must_use]
    pub fn new(retries: u32, time: Duration) -> Self {
        Self { retries, used: 0, time }
    }

    /// The pause before the next try, at least `wanted` where the server says so; `None`: nothing is left. `random` is
    /// from 0 to 1.
    pub fn pause(&mut self, wanted: Option<Duration>, random: f64) -> Option<Duration> {
        if self.used >= self.retries || self.time.is_zero() || wanted.is_some_and(|wanted| wanted > self.time) {
            return None;
        }
        let cap = BASE.saturating_mul(1u32.checked_shl(self.used).unwrap_or(u32::MAX)).min(MAX_BACKOFF);
        let random = random.clamp(0.0, 1.0);
        let pause = wanted.map_or_else(|| cap.mul_f64(random), |wanted| wanted + SPREAD.mul_f64(random));
        // The spread may be over the budget, what the server asked for is not.
        let pause = pause.max(MIN_PAUSE).min(self.time);
        self.used += 1;
        self.time -= pause;
        Some(pause)
    }
}

/// A number from 0 to 1 that differs between processes and calls; not for secrets.
#[must_use]
pub fn random() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The standard library seeds each of these differently, from the system's random numbers.
    let bits = RandomState::new().build_hasher().finish() >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
    let numerator = bits as f64;
    numerator / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_end() {
        let mut budget = Budget::new(9, Duration::from_secs(3600));
        let pauses: Vec<u64> = std::iter::from_fn(|| budget.pause(None, 1.0)).map(|pause| pause.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_pause_that_the_server_wants_is_kept_or_there_is_none() {
        let mut budget = Budget::new(3, Duration::from_secs(100));
        assert_eq!(budget.pause(Some(Duration::from_secs(101)), 0.0), None);
        assert_eq!(budget.pause(Some(Duration::from_secs(60)), 0.5), Some(Duration::from_millis(60_500)));
        assert_eq!(budget.pause(Some(Duration::from_secs(60)), 0.5), None);
        assert_eq!(Budget::new(0, Duration::from_secs(9)).pause(None, 0.0), None);
    }

    proptest! {
        #[test]
        fn all_pauses_together_stay_in_the_budget(
            retries in 0u32..80,
            seconds in 0u64..1000,
            wanted in prop::collection::vec(prop::option::of(0u64..50), 100),
        ) {
            let mut budget = Budget::new(retries, Duration::from_secs(seconds));
            let pauses: Vec<Duration> = wanted
                .into_iter()
                .filter_map(|wanted| budget.pause(wanted.map(Duration::from_secs), random()))
                .collect();
            prop_assert!(pauses.len() <= retries as usize);
            prop_assert!(pauses.iter().sum::<Duration>() <= Duration::from_secs(seconds));
        }
    }
}
