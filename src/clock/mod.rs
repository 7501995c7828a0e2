//! The one source of time. Everything that needs it is handed a `Timestamp`, or a [`Clock`] at the edge.

mod manual;
mod timeline;

use std::time::Duration;

use crate::domain::Timestamp;

pub use self::manual::ManualClock;
use self::timeline::Timeline;
pub use self::timeline::{ClockDoubt, ClockEvent};

/// The time of an installation, and a stopwatch that no step of a wall clock moves.
pub trait Clock: Send + Sync + 'static {
    /// The time that tokens are judged and minted by, and that is stored (security.md C7). Before the first exchange with
    /// the database it is this machine's wall clock. It never runs backwards once the clocks have agreed.
    fn now(&self) -> Timestamp;

    /// Time since some fixed origin; grows also while the machine is suspended (security.md C11).
    fn elapsed(&self) -> Duration;

    /// Why [`Clock::now`] cannot be relied on, if it cannot. `elapsed` is [`Clock::elapsed`], just read.
    fn doubt(&self, elapsed: Duration) -> Option<ClockDoubt>;

    /// Records what the database's clock said in an exchange that began at `asked` and ended at `answered` (both
    /// [`Clock::elapsed`]). Returns what changed between the clocks, for the log.
    fn observe_database(&self, database_now: Timestamp, asked: Duration, answered: Duration) -> Option<ClockEvent>;

    /// This machine's clock minus the database's in milliseconds, as last measured; 0 before that.
    fn offset_millis(&self) -> i64;
}

/// The machine's clock.
#[derive(Debug, Default)]
pub struct SystemClock {
    timeline: Timeline,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is handed")]
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

    fn doubt(&self, elapsed: Duration) -> Option<ClockDoubt> {
        self.timeline.doubt(Self::machine_now(), elapsed)
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

    use super::{Clock, ClockDoubt, SystemClock};

    #[test]
    fn c7_a_wrong_clock_is_noticed_over_a_line_that_takes_ten_seconds_and_a_right_one_is_left_alone() {
        const DAY: Duration = Duration::from_secs(86_400);
        let exchange = |database_now| {
            let clock = SystemClock::default();
            let answered = clock.elapsed();
            clock.observe_database(database_now, answered.saturating_sub(Duration::from_secs(10)), answered);
            clock
        };
        let now = SystemClock::machine_now();
        let right = exchange(now.minus(Duration::from_secs(3)));
        assert_eq!((right.offset_millis(), right.doubt(right.elapsed())), (0, None));
        let wrong = exchange(now.minus(DAY));
        assert!((86_390_000..86_400_000).contains(&wrong.offset_millis()), "{}", wrong.offset_millis());
        assert_eq!(wrong.doubt(wrong.elapsed()), Some(ClockDoubt::Disagree));
    }
}
