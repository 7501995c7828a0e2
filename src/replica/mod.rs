//! A replica's in-memory state: revocations and clients ([`view`]), signing keys ([`keyring`]), and the [`follower`] that
//! keeps both in step with the change feed. The [`log`] keeps the entries for readers of the feed.

use std::sync::Arc;

use crate::clock::Clock;
use crate::crypto::Random;
use crate::store::Store;

use self::follower::Follower;
use self::keyring::Keyring;
use self::view::View;

pub mod follower;
pub mod keyring;
pub mod log;
pub mod view;

/// The database and the in-memory state that all use cases share.
#[derive(Clone)]
pub struct Replica {
    pub store: Store,
    pub view: Arc<View>,
    pub keyring: Arc<Keyring>,
    pub follower: Arc<Follower>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
}

#[cfg(test)]
mod tests;
