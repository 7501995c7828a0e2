//! The schema and its migrations.
//!
//! Each migration is a file for each engine. It is applied in its own transaction under a lock, so any number of
//! replicas may start at once (security.md D1). A released file never changes; its checksum is compared.
//!
//! Releases n−1 and n must serve together while replicas are replaced one by one. The first line of each migration
//! therefore names the oldest schema whose release may still run after it: `-- compatible-with: N`. A change that is
//! incompatible with an older release is made in two steps: expand first, contract one release later.

use sha2::{Digest, Sha256};

use crate::domain::Timestamp;
use crate::store::db::{Row, Sql, Tx, values};
use crate::store::{Store, StoreError};

/// One migration.
struct Migration {
    version: u32,
    name: &'static str,
    text: Sql,
}

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            text: Sql::each(
                include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
                include_str!(concat!("../../migrations/postgres/", $name, ".sql")),
            ),
        }
    };
}

/// Every migration, in order; versions count up from 1.
const MIGRATIONS: [Migration; 6] = [
    migration!(1, "0001_initial"),
    migration!(2, "0002_installation_epoch"),
    migration!(3, "0003_refresh_window"),
    migration!(4, "0004_audit"),
    migration!(5, "0005_feed_right"),
    migration!(6, "0006_sweeps"),
];

/// Longest wait for another migrating replica, and longest run of one migration.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);

/// The state of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaStatus {
    /// Newest migration that was applied; 0 in an empty database.
    pub current: u32,
    /// Newest migration of this release.
    pub latest: u32,
    /// Migrations that this release would apply.
    pub pending: u32,
}

impl Store {
    /// Applies the missing migrations. Any number of processes may do so at once. A complete schema is only read, so
    /// the role of a service needs no right to change it.
    pub async fn migrate(&self, now: Timestamp) -> Result<SchemaStatus, StoreError> {
        let status = self.check_schema().await?;
        if status.pending == 0 {
            return Ok(status);
        }
        self.check_right_to_create(status).await?;
        loop {
            let written = self.0.write("migrate", now, |tx, now| Box::pin(apply_next(tx, *now))).await?;
            if written.value.pending == 0 {
                return Ok(written.value);
            }
        }
    }

    /// PostgreSQL: refuses a role that may not create tables, and names the remedy.
    async fn check_right_to_create(
        &self,
        SchemaStatus { current, latest, .. }: SchemaStatus,
    ) -> Result<(), StoreError> {
        const RIGHT: Sql = Sql::each(
            "SELECT 'main' AS schema, 'none' AS role, 1 AS may_create",
            "SELECT current_schema()::text AS schema, current_user::text AS role,
                coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)::int::bigint AS may_create",
        );
        let Some(row) = self.0.row("schema_check", RIGHT, Vec::new()).await? else { return Ok(()) };
        let row = row.of("pg_namespace", "schema");
        if row.int("may_create")? != 0 {
            return Ok(());
        }
        let role = row.text("role")?;
        Err(StoreError::Misconfigured(match row.opt_text("schema")? {
            Some(schema) => format!(
                "the database is at schema migration {current} of {latest}, and its role {role:?} may not create tables in \
                 the schema {schema:?}: run `countersign migrate` with a role that may"
            ),
            None => format!(
                "no schema of the search_path of role {role:?} exists: create one, or set search_path in database.url"
            ),
        }))
    }

    /// Returns the state of the schema. An error if this release may not run on it at all.
    pub async fn check_schema(&self) -> Result<SchemaStatus, StoreError> {
        const EXISTS: Sql = Sql::each(
            "SELECT count(*) AS tables FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'",
            "SELECT count(*) AS tables FROM pg_tables
                WHERE schemaname = current_schema() AND tablename = 'schema_migrations'",
        );
        let exists = self.0.row("schema_check", EXISTS, Vec::new()).await?;
        let tables = exists.map_or(Ok(0), |row| row.of("schema_migrations", "tables").int("tables"))?;
        if tables == 0 {
            return judge(&[], &MIGRATIONS);
        }
        let rows = self.0.rows("schema_check", APPLIED, Vec::new()).await?;
        judge(&rows.iter().map(Applied::try_from).collect::<Result<Vec<_>, _>>()?, &MIGRATIONS)
    }
}

const APPLIED: &str = "SELECT version, checksum, compatible_with FROM schema_migrations ORDER BY version";

/// A migration recorded in the database.
#[derive(Debug, Clone)]
struct Applied {
    version: u32,
    checksum: Vec<u8>,
    compatible_with: u32,
}

impl TryFrom<&Row> for Applied {
    type Error = StoreError;

    fn try_from(row: &Row) -> Result<Self, StoreError> {
        let row = row.of("schema_migrations", "version");
        let (version, compatible_with) = (row.count("version")?, row.count("compatible_with")?);
        Ok(Self { version, checksum: row.bytes("checksum")?, compatible_with })
    }
}

