//! Timestamps of log lines.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use crate::domain::Timestamp;

/// Appends `at` as RFC 3339 in UTC with milliseconds: `2026-02-03T04:05:06.789Z`. Years 1970 to 9999.
pub(super) fn write_rfc3339(line: &mut Vec<u8>, at: Timestamp) {
    const LATEST: i64 = 253_402_300_799_999;
    let since_epoch = Duration::from_millis(at.millis().clamp(0, LATEST).unsigned_abs());
    let _ = write!(line, "{}", humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leap_days_and_the_ends_of_the_calendar_are_formatted() {
        let written = |millis| {
            let mut line = Vec::new();
            write_rfc3339(&mut line, Timestamp::from_millis(millis));
            String::from_utf8(line).unwrap()
        };
        assert_eq!(written(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(written(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(written(i64::MIN), "1970-01-01T00:00:00.000Z");
    }
}
