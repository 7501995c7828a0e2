//! Replaces a client's secret.

use super::{Clients, changed};
use crate::domain::{Client, ClientId, SecretDigest, Timestamp};
use crate::store::db::{Tx, Written, values};
use crate::store::{AuditEvent, StoreError};

impl Clients<'_> {
    /// Gives a client a new secret. Of the old secrets, only the newest is accepted, until `old_until` (security.md S5:
    /// two are valid during a replacement).
    pub async fn add_secret(
        &self,
        id: &ClientId,
        digest: SecretDigest,
        old_until: Timestamp,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<Client>, StoreError> {
        // Locks the client's row first, so that concurrent replacements are serialized.
        const LOCK: &str = "UPDATE clients SET created_at = created_at WHERE id = $1 RETURNING id";
        const DROP_OLDER: &str = "DELETE FROM client_secrets
            WHERE client_id = $1 AND (expires_at IS NOT NULL OR $2 <= $3)";
        const EXPIRE: &str = "UPDATE client_secrets SET expires_at = $2 WHERE client_id = $1 AND expires_at IS NULL";
        let input = (id.clone(), digest, old_until, now, audit);
        self.0
            .write("client_add_secret", input, |tx, (id, digest, old_until, now, audit)| {
                Box::pin(async move {
                    if tx.row(LOCK, values![id]).await?.is_none() {
                        return Err(StoreError::NotFound { what: "client" });
                    }
                    tx.run(DROP_OLDER, values![id, *old_until, *now]).await?;
                    tx.run(EXPIRE, values![id, *old_until]).await?;
                    insert(tx, id, *digest, *now).await?;
                    changed(tx, id, *now, audit).await
                })
            })
            .await
    }
}

pub(super) async fn insert(tx: &mut Tx, id: &ClientId, digest: SecretDigest, now: Timestamp) -> Result<(), StoreError> {
    const INSERT: &str = "INSERT INTO client_secrets (client_id, digest, created_at) VALUES ($1, $2, $3)";
    tx.run(INSERT, values![id, digest.0, now]).await
}
