//! An open transaction: a job's access to the database.

use std::time::Duration;

use super::connection::{Connection, Sql};
use super::fault::{Failure, Fault};
use super::value::{Row, Value, columns, json_rows, values};
use crate::domain::Timestamp;
use crate::domain::{Change, Revocation};
use crate::store::{FeedEntry, StoreError};

/// The result of a transaction: its answer, and the changes that it put on the feed. The replica that made the changes
/// applies them at once instead of reading them back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the changes are to be applied to this replica's own view"]
pub struct Written<T> {
    /// The answer.
    pub value: T,
    /// Entries of the change feed, committed.
    pub changes: Vec<FeedEntry>,
}

impl<T> Written<T> {
    /// Converts the answer; the changes stay.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Written<U> {
        Written { value: convert(self.value), changes: self.changes }
    }
}

/// An open transaction.
pub struct Tx {
    connection: Connection,
    patience: Duration,
    fault: Option<Fault>,
    changes: Vec<FeedEntry>,
    has_changes: bool,
}

impl Tx {
    pub(super) const fn new(connection: Connection, patience: Duration) -> Self {
        Self { connection, patience, fault: None, changes: Vec::new(), has_changes: false }
    }

    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    /// The worst fault of a statement in this transaction.
    pub(super) const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether the written file is still the one at its path.
    pub(super) fn has_its_file(&self) -> bool {
        match &self.connection {
            Connection::Sqlite(_, file) => file.check().is_ok(),
            Connection::Postgres { .. } => true,
        }
    }

    /// Whether to wake the followers of the feed.
    pub(super) const fn has_changes(&self) -> bool {
        self.has_changes
    }

    /// The changes of the job that has just ended.
    pub(super) fn take_changes(&mut self) -> Vec<FeedEntry> {
        std::mem::take(&mut self.changes)
    }

    /// Clears the state of the previous job: the next one starts without its changes and its failure.
    pub(super) fn start_job(&mut self) {
        self.fault = None;
        self.changes.clear();
    }

    /// Runs a statement and returns its rows.
    pub async fn rows(&mut self, sql: impl Into<Sql>, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let answer = self.connection.rows(sql.into(), &values, self.patience).await;
        answer.map_err(|failure| self.note(failure))
    }

    /// Runs a statement and returns its first row, if there is one.
    pub async fn row(&mut self, sql: impl Into<Sql>, values: Vec<Value>) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// Runs a statement whose rows are not needed.
    pub async fn run(&mut self, sql: impl Into<Sql>, values: Vec<Value>) -> Result<(), StoreError> {
        self.rows(sql, values).await.map(|_| ())
    }

    /// Runs a statement on many rows of values at once. On PostgreSQL it takes an array for each placeholder, on SQLite
    /// a JSON array of all rows.
    pub async fn run_many(&mut self, sql: Sql, rows: &[Vec<Value>]) -> Result<(), StoreError> {
        let Some(first) = rows.first() else { return Ok(()) };
        let values = match self.connection {
            Connection::Sqlite(..) => values![json_rows(rows.iter().map(Vec::as_slice))],
            Connection::Postgres { .. } => columns(rows, first.len())?,
        };
        self.run(sql, values).await
    }

    /// Runs statements without values.
    pub async fn script(&mut self, sql: &str) -> Result<(), StoreError> {
        let answer = self.connection.script(sql, self.patience).await;
        answer.map_err(|failure| self.note(failure))
    }

    /// Runs the statement of one engine, if it has one.
    pub(in crate::store) async fn script_each(&mut self, sql: Sql) -> Result<(), StoreError> {
        let text = match self.connection {
            Connection::Sqlite(..) => sql.sqlite(),
            Connection::Postgres { .. } => sql.postgres(),
        };
        if text.is_empty() { Ok(()) } else { self.script(text).await }
    }

    /// Raises the time limit of later statements in this transaction alone, for work that touches every row.
    pub async fn be_patient(&mut self, patience: Duration) -> Result<(), StoreError> {
        self.patience = patience + super::CLIENT_GRACE;
        if matches!(self.connection, Connection::Postgres { .. }) {
            let millis = patience.as_millis();
            self.script(&format!("SET LOCAL statement_timeout = {millis}; SET LOCAL lock_timeout = {millis}")).await?;
        }
        Ok(())
    }

    /// Puts a change on the feed, visible when this transaction commits.
    pub async fn publish(&mut self, entry: FeedEntry) -> Result<(), StoreError> {
        const INSERT: &str =
            "INSERT INTO changes (kind, subject, epoch, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)";
        let (kind, subject, epoch) = crate::store::rows::change_columns(&entry.change);
        self.run(INSERT, values![kind, subject, epoch, entry.created_at, entry.expires_at]).await?;
        self.changes.push(entry);
        self.has_changes = true;
        Ok(())
    }

    /// Puts a revocation on the feed, until `expires_at`.
    pub async fn revoke(
        &mut self,
        revocation: Revocation,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.publish(FeedEntry { change: Change::Revoked(revocation), created_at: now, expires_at, place: None }).await
    }

    /// Returns `value`, or an error if the job ignored the failure of a statement. PostgreSQL would answer the commit
    /// of such a transaction with a silent rollback.
    pub(super) fn unless_failed<T>(&self, value: T) -> Result<T, StoreError> {
        match self.fault {
            None => Ok(value),
            Some(_) => Err(StoreError::Internal("a job hid the failure of its statement".to_owned())),
        }
    }

    /// Runs a statement of the lower layer, such as `COMMIT`.
    pub(super) async fn control(&mut self, sql: &str) -> Result<(), Failure> {
        let answer = self.connection.script(sql, self.patience).await;
        if let Err(failure) = &answer {
            self.fault = Some(failure.fault);
        }
        answer
    }

    fn note(&mut self, failure: Failure) -> StoreError {
        // The first failure is the cause; later ones in a broken transaction only repeat it.
        self.fault.get_or_insert(failure.fault);
        failure.error
    }
}
