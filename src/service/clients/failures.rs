//! Rate limits on failed client authentication: per client and address, and per address (security.md L1).
//!
//! Secrets have 256 random bits and cannot be guessed. A right secret is therefore accepted regardless of failures, so no
//! other caller can lock a client out. The limits bound the work and the log lines that a misconfigured or hostile caller
//! causes. The caller chooses the client name, so its address is limited as well. Each replica counts in bounded memory (L6).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::crypto;
use crate::service::passwords::attempts::network;

/// Limit of one address as a multiple of the limit of one client: several clients may share a gateway.
const CLIENTS_OF_AN_ADDRESS: u32 = 10;

/// Counters of failed client authentication.
#[derive(Debug)]
pub struct ClientFailures {
    limits: Option<Limits>,
}

#[derive(Debug)]
struct Limits {
    of_clients: Buckets,
    of_addresses: Buckets,
}

/// Leaky buckets, one per key.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// Nanoseconds until one failure has drained.
    weight: u64,
    /// Nanoseconds until a full bucket has drained.
    depth: u64,
    /// When each bucket will be empty, in nanoseconds of the clock of `now`.
    empty_at: moka::sync::Cache<[u8; 16], Arc<AtomicU64>>,
}

impl ClientFailures {
    /// Allows `burst` failures, refilled with `per_minute`, per client and address, and ten times as many per address. Keeps
    /// at most `entries` counters of each kind; the least used are removed.
    pub fn new(burst: u32, per_minute: u32, entries: usize) -> Self {
        let more = |number: u32| number.saturating_mul(CLIENTS_OF_AN_ADDRESS);
        let of_clients = Buckets::new(burst, per_minute, entries);
        let of_addresses = Buckets::new(more(burst), more(per_minute), entries);
        Self { limits: Some(Limits { of_clients, of_addresses }) }
    }

    pub const fn unlimited() -> Self {
        Self { limits: None }
    }

    /// Counts a failure. Above the limit, the error is the time until the next failure is within it. `now` is monotonic time.
    pub(crate) fn count(&self, client: &str, address: IpAddr, now: Duration) -> Result<(), Duration> {
        let Some(limits) = &self.limits else { return Ok(()) };
        let address = network(address);
        // The address first: above its limit, further client names take no memory.
        limits.of_addresses.count(&address, now)?;
        limits.of_clients.count(&format!("{client}\n{address}"), now)
    }
}

impl Buckets {
    pub(crate) fn new(burst: u32, per_minute: u32, entries: usize) -> Self {
        let weight = 60_000_000_000 / u64::from(per_minute.max(1));
        Self { weight, depth: weight.saturating_mul(burst.into()), empty_at: moka::sync::Cache::new(entries as u64) }
    }

    pub(crate) fn count(&self, key: &str, now: Duration) -> Result<(), Duration> {
        let bucket = self.empty_at.get_with(crypto::id128(key), Arc::default);
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let fill = |empty_at: u64| {
            let next = empty_at.max(now).saturating_add(self.weight);
            (next.saturating_sub(now) <= self.depth).then_some(next)
        };
        let filled = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fill);
        filled.map(drop).map_err(|empty_at| {
            Duration::from_nanos(empty_at.saturating_add(self.weight).saturating_sub(now).saturating_sub(self.depth))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn l1_after_a_burst_failures_are_allowed_at_the_sustained_rate() {
        let failures = ClientFailures::new(3, 60, 100);
        let count = |at| failures.count("app", IpAddr::from([192, 0, 2, 1]), at);
        let start = 100 * SECOND;
        assert_eq!([count(start), count(start), count(start)], [Ok(()); 3]);
        assert_eq!(count(start), Err(SECOND));
        assert_eq!(count(start + SECOND / 2), Err(SECOND / 2));
        assert_eq!((count(start + SECOND), count(start + SECOND)), (Ok(()), Err(SECOND)));
    }

    #[test]
    fn l1_each_client_and_address_has_its_own_limit() {
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
        let limits = failures.limits.as_ref().unwrap();
        for buckets in [&limits.of_clients.empty_at, &limits.of_addresses.empty_at] {
            buckets.run_pending_tasks();
            assert!(buckets.entry_count() <= 1000);
        }
    }

    #[test]
    fn l1_an_address_is_limited_regardless_of_client_names() {
        let failures = ClientFailures::new(3, 60, 100_000);
        let count = |number: u32, last| failures.count(&number.to_string(), IpAddr::from([192, 0, 2, last]), SECOND);
        let allowed = (0..1000).filter(|number| count(*number, 1).is_ok()).count();
        assert_eq!(allowed, 30);
        assert_eq!(count(1001, 1), Err(SECOND / 10));
        assert_eq!(count(1001, 2), Ok(()));
        let names = &failures.limits.as_ref().unwrap().of_clients.empty_at;
        names.run_pending_tasks();
        assert_eq!(names.entry_count(), 31, "refused names take no memory");
    }

    #[test]
    fn l1_a_very_high_rate_is_still_a_limit() {
        let failures = ClientFailures::new(5, 1_000_000, 100);
        let allowed = (0..100).filter(|_| failures.count("app", IpAddr::from([192, 0, 2, 1]), SECOND).is_ok());
        assert_eq!(allowed.count(), 5);
    }
}
