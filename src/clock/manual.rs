//! A clock for tests.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::{Clock, ClockEvent, ClockFault, Timeline};
use crate::domain::Timestamp;

/// A clock that moves only through its methods. It keeps the time as [`super::SystemClock`] does, with a simulated
/// database clock.
#[derive(Debug)]
pub struct ManualClock {
    start_millis: i64,
    elapsed_millis: AtomicU64,
    machine_error_millis: AtomicI64,
    database_error_millis: AtomicI64,
    timeline: Timeline,
}

impl ManualClock {
    /// Reads `start` until it is moved.
    pub const fn starting_at(start: Timestamp) -> Self {
        Self {
            start_millis: start.millis(),
            elapsed_millis: AtomicU64::new(0),
            machine_error_millis: AtomicI64::new(0),
            database_error_millis: AtomicI64::new(0),
            timeline: Timeline::new(),
        }
    }

    /// Advances both wall clocks and the monotonic clock.
    pub fn advance(&self, by: Duration) {
        self.elapsed_millis.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Steps only this machine's wall clock, as an administrator or a faulty time server does.
    pub fn step(&self, by_millis: i64) {
        self.machine_error_millis.fetch_add(by_millis, Ordering::SeqCst);
    }

    /// Steps only the database's clock. The next sync measures it.
    pub fn step_database(&self, by_millis: i64) {
        self.database_error_millis.fetch_add(by_millis, Ordering::SeqCst);
    }

    fn at(&self, elapsed: Duration, error: &AtomicI64) -> Timestamp {
        let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.start_millis.saturating_add(elapsed).saturating_add(error.load(Ordering::SeqCst)))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let elapsed = self.elapsed();
        self.timeline.now(elapsed).unwrap_or_else(|| self.at(elapsed, &self.machine_error_millis))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.elapsed_millis.load(Ordering::SeqCst))
    }

    fn fault(&self, elapsed: Duration) -> Option<ClockFault> {
        self.timeline.fault(self.at(elapsed, &self.machine_error_millis), elapsed)
    }

    /// The database of a test has the real time. It is replaced by a clock that was read in the middle of the
    /// exchange.
    fn observe_database(&self, _: Timestamp, asked: Duration, answered: Duration) -> Option<ClockEvent> {
        let elapsed = self.elapsed();
        let database_now = self.at(asked + answered.saturating_sub(asked) / 2, &self.database_error_millis);
        let machine_now = self.at(elapsed, &self.machine_error_millis);
        self.timeline.observe(machine_now, elapsed, database_now, asked, answered)
    }

    fn offset_millis(&self) -> i64 {
        self.timeline.offset_millis()
    }
}
