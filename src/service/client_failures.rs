//! Limits on failed client authentication: of one client from one address (security.md L1).
//!
//! Secrets have 256 random bits and cannot be guessed, so a right one passes whatever was counted: nobody can lock a client
//! out. What the limit bounds is the work and the noise that a misconfigured or hostile caller makes. Counted by each
//! replica in bounded memory (L6).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::attempts::network;
use crate::crypto;

/// Failures of clients, each client at each address in a bucket that empties by and by.
#[derive(Debug)]
pub struct ClientFailures {
    /// Milliseconds that one failure weighs.
    weight: u64,
    /// Milliseconds that a bucket holds.
    depth: u64,
    /// When each bucket will be empty, in milliseconds of the clock that `now` is read from.
    empty_at: Option<moka::sync::Cache<[u8; 16], Arc<AtomicU64>>>,
}

impl ClientFailures {
    /// Bears `burst` failures at once and `per_minute` after that, for `entries` clients and addresses at most: those
    /// that are used least make room.
    pub fn new(burst: u32, per_minute: u32, entries: usize) -> Self {
        let weight = 60_000 / u64::from(per_minute.max(1));
        let entries = moka::sync::Cache::new(entries as u64);
        Self { weight, depth: weight.saturating_mul(burst.into()), empty_at: Some(entries) }
    }

    /// No limit.
    pub const fn unlimited() -> Self {
        Self { weight: 0, depth: 0, empty_at: None }
    }

    /// Counts a failure; how long to wait, when there were too many. `now` is a stopwatch's time.
    pub(super) fn count(&self, client: &str, address: IpAddr, now: Duration) -> Result<(), Duration> {
        let Some(buckets) = &self.empty_at else { return Ok(()) };
        let key = crypto::id128(&format!("{client}\n{}", network(address)));
        let bucket = buckets.get_with(key, Arc::default);
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let fill = |empty_at: u64| {
            let next = empty_at.max(now).saturating_add(self.weight);
            (next.saturating_sub(now) <= self.depth).then_some(next)
        };
        let filled = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fill);
        filled.map(drop).map_err(|empty_at| {
            Duration::from_millis(empty_at.saturating_add(self.weight).saturating_sub(now).saturating_sub(self.depth))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn l1_a_burst_is_borne_and_then_as_many_as_drain() {
        let failures = ClientFailures::new(3, 60, 100);
        let count = |at| failures.count("app", IpAddr::from([192, 0, 2, 1]), at);
        let start = 100 * SECOND;
        assert_eq!([count(start), count(start), count(start)], [Ok(()); 3]);
        assert_eq!(count(start), Err(SECOND));
        assert_eq!(count(start + SECOND / 2), Err(SECOND / 2));
        assert_eq!((count(start + SECOND), count(start + SECOND)), (Ok(()), Err(SECOND)));
    }

    #[test]
    fn l1_clients_and_addresses_are_counted_apart() {
        let failures = ClientFailures::new(1, 60, 100);
        let count = |client, last| failures.count(client, IpAddr::from([192, 0, 2, last]), SECOND);
        assert!(count("app", 1).is_ok() && count("app", 2).is_ok() && count("web", 1).is_ok());
        assert!(count("app", 1).is_err());
    }

    #[test]
    fn l6_memory_stays_bounded_for_any_number_of_names() {
        let failures = ClientFailures::new(1, 60, 1000);
        for number in 0..20_000 {
            let _ = failures.count(&number.to_string(), IpAddr::from([192, 0, 2, 1]), SECOND);
        }
        let buckets = failures.empty_at.as_ref().unwrap();
        buckets.run_pending_tasks();
        assert!(buckets.entry_count() <= 1000);
    }
}
