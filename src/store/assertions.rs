//! Assertions of `private_key_jwt` that were used: each is accepted once, by all replicas together.

use crate::domain::Timestamp;
use crate::store::StoreError;
use crate::store::db::{Database, values};

/// Used assertions.
#[derive(Clone, Copy)]
pub struct Assertions<'a>(pub(super) &'a Database);

impl Assertions<'_> {
    /// Remembers the assertion whose client and `jti` have this digest until it expires. False when it is remembered
    /// already: a replay (RFC 7523 §3, point 7).
    pub async fn remember(&self, digest: [u8; 32], expires_at: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        // One that has expired may still be there, unswept.
        const REMEMBER: &str = "INSERT INTO client_assertions (digest, expires_at) VALUES ($1, $2)
            ON CONFLICT (digest) DO UPDATE SET expires_at = excluded.expires_at
                WHERE client_assertions.expires_at <= $3
            RETURNING digest";
        Ok(!self.0.write_one("assertion_remember", REMEMBER, values![digest, expires_at, now]).await?.is_empty())
    }
}
