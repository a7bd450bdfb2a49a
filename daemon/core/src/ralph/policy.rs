//! How long a loop pauses between attempts.

use std::time::Duration;

/// Pauses after crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// The first pause.
    pub base: Duration,
    /// The longest pause.
    pub max: Duration,
}

impl Default for BackoffPolicy {
    fn default() -> Self {
        Self { base: Duration::from_secs(1), max: Duration::from_secs(300) }
    }
}

/// Doublings beyond which the pause is at its longest for any sane setting; keeps the shift within 32 bits.
const MAX_DOUBLINGS: u32 = 30;

/// The pause after the `crashes`-th crash in a row (from 1): between half and all of `base * 2^(crashes-1)`, at most
/// `max`, at least `floor` (the ordinary delay between attempts). `jitter` is in `0.0..1.0`.
#[must_use]
pub fn backoff_delay(policy: BackoffPolicy, crashes: u32, floor: Duration, jitter: f64) -> Duration {
    let doublings = crashes.saturating_sub(1).min(MAX_DOUBLINGS);
    let full = policy.base.saturating_mul(1 << doublings).min(policy.max);
    let half = full / 2;
    (half + half.mul_f64(jitter.clamp(0.0, 1.0))).max(floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_limit_and_never_falls_below_the_floor() {
        let policy = BackoffPolicy::default();
        let floor = Duration::from_secs(1);
        let pause = |crashes| backoff_delay(policy, crashes, floor, 1.0);
        assert_eq!(pause(1), Duration::from_secs(1));
        assert_eq!(pause(2), Duration::from_secs(2));
        assert_eq!(pause(5), Duration::from_secs(16));
        assert_eq!(pause(20), Duration::from_secs(300));
        assert_eq!(pause(u32::MAX), Duration::from_secs(300));
        assert_eq!(backoff_delay(policy, 1, floor, 0.0), floor);
        assert_eq!(backoff_delay(policy, 5, floor, 0.0), Duration::from_secs(8));
    }
}
