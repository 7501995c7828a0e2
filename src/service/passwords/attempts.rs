//! Rate limits on password attempts, counted before hashing and over all replicas (security.md group L).
//!
//! An attempt is counted for the account, for the address, and for the pair of both. The account's count does not apply to
//! an address from which the account has logged in within 30 days, so attackers elsewhere cannot lock its owner out (L4).
//! Unknown user names are counted too (L5). Live sessions are not affected.

use std::net::IpAddr;
use std::time::Duration;

use crate::crypto;
use crate::crypto::Priority;
use crate::domain::{ClientId, Timestamp, UserId, Username};
use crate::service::{Failure, LoginError, Passwords, Requester};
use crate::store::{AttemptKey, AttemptLimits, Decision, Exemption, Settlement};

/// How long an address is known to an account after a login.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long a refusal is cached at most. A login at another replica can lift a limit early; this replica notices after at
/// most this time.
const REFUSAL_MEMORY: Duration = Duration::from_secs(30);

/// Limits on failed logins.
#[derive(Debug, Clone)]
pub struct AttemptRules {
    pub enabled: bool,
    /// Per account.
    pub account: AttemptLimits,
    /// Per address.
    pub address: AttemptLimits,
    /// Per account and address.
    pub pair: AttemptLimits,
}

/// The limit that refused an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Account,
    Address,
    /// Of the account and address together.
    Pair,
}

/// A cache of refused attempts, so that a repeated attempt costs no statement (security.md L10). Bounded; entries may be
/// lost.
#[derive(Debug)]
pub struct Refusals(moka::sync::Cache<AttemptKey, Refusal>);

/// A cached refusal, in monotonic time.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    limit: Limit,
    /// When the next attempt is allowed, according to the database.
    until: Duration,
    /// When the entry is no longer used, and the database decides again.
    ask_at: Duration,
}

impl Refusals {
    /// Keeps at most `entries` refusals.
    pub fn new(entries: usize) -> Self {
        Self(moka::sync::Cache::new(entries as u64))
    }

    /// Caches a refusal. An account's limit does not apply to addresses known to it, so it is cached for this pair only.
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

/// An attempt that was counted but not settled.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    keys: Keys,
    at: Timestamp,
    /// The keys and their failures before this attempt. Empty if limits are off.
    counted: Vec<(AttemptKey, u32)>,
    /// Whether a failure of this attempt starts the account's hard stop.
    is_last: bool,
}

/// The keys under which an attempt is counted.
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
    /// Attempts from an address with recent failures have low priority in the hashing pool. Abandoned logins count as
    /// failures.
    pub(crate) fn priority(&self) -> Priority {
        let has_failed = self.counted.iter().any(|(key, failures)| *key == self.keys.address && *failures > 0);
        if has_failed { Priority::Low } else { Priority::Normal }
    }

    /// The changes of the counts after a success.
    pub(crate) fn settlements(&self) -> Vec<Settlement> {
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

impl Passwords {
    /// Counts an attempt, or refuses it without counting it.
    pub(crate) async fn begin_attempt(&self, username: &Username, from: &Requester) -> Result<Attempt, LoginError> {
        let keys = Keys::of(username, from.address);
        let rules = &self.attempt_rules;
        let at = self.replica.clock.now();
        if !rules.enabled {
            return Ok(Attempt { keys, at, counted: Vec::new(), is_last: false });
        }
        let now = self.replica.clock.elapsed();
        self.refusals.check(&keys, now)?;
        let counts = vec![(keys.pair, rules.pair), (keys.address, rules.address), (keys.account, rules.account)];
        let exemption = Exemption { from: keys.account, known: keys.known };
        match self.replica.store.attempts().register(counts, Some(exemption), at).await.map_err(Failure::from)? {
            Decision::Allowed { counted, is_last } => Ok(Attempt { keys, at, counted, is_last }),
            Decision::Blocked { by, retry_after } => {
                let limit = keys.limit(by);
                self.refusals.remember(&keys, limit, retry_after, now);
                Err(LoginError::TooManyAttempts { limit, retry_after })
            }
        }
    }

    /// Settles a successful attempt that opened no session. If that fails, the attempt counts as a failure.
    pub(crate) async fn settle_attempt(&self, attempt: &Attempt) {
        self.settle(attempt.settlements()).await;
        self.forget_refusals(attempt);
    }

    /// Removes the count of an attempt whose password was not checked: a fault of the service must not lock an account.
    pub(crate) async fn withdraw_attempt(&self, attempt: &Attempt) {
        let taken_back = attempt.counted.iter().map(|(key, _)| Settlement::TakeBack(*key, attempt.at));
        self.settle(taken_back.collect()).await;
        self.forget_refusals(attempt);
    }

    /// Removes the cached refusals for the keys of an attempt that succeeded or was withdrawn.
    pub(crate) fn forget_refusals(&self, attempt: &Attempt) {
        self.refusals.forget(&attempt.keys);
    }

    async fn settle(&self, settlements: Vec<Settlement>) {
        if !settlements.is_empty()
            && let Err(error) = self.replica.store.attempts().settle(settlements).await
        {
            tracing::warn!(%error, "settling an attempt failed; the attempt counts as a failure");
        }
    }

    /// Writes or counts the audit event of a failed login (security.md S9), and writes the event of the hard stop if it starts.
    /// The subject is the user, if it exists. The user name as entered is never written, because users sometimes enter their
    /// password there (S4).
    pub(crate) async fn note_failed_login(
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
        Ok(self.replica.store.audit().append(events, self.replica.clock.now()).await?)
    }
}

/// The network under which an address is counted. An IPv6 address is counted by its /64, the usual allocation to one customer
/// (security.md L7).
pub(crate) fn network(address: IpAddr) -> String {
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
    fn l7_ipv6_is_counted_by_64_network_and_a_mapped_address_as_ipv4() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:aaaa::1"), of("2001:db8:1:2:bbbb::2"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
    }
}
