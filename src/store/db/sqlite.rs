//! Opens the SQLite file, for the one writer and for readers.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Row as _, SqliteConnection};

use super::connection::Connection;
use super::fault::{Failure, Fault};
use super::turnstile::Turnstile;
use crate::store::StoreError;

/// The write-ahead log is truncated to this size in bytes when a checkpoint resets it.
const JOURNAL_SIZE_LIMIT: &str = "67108864";

/// Device and inode of a file: a path may name another file later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    /// None when there is no file at `path`.
    fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self(metadata.dev(), metadata.ino()))
    }
}

/// The file on which a connection was opened.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: Arc<Path>,
    id: Option<FileId>,
}

impl OpenFile {
    /// Fails when the path now names another file, or none. Writes to the open file would be lost, and it lacks the
    /// revocations of other processes.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.id.is_some() && FileId::of(&self.path) == self.id {
            return Ok(());
        }
        let text = format!("the database file {} was deleted or replaced while it was open", self.path.display());
        Err(Failure { fault: Fault::Connection, error: StoreError::Unavailable(text) })
    }
}

/// The files that were opened last.
#[derive(Debug, Default, Clone, Copy)]
struct LastOpened {
    database: Option<FileId>,
    log: Option<FileId>,
}

/// How to open the file.
#[derive(Clone)]
pub(super) struct SqliteConnector {
    path: Arc<Path>,
    busy_timeout: Duration,
    last: Arc<Mutex<LastOpened>>,
}

impl SqliteConnector {
    pub(super) fn new(path: PathBuf, busy_timeout: Duration) -> Self {
        Self { path: path.into(), busy_timeout, last: Arc::default() }
    }

    /// The file that was opened last, as text.
    pub(super) fn file(&self) -> String {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.database.map_or_else(String::new, |FileId(device, inode)| format!("{device}:{inode}"))
    }

    /// Opens a connection, and records its file.
    async fn connect(&self, options: SqliteConnectOptions) -> Result<(SqliteConnection, OpenFile), Failure> {
        let file = OpenFile { path: Arc::clone(&self.path), id: FileId::of(&self.path) };
        let log = PathBuf::from(format!("{}-wal", self.path.display()));
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_another = last.database.is_some() && file.id != last.database;
        if is_another && last.log.is_some() && FileId::of(&log) == last.log {
            return Err(self.refused(&format!(
                "was replaced beside the write-ahead log of the file before it. Stop the service, put {0} and {0}-shm \
                 aside, restore the file again, and start the service",
                log.display()
            )));
        }
        if is_another {
            tracing::error!(path = %self.path.display(), "the database file was replaced while the service runs; it is opened");
        }
        let raw = options.connect().await.map_err(|error| self.named(error))?;
        file.check()?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            LastOpened { database: file.id, log: FileId::of(&log) };
        Ok((raw, file))
    }

    /// The write-ahead log beside the file.
    pub(super) fn wal_path(&self) -> PathBuf {
        let mut path = self.path.as_os_str().to_owned();
        path.push("-wal");
        path.into()
    }

    /// Creates a missing file with mode 0600 if `create`. Otherwise a missing file is refused. It is also refused if
    /// `key_file` shows that a database existed (security.md D4).
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
        // `create`, not `create_new`: several processes that start together may all create it.
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path);
        made.map(|_| ()).map_err(|error| self.misconfigured(&format!("cannot be made: {error}")))
    }

    /// The file through which writing processes take turns.
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
        let (mut raw, file) = self.connect(options).await?;
        for (pragma, column, expected) in
            [("PRAGMA synchronous", "synchronous", 2), ("PRAGMA foreign_keys", "foreign_keys", 1)]
        {
            if read_number(&mut raw, pragma, column).await? != expected {
                return Err(self.refused(&format!("cannot be used: SQLite does not apply_locally `{pragma}`")));
            }
        }
        let mode: String = sqlx::raw_sql("PRAGMA journal_mode").fetch_one(&mut raw).await?.try_get(0)?;
        if mode != "wal" {
            return Err(self.refused("cannot be used: its file system does not support write-ahead logging"));
        }
        Ok(Connection::Sqlite(raw, file))
    }

    /// Opens a connection that can only read.
    pub(super) async fn connect_reader(&self) -> Result<Connection, Failure> {
        let (raw, file) = self.connect(self.options().pragma("query_only", "ON")).await?;
        Ok(Connection::Sqlite(raw, file))
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

    /// Names the file in a failure to open it that only an operator can fix.
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
