//! Audit events of failed logins. The first of each address and minute are written immediately. The others are counted in
//! memory and written once a minute, so that an attacker cannot fill the table.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::UserId;
use crate::service::passwords::attempts::network;
use crate::service::{Failure, Passwords, Requester};

/// Failures of one address that get their own event between two periodic writes.
const WRITTEN_SINGLY: u32 = 5;

/// Accounts per address that are counted separately. Failures of further accounts are counted together.
const ACCOUNTS: usize = 4;

/// Addresses that are counted separately. Failures of further addresses are counted together (security.md L6).
const ADDRESSES: usize = 10_000;

/// Failures since the last write, by network of the caller. `None` is the key for addresses that are counted together.
#[derive(Debug, Default)]
pub struct FailedLogins(Mutex<HashMap<Option<String>, Counts>>);

#[derive(Debug, Default)]
struct Counts {
    written: u32,
    /// By user. `None` is the key for unknown names and for accounts that are counted together.
    more: HashMap<Option<UserId>, u64>,
}

impl FailedLogins {
    /// Whether a failure gets its own event. If not, it is counted.
    pub(crate) fn is_written_singly(&self, address: Option<IpAddr>, user: Option<UserId>) -> bool {
        let mut failures = self.lock();
        let counts = counts_of(&mut failures, address.map(network));
        if counts.written < WRITTEN_SINGLY {
            counts.written += 1;
            return true;
        }
        counts.add(user, 1);
        false
    }

    fn take(&self) -> Vec<(Option<String>, Option<UserId>, u64)> {
        let failures = std::mem::take(&mut *self.lock());
        let each = failures.into_iter().flat_map(|(network, counts)| {
            counts.more.into_iter().map(move |(user, count)| (network.clone(), user, count))
        });
        each.collect()
    }

    fn put_back(&self, counted: Vec<(Option<String>, Option<UserId>, u64)>) {
        let mut failures = self.lock();
        for (network, user, count) in counted {
            counts_of(&mut failures, network).add(user, count);
        }
    }

    /// No code under the lock can panic, so a poisoned lock is still consistent.
    fn lock(&self) -> MutexGuard<'_, HashMap<Option<String>, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counts_of(failures: &mut HashMap<Option<String>, Counts>, network: Option<String>) -> &mut Counts {
    let is_counted_apart = failures.len() < ADDRESSES || failures.contains_key(&network);
    failures.entry(network.filter(|_| is_counted_apart)).or_default()
}

impl Counts {
    fn add(&mut self, user: Option<UserId>, count: u64) {
        let is_counted_apart = self.more.len() < ACCOUNTS || self.more.contains_key(&user);
        *self.more.entry(user.filter(|_| is_counted_apart)).or_default() += count;
    }
}

impl Passwords {
    /// Writes the failures counted since the last call. If that fails, the next call writes them.
    pub async fn audit_failed_logins(&self) -> Result<(), Failure> {
        let counted = self.failed_logins.take();
        if counted.is_empty() {
            return Ok(());
        }
        let from = Requester::background().acting("anonymous");
        let event = |(network, user, count): &(Option<String>, Option<UserId>, u64)| {
            let event = from.event("login.failed");
            let event = match network {
                Some(network) => event.noting("address", network.as_str()),
                None => event,
            };
            let event = event.noting("attempts", *count);
            match user {
                Some(user) => event.about_user(*user),
                None => event,
            }
        };
        let written =
            self.replica.store.audit().append(counted.iter().map(event).collect(), self.replica.clock.now()).await;
        if written.is_err() {
            self.failed_logins.put_back(counted);
        }
        Ok(written?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u8) -> Option<UserId> {
        Some(UserId::from_bytes([number; 16]))
    }

    #[test]
    fn l6_memory_is_bounded_for_any_number_of_addresses_and_accounts() {
        let failures = FailedLogins::default();
        for number in 0..2 * ADDRESSES as u32 {
            failures.is_written_singly(Some(IpAddr::from(number.to_be_bytes())), None);
        }
        assert_eq!(failures.lock().len(), ADDRESSES + 1);
        let address = Some(IpAddr::from([0, 0, 0, 1]));
        for number in 0..100 {
            failures.is_written_singly(address, user(number));
        }
        let counted = failures.take();
        let of_address = |network: &Option<String>| network.as_deref() == Some("0.0.0.1");
        let own: Vec<_> = counted.iter().filter(|(network, ..)| of_address(network)).collect();
        assert_eq!(own.len(), ACCOUNTS + 1);
        assert_eq!(own.iter().map(|(_, _, count)| count).sum::<u64>(), 96, "one and four were written singly");
        assert_eq!(failures.take(), []);
    }
}
