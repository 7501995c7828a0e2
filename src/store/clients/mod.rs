//! OAuth clients and the digests of their secrets.

mod revoke;
mod row;
mod secret;

use std::collections::BTreeSet;

use self::row::{collect, collect_one, settings_values};
use crate::domain::{Change, Client, ClientId, ClientSettings, SecretDigest, Timestamp};
use crate::store::columns::client_columns;
use crate::store::db::{Database, Sql, Tx, Value, Written, values};
use crate::store::feed::NOTE_LIFE;
use crate::store::{AuditEvent, FeedEntry, Rows, StoreError, audit};

/// Reads clients with their secrets, in the order of their ids.
macro_rules! read_where {
    ($condition:literal) => {
        concat!(
            "SELECT ",
            client_columns!(),
            ", client_secrets.digest, client_secrets.expires_at AS secret_expires_at
            FROM clients LEFT JOIN client_secrets ON client_secrets.client_id = clients.id
            WHERE ",
            $condition,
            " ORDER BY clients.id, client_secrets.created_at, client_secrets.digest"
        )
    };
}

/// The changes that an administrator makes to a client.
#[derive(Debug, Clone)]
pub struct ClientChange {
    /// The settings on which the change is based.
    pub present: ClientSettings,
    /// The new settings.
    pub settings: ClientSettings,
    /// The audit event if the settings differ.
    pub audit: Option<AuditEvent>,
    /// Enabled or disabled, with its audit event.
    pub enabled: Option<(bool, Option<AuditEvent>)>,
    /// When the revocation by disabling expires.
    pub revocation_expires_at: Timestamp,
}

/// A client to be created.
#[derive(Debug, Clone)]
pub struct NewClient {
    /// Its id; unique.
    pub id: ClientId,
    /// The operator's settings.
    pub settings: ClientSettings,
    /// Its first secret. None for a public client, and for a client that authenticates with a key.
    pub secret: Option<SecretDigest>,
    /// Whether it is created disabled.
    pub disabled: bool,
}

/// Clients.
#[derive(Clone, Copy)]
pub struct Clients<'a>(pub(super) &'a Database);

impl Clients<'_> {
    /// Creates a client. [`StoreError::Conflict`] when the id is taken.
    ///
    /// The id may have belonged to a deleted client. The new client then starts at the epoch below which the old
    /// client's tokens are still remembered as revoked.
    pub async fn create(
        &self,
        new: NewClient,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<Client>, StoreError> {
        self.0
            .write("client_create", (new, now, audit), |tx, (new, now, audit)| {
                Box::pin(async move {
                    let client = insert(tx, new, *now).await?;
                    note_change(tx, &new.id, *now).await?;
                    audit::record(tx, *now, audit).await?;
                    Ok(client)
                })
            })
            .await
    }

    /// A client by id, with its secrets.
    pub async fn by_id(&self, id: &ClientId) -> Result<Option<Client>, StoreError> {
        let rows = self.0.rows("client_by_id", READ_ONE, values![id]).await?;
        collect_one(&rows)
    }

    /// The existing clients among these ids, with their secrets.
    pub async fn by_ids(&self, ids: &BTreeSet<ClientId>) -> Result<Rows<Client, ClientId>, StoreError> {
        const READ: Sql = Sql::each(
            read_where!("clients.id IN (SELECT value FROM json_each($1))"),
            read_where!("clients.id IN (SELECT json_array_elements_text($1::json))"),
        );
        let ids: serde_json::Value = ids.iter().map(ClientId::as_str).collect();
        Ok(collect(&self.0.rows("clients_by_ids", READ, values![ids.to_string()]).await?))
    }

    /// All clients with their secrets, in the order of their ids.
    pub async fn all(&self) -> Result<Rows<Client, ClientId>, StoreError> {
        Ok(collect(&self.0.rows("clients_all", read_where!("1 = 1"), Vec::new()).await?))
    }

    /// Changes a client in one transaction, if its settings still are `change.present`; otherwise returns a conflict.
    /// Issued tokens keep the settings they were issued with.
    pub async fn change(
        &self,
        id: &ClientId,
        change: ClientChange,
        now: Timestamp,
    ) -> Result<Written<Client>, StoreError> {
        let input = (id.clone(), change, now);
        self.0.write("client_change", input, |tx, (id, change, now)| Box::pin(apply(tx, id, change, *now))).await
    }
}

