//! Limits on guessing passwords: counted before hashing, for all replicas together (security.md group L).
//!
//! Three counts stand against an attempt: of the account, of the address, and of the pair. An address from which the
//! account logged in within the last month is not held to the account's count, so nobody elsewhere can lock its owner out
//! (L4). Names that do not exist are counted like any other (L5). Live sessions are not touched.

use std::net::IpAddr;
use std::time::Duration;

use crate::crypto::{self, Priority};
use crate::domain::{ClientId, Timestamp, UserId, Username};
use crate::store::{AttemptKey, AttemptLimits, Decision, Exemption, Settlement};

use super::{Failure, LoginError, Requester, Service};

/// How long an address stays known after a login.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Longest time for which a refusal is answered from memory. A success elsewhere can lift a lock before its time; a replica
/// notices that within this.
const REFUSAL_MEMORY: Duration = Duration::from_secs(30);

/// How many failed logins are borne.
#[derive(Debug, Clone)]
pub struct AttemptRules {
    /// `limits.enabled`.
    pub enabled: bool,
    /// Of one account, over all replicas.
    pub account: AttemptLimits,
    /// From one address.
    pub address: AttemptLimits,
    /// From one address at one account.
    pub pair: AttemptLimits,
}

/// Which count refused an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Of the account.
    Account,
    /// Of the address.
    Address,
    /// Of the address at the account.
    Pair,
}

/// Attempts that the database refused, so that a repeated one costs no statement (security.md L10). Bounded: what is
/// forgotten is looked up again.
#[derive(Debug)]
pub struct Refusals(moka::sync::Cache<AttemptKey, Refusal>);

/// Times are a stopwatch's.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    limit: Limit,
    /// When the next attempt is counted, as far as was known.
    until: Duration,
    /// When the database is asked again.
    ask_at: Duration,
}

impl Refusals {
    /// Remembers this many refusals at most.
    pub fn new(entries: usize) -> Self {
        Self(moka::sync::Cache::new(entries as u64))
    }

    /// An account's limit does not hold for addresses that the account knows, so it is remembered for this pair alone.
    fn remember(&self, keys: &Keys, limit: Limit, retry_after: Duration, now: Duration) {
        let key = if limit == Limit::Address { keys.address } else { keys.pair };
        let refusal = Refusal { limit, until: now + retry_after, ask_at: now + retry_after.min(REFUSAL_MEMORY) };
        self.0.insert(key, refusal);
    }

    fn check(&self, keys: &Keys, now: Duration) -> Result<(), LoginError> {
        let known = [keys.pair, keys.address].into_iter().filter_map(|key| self.0.get(&key));
        match known.filter(|refusal| now < refusal.ask_at).max_by_key(|refusal| refusal.until) {
            None => Ok(()),
            Some(Refusal { limit, until, .. }) => {
                Err(LoginError::TooManyAttempts { limit, retry_after: until.saturating_sub(now) })
            }
        }
    }

    fn forget(&self, keys: &Keys) {
        [keys.pair, keys.address].iter().for_each(|key| self.0.invalidate(key));
    }
}

/// An attempt that was counted and not settled yet.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    keys: Keys,
    at: Timestamp,
    /// The keys with the failures before this attempt. Empty while limits are off.
    counted: Vec<(AttemptKey, u32)>,
    /// Should it fail, the account takes no password for a long time.
    is_last: bool,
}

/// What an attempt is counted under.
#[derive(Debug, Clone, Copy)]
struct Keys {
    account: AttemptKey,
    address: AttemptKey,
    pair: AttemptKey,
    known: AttemptKey,
}

impl Keys {
    fn of(username: &Username, address: Option<IpAddr>) -> Self {
        let address = address.map_or_else(|| "none".to_owned(), network);
        let key = |parts: &[&str]| AttemptKey(crypto::sha256(parts.join("\n").as_bytes()));
        Self {
            account: key(&["account", username.as_str()]),
            address: key(&["address", &address]),
            pair: key(&["pair", username.as_str(), &address]),
            known: key(&["known", username.as_str(), &address]),
        }
    }

    fn limit(&self, key: AttemptKey) -> Limit {
        match key {
            key if key == self.account => Limit::Account,
            key if key == self.address => Limit::Address,
            _ => Limit::Pair,
        }
    }
}

