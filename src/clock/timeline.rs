//! The time of an installation, derived from three clocks of which one may be wrong.
//!
//! A replica reads its machine's wall clock, the monotonic clock and, at each sync, the database's clock. The first
//! sync sets the time, and the monotonic clock continues it. Each sync compares the three clocks in pairs. A clock
//! that moved against the two others was stepped, and the two others are right. If only the monotonic clock differs,
//! it missed a pause of the machine. If all three differ, none is known to be right, and the replica answers 503
//! until two agree.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::domain::Timestamp;

/// Maximum difference of the two wall clocks at the start, in milliseconds. Above it, neither is known to be right
/// (security.md C7).
const LARGEST_DIFFERENCE: i64 = 30_000;

/// Maximum drift between two syncs against the monotonic clock, in milliseconds. A clock that moved further was
/// stepped.
const LARGEST_DRIFT: i64 = 1_000;

/// A smaller difference to the database's clock is measurement noise, in milliseconds.
const NOISE: i64 = 500;

/// A correction changes the speed of the time by at most one part in this number, so the time never runs backwards.
const SLEW: i64 = 20;

/// Maximum drift of a clock that is not stepped: one part in this number (1000 ppm).
const DRIFT_RATE: i64 = 1_000;

/// Longest exchange without a pause of the process or the network, in milliseconds. After a longer one, only the part
/// of the offset that the pause cannot explain is reported.
const LONGEST_EXCHANGE: i64 = 3_000;

/// Why the time is unreliable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockFault {
    /// The machine's wall clock moved against the monotonic clock since the last sync.
    #[error("this machine's clock was stepped since the last sync")]
    Stepped,
    /// No two clocks agree.
    #[error("this machine's clock and the database's disagree, and it is not known which is right")]
    Disagree,
    /// Both wall clocks were set back, to before a time at which this replica has judged tokens.
    #[error("this machine's clock and the database's were set back, and have not yet reached the time before the step")]
    Behind,
}

/// A change between the clocks. Steps are in milliseconds, positive if a clock was set forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockEvent {
    /// The machine's wall clock was stepped.
    MachineStepped(i64),
    /// The database's clock was stepped.
    DatabaseStepped(i64),
    /// Both wall clocks moved together against the monotonic clock.
    BothStepped(i64),
    /// No two clocks agree. Holds the machine's clock minus the database's.
    Disagree(i64),
    /// The clocks agree again.
    Agree,
}

/// A clock's reading minus the monotonic clock, in milliseconds, as a range that contains the exact value. Constant
/// until the clock is stepped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    low: i64,
    high: i64,
}

impl Origin {
    const fn middle(self) -> i64 {
        self.low.midpoint(self.high)
    }

    /// The smallest difference to `other`, positive if `self` is later.
    fn beyond(self, other: Self) -> i64 {
        if self.low > other.high {
            self.low.saturating_sub(other.high)
        } else if self.high < other.low {
            self.high.saturating_sub(other.low)
        } else {
            0
        }
    }

    const fn exactly(origin: i64) -> Self {
        Self { low: origin, high: origin }
    }

    /// The intersection of two measurements of a clock that was not stepped between them. If the clock drifted out of
    /// the older range, the newer one.
    fn narrowed_by(self, newer: Self) -> Self {
        let both = Self { low: self.low.max(newer.low), high: self.high.min(newer.high) };
        if both.low <= both.high { both } else { newer }
    }
}

/// The time at one instant, and the readings that it was derived from.
#[derive(Debug, Clone, Copy)]
struct State {
    /// The monotonic clock at this instant.
    anchor: i64,
    /// The time at this instant.
    time: i64,
    /// A correction that is applied gradually after `anchor`.
    slew: i64,
    /// The time is never below this.
    floor: i64,
    /// Origin of the machine's wall clock, at the last sync that left the time known.
    machine: i64,
    /// Origin of the database's clock, at the same sync.
    database: Origin,
    /// Whether the time agrees with the database's clock, so that its drift is followed.
    follows_database: bool,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The clocks have never agreed. No token was judged.
    Unknown,
    /// The time is known.
    Known,
    /// The time was known, but now no two clocks agree.
    Lost,
}

