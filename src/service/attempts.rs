//! Limits on guessing passwords: counted before hashing, for all replicas together (security.md group L).
//!
//! Three counts stand against each attempt: one of the account, one of the address, one of the pair. An address from which
//! the account logged in before is trusted: it is held to its pair alone, so nobody elsewhere can lock its owner out
//! (L4). Names that do not exist are counted like any other (L5). Sessions that are live are not touched.

use std::net::IpAddr;
use std::time::Duration;

use crate::crypto;
use crate::domain::{Timestamp, Username};
use crate::store::{AttemptKey, Settlement};

use super::{Failure, LoginError, Requester, Service};

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
