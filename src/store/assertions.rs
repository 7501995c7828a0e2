//! Used assertions of `private_key_jwt`: each is accepted once, across all replicas.

use crate::domain::Timestamp;
use crate::store::StoreError;
use crate::store::db::{Database, values};

/// Used assertions.
#[derive(Clone, Copy)]
pub struct Assertions<'a>(pub(super) &'a Database);

impl Assertions<'_> {
    /// Remembers an assertion by the digest of its client and `jti` until it expires. False if it is already
    /// remembered: a replay (RFC 7523 §3, point 7).
    pub async fn remember(&self, digest: [u8; 32], expires_at: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        // An expired assertion may still be stored until the next sweep.
        const REMEMBER: &str = "INSERT INTO client_assertions (digest, expires_at) VALUES ($1, $2)
            ON CONFLICT (digest) DO UPDATE SET expires_at = excluded.expires_at
                WHERE client_assertions.expires_at <= $3
            RETURNING digest";
        Ok(!self.0.write_one("assertion_remember", REMEMBER, values![digest, expires_at, now]).await?.is_empty())
    }
}