impl State {
    /// The state after the first sync, and after each further one until the clocks agree.
    fn first(machine: i64, database: Origin, elapsed: i64) -> Self {
        let difference = database.beyond(Origin::exactly(machine)).saturating_abs();
        let (origin, standing) = if difference > LARGEST_DIFFERENCE {
            // No token is judged or issued with this time. By either clock, a command's revocations are kept long
            // enough.
            (machine.max(database.middle()), Standing::Unknown)
        } else if difference > NOISE {
            (database.middle(), Standing::Known)
        } else {
            (machine, Standing::Known)
        };
        let time = origin.saturating_add(elapsed);
        Self { anchor: elapsed, time, slew: 0, floor: i64::MIN, machine, database, follows_database: true, standing }
    }

    /// The state after a later sync.
    fn next(self, machine: i64, database: Origin, elapsed: i64) -> (Self, Option<ClockEvent>) {
        if self.standing == Standing::Unknown {
            let state = Self::first(machine, database, elapsed);
            return (state, (state.standing == Standing::Known).then_some(ClockEvent::Agree));
        }
        let drift = LARGEST_DRIFT.saturating_add(elapsed.saturating_sub(self.anchor) / DRIFT_RATE);
        let machine_by = machine.saturating_sub(self.machine);
        let database_by = database.beyond(self.database);
        let is_stepped = |by: i64| by.saturating_abs() > drift;
        let here = Self { anchor: elapsed, time: self.line(elapsed), slew: 0, machine, database, ..self };
        let regained = (self.standing == Standing::Lost).then_some(ClockEvent::Agree);
        let known = |state: Self| Self { standing: Standing::Known, ..state };
        match (is_stepped(machine_by), is_stepped(database_by)) {
            (false, false) => {
                let quiet = Self { database: self.database.narrowed_by(database), ..here };
                let (state, returned) = known(quiet).following(self.slew != 0);
                (state, regained.or(returned))
            }
            (true, false) => {
                (known(here).following(self.slew != 0).0, regained.or(Some(ClockEvent::MachineStepped(machine_by))))
            }
            (false, true) => {
                let kept = known(Self { follows_database: false, ..here });
                let (state, returned) = kept.following(false);
                (state, regained.or(returned).or(Some(ClockEvent::DatabaseStepped(database_by))))
            }
            (true, true)
                if database.beyond(Origin::exactly(self.database_after(machine_by))).saturating_abs() <= drift =>
            {
                let time = here.time.saturating_add(machine_by);
                let floor = self.floor.max(self.now(elapsed));
                (known(Self { time, floor, ..here }), Some(ClockEvent::BothStepped(machine_by)))
            }
            (true, true) => {
                // The readings of the last sync with a known time are kept. A clock that returns to them is right.
                let lost = Self { machine: self.machine, database: self.database, standing: Standing::Lost, ..here };
                let event = ClockEvent::Disagree(machine.saturating_sub(database.middle()));
                (lost, (self.standing != Standing::Lost).then_some(event))
            }
        }
    }

    /// Expected origin of the database's clock after a step of `by`.
    const fn database_after(&self, by: i64) -> i64 {
        self.database.middle().saturating_add(by)
    }

    /// Follows the drift of the database's clock while the time agrees with it, and detects when they agree again.
    fn following(self, is_slewing: bool) -> (Self, Option<ClockEvent>) {
        let ahead = self.database.beyond(Origin::exactly(self.time.saturating_sub(self.anchor)));
        let returned = !self.follows_database && ahead.saturating_abs() <= LARGEST_DRIFT;
        let follows_database = self.follows_database || returned;
        let is_noise = ahead.saturating_abs() <= NOISE && !is_slewing;
        let slew = if follows_database && !is_noise { ahead } else { 0 };
        (Self { follows_database, slew, ..self }, returned.then_some(ClockEvent::Agree))
    }

    /// The time without the minimum `floor`.
    fn line(&self, elapsed: i64) -> i64 {
        let since = elapsed.saturating_sub(self.anchor).max(0);
        let slewed = self.slew.clamp(-(since / SLEW), since / SLEW);
        self.time.saturating_add(since).saturating_add(slewed)
    }

    fn now(&self, elapsed: i64) -> i64 {
        self.line(elapsed).max(self.floor)
    }
}

/// The current state, read by every request and replaced by each sync.
#[derive(Debug)]
pub(super) struct Timeline {
    state: ArcSwapOption<State>,
    offset: AtomicI64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new()
    }
}

impl Timeline {
    pub(super) const fn new() -> Self {
        Self { state: ArcSwapOption::const_empty(), offset: AtomicI64::new(0) }
    }