/// Applies the first missing migration, and returns the remaining ones.
async fn apply_next(tx: &mut Tx, now: Timestamp) -> Result<SchemaStatus, StoreError> {
    // The lock is for PostgreSQL; SQLite's write transactions exclude one another.
    const LOCK: Sql = Sql::each("", "SELECT pg_advisory_xact_lock(7165064744911262)");
    const TABLE: Sql = Sql::each(
        "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL,
            checksum BLOB NOT NULL, compatible_with INTEGER NOT NULL, applied_at INTEGER NOT NULL) STRICT",
        "CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL,
            checksum BYTEA NOT NULL, compatible_with BIGINT NOT NULL, applied_at BIGINT NOT NULL)",
    );
    const INSERT: &str = "INSERT INTO schema_migrations (version, name, checksum, compatible_with, applied_at)
        VALUES ($1, $2, $3, $4, $5)";
    tx.be_patient(PATIENCE).await?;
    tx.script_each(LOCK).await?;
    tx.script_each(TABLE).await?;
    let rows = tx.rows(APPLIED, Vec::new()).await?;
    let applied = rows.iter().map(Applied::try_from).collect::<Result<Vec<_>, _>>()?;
    let status = judge(&applied, &MIGRATIONS)?;
    let Some(next) = MIGRATIONS.iter().find(|migration| migration.version > status.current) else {
        return Ok(status);
    };
    tx.script_each(next.text).await?;
    let (checksum, oldest) = (next.checksum().to_vec(), next.compatible_with()?);
    tx.run(INSERT, values![next.version, next.name, checksum, oldest, now]).await?;
    Ok(SchemaStatus { current: next.version, pending: status.pending - 1, ..status })
}

impl Migration {
    /// SHA-256 of both engines' texts: a change to the file of one engine is also detected on the other.
    fn checksum(&self) -> [u8; 32] {
        let digest =
            Sha256::new().chain_update(self.text.sqlite()).chain_update([0]).chain_update(self.text.postgres());
        digest.finalize().into()
    }

    fn compatible_with(&self) -> Result<u32, StoreError> {
        let declared = |text: &str| text.lines().next()?.strip_prefix("-- compatible-with: ")?.trim().parse().ok();
        match (declared(self.text.sqlite()), declared(self.text.postgres())) {
            (Some(sqlite), Some(postgres)) if sqlite == postgres => Ok(sqlite),
            _ => Err(StoreError::Internal(format!("migration {} does not say what it is compatible with", self.name))),
        }
    }
}

/// Compares the recorded migrations with those of this release.
fn judge(applied: &[Applied], known: &[Migration]) -> Result<SchemaStatus, StoreError> {
    let latest = known.last().map_or(0, |migration| migration.version);
    let current = applied.last().map_or(0, |applied| applied.version);
    for (index, applied) in applied.iter().enumerate() {
        if usize::try_from(applied.version) != Ok(index + 1) {
            return Err(StoreError::Misconfigured(format!("schema migration {} is missing", index + 1)));
        }
        let Some(migration) = known.get(index) else { continue };
        if migration.checksum().as_slice() != applied.checksum {
            let text = format!("schema migration {} was applied in another form than this release has", migration.name);
            return Err(StoreError::Misconfigured(text));
        }
    }
    let needed = applied.iter().map(|applied| applied.compatible_with).max().unwrap_or(0);
    if needed > latest {
        return Err(StoreError::SchemaNewer { found: current, needed, known: latest });
    }
    Ok(SchemaStatus { current, latest, pending: latest.saturating_sub(current) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: [Migration; 2] = [
        Migration { version: 1, name: "one", text: Sql::each("-- compatible-with: 1\n", "-- compatible-with: 1\n") },
        Migration { version: 2, name: "two", text: Sql::each("-- compatible-with: 1\na", "-- compatible-with: 1\nb") },
    ];

    fn applied(version: u32, compatible_with: u32) -> Applied {
        let checksum = TWO.get(version as usize - 1).map_or_else(Vec::new, |known| known.checksum().to_vec());
        Applied { version, checksum, compatible_with }
    }

    #[test]
    fn d1_an_older_release_runs_on_a_newer_schema_that_allows_it_and_on_no_other() {
        let tolerant = judge(&[applied(1, 1), applied(2, 1), applied(3, 2)], &TWO).unwrap();
        assert_eq!(tolerant, SchemaStatus { current: 3, latest: 2, pending: 0 });
        let refused = judge(&[applied(1, 1), applied(2, 1), applied(3, 3)], &TWO).unwrap_err();
        assert_eq!(refused, StoreError::SchemaNewer { found: 3, needed: 3, known: 2 });
        // A later tolerant migration does not cancel the requirement of an earlier one.
        assert!(judge(&[applied(1, 1), applied(2, 1), applied(3, 3), applied(4, 1)], &TWO).is_err());
    }

    #[test]
    fn d1_a_changed_or_missing_migration_is_refused() {
        let mut changed = applied(1, 1);
        changed.checksum[0] ^= 1;
        assert!(matches!(judge(&[changed], &TWO), Err(StoreError::Misconfigured(_))));
        assert!(matches!(judge(&[applied(2, 1)], &TWO), Err(StoreError::Misconfigured(_))));
    }

    #[test]
    fn d1_pending_migrations_are_counted() {
        assert_eq!(judge(&[], &TWO).unwrap(), SchemaStatus { current: 0, latest: 2, pending: 2 });
        assert_eq!(judge(&[applied(1, 1)], &TWO).unwrap().pending, 1);
    }

    #[test]
    fn every_migration_declares_its_compatibility_and_counts_up() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, index + 1);
            assert!(migration.compatible_with().unwrap() <= migration.version, "{}", migration.name);
        }
    }
}
