//! A point in time, in the precision of the database.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, UTC. Not negative in practice; arithmetic saturates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From a JWT `NumericDate` (RFC 7519 §2): whole seconds.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole Unix seconds, rounded down: the `NumericDate` of this instant.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// RFC 3339, as [`fmt::Display`].
    pub fn rfc3339(self) -> String {
        self.to_string()
    }

    /// This instant without its fraction of a second, as in a token.
    pub const fn floor_to_second(self) -> Self {
        Self::from_seconds(self.seconds())
    }

    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    pub const fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// Time from `earlier` to this instant; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds, in the years 1970 to 9999.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LATEST: i64 = 253_402_300_799_999;
        let since_epoch = Duration::from_millis(self.0.clamp(0, LATEST).unsigned_abs());
        humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch).fmt(f)
    }
}

const fn millis(duration: Duration) -> i64 {
    let millis = duration.as_millis();
    if millis > i64::MAX as u128 { i64::MAX } else { millis as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        let end = Timestamp::from_millis(i64::MAX);
        assert_eq!(end.plus(Duration::from_secs(1)), end);
        assert_eq!(Timestamp::from_millis(5).since(Timestamp::from_millis(9)), Duration::ZERO);
    }

    #[test]
    fn times_are_written_in_utc_with_milliseconds_and_never_panic() {
        for (millis, text) in [
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (i64::MIN, "1970-01-01T00:00:00.000Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::from_millis(millis).to_string(), text);
        }
    }

    #[test]
    fn seconds_round_down() {
        assert_eq!(Timestamp::from_millis(1_999).seconds(), 1);
        assert_eq!(Timestamp::from_millis(1_999).floor_to_second(), Timestamp::from_seconds(1));
    }
}
