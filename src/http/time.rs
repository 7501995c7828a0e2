//! Times in the REST API.

use crate::domain::Timestamp;

/// RFC 3339 in UTC with milliseconds.
pub fn rfc3339(at: Timestamp) -> String {
    at.rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds() {
        assert_eq!(rfc3339(Timestamp::from_millis(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
    }
}