    /// The time; `None` before the first exchange.
    pub(super) fn now(&self, elapsed: Duration) -> Option<Timestamp> {
        let state = self.state.load();
        state.as_ref().map(|state| Timestamp::from_millis(state.now(millis(elapsed))))
    }

    pub(super) fn fault(&self, machine_now: Timestamp, elapsed: Duration) -> Option<ClockFault> {
        let state = self.state.load();
        let (state, elapsed) = (state.as_ref()?, millis(elapsed));
        let stepped = machine_now.millis().saturating_sub(elapsed).saturating_sub(state.machine);
        if state.standing != Standing::Known {
            Some(ClockFault::Disagree)
        } else if state.line(elapsed) < state.floor {
            Some(ClockFault::Behind)
        } else {
            (stepped.saturating_abs() > LARGEST_DRIFT).then_some(ClockFault::Stepped)
        }
    }

    /// Compares the clocks. `machine_now` and `elapsed` were read together. Only one sync calls this at a time.
    pub(super) fn observe(
        &self,
        machine_now: Timestamp,
        elapsed: Duration,
        database_now: Timestamp,
        asked: Duration,
        answered: Duration,
    ) -> Option<ClockEvent> {
        let (elapsed, asked, answered) = (millis(elapsed), millis(asked), millis(answered));
        let machine = machine_now.millis().saturating_sub(elapsed);
        // The database read its clock at some instant of the exchange.
        let database = Origin {
            low: database_now.millis().saturating_sub(answered),
            high: database_now.millis().saturating_sub(asked),
        };
        let is_vague = answered.saturating_sub(asked) > LONGEST_EXCHANGE;
        let offset = if is_vague {
            Origin::exactly(machine).beyond(database)
        } else {
            machine.saturating_sub(database.middle())
        };
        self.offset.store(offset, Ordering::Relaxed);
        let (state, event) = match self.state.load().as_deref() {
            Some(state) => state.next(machine, database, elapsed),
            None => {
                let state = State::first(machine, database, elapsed);
                (state, (state.standing == Standing::Unknown).then_some(ClockEvent::Disagree(offset)))
            }
        };
        self.state.store(Some(Arc::new(state)));
        event
    }