async fn apply(tx: &mut Tx, id: &ClientId, change: &ClientChange, now: Timestamp) -> Result<Client, StoreError> {
    const LOCK: &str = "UPDATE clients SET kind = kind WHERE id = $1 RETURNING id";
    const UPDATE: &str = "UPDATE clients SET kind = $2, display_name = $3, grants = $4, audiences = $5, scopes = $6,
        introspect = $7, access_ttl_ms = $8, algorithm = $9, token_type = $10, jwks = $11, feed = $12
        WHERE id = $1 RETURNING id";
    if tx.row(LOCK, values![id]).await?.is_none() {
        return Err(StoreError::NotFound { what: "client" });
    }
    let mut client = read(tx, id).await?;
    if client.settings != change.present {
        return Err(StoreError::Conflict { what: "the client's settings" });
    }
    if change.settings != change.present {
        tx.row(UPDATE, with_settings(id, &change.settings)).await?;
        client = changed(tx, id, now, &change.audit).await?;
    }
    match &change.enabled {
        Some((true, audit)) => revoke::enable(tx, id, now, audit).await,
        Some((false, audit)) => revoke::disable(tx, id, now, change.revocation_expires_at, audit).await,
        None => Ok(client),
    }
}

const READ_ONE: &str = read_where!("clients.id = $1");

async fn insert(tx: &mut Tx, new: &NewClient, now: Timestamp) -> Result<Client, StoreError> {
    const INSERT: &str = "INSERT INTO clients (id, kind, display_name, grants, audiences, scopes, introspect,
            access_ttl_ms, algorithm, token_type, jwks, feed, created_at, disabled_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        ON CONFLICT (id) DO NOTHING RETURNING id";
    // A separate statement. The insertion may have waited for the transaction that deletes the former client, and does
    // not see its entry on the feed.
    const RAISE_EPOCH: &str = "UPDATE clients SET epoch =
            (SELECT coalesce(max(epoch), 0) FROM changes WHERE kind = 'client' AND subject = $2)
        WHERE id = $1 RETURNING id";
    let mut values = with_settings(&new.id, &new.settings);
    values.extend(values![now, new.disabled.then_some(now)]);
    if tx.row(INSERT, values).await?.is_none() {
        return Err(StoreError::Conflict { what: "client id" });
    }
    tx.row(RAISE_EPOCH, values![&new.id, new.id.as_str().as_bytes()]).await?;
    if let Some(digest) = new.secret {
        secret::insert(tx, &new.id, digest, now).await?;
    }
    read(tx, &new.id).await
}

fn with_settings(id: &ClientId, settings: &ClientSettings) -> Vec<Value> {
    let mut values = values![id];
    values.extend(settings_values(settings));
    values
}

/// The client after this transaction.
async fn read(tx: &mut Tx, id: &ClientId) -> Result<Client, StoreError> {
    let rows = tx.rows(READ_ONE, values![id]).await?;
    collect_one(&rows)?.ok_or(StoreError::NotFound { what: "client" })
}

/// Notifies every replica to read the client again, and returns it.
async fn changed(tx: &mut Tx, id: &ClientId, now: Timestamp, audit: &Option<AuditEvent>) -> Result<Client, StoreError> {
    note_change(tx, id, now).await?;
    audit::record(tx, now, audit).await?;
    read(tx, id).await
}

pub(super) async fn note_change(tx: &mut Tx, id: &ClientId, now: Timestamp) -> Result<(), StoreError> {
    let change = Change::ClientChanged(id.clone());
    tx.publish(FeedEntry { change, created_at: now, expires_at: now.plus(NOTE_LIFE), place: None }).await
}