impl Attempt {
    /// Attempts from an address with recent failures wait behind others for a hash. Logins that were abandoned count as
    /// failures.
    pub(super) fn priority(&self) -> Priority {
        let has_failed = self.counted.iter().any(|(key, failures)| *key == self.keys.address && *failures > 0);
        if has_failed { Priority::Low } else { Priority::Normal }
    }

    /// What a success does to the counts.
    pub(super) fn settlements(&self) -> Vec<Settlement> {
        if self.counted.is_empty() {
            return Vec::new();
        }
        let Keys { account, address, pair, known } = self.keys;
        vec![
            Settlement::Forget(account),
            Settlement::Forget(pair),
            Settlement::TakeBack(address, self.at),
            Settlement::Know(known, self.at.plus(KNOWN_FOR)),
        ]
    }
}

impl Service {
    /// Counts an attempt on a name, or refuses it uncounted.
    pub(super) async fn begin_attempt(&self, username: &Username, from: &Requester) -> Result<Attempt, LoginError> {
        let keys = Keys::of(username, from.address);
        let rules = &self.attempt_rules;
        let at = self.clock.now();
        if !rules.enabled {
            return Ok(Attempt { keys, at, counted: Vec::new(), is_last: false });
        }
        let now = self.clock.elapsed();
        self.refusals.check(&keys, now)?;
        let counts = vec![(keys.pair, rules.pair), (keys.address, rules.address), (keys.account, rules.account)];
        let exemption = Exemption { from: keys.account, known: keys.known };
        match self.store.attempts().register(counts, Some(exemption), at).await.map_err(Failure::from)? {
            Decision::Allowed { counted, is_last } => Ok(Attempt { keys, at, counted, is_last }),
            Decision::Blocked { by, retry_after } => {
                let limit = keys.limit(by);
                self.refusals.remember(&keys, limit, retry_after, now);
                Err(LoginError::TooManyAttempts { limit, retry_after })
            }
        }
    }

    /// Settles the counts of a success that opened no session. If that fails, the success counts as one more failure.
    pub(super) async fn settle_attempt(&self, attempt: &Attempt) {
        self.settle(attempt.settlements()).await;
        self.forget_refusals(attempt);
    }

    /// Takes back an attempt whose password was not looked at: what keeps the service from hashing must lock nobody out.
    pub(super) async fn withdraw_attempt(&self, attempt: &Attempt) {
        let taken_back = attempt.counted.iter().map(|(key, _)| Settlement::TakeBack(*key, attempt.at));
        self.settle(taken_back.collect()).await;
        self.forget_refusals(attempt);
    }

    /// Forgets what stood against an attempt that succeeded: its success lifted that.
    pub(super) fn forget_refusals(&self, attempt: &Attempt) {
        self.refusals.forget(&attempt.keys);
    }

    async fn settle(&self, settlements: Vec<Settlement>) {
        if !settlements.is_empty()
            && let Err(error) = self.store.attempts().settle(settlements).await
        {
            tracing::warn!(%error, "an attempt could not be settled; it counts as a failure");
        }
    }

    /// Writes a failed login to the audit trail, or counts it (security.md S9), and writes the lock that it brought. An event
    /// names the account, where there is one, and never the name as it was typed: people type passwords there (S4).
    pub(super) async fn note_failed_login(
        &self,
        attempt: &Attempt,
        user: Option<UserId>,
        client: &ClientId,
        from: &Requester,
    ) -> Result<(), Failure> {
        let failed = self.failed_logins.is_written_singly(from.address, user).then_some("login.failed");
        let names = failed.into_iter().chain(attempt.is_last.then_some("login.locked"));
        let events = names.map(|name| {
            let event = from.event(name).on(client);
            match user {
                Some(user) => event.about_user(user),
                None => event,
            }
        });
        let events: Vec<_> = events.collect();
        if events.is_empty() {
            return Ok(());
        }
        Ok(self.store.audit().append(events, self.clock.now()).await?)
    }
}

/// What an address is counted as: an IPv6 address stands for its /64, which one customer has whole (security.md L7).
pub(super) fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l7_an_ipv6_customer_is_one_address_and_a_mapped_ipv4_is_itself() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:aaaa::1"), of("2001:db8:1:2:bbbb::2"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
    }
}
