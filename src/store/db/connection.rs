//! One connection to either engine.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, Postgres, Sqlite, SqliteConnection};

use super::fault::Failure;
use super::sqlite::OpenFile;
use super::value::{Row, Value, postgres_arguments, sqlite_arguments};

/// A statement. Almost all have one text; the few that query the engine itself have two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sql {
    sqlite: &'static str,
    postgres: &'static str,
}

impl Sql {
    /// A statement whose text differs between the engines.
    pub const fn each(sqlite: &'static str, postgres: &'static str) -> Self {
        Self { sqlite, postgres }
    }

    /// The text for SQLite.
    pub const fn sqlite(self) -> &'static str {
        self.sqlite
    }

    /// The text for PostgreSQL.
    pub const fn postgres(self) -> &'static str {
        self.postgres
    }
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self { sqlite: text, postgres: text }
    }
}

/// An open connection. After an error of kind `Connection`, or after being dropped within a call, it must not be used.
pub(super) enum Connection {
    /// A connection to the file.
    Sqlite(SqliteConnection, OpenFile),
    /// A connection to the server; boxed by the driver.
    Postgres {
        /// The driver's connection.
        raw: PgConnection,
        /// Whether statements are prepared once and kept. False behind a pooler in transaction mode.
        prepares: bool,
        /// The server's process. None behind a pooler in transaction mode, which assigns another process to each
        /// transaction; hanging statements there are not counted.
        backend: Option<i32>,
        /// A statement was not answered in time.
        is_silent: bool,
    },
}

impl Connection {
    /// Runs one statement and returns its rows, after `patience` at the latest. SQLite answers from this machine's disk
    /// and bounds its own waits.
    pub(super) async fn rows(&mut self, sql: Sql, values: &[Value], patience: Duration) -> Result<Vec<Row>, Failure> {
        match self {
            Self::Sqlite(raw, file) => {
                file.check()?;
                let query = sqlx::query_with::<Sqlite, _>(sql.sqlite, sqlite_arguments(values)?);
                Ok(query.fetch_all(raw).await?.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres { raw, prepares, is_silent, .. } => {
                let query = sqlx::query_with::<Postgres, _>(sql.postgres, postgres_arguments(values)?);
                let answer = tokio::time::timeout(patience, query.persistent(*prepares).fetch_all(raw)).await;
                *is_silent = answer.is_err();
                let rows = answer.map_err(|_| Failure::no_answer(patience))??;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Runs statements without values, all in one round trip.
    pub(super) async fn script(&mut self, sql: &str, patience: Duration) -> Result<(), Failure> {
        // The texts are fixed: transaction control, timeouts written from settings, and migrations.
        let script = sqlx::raw_sql(AssertSqlSafe(sql));
        match self {
            Self::Sqlite(raw, file) => {
                file.check()?;
                script.execute(raw).await?;
            }
            Self::Postgres { raw, is_silent, .. } => {
                let answer = tokio::time::timeout(patience, script.execute(raw)).await;
                *is_silent = answer.is_err();
                answer.map_err(|_| Failure::no_answer(patience))??;
            }
        }
        Ok(())
    }

    /// The server's process, if it did not answer the last statement and may still run it.
    pub(super) const fn unanswered_backend(&self) -> Option<i32> {
        match self {
            Self::Postgres { backend, is_silent: true, .. } => *backend,
            _ => None,
        }
    }

    /// Whether the other end still answers.
    pub(super) async fn answers(&mut self, patience: Duration) -> bool {
        match self {
            Self::Sqlite(..) => true,
            Self::Postgres { raw, .. } => {
                matches!(tokio::time::timeout(patience, sqlx::Connection::ping(raw)).await, Ok(Ok(())))
            }
        }
    }
}