    pub(super) fn offset_millis(&self) -> i64 {
        self.offset.load(Ordering::Relaxed)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    const START: Timestamp = Timestamp::from_seconds(1_000_000);
    const POLL: Duration = Duration::from_millis(500);

    /// Clocks that agree exactly.
    fn agreed() -> ManualClock {
        let clock = ManualClock::starting_at(START);
        assert_eq!(sync(&clock), None);
        clock
    }

    /// A sync of 2 ms that ends half a second after the previous one.
    fn sync(clock: &ManualClock) -> Option<ClockEvent> {
        sync_for(clock, Duration::from_millis(2))
    }

    fn sync_for(clock: &ManualClock, took: Duration) -> Option<ClockEvent> {
        let asked = clock.elapsed();
        clock.advance(took);
        let answered = clock.elapsed();
        // Applying entries takes time too.
        clock.advance(POLL);
        clock.observe_database(START, asked, answered)
    }

    fn fault(clock: &ManualClock) -> Option<ClockFault> {
        clock.fault(clock.elapsed())
    }

    /// The time minus that of a correct clock, in milliseconds.
    fn error(clock: &ManualClock) -> i64 {
        clock.now().millis() - START.millis() - millis(clock.elapsed())
    }

    #[test]
    fn c7_at_the_start_a_difference_is_noise_or_corrected_or_unknown() {
        for (ahead, expected) in [(499, 499), (-499, -499), (20_000, 0), (-20_000, 0), (30_000, 0)] {
            let clock = ManualClock::starting_at(START);
            clock.step(ahead);
            assert_eq!(sync(&clock), None);
            assert_eq!((error(&clock), fault(&clock)), (expected, None), "{ahead}");
        }
        for ahead in [30_002, -30_002] {
            let clock = ManualClock::starting_at(START);
            clock.step(ahead);
            assert_eq!(sync(&clock), Some(ClockEvent::Disagree(ahead)));
            assert_eq!(fault(&clock), Some(ClockFault::Disagree));
            clock.step(-ahead);
            assert_eq!(sync(&clock), Some(ClockEvent::Agree));
            assert_eq!((error(&clock), fault(&clock)), (0, None));
        }
    }

    #[test]
    fn c7_a_step_of_the_databases_clock_is_reported_and_the_time_continues() {
        for by in [-600_000, -60_000, -25_000, -1_500, 1_500, 25_000, 600_000] {
            let clock = agreed();
            clock.step_database(by);
            assert!(
                matches!(sync(&clock), Some(ClockEvent::DatabaseStepped(named)) if (named - by).abs() < 10),
                "{by}"
            );
            for _ in 0..1000 {
                assert_eq!((error(&clock), fault(&clock)), (0, None), "{by}");
                assert_eq!(sync(&clock), None, "{by}");
            }
            clock.step_database(-by);
            assert_eq!(sync(&clock), Some(ClockEvent::Agree), "{by}");
        }
    }

    #[test]
    fn c7_a_step_of_the_machines_clock_makes_the_time_unreliable_until_the_next_sync() {
        for by in [-3_600_000, -1_500, 1_500, 3_600_000] {
            let clock = agreed();
            clock.step(by);
            assert_eq!(fault(&clock), Some(ClockFault::Stepped), "{by}");
            assert_eq!(sync(&clock), Some(ClockEvent::MachineStepped(by)));
            assert_eq!((error(&clock), fault(&clock)), (0, None), "{by}");
        }
    }

    #[test]
    fn c11_a_pause_that_the_monotonic_clock_missed_is_added_at_the_next_sync() {
        let clock = agreed();
        clock.step(90_000);
        clock.step_database(90_000);
        assert_eq!(fault(&clock), Some(ClockFault::Stepped));
        assert_eq!(sync(&clock), Some(ClockEvent::BothStepped(90_000)));
        assert_eq!((error(&clock), fault(&clock)), (90_000, None));
    }

    #[test]
    fn c7_if_both_wall_clocks_are_set_back_time_stops_and_does_not_go_back() {
        let clock = agreed();
        let before = clock.now();
        clock.step(-5_000);
        clock.step_database(-5_000);
        assert_eq!(sync(&clock), Some(ClockEvent::BothStepped(-5_000)));
        while fault(&clock).is_some() {
            assert_eq!(fault(&clock), Some(ClockFault::Behind));
            assert!(clock.now() >= before && clock.now() <= before.plus(POLL * 2));
            assert_eq!(sync(&clock), None);
        }
        assert_eq!(error(&clock), -5_000);
    }

    #[test]
    fn c7_if_all_three_clocks_differ_the_one_that_returns_is_right() {
        for database_returns in [false, true] {
            let clock = agreed();
            clock.step(50_000);
            clock.step_database(-40_000);
            assert!(matches!(sync(&clock), Some(ClockEvent::Disagree(90_000))));
            for _ in 0..10 {
                assert_eq!(fault(&clock), Some(ClockFault::Disagree));
                assert_eq!(sync(&clock), None, "it is logged once");
            }
            if database_returns {
                clock.step_database(40_000);
            } else {
                clock.step(-50_000);
            }
            assert_eq!(sync(&clock), Some(ClockEvent::Agree));
            assert_eq!((error(&clock), fault(&clock)), (0, None));
        }
    }

    #[test]
    fn c7_steps_of_one_clock_after_the_other_are_corrected() {
        let clock = agreed();
        clock.step_database(20_000);
        assert!(sync(&clock).is_some());
        clock.step(-7_000);
        assert_eq!(sync(&clock), Some(ClockEvent::MachineStepped(-7_000)));
        clock.step_database(-60_000);
        assert!(matches!(sync(&clock), Some(ClockEvent::DatabaseStepped(_))));
        assert_eq!((error(&clock), fault(&clock)), (0, None));
    }

    #[test]
    fn c7_a_drift_is_corrected_without_setting_time_back() {
        for drift in [-1, 1] {
            let clock = agreed();
            let mut last = clock.now();
            for _ in 0..20_000 {
                clock.step_database(drift);
                assert_eq!(sync(&clock), None);
                assert!(clock.now() > last);
                last = clock.now();
                assert_eq!(fault(&clock), None);
            }
            let behind = drift * 20_000 - error(&clock);
            assert!(behind.abs() <= NOISE + 5, "{behind} ms");
        }
    }

    #[test]
    fn c7_an_exchange_in_which_the_database_was_suspended_changes_nothing() {
        let clock = agreed();
        for _ in 0..5 {
            assert_eq!(sync_for(&clock, Duration::from_secs(20)), None);
            assert_eq!((error(&clock), fault(&clock), clock.offset_millis()), (0, None, 0));
            assert_eq!(sync(&clock), None);
        }
    }
}
