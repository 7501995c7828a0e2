//! The database as a whole: which installation it belongs to, how many rows it holds, and what to do after a restore.

use std::time::Duration;

use crate::domain::{ClientId, EndReason, Revocation, Timestamp};
use crate::store::db::{Sql, Tx, Written, values};
use crate::store::{AuditEvent, Store, StoreError, audit, clients};

/// How far epochs move after a restore: further than any that was given out after the backup was made.
const EPOCH_JUMP: u32 = 65_536;

/// Every row of some tables is written.
const RESTORE_PATIENCE: Duration = Duration::from_secs(600);

/// One installation of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installation {
    /// Random, made with the database.
    pub id: [u8; 16],
    /// When.
    pub created_at: Timestamp,
}

/// How much was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EverythingRevoked {
    /// Users whose tokens and sessions are inactive now: all.
    pub users: i64,
    /// Clients whose tokens are inactive now: all.
    pub clients: usize,
}

impl Store {
    /// The installation that the database belongs to; `fresh` becomes its id if it has none.
    pub async fn installation(&self, fresh: [u8; 16], now: Timestamp) -> Result<Installation, StoreError> {
        const MAKE: &str = "INSERT INTO installation (singleton, id, created_at) VALUES (1, $1, $2)
            ON CONFLICT (singleton) DO NOTHING RETURNING id";
        const READ: &str = "SELECT singleton, id, created_at FROM installation";
        let mut row = self.0.row("installation", READ, Vec::new()).await?;
        if row.is_none() {
            self.0.write_one("installation_make", MAKE, values![fresh, now]).await?;
            row = self.0.row("installation", READ, Vec::new()).await?;
        }
        let row = row.ok_or(StoreError::NotFound { what: "installation" })?;
        let row = row.of("installation", "singleton");
        Ok(Installation { id: row.array("id")?, created_at: row.time("created_at")? })
    }

    /// Rows by table: exact on SQLite, the server's estimate on PostgreSQL.
    pub async fn row_counts(&self) -> Result<Vec<(String, i64)>, StoreError> {
        const COUNT: Sql = Sql::each(
            "SELECT 'admin_keys' AS name, count(*) AS size FROM admin_keys
             UNION ALL SELECT 'audit', count(*) FROM audit
             UNION ALL SELECT 'changes', count(*) FROM changes
             UNION ALL SELECT 'client_assertions', count(*) FROM client_assertions
             UNION ALL SELECT 'client_secrets', count(*) FROM client_secrets
             UNION ALL SELECT 'clients', count(*) FROM clients
             UNION ALL SELECT 'known_addresses', count(*) FROM known_addresses
             UNION ALL SELECT 'login_attempts', count(*) FROM login_attempts
             UNION ALL SELECT 'sessions', count(*) FROM sessions
             UNION ALL SELECT 'signing_keys', count(*) FROM signing_keys
             UNION ALL SELECT 'users', count(*) FROM users",
            "SELECT relname::text AS name, n_live_tup AS size FROM pg_stat_user_tables
             WHERE schemaname = current_schema() AND relname IN ('admin_keys', 'audit', 'changes', 'client_assertions',
                'client_secrets', 'clients', 'known_addresses', 'login_attempts', 'sessions', 'signing_keys', 'users')
             ORDER BY relname",
        );
        let rows = self.0.rows("row_counts", COUNT, Vec::new()).await?;
        rows.iter()
            .map(|row| {
                let row = row.of("row_counts", "name");
                Ok((row.text("name")?, row.int("size")?))
            })
            .collect()
    }

    /// To be done after a backup was restored (security.md D8): what was revoked or rotated since the backup must not come
    /// back. Every session ends, and every token of a user or client that the backup knows is inactive. Tokens of
    /// subjects that it does not know die with their keys: withdraw those as well, or wait until the tokens expire.
    ///
    /// Writes a row for each user, so that running replicas hear of it; only the entries for clients are returned.
    pub async fn revoke_everything(
        &self,
        revocation_expires_at: Timestamp,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<EverythingRevoked>, StoreError> {
        let input = (revocation_expires_at, now, audit);
        self.0
            .write("revoke_everything", input, |tx, (until, now, audit)| {
                Box::pin(async move {
                    let revoked = revoke_everything(tx, *until, *now).await?;
                    audit::record(tx, *now, audit).await?;
                    Ok(revoked)
                })
            })
            .await
    }
}

async fn revoke_everything(tx: &mut Tx, until: Timestamp, now: Timestamp) -> Result<EverythingRevoked, StoreError> {
    const END_SESSIONS: &str = "UPDATE sessions SET ended_at = $1, end_reason = $2 WHERE ended_at IS NULL";
    const BUMP_USERS: &str = "UPDATE users SET epoch = epoch + $1";
    const PUBLISH_USERS: &str = "INSERT INTO changes (kind, subject, epoch, created_at, expires_at)
        SELECT 'user', id, epoch, CAST($1 AS BIGINT), CAST($2 AS BIGINT) FROM users";
    // A dump brings along the transaction numbers of the server that it was taken from. Here they may be of the future, and
    // then every look at the feed would return those rows again.
    const STAMP_ANEW: Sql = Sql::each("", "UPDATE changes SET xid = DEFAULT");
    const COUNT_USERS: &str = "SELECT count(*) AS size FROM users";
    const BUMP_CLIENTS: &str = "UPDATE clients SET epoch = epoch + $1 RETURNING id, epoch";
    tx.be_patient(RESTORE_PATIENCE).await?;
    tx.run(END_SESSIONS, values![now, EndReason::Administrator.as_str()]).await?;
    tx.run(BUMP_USERS, values![EPOCH_JUMP]).await?;
    tx.script_each(STAMP_ANEW).await?;
    tx.run(PUBLISH_USERS, values![now, until]).await?;
    tx.wake_followers();
    let row = tx.row(COUNT_USERS, Vec::new()).await?;
    let users = row.map_or(Ok(0), |row| row.of("users", "size").int("size"))?;
    let rows = tx.rows(BUMP_CLIENTS, values![EPOCH_JUMP]).await?;
    for row in &rows {
        let row = row.of("clients", "id");
        let (id, epoch) = (row.parsed("id", ClientId::parse)?, row.count("epoch")?);
        clients::note_change(tx, &id, now).await?;
        tx.revoke(Revocation::Client(id, epoch), now, until).await?;
    }
    Ok(EverythingRevoked { users, clients: rows.len() })
}
