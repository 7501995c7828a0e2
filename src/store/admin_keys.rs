//! Keys of administrators (`cs_admin_…`): digests, created and deleted by the command line. They are read from the
//! database at each use, so a deleted key is invalid at once.

use std::time::Duration;

use crate::domain::Timestamp;
use crate::store::columns::admin_key_columns;
use crate::store::db::{Database, Row, values};
use crate::store::{AuditEvent, Rows, StoreError, audit};

/// The last use is recorded at most this often.
const USE_RESOLUTION: Duration = Duration::from_secs(60);

/// An administrator's key to be created.
#[derive(Clone)]
pub struct NewAdminKey {
    /// Fresh random id.
    pub id: [u8; 16],
    /// A display name; unique.
    pub name: String,
    /// SHA-256 of the key, which has 256 random bits.
    pub digest: [u8; 32],
    /// When the key expires.
    pub expires_at: Option<Timestamp>,
}

/// An administrator's key as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminKey {
    /// Its id.
    pub id: [u8; 16],
    /// A display name; unique.
    pub name: String,
    /// When the key was created.
    pub created_at: Timestamp,
    /// When the key expires.
    pub expires_at: Option<Timestamp>,
    /// Its last use, to the minute.
    pub last_used_at: Option<Timestamp>,
}

/// Keys of administrators.
#[derive(Clone, Copy)]
pub struct AdminKeys<'a>(pub(super) &'a Database);

impl AdminKeys<'_> {
    /// Stores a key. [`StoreError::Conflict`] when the name is taken.
    pub async fn create(
        &self,
        new: NewAdminKey,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<AdminKey, StoreError> {
        const INSERT: &str = concat!(
            "INSERT INTO admin_keys (id, name, digest, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING RETURNING ",
            admin_key_columns!()
        );
        let written = self.0.write("admin_key_create", (new, now, audit), |tx, (new, now, audit)| {
            Box::pin(async move {
                let row = tx.row(INSERT, values![new.id, &new.name, new.digest, *now, new.expires_at]).await?;
                let row = row.ok_or(StoreError::Conflict { what: "name" })?;
                audit::record(tx, *now, audit).await?;
                AdminKey::try_from(&row)
            })
        });
        Ok(written.await?.value)
    }

    /// Every key, in the order of their names.
    pub async fn all(&self) -> Result<Rows<AdminKey, String>, StoreError> {
        const READ: &str = concat!("SELECT ", admin_key_columns!(), " FROM admin_keys ORDER BY name");
        let mut keys = Rows::default();
        for row in &self.0.rows("admin_keys_all", READ, Vec::new()).await? {
            keys.add(|| row.of("admin_keys", "name").text("name").ok(), AdminKey::try_from(row));
        }
        Ok(keys)
    }

    /// The key with this digest, if it is accepted at `now`. Records the use.
    pub async fn accept(&self, digest: [u8; 32], now: Timestamp) -> Result<Option<AdminKey>, StoreError> {
        const READ: &str = concat!(
            "SELECT ",
            admin_key_columns!(),
            " FROM admin_keys WHERE digest = $1 AND (expires_at IS NULL OR expires_at > $2)"
        );
        const NOTE: &str = "UPDATE admin_keys SET last_used_at = $1 WHERE digest = $2 RETURNING id";
        let Some(row) = self.0.row("admin_key_accept", READ, values![digest, now]).await? else {
            return Ok(None);
        };
        let key = AdminKey::try_from(&row)?;
        if key.last_used_at.is_none_or(|last| now.since(last) >= USE_RESOLUTION) {
            // An administrator must be able to inspect a service whose database accepts no writes.
            if let Err(error) = self.0.write_one("admin_key_used", NOTE, values![now, digest]).await {
                tracing::debug!(%error, "the use of an admin key could not be noted");
            }
        }
        Ok(Some(key))
    }

    /// Deletes a key by name; false if there is none.
    pub async fn delete(&self, name: &str, now: Timestamp, audit: Option<AuditEvent>) -> Result<bool, StoreError> {
        const DELETE: &str = "DELETE FROM admin_keys WHERE name = $1 RETURNING id";
        let written = self.0.write("admin_key_delete", (name.to_owned(), now, audit), |tx, (name, now, audit)| {
            Box::pin(async move {
                let is_deleted = tx.row(DELETE, values![name]).await?.is_some();
                if is_deleted {
                    audit::record(tx, *now, audit).await?;
                }
                Ok(is_deleted)
            })
        });
        Ok(written.await?.value)
    }
}

impl TryFrom<&Row> for AdminKey {
    type Error = StoreError;

    fn try_from(row: &Row) -> Result<Self, StoreError> {
        let row = row.of("admin_keys", "name");
        Ok(Self {
            id: row.array("id")?,
            name: row.text("name")?,
            created_at: row.time("created_at")?,
            expires_at: row.opt_time("expires_at")?,
            last_used_at: row.opt_time("last_used_at")?,
        })
    }
}
