//! The database as a whole: its installation, its number of rows, and the steps after a restore.

use crate::domain::{Revocation, Timestamp};
use crate::store::db::{Sql, Tx, Written, values};
use crate::store::{AuditEvent, Store, StoreError, audit};

impl Store {
    /// The installation's epoch: tokens and sessions below it are inactive.
    pub async fn installation_epoch(&self) -> Result<u32, StoreError> {
        const READ: &str = "SELECT epoch FROM installation";
        let row = self.0.row("installation_epoch", READ, Vec::new()).await?.ok_or(NO_INSTALLATION)?;
        row.of("installation", "epoch").count("epoch")
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

    /// Ends every session and makes every token inactive. The cost does not depend on their number: the installation's
    /// epoch is raised, with one entry on the feed. Run this after a backup was restored (security.md D8). Otherwise
    /// tokens revoked or rotated since the backup would be valid again.
    pub async fn revoke_everything(
        &self,
        revocation_expires_at: Timestamp,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<()>, StoreError> {
        let input = (revocation_expires_at, now, audit);
        self.0
            .write("revoke_everything", input, |tx, (until, now, audit)| {
                Box::pin(async move {
                    revoke_everything(tx, *until, *now).await?;
                    audit::record(tx, *now, audit).await
                })
            })
            .await
    }
}

const NO_INSTALLATION: StoreError = StoreError::NotFound { what: "installation" };

async fn revoke_everything(tx: &mut Tx, until: Timestamp, now: Timestamp) -> Result<(), StoreError> {
    // At least the time in seconds. This is higher than any epoch assigned after the backup was made, which the
    // restored database does not know.
    const RAISE: &str =
        "UPDATE installation SET epoch = CASE WHEN epoch < $1 THEN $1 ELSE epoch + 1 END RETURNING epoch";
    // A dump includes the transaction numbers of its source server. Where these are in the future here, every sync
    // would return those rows again.
    const RENUMBER: Sql =
        Sql::each("", "UPDATE changes SET xid = DEFAULT WHERE xid > pg_current_xact_id()::text::bigint");
    let seconds = u32::try_from(now.seconds()).unwrap_or(u32::MAX);
    let row = tx.row(RAISE, values![seconds]).await?.ok_or(NO_INSTALLATION)?;
    let epoch = row.of("installation", "epoch").count("epoch")?;
    tx.script_each(RENUMBER).await?;
    tx.revoke(Revocation::Everything(epoch), now, until).await
}
