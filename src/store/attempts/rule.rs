//! Decides when an attempt is allowed, as a pure function of the count.

use std::time::Duration;

use crate::domain::Timestamp;

/// Delays after failures beyond the free ones, as in Kanidm: the maximum number of such failures, and the delay after
/// each.
const STEPS: [(u32, Duration); 3] =
    [(2, Duration::from_secs(1)), (8, Duration::from_secs(3)), (24, Duration::from_secs(5))];

/// The delay after the last step.
const LAST_STEP: Duration = Duration::from_secs(10);

/// A count dated further in the future than this was written before the clock was stepped back. The clocks of replicas
/// differ by far less.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// An instant that is in the past on every replica. The current time would not do: it is still in the future for a
/// replica whose clock is behind.
pub(super) const NOT_BLOCKED: Timestamp = Timestamp::from_millis(0);

/// The limits on failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptLimits {
    /// Failures without any delay.
    pub free: u32,
    /// Attempts in a window; further attempts wait for its end. At most 100 for an account (NIST SP 800-63B §3.2.2).
    pub hard_stop: u32,
    /// The count restarts this long after the first failure.
    pub window: Duration,
}

/// The stored count of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    /// Failures in this window. Every attempt counts as one until it succeeds.
    pub(super) failures: u32,
    pub(super) window_started_at: Timestamp,
    pub(super) last_failure_at: Timestamp,
    pub(super) blocked_until: Timestamp,
}

impl Count {
    /// From this time on the count has no effect.
    pub(super) fn expires_at(&self, limits: &AttemptLimits) -> Timestamp {
        self.blocked_until.max(self.window_started_at.plus(limits.window))
    }
}

/// How long the key remains blocked; none when an attempt is allowed.
pub(super) fn blocked_for(count: &Count, limits: &AttemptLimits, now: Timestamp) -> Option<Duration> {
    if is_over(count, limits, now) || count.blocked_until <= now {
        return None;
    }
    Some(count.blocked_until.since(now))
}

/// The count with one more attempt, which [`blocked_for`] allowed.
pub(super) fn counted(count: Option<&Count>, limits: &AttemptLimits, now: Timestamp) -> Count {
    let current = count.filter(|count| count.failures > 0 && !is_over(count, limits, now));
    let failures = current.map_or(0, |count| count.failures).saturating_add(1);
    let window_started_at = current.map_or(now, |count| count.window_started_at);
    let blocked_until = if failures >= limits.hard_stop {
        window_started_at.plus(limits.window)
    } else {
        match delay(failures, limits) {
            Duration::ZERO => NOT_BLOCKED,
            delay => now.plus(delay),
        }
    };
    Count { failures, window_started_at, last_failure_at: now, blocked_until }
}

/// Whether the count restarts: the window has ended, or a clock step back left the count in the future. Without the
/// second rule, a step could block an account for as long as the step was wide (security.md L9).
fn is_over(count: &Count, limits: &AttemptLimits, now: Timestamp) -> bool {
    count.window_started_at.plus(limits.window) <= now || count.last_failure_at > now.plus(CLOCK_TOLERANCE)
}

fn delay(failures: u32, limits: &AttemptLimits) -> Duration {
    let beyond = failures.saturating_sub(limits.free);
    if beyond == 0 {
        return Duration::ZERO;
    }
    STEPS.into_iter().find(|(up_to, _)| beyond <= *up_to).map_or(LAST_STEP, |(_, delay)| delay)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: AttemptLimits = AttemptLimits { free: 2, hard_stop: 100, window: Duration::from_secs(86_400) };
    const START: Timestamp = Timestamp::from_seconds(1_000_000);

    #[test]
    fn l4_delays_grow_in_steps() {
        let mut count = None;
        let mut delays = Vec::new();
        let mut now = START;
        for _ in 0..30 {
            let next = counted(count.as_ref(), &LIMITS, now);
            delays.push(next.blocked_until.since(now).as_secs());
            now = now.max(next.blocked_until);
            count = Some(next);
        }
        let expected = [vec![0; 2], vec![1; 2], vec![3; 6], vec![5; 16], vec![10; 4]].concat();
        assert_eq!(delays, expected);
    }

    #[test]
    fn l4_the_hard_stop_lasts_until_the_window_ends_and_lifts_by_itself() {
        let mut count = Count { failures: 99, window_started_at: START, last_failure_at: START, blocked_until: START };
        let now = START.plus(Duration::from_secs(3600));
        count = counted(Some(&count), &LIMITS, now);
        assert_eq!(blocked_for(&count, &LIMITS, now), Some(Duration::from_secs(86_400 - 3600)));
        let end = START.plus(LIMITS.window);
        assert_eq!(blocked_for(&count, &LIMITS, end), None);
        assert_eq!(counted(Some(&count), &LIMITS, end).failures, 1);
    }

    #[test]
    fn c7_an_attempt_recorded_by_a_faster_clock_causes_no_block() {
        let count = counted(None, &LIMITS, START.plus(Duration::from_secs(4)));
        assert_eq!(blocked_for(&count, &LIMITS, START), None);
    }

    proptest! {
        #[test]
        fn l4_no_schedule_of_attempts_gets_more_than_the_hard_stop_per_window(
            gaps in proptest::collection::vec(0_u64..20_000, 1..2_000),
        ) {
            let (mut count, mut now, mut allowed) = (None::<Count>, START, Vec::new());
            for gap in gaps {
                now = now.plus(Duration::from_millis(gap));
                if count.as_ref().is_none_or(|count| blocked_for(count, &LIMITS, now).is_none()) {
                    count = Some(counted(count.as_ref(), &LIMITS, now));
                    allowed.push(now);
                }
            }
            // The gaps add up to less than a window.
            prop_assert!(allowed.len() <= 100);
        }

        #[test]
        fn l9_no_step_of_the_clock_blocks_for_longer_than_a_window(
            failures in 0_u32..200, at in -10_000_000_i64..10_000_000, step in -10_000_000_i64..10_000_000,
        ) {
            let before = Timestamp::from_seconds(at);
            let base = Count { failures, window_started_at: before, last_failure_at: before, blocked_until: before };
            let count = counted(Some(&base), &LIMITS, before);
            let now = Timestamp::from_seconds(at + step);
            let blocked = blocked_for(&count, &LIMITS, now).unwrap_or_default();
            prop_assert!(blocked <= LIMITS.window + CLOCK_TOLERANCE);
            // The block ends at that time.
            prop_assert_eq!(blocked_for(&count, &LIMITS, now.plus(blocked)), None);
        }
    }
}
