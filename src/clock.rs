//! The clock. Code receives a `Timestamp` as an argument; only the edges read a [`Clock`].

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::domain::Timestamp;

/// A smaller difference to the database's clock is measurement noise and is not corrected.
const TOLERATED_OFFSET_MILLIS: i64 = 500;

/// An applied correction is dropped only below this limit. The gap between the two limits keeps the time from jumping
/// back and forth.
const DROPPED_OFFSET_MILLIS: i64 = 250;

/// During a longer exchange the process or the network paused. Only the part of the offset that the pause cannot
/// explain is reported.
const LONGEST_EXCHANGE: Duration = Duration::from_secs(3);

/// Wall-clock time on which all replicas agree, and monotonic time.
pub trait Clock: Send + Sync + 'static {
    /// The machine's clock, corrected towards the database's clock if they are known to differ (security.md C7).
    fn now(&self) -> Timestamp;

    /// Monotonic time since a fixed origin, including time in which the machine was suspended (security.md C11).
    fn elapsed(&self) -> Duration;

    /// Measures the offset to the database's clock. The exchange began at `asked` and ended at `answered`, both from
    /// [`Clock::elapsed`].
    fn observe_database(&self, database_now: Timestamp, asked: Duration, answered: Duration);

    /// Last measured offset in milliseconds: this machine's clock minus the database's. 0 before the first
    /// measurement.
    fn offset_millis(&self) -> i64;
}

/// The machine's clock.
#[derive(Debug, Default)]
pub struct SystemClock {
    measured_offset: AtomicI64,
    applied_offset: AtomicI64,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the implementation of `Clock`")]
    fn machine_millis() -> i64 {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(Self::machine_millis() - self.applied_offset.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    fn observe_database(&self, database_now: Timestamp, asked: Duration, answered: Duration) {
        let exchange = answered.saturating_sub(asked);
        // The database read its clock at some instant of the exchange, so the uncertainty is half of it.
        let half_trip = i64::try_from(exchange.as_millis() / 2).unwrap_or(i64::MAX);
        let offset = Self::machine_millis().saturating_sub(half_trip).saturating_sub(database_now.millis());
        let certain = offset.signum() * offset.abs().saturating_sub(half_trip).max(0);
        let reported = if exchange > LONGEST_EXCHANGE { certain } else { offset };
        self.measured_offset.store(reported, Ordering::Relaxed);
        let held = self.applied_offset.load(Ordering::Relaxed);
        self.applied_offset.store(correction(held, offset, half_trip), Ordering::Relaxed);
    }

    fn offset_millis(&self) -> i64 {
        self.measured_offset.load(Ordering::Relaxed)
    }
}

/// The correction in milliseconds to apply after `offset` was measured with an uncertainty of `half_trip`. `held` is
/// the correction applied so far. It stays if the measurement is too imprecise to contradict it, so that a slow
/// network does not make the time jump.
fn correction(held: i64, offset: i64, half_trip: i64) -> i64 {
    let edge = if held == 0 { TOLERATED_OFFSET_MILLIS } else { DROPPED_OFFSET_MILLIS };
    let contradicts = offset.saturating_sub(held).abs() > half_trip;
    if !contradicts {
        held
    } else if offset.abs() > edge.saturating_add(half_trip) {
        offset
    } else {
        0
    }
}

/// A clock that moves only through its methods; for tests.
#[derive(Debug)]
pub struct ManualClock {
    wall_millis: AtomicI64,
    elapsed_millis: AtomicU64,
    offset_millis: AtomicI64,
}

impl ManualClock {
    pub const fn starting_at(start: Timestamp) -> Self {
        Self {
            wall_millis: AtomicI64::new(start.millis()),
            elapsed_millis: AtomicU64::new(0),
            offset_millis: AtomicI64::new(0),
        }
    }

    /// Advances wall clock and monotonic time.
    pub fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.elapsed_millis.fetch_add(millis, Ordering::SeqCst);
        self.wall_millis.fetch_add(i64::try_from(millis).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Steps the wall clock only, as an administrator or a faulty time server does.
    pub fn step(&self, by_millis: i64) {
        self.wall_millis.fetch_add(by_millis, Ordering::SeqCst);
    }

    /// Sets the value that [`Clock::offset_millis`] returns.
    pub fn pretend_offset(&self, millis: i64) {
        self.offset_millis.store(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall_millis.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.elapsed_millis.load(Ordering::SeqCst))
    }

    fn observe_database(&self, _: Timestamp, _: Duration, _: Duration) {}

    fn offset_millis(&self) -> i64 {
        self.offset_millis.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Clock, SystemClock, correction};

    #[test]
    fn c7_a_wrong_clock_is_detected_in_a_ten_second_exchange_and_a_correct_one_is_not_corrected() {
        const DAY: Duration = Duration::from_secs(86_400);
        const EXCHANGE: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(10));
        let clock = SystemClock::default();
        clock.observe_database(clock.now().minus(Duration::from_secs(3)), EXCHANGE.0, EXCHANGE.1);
        assert_eq!(clock.offset_millis(), 0);
        let database = clock.now().minus(DAY);
        clock.observe_database(database, EXCHANGE.0, EXCHANGE.1);
        assert!((86_390_000..86_395_100).contains(&clock.offset_millis()), "{}", clock.offset_millis());
        assert!(clock.now().since(database) < Duration::from_secs(60));
    }

    #[test]
    fn c7_a_known_offset_is_corrected_and_noise_is_not() {
        assert_eq!(correction(0, 499, 1), 0);
        assert_eq!(correction(0, 2_000, 1), 2_000);
        assert_eq!(correction(0, -2_000, 1), -2_000);
        assert_eq!(correction(2_000, 2_040, 1), 2_040, "the correction follows a drift");
        assert_eq!(correction(2_000, 3, 1), 0, "no correction after the clock was set");
    }

    #[test]
    fn c7_an_imprecise_measurement_does_not_step_the_time() {
        assert_eq!(correction(0, 900, 700), 0);
        assert_eq!(correction(2_000, 1_200, 900), 2_000);
        assert_eq!(correction(2_000, 40_000, 900), 40_000, "a large enough offset is corrected");
    }

    #[test]
    fn c7_an_offset_near_the_limit_does_not_make_the_time_jump() {
        let mut held = correction(0, 501, 0);
        for offset in [499, 501, 480, 520] {
            held = correction(held, offset, 0);
            assert_eq!(held, offset);
        }
        assert_eq!(correction(held, 240, 0), 0);
    }
}
