//! Timestamps of log lines.

use crate::domain::Timestamp;

/// Appends `at` as RFC 3339 in UTC with milliseconds: `2026-02-03T04:05:06.789Z`. Years 0 to 9999.
pub(super) fn write_rfc3339(line: &mut Vec<u8>, at: Timestamp) {
    const EARLIEST: i64 = -62_167_219_200_000;
    const LATEST: i64 = 253_402_300_799_999;
    let millis = at.millis().clamp(EARLIEST, LATEST);
    let (days, of_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let parts = [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, of_day / 3_600_000),
        (14, 2, of_day / 60_000 % 60),
        (17, 2, of_day / 1_000 % 60),
        (20, 3, of_day % 1_000),
    ];
    for (start, width, number) in parts {
        let mut rest = number;
        for place in text[start..start + width].iter_mut().rev() {
            *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
    }
    line.extend_from_slice(&text);
}

/// Converts a day number since 1970-01-01 into year, month and day of the proleptic Gregorian calendar. Years are
/// counted from 1 March, so that the leap day is the last day of its year (Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn written(millis: i64) -> String {
        let mut line = Vec::new();
        write_rfc3339(&mut line, Timestamp::from_millis(millis));
        String::from_utf8(line).unwrap()
    }

    proptest! {
        #[test]
        fn every_instant_is_formatted_as_humantime_formats_it(millis in 0..253_402_300_799_999_u64) {
            let expected = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string();
            prop_assert_eq!(written(i64::try_from(millis).unwrap()), expected);
        }
    }

    #[test]
    fn leap_days_and_the_first_and_last_dates_are_correct() {
        assert_eq!(written(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(written(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(written(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(written(i64::MIN), "0000-01-01T00:00:00.000Z");
    }
}
