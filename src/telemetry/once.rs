//! Rate limit for a log line that callers can trigger at will.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MINUTE_MILLIS: u64 = 60_000;

/// Permits one line per minute.
#[derive(Debug, Default)]
pub struct OncePerMinute {
    /// When the next line is permitted, in milliseconds of the monotonic clock.
    due_at: AtomicU64,
}

impl OncePerMinute {
    /// Whether to write the line now. `now` is monotonic time.
    pub fn is_due(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let next = |due_at: u64| (now >= due_at).then(|| now.saturating_add(MINUTE_MILLIS));
        self.due_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_line_a_minute_is_logged() {
        let line = OncePerMinute::default();
        let due = [0, 1, 59_999, 60_000, 60_001].map(|millis| line.is_due(Duration::from_millis(millis)));
        assert_eq!(due, [true, false, false, true, false]);
    }
}
