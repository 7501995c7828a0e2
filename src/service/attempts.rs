//! Limits on guessing passwords: counted before hashing, for all replicas together (security.md group L).
//!
//! Three counts stand against an attempt: of the account, of the address, and of the pair. An address from which the
//! account logged in before is held to its pair alone, so nobody elsewhere can lock its owner out (L4); each replica
//! remembers that for itself. Names that do not exist are counted like any other (L5). Live sessions are not touched.

use std::net::IpAddr;
use std::time::Duration;

use crate::crypto;
use crate::domain::{ClientId, UserId, Username};
use crate::store::{AttemptKey, AttemptLimits, Decision, Settlement};

use super::{Failure, LoginError, Requester, Service};

/// How long an address stays known after a login, and how many pairs are remembered.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const MOST_KNOWN: u64 = 100_000;

/// How many failed logins are borne.
#[derive(Debug)]
pub struct AttemptRules {
    /// `limits.enabled`.
    pub enabled: bool,
    /// Of one account, over all replicas.
    pub account: AttemptLimits,
    /// From one address.
    pub address: AttemptLimits,
    /// From one address at one account.
    pub pair: AttemptLimits,
    /// Pairs that have logged in before.
    known: moka::sync::Cache<AttemptKey, ()>,
}

impl AttemptRules {
    /// Rules, and an empty memory of who is known.
    pub fn new(enabled: bool, account: AttemptLimits, address: AttemptLimits, pair: AttemptLimits) -> Self {
        let known = moka::sync::Cache::builder().max_capacity(MOST_KNOWN).time_to_live(KNOWN_FOR).build();
        Self { enabled, account, address, pair, known }
    }
}

/// An attempt that was counted and not settled yet.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    account: AttemptKey,
    address: AttemptKey,
    pair: AttemptKey,
}

impl Attempt {
    fn of(username: &Username, address: Option<IpAddr>) -> Self {
        let address = address.map_or_else(|| "none".to_owned(), network);
        let key = |parts: &[&str]| AttemptKey(crypto::sha256(parts.join("\n").as_bytes()));
        Self {
            account: key(&["account", username.as_str()]),
            address: key(&["address", &address]),
            pair: key(&["pair", username.as_str(), &address]),
        }
    }

    /// What a success does to the counts.
    pub(super) fn settlements(&self) -> Vec<Settlement> {
        vec![Settlement::Forget(self.account), Settlement::Forget(self.pair), Settlement::TakeBack(self.address)]
    }
}

impl Service {
    /// Counts an attempt on a name, or refuses it uncounted.
    pub(super) async fn begin_attempt(&self, username: &Username, from: &Requester) -> Result<Attempt, LoginError> {
        let attempt = Attempt::of(username, from.address);
        let rules = &self.attempt_rules;
        if !rules.enabled {
            return Ok(attempt);
        }
        let mut keys = vec![(attempt.pair, rules.pair), (attempt.address, rules.address)];
        if !rules.known.contains_key(&attempt.pair) {
            keys.push((attempt.account, rules.account));
        }
        match self.store.attempts().register(keys, self.clock.now()).await.map_err(Failure::from)? {
            Decision::Allowed => Ok(attempt),
            Decision::Blocked { retry_after } => Err(LoginError::TooManyAttempts { retry_after }),
        }
    }

    /// Remembers that this address is the account owner's. Whoever opened a session has the counts settled with it.
    pub(super) fn attempt_succeeded(&self, attempt: &Attempt) {
        self.attempt_rules.known.insert(attempt.pair, ());
    }

    /// Settles the counts of a success that opened no session. If that fails, the success counts as one more failure.
    pub(super) async fn settle_attempt(&self, attempt: &Attempt) {
        self.attempt_succeeded(attempt);
        if self.attempt_rules.enabled
            && let Err(error) = self.store.attempts().settle(attempt.settlements()).await
        {
            tracing::warn!(%error, "a successful attempt could not be settled");
        }
    }

    /// Writes a failed login to the audit trail: with the account, where there is one, and never with the name as it was
    /// typed, because people type passwords there (security.md S4).
    pub(super) async fn note_failed_login(
        &self,
        username: &Username,
        client: &ClientId,
        from: &Requester,
    ) -> Result<(), Failure> {
        let user: Option<UserId> = self.store.users().by_username(username).await?.map(|user| user.id);
        let mut event = from.event("login.failed").on(client);
        event.subject = user.map(|user| user.to_string());
        Ok(self.store.audit().append(vec![event], self.clock.now()).await?)
    }
}

/// What an address is counted as: an IPv6 address stands for its /64, which one customer has whole (security.md L7).
fn network(address: IpAddr) -> String {
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
