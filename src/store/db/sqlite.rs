//! Opening the SQLite file, for the one writer and for readers.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Row as _, SqliteConnection};

use super::connection::Connection;
use super::fault::{Failure, Fault};
use super::turnstile::Turnstile;
use crate::store::StoreError;

/// The write-ahead log is cut back to this when a checkpoint resets it, in bytes.
const JOURNAL_SIZE_LIMIT: &str = "67108864";

/// How to open the file.
#[derive(Clone)]
pub(super) struct SqliteConnector {
    path: PathBuf,
    busy_timeout: Duration,
}

impl SqliteConnector {
    pub(super) const fn new(path: PathBuf, busy_timeout: Duration) -> Self {
        Self { path, busy_timeout }
    }

    /// The write-ahead log beside the file.
    pub(super) fn wal_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push("-wal");
        path.into()
    }

    /// Makes a missing file with mode 0600 when `create`; a missing file is refused otherwise, and where `key_file` says that
    /// there was a database (security.md D4).
    pub(super) fn prepare(&self, create: bool, key_file: Option<&Path>) -> Result<(), StoreError> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => Err(self.misconfigured("is a folder")),
            Ok(metadata) => {
                if metadata.permissions().mode() & 0o077 != 0 {
                    tracing::warn!(path = %self.path.display(), "other users of this machine can read the database");
                }
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => match key_file {
                Some(key) if key.exists() => Err(self.misconfigured(&format!(
                    "is missing, and the master key {} of an earlier database is there: restore the database file, or move \
                     the key away to begin with an empty database",
                    key.display()
                ))),
                _ => self.create(),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(self.misconfigured("does not exist; `countersign migrate` makes it"))
            }
            Err(error) => Err(self.misconfigured(&format!("cannot be opened: {error}"))),
        }
    }

    fn create(&self) -> Result<(), StoreError> {
        if let Some(folder) = self.path.parent().filter(|folder| *folder != Path::new("")) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| self.misconfigured(&format!("has no folder, and none can be made: {error}")))?;
        }
        // `create`, not `create_new`: of several processes that start together, all may make it.
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path);
        made.map(|_| ()).map_err(|error| self.misconfigured(&format!("cannot be made: {error}")))
    }

    /// The file in which processes that write take turns.
    pub(super) fn turnstile(&self) -> Result<Turnstile, StoreError> {
        Turnstile::open(&self.path, self.busy_timeout)
    }

    /// Opens the connection that writes.
    pub(super) async fn connect_writer(&self) -> Result<Connection, Failure> {
        let options = self
            .options()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT);
        let mut raw = options.connect().await.map_err(|error| self.named(error))?;
        for (pragma, column, expected) in
            [("PRAGMA synchronous", "synchronous", 2), ("PRAGMA foreign_keys", "foreign_keys", 1)]
        {
            if read_number(&mut raw, pragma, column).await? != expected {
                return Err(self.refused(&format!("cannot be used: SQLite does not honour `{pragma}`")));
            }
        }
        let mode: String = sqlx::raw_sql("PRAGMA journal_mode").fetch_one(&mut raw).await?.try_get(0)?;
        if mode != "wal" {
            return Err(self.refused("cannot be used: its file system does not support write-ahead logging"));
        }
        Ok(Connection::Sqlite(raw))
    }

    /// Opens a connection that can only read.
    pub(super) async fn connect_reader(&self) -> Result<Connection, Failure> {
        let connected = self.options().pragma("query_only", "ON").connect().await;
        Ok(Connection::Sqlite(connected.map_err(|error| self.named(error))?))
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(false)
            .foreign_keys(true)
            .busy_timeout(self.busy_timeout)
            .disable_statement_logging()
    }

    fn misconfigured(&self, problem: &str) -> StoreError {
        StoreError::Misconfigured(format!("the database file {} (database.url) {problem}", self.path.display()))
    }

    /// A failure to open the file that nobody but a person can mend, by the name of the file.
    fn named(&self, error: sqlx::Error) -> Failure {
        let failure = Failure::from(error);
        match failure.error {
            StoreError::Misconfigured(cause) => self.refused(&format!("cannot be used: {cause}")),
            error => Failure { error, ..failure },
        }
    }

    fn refused(&self, problem: &str) -> Failure {
        Failure { fault: Fault::Connection, error: self.misconfigured(problem) }
    }
}

async fn read_number(
    raw: &mut SqliteConnection,
    pragma: &'static str,
    column: &'static str,
) -> Result<i64, sqlx::Error> {
    sqlx::raw_sql(pragma).fetch_one(raw).await?.try_get(column)
}
