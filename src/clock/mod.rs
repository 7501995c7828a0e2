//! The clock. Code receives a `Timestamp` as an argument; only the edges read a [`Clock`].

mod manual;
mod timeline;

use std::time::Duration;

use crate::domain::Timestamp;

pub use self::manual::ManualClock;
use self::timeline::Timeline;
pub use self::timeline::{ClockEvent, ClockFault};

/// The time of an installation, and monotonic time.
pub trait Clock: Send + Sync + 'static {
    /// The time for judging and issuing tokens and for stored rows (security.md C7). Before the first exchange with
    /// the database, it is this machine's wall clock. It never runs backwards after the clocks have agreed once.
    fn now(&self) -> Timestamp;

    /// Monotonic time since a fixed origin, including time in which the machine was suspended (security.md C11).
    fn elapsed(&self) -> Duration;

    /// Why [`Clock::now`] is unreliable, or `None`. `elapsed` is a current reading of [`Clock::elapsed`].
    fn fault(&self, elapsed: Duration) -> Option<ClockFault>;

    /// Records the database's time. The exchange began at `asked` and ended at `answered`, both from
    /// [`Clock::elapsed`]. Returns a change between the clocks, for the log.
    fn observe_database(&self, database_now: Timestamp, asked: Duration, answered: Duration) -> Option<ClockEvent>;

    /// Last measured offset in milliseconds: this machine's clock minus the database's. 0 before the first
    /// measurement.
    fn offset_millis(&self) -> i64;
}

/// The machine's clock.
#[derive(Debug, Default)]
pub struct SystemClock {
    timeline: Timeline,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the implementation of `Clock`")]
    fn machine_now() -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.timeline.now(self.elapsed()).unwrap_or_else(Self::machine_now)
    }

    fn elapsed(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    fn fault(&self, elapsed: Duration) -> Option<ClockFault> {
        self.timeline.fault(Self::machine_now(), elapsed)
    }

    fn observe_database(&self, database_now: Timestamp, asked: Duration, answered: Duration) -> Option<ClockEvent> {
        let elapsed = self.elapsed();
        self.timeline.observe(Self::machine_now(), elapsed, database_now, asked, answered)
    }

    fn offset_millis(&self) -> i64 {
        self.timeline.offset_millis()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Clock, ClockFault, SystemClock};

    #[test]
    fn c7_a_wrong_clock_is_detected_in_a_ten_second_exchange_and_a_correct_one_is_not_corrected() {
        const DAY: Duration = Duration::from_secs(86_400);
        let exchange = |database_now| {
            let clock = SystemClock::default();
            let answered = clock.elapsed();
            clock.observe_database(database_now, answered.saturating_sub(Duration::from_secs(10)), answered);
            clock
        };
        let now = SystemClock::machine_now();
        let right = exchange(now.minus(Duration::from_secs(3)));
        assert_eq!((right.offset_millis(), right.fault(right.elapsed())), (0, None));
        let wrong = exchange(now.minus(DAY));
        assert!((86_390_000..86_400_000).contains(&wrong.offset_millis()), "{}", wrong.offset_millis());
        assert_eq!(wrong.fault(wrong.elapsed()), Some(ClockFault::Disagree));
    }
}
