//! Failed logins, counted for all replicas together.

use crate::store::StoreError;
use crate::store::db::{Tx, values};

/// What is counted: a digest of an account, an address, or both, made by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey(pub [u8; 32]);

/// What a success does to a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Forgets it: failures of an account count only while they are consecutive.
    Forget(AttemptKey),
    /// Takes this one attempt back: many people may come from one address.
    TakeBack(AttemptKey),
}

/// Settles counts in the transaction of the success.
pub(super) async fn settle(tx: &mut Tx, settlements: &[Settlement]) -> Result<(), StoreError> {
    const FORGET: &str = "DELETE FROM login_attempts WHERE key = $1";
    const TAKE_BACK: &str = "UPDATE login_attempts SET failures = failures - 1 WHERE key = $1 AND failures > 0";
    for settlement in settlements {
        match settlement {
            Settlement::Forget(key) => tx.run(FORGET, values![key.0]).await?,
            Settlement::TakeBack(key) => tx.run(TAKE_BACK, values![key.0]).await?,
        }
    }
    Ok(())
}
