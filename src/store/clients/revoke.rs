//! Operations that make all older tokens of a client inactive.

use std::time::Duration;

use super::{Clients, changed, note_change, read};
use crate::domain::{Client, ClientId, Revocation, Timestamp};
use crate::store::db::{Tx, Written, values};
use crate::store::{AuditEvent, StoreError, audit};

/// Number of sessions that one statement deletes. Their rows, and on SQLite the file, are locked for some milliseconds.
const BATCH: i64 = 500;

/// Deleting a client deletes its remaining sessions.
const DELETE_PATIENCE: Duration = Duration::from_secs(60);

impl Clients<'_> {
    /// Makes every token and session of a client inactive. The client stays usable.
    pub async fn revoke(
        &self,
        id: &ClientId,
        revocation_expires_at: Timestamp,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<Client>, StoreError> {
        const BUMP: &str = "UPDATE clients SET epoch = epoch + 1 WHERE id = $1 RETURNING id";
        let input = (id.clone(), revocation_expires_at, now, audit);
        self.0
            .write("client_revoke", input, |tx, (id, until, now, audit)| {
                Box::pin(async move {
                    if tx.row(BUMP, values![id]).await?.is_none() {
                        return Err(StoreError::NotFound { what: "client" });
                    }
                    revoked(tx, id, *now, *until, audit).await
                })
            })
            .await
    }

    /// Disables a client: all its requests are refused, and its tokens are inactive. Repeating this changes nothing.
    pub async fn disable(
        &self,
        id: &ClientId,
        revocation_expires_at: Timestamp,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<Client>, StoreError> {
        let input = (id.clone(), revocation_expires_at, now, audit);
        self.0
            .write("client_disable", input, |tx, (id, until, now, audit)| {
                Box::pin(disable(tx, id, *now, *until, audit))
            })
            .await
    }

    /// Enables a disabled client. Tokens revoked by disabling stay revoked. Repeating this changes nothing.
    pub async fn enable(
        &self,
        id: &ClientId,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<Client>, StoreError> {
        let input = (id.clone(), now, audit);
        self.0.write("client_enable", input, |tx, (id, now, audit)| Box::pin(enable(tx, id, *now, audit))).await
    }

    /// Deletes the sessions of a client in small batches, so that other refreshes do not wait for the whole deletion.
    /// Disable the client first: this deletion leaves no revocation.
    pub async fn delete_sessions(&self, id: &ClientId) -> Result<(), StoreError> {
        const DELETE: &str = "DELETE FROM sessions WHERE id IN
            (SELECT id FROM sessions WHERE client_id = $1 ORDER BY id LIMIT $2) RETURNING id";
        loop {
            let deleted = self.0.write_one("client_sessions_delete", DELETE, values![id, BATCH]).await?.len();
            if deleted < usize::try_from(BATCH).unwrap_or(usize::MAX) {
                return Ok(());
            }
        }
    }

    /// Whether a client has too many sessions to delete at once.
    pub async fn has_many_sessions(&self, id: &ClientId) -> Result<bool, StoreError> {
        const BEYOND: &str = "SELECT id FROM sessions WHERE client_id = $1 ORDER BY id LIMIT 1 OFFSET $2";
        Ok(self.0.row("client_sessions", BEYOND, values![id, BATCH]).await?.is_some())
    }

    /// Deletes a client with its secrets and sessions; false if there is none.
    pub async fn delete(
        &self,
        id: &ClientId,
        revocation_expires_at: Timestamp,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<bool>, StoreError> {
        const DELETE: &str = "DELETE FROM clients WHERE id = $1 RETURNING id, epoch";
        let input = (id.clone(), revocation_expires_at, now, audit);
        self.0
            .write("client_delete", input, |tx, (id, until, now, audit)| {
                Box::pin(async move {
                    tx.be_patient(DELETE_PATIENCE).await?;
                    let Some(row) = tx.row(DELETE, values![id]).await? else {
                        return Ok(false);
                    };
                    let epoch = row.of("clients", "id").count("epoch")?.saturating_add(1);
                    tx.revoke(Revocation::Client(id.clone(), epoch), *now, *until).await?;
                    note_change(tx, id, *now).await?;
                    audit::record(tx, *now, audit).await?;
                    Ok(true)
                })
            })
            .await
    }
}

pub(super) async fn disable(
    tx: &mut Tx,
    id: &ClientId,
    now: Timestamp,
    until: Timestamp,
    audit: &Option<AuditEvent>,
) -> Result<Client, StoreError> {
    const DISABLE: &str = "UPDATE clients SET disabled_at = $2, epoch = epoch + 1
        WHERE id = $1 AND disabled_at IS NULL RETURNING id";
    match tx.row(DISABLE, values![id, now]).await? {
        Some(_) => revoked(tx, id, now, until, audit).await,
        None => read(tx, id).await,
    }
}

pub(super) async fn enable(
    tx: &mut Tx,
    id: &ClientId,
    now: Timestamp,
    audit: &Option<AuditEvent>,
) -> Result<Client, StoreError> {
    const ENABLE: &str = "UPDATE clients SET disabled_at = NULL WHERE id = $1 AND disabled_at IS NOT NULL RETURNING id";
    match tx.row(ENABLE, values![id]).await? {
        Some(_) => changed(tx, id, now, audit).await,
        None => read(tx, id).await,
    }
}

/// Puts a client's new epoch on the feed.
async fn revoked(
    tx: &mut Tx,
    id: &ClientId,
    now: Timestamp,
    until: Timestamp,
    audit: &Option<AuditEvent>,
) -> Result<Client, StoreError> {
    let client = changed(tx, id, now, audit).await?;
    tx.revoke(Revocation::Client(id.clone(), client.epoch), now, until).await?;
    Ok(client)
}
