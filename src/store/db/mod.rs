//! The only module that distinguishes the two engines.
//!
//! Statements are written once, with `$N` placeholders. There is one way to read, and there are four ways to write:
//!
//! - [`Database::rows`] reads outside of transactions.
//! - [`Database::write`] runs a job in one transaction. On PostgreSQL the job has its own connection and is repeated
//!   after a conflict with another transaction. On SQLite it waits for the one writer and shares its commit with other
//!   jobs.
//! - [`Database::write_one`] writes one statement that needs no explicit transaction: one round trip on PostgreSQL.
//! - [`Database::write_together`] does the same on PostgreSQL for a statement with several changes.
//! - [`Database::write_row`] writes one row. Concurrent callers share one statement.
//!
//! Every call runs in its own task. A caller cancelled while waiting leaves either the old or the new state, and a
//! reusable connection (security.md R10).

mod abandoned;
mod address;
mod announcer;
mod combiner;
mod connection;
mod fault;
mod listener;
mod pool;
mod postgres;
mod repeat;
mod sqlite;
mod tls;
mod turnstile;
mod tx;
mod value;
mod writer;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

pub use self::address::AddressError;
use self::announcer::Announcer;
use self::combiner::{Asked, Combiner};
use self::connection::Connection;
pub(in crate::store) use self::connection::Sql;
use self::fault::{Failure, Fault};
pub use self::listener::ChangeListener;
pub use self::pool::PoolStatus;
use self::pool::{Connector, Lease, Pool, Share};
use self::postgres::PostgresConnector;
pub use self::postgres::ReadAddress;
pub(in crate::store) use self::postgres::{is_subscriber, other_subscriptions, subscription};
pub(in crate::store) use self::repeat::pause;
use self::repeat::{MAX_RUNS, run_until_committed};
use self::sqlite::SqliteConnector;
pub(in crate::store) use self::tx::Tx;
pub use self::tx::Written;
pub(in crate::store) use self::value::{Fields, Row, Value, values};
use self::writer::Writer;
use crate::clock::Clock;
use crate::request_id::RequestId;
use crate::store::{Location, StoreError, StoreObserver, StoreSettings};
use futures_util::future::BoxFuture;

/// How much longer than the server the client waits. After that, the connection is considered lost.
const CLIENT_GRACE: Duration = Duration::from_millis(500);

/// A success ends a write problem when no write has failed for this long. On a full disk some small writes succeed.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// Shortest time between two examinations of a server that has tables of another replication system.
const EXAMINE_EVERY_MILLIS: u64 = 2_000;

/// SQLite answers from this machine's disk, and bounds its own waits.
const NO_PATIENCE: Duration = Duration::MAX;

/// The database. Cheap to clone.
#[derive(Clone)]
pub(in crate::store) struct Database {
    inner: Arc<Inner>,
    /// The default lane of reads.
    lane: Lane,
}

struct Inner {
    engine: Engine,
    /// SQLite: records which file is open.
    file: Option<SqliteConnector>,
    readers: Arc<Pool>,
    /// The feed's own connection: followers can sync even while requests wait for connections.
    follower: Arc<Pool>,
    patience: Duration,
    /// As `patience`, for reads on the feed's connection.
    feed_patience: Duration,
    announcer: Announcer,
    /// Why the last write failed, if the database could not store it.
    write_problem: ArcSwapOption<WriteProblem>,
    /// PostgreSQL: syncs that found a subscription to another database.
    foreign_changes: AtomicU64,
    /// When the server was last examined again ([`Clock::elapsed`], in milliseconds; 0: never).
    examined_at: AtomicU64,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn StoreObserver>,
}

/// A write that the database could not store.
struct WriteProblem {
    /// When the last such write failed ([`Clock::elapsed`]).
    last_seen: Duration,
    text: String,
}

enum Engine {
    Sqlite(Writer),
    Postgres(Box<PostgresConnector>, Combiner),
}

/// The connections that a read uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Lane {
    /// The connections for requests.
    Requests,
    /// The request connections that are reserved for refreshes.
    Refreshes,
    /// The feed's own connection.
    Feed,
}

impl Database {
    /// Whether the driver reads the address.
    pub(in crate::store) fn check_settings(settings: &StoreSettings) -> Result<(), AddressError> {
        match &settings.location {
            Location::Sqlite { .. } => Ok(()),
            Location::Postgres { url, pooler_transaction_mode } => {
                PostgresConnector::new(url, *pooler_transaction_mode, settings).map(drop)
            }
        }
    }

    /// Prepares access to the database. A file is opened, and created if the settings say so. A server is not connected
    /// to yet: see [`Database::reach`].
    pub(in crate::store) async fn prepare(
        settings: &StoreSettings,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn StoreObserver>,
    ) -> Result<Self, StoreError> {
        let (writer, file, connector, feed_connector) = match &settings.location {
            Location::Sqlite { path, create } => {
                let connector = SqliteConnector::new(path.clone(), settings.busy_timeout);
                connector.prepare(*create, settings.key_file.as_deref())?;
                // The writer first: it puts the file into write-ahead mode, which readers then find.
                let writer = Writer::start(connector.clone(), settings.acquire_timeout).await?;
                (
                    Some(writer),
                    Some(connector.clone()),
                    Connector::Sqlite(connector.clone()),
                    Connector::Sqlite(connector),
                )
            }
            Location::Postgres { url, pooler_transaction_mode } => {
                let connector = Box::new(PostgresConnector::new(url, *pooler_transaction_mode, settings)?);
                if connector.may_travel_unencrypted() {
                    tracing::warn!("database.url does not demand TLS: add sslmode=verify-full");
                }
                // The server also ends a statement that the feed has stopped waiting for.
                let statement_timeout = settings.statement_timeout.min(settings.feed_timeout);
                let of_feed = StoreSettings { statement_timeout, ..settings.clone() };
                let of_feed = Box::new(PostgresConnector::new(url, *pooler_transaction_mode, &of_feed)?);
                (None, None, Connector::Postgres(connector), Connector::Postgres(of_feed))
            }
        };
        let connector = Arc::new(connector);
        let for_readers = Arc::clone(&connector);
        let readers = Pool::new(for_readers, Arc::clone(&clock), settings.acquire_timeout, settings.max_connections);
        // Requests may have a long timeout. One hanging connect must not use up the feed's time.
        let follower_timeout = settings.acquire_timeout.min(settings.feed_timeout);
        let follower = Pool::of_feed(Arc::new(feed_connector), Arc::clone(&clock), follower_timeout);
        let patience = settings.statement_timeout + CLIENT_GRACE;
        let feed_patience = settings.feed_timeout.min(patience);
        let announcer = Announcer::default();
        let engine = match (writer, &*connector) {
            (None, Connector::Postgres(connector)) => {
                let pool = Arc::clone(&readers);
                let combiner = Combiner::start(pool, patience, settings.acquire_timeout);
                Engine::Postgres(connector.clone(), combiner)
            }
            (Some(writer), _) => Engine::Sqlite(writer),
            (None, Connector::Sqlite(_)) => {
                return Err(StoreError::Internal("a file is written without its writer".to_owned()));
            }
        };
        let write_problem = ArcSwapOption::empty();
        let inner = Inner {
            engine,
            file,
            readers,
            follower,
            patience,
            feed_patience,
            announcer,
            write_problem,
            foreign_changes: AtomicU64::new(0),
            examined_at: AtomicU64::new(0),
            clock,
            observer,
        };
        Ok(Self { inner: Arc::new(inner), lane: Lane::Requests })
    }

    /// Opens the first connection, and refuses a database that cannot be used safely. Neither creates nor checks
    /// tables.
    pub(in crate::store) async fn reach(&self) -> Result<(), StoreError> {
        self.inner.readers.open_first().await
    }

    /// The same database, with reads over the feed's own connection.
    pub(in crate::store) fn in_feed_lane(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), lane: Lane::Feed }
    }

    /// Reads outside of any transaction. A read whose connection turns out to be dead is repeated once on a new one.
    pub(in crate::store) async fn rows(
        &self,
        name: &'static str,
        sql: impl Into<Sql>,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        self.read(name, self.lane, sql.into(), values).await
    }

    /// Reads outside of any transaction, at most one row.
    pub(in crate::store) async fn row(
        &self,
        name: &'static str,
        sql: impl Into<Sql>,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(name, sql, values).await?.into_iter().next())
    }

    /// Reads outside of any transaction, on the connections of `lane`.
    pub(in crate::store) async fn read(
        &self,
        name: &'static str,
        lane: Lane,
        sql: Sql,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.in_own_task(name, async move {
            match inner.run_once(lane, sql, &values).await {
                Err(failure) if failure.fault.is_of_connection() => inner.run_once(lane, sql, &values).await,
                other => other,
            }
            .map_err(|failure| failure.error)
        })
        .await
    }

    /// Writes with one statement, and returns its rows. The statement may be run twice on PostgreSQL: it must change
    /// nothing the second time, and return no row then.
    pub(in crate::store) async fn write_one(
        &self,
        name: &'static str,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.write_in_own_task(name, async move {
            if let Engine::Sqlite(writer) = &inner.engine {
                return writer.write_one(sql, values).await;
            }
            let answer = write_once(&inner.readers, Share::Rest, inner.patience, sql.into(), &values).await?;
            if answer.rows.is_empty() && !answer.is_certain { Err(answer_lost()) } else { Ok(answer.rows) }
        })
        .await
    }

    /// Changes one row, and returns it if the statement's condition held. The statement changes the rows of many
    /// callers at once. On PostgreSQL it takes an array for each of `values`, on SQLite a JSON array of all callers'
    /// values. `id` identifies the row. The statement may be run twice on PostgreSQL: it must change nothing the second
    /// time.
    pub(in crate::store) async fn write_row(
        &self,
        name: &'static str,
        table: &'static str,
        sql: Sql,
        id: [u8; 16],
        values: Vec<Value>,
    ) -> Result<ChangedRow, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.write_in_own_task(name, async move {
            match &inner.engine {
                Engine::Sqlite(writer) => {
                    let row = writer.write_row(Asked { id, sql, values, table }).await?;
                    Ok(ChangedRow { row, is_certain: true })
                }
                Engine::Postgres(_, combiner) => combiner.ask(Asked { id, sql, values, table }).await,
            }
        })
        .await
    }

    /// PostgreSQL: one statement with several changes, as common table expressions, in one round trip and one commit.
    /// `read` takes its rows, and returns the entries that it put on the feed. None on SQLite, where statements cost no
    /// round trip: the caller runs a job.
    ///
    /// All parts of the statement see the same snapshot, from before it waited for a lock. The statement may be run
    /// twice, if the answer of the first run was lost. `read` is told whether that is excluded. The second run must
    /// fail, return no row, or do no harm; otherwise `read` answers [`answer_lost`].
    pub(in crate::store) async fn write_together<T: Send + 'static>(
        &self,
        name: &'static str,
        sql: &'static str,
        values: Vec<Value>,
        read: impl FnOnce(Vec<Row>, bool) -> Result<Written<T>, StoreError> + Send + 'static,
    ) -> Result<Option<Written<T>>, StoreError> {
        if matches!(self.inner.engine, Engine::Sqlite(_)) {
            return Ok(None);
        }
        let inner = Arc::clone(&self.inner);
        let written = self.write_in_own_task(name, async move {
            let answer = write_once(&inner.readers, Share::Rest, inner.patience, sql.into(), &values).await?;
            if answer.rows.is_empty() && !answer.is_certain {
                return Err(answer_lost());
            }
            let written = read(answer.rows, answer.is_certain)?;
            if !written.changes.is_empty() || !answer.is_certain {
                inner.announce();
            }
            Ok(written)
        });
        written.await.map(Some)
    }

    /// Runs `job` on `input` in one transaction and commits it. The job may be run more than once, each time from the
    /// start in a new transaction. When it returns an error, its changes are rolled back.
    pub(in crate::store) async fn write<I, T, F>(
        &self,
        name: &'static str,
        input: I,
        job: F,
    ) -> Result<Written<T>, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Tx, &'a I) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
    {
        let (inner, input, job) = (Arc::clone(&self.inner), Arc::new(input), Arc::new(job));
        self.write_in_own_task(name, async move {
            match &inner.engine {
                Engine::Sqlite(writer) => writer.write(input, job).await,
                Engine::Postgres(connector, _) => {
                    let ran = run_until_committed(&inner.readers, connector, inner.patience, &*input, &*job).await;
                    let (written, has_changes) = ran?;
                    if has_changes {
                        inner.announce();
                    }
                    Ok(written)
                }
            }
        })
        .await
    }

    /// Identifies the source of a feed cursor. On SQLite it is the file that was opened last, on PostgreSQL the number of
    /// syncs that found changes of another database.
    pub(in crate::store) fn origin(&self) -> String {
        match &self.inner.file {
            Some(connector) => connector.file(),
            None => format!(" {}", self.inner.foreign_changes.load(Ordering::Acquire)),
        }
    }

    /// Refuses a database that has become a subscriber. Its replicated entries are missing in every cursor so far.
    pub(in crate::store) fn refuse_subscriber(&self, text: String) -> StoreError {
        self.inner.foreign_changes.fetch_add(1, Ordering::AcqRel);
        StoreError::Misconfigured(text)
    }

    /// Examines the server again, over a new connection, if that was not done for a while.
    pub(in crate::store) async fn examine_again(&self) -> Result<(), StoreError> {
        let now = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.inner.examined_at.load(Ordering::Acquire);
        if last != 0 && now.saturating_sub(last) < EXAMINE_EVERY_MILLIS {
            return Ok(());
        }
        match self.inner.follower.examine().await {
            Err(StoreError::Misconfigured(text)) => Err(self.refuse_subscriber(text)),
            other => {
                self.inner.examined_at.store(now.max(1), Ordering::Release);
                other
            }
        }
    }

    /// A listener for new entries of the feed; none where the engine has no notifications.
    pub(in crate::store) async fn listener(&self) -> Result<Option<ChangeListener>, StoreError> {
        match &self.inner.engine {
            Engine::Postgres(connector, _) if !connector.is_pooled() => {
                ChangeListener::connect(connector).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Waits until the other replicas were notified of all commits so far.
    pub(in crate::store) async fn settle(&self) {
        self.inner.announcer.settle().await;
    }

    /// Size of SQLite's write-ahead log in bytes.
    pub(in crate::store) async fn wal_bytes(&self) -> Option<u64> {
        let path = self.inner.readers.sqlite()?.wal_path();
        tokio::fs::metadata(path).await.ok().map(|metadata| metadata.len())
    }

    /// How long a statement may take, and the longest wait for a locked row.
    pub(in crate::store) fn patience(&self) -> Duration {
        self.inner.patience
    }

    /// The monotonic clock.
    pub(in crate::store) fn elapsed(&self) -> Duration {
        self.inner.clock.elapsed()
    }

    /// The load of the request connections.
    pub(in crate::store) fn pool_status(&self) -> PoolStatus {
        let status = self.inner.readers.status();
        match &self.inner.engine {
            Engine::Sqlite(writer) => PoolStatus { waiting: status.waiting + writer.waiting(), ..status },
            Engine::Postgres(_, combiner) => PoolStatus { waiting: status.waiting + combiner.waiting(), ..status },
        }
    }

    /// Why the last write failed, if the database could not store it.
    pub(in crate::store) fn write_problem(&self) -> Option<String> {
        self.inner.write_problem.load().as_deref().map(|problem| problem.text.clone())
    }

    async fn write_in_own_task<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let noted = async move {
            let outcome = work.await;
            inner.note_write(outcome.as_ref().err());
            outcome
        };
        self.in_own_task(name, noted).await
    }

    async fn in_own_task<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let observed = async move {
            let began = inner.clock.elapsed();
            let outcome = work.await;
            let is_well =
                !matches!(&outcome, Err(error) if error.is_outage() || matches!(error, StoreError::Internal(_)));
            inner.observer.query(name, inner.clock.elapsed().saturating_sub(began), is_well);
            outcome
        };
        let ended = tokio::spawn(RequestId::continued(RequestId::current(), observed)).await;
        ended.unwrap_or_else(|_| Err(StoreError::Internal(format!("`{name}` did not run to its end"))))
    }
}

impl Inner {
    /// Logs once that the database cannot store anything, and once that it can again.
    fn note_write(&self, error: Option<&StoreError>) {
        let now = self.clock.elapsed();
        let is_settled = |problem: &WriteProblem| now.saturating_sub(problem.last_seen) > SETTLED_AFTER;
        if let Some(error @ StoreError::CannotWrite(_)) = error {
            let problem = WriteProblem { last_seen: now, text: error.to_string() };
            if self.write_problem.swap(Some(Arc::new(problem))).is_none() {
                tracing::error!(%error, "writes fail: logins, refreshes and revocations are answered 503");
            }
        } else if error.is_none() && self.write_problem.load().as_deref().is_some_and(is_settled) {
            self.write_problem.store(None);
            tracing::info!("writes succeed again");
        }
    }

    /// Wakes the followers of all replicas, over the feed's own connection. It is free even while requests queue for
    /// theirs.
    fn announce(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        self.announcer.announce(move || {
            let inner = Arc::clone(&inner);
            async move {
                if let Err(failure) = inner.run_once(Lane::Feed, listener::NOTIFY.into(), &[]).await {
                    tracing::debug!(error = %failure.error, "other replicas were not notified; they poll");
                }
            }
        });
    }

    /// One statement on a connection of a lane.
    async fn run_once(&self, lane: Lane, sql: Sql, values: &[Value]) -> Result<Vec<Row>, Failure> {
        let (pool, share, patience) = match lane {
            Lane::Requests => (&self.readers, Share::Rest, self.patience),
            Lane::Refreshes => (&self.readers, Share::Refresh, self.patience),
            Lane::Feed => (&self.follower, Share::Rest, self.feed_patience),
        };
        run_once(pool, share, patience, sql, values).await
    }
}

/// One statement on a pooled connection, in its own transaction where a pooler requires one.
async fn run_once(
    pool: &Arc<Pool>,
    share: Share,
    patience: Duration,
    sql: Sql,
    values: &[Value],
) -> Result<Vec<Row>, Failure> {
    run_over(pool.acquire(share).await?, pool, patience, sql, values).await
}

/// The rows of a writing statement.
struct Answer {
    rows: Vec<Row>,
    /// False if an earlier run of the statement got no answer. It may have changed the missing rows.
    is_certain: bool,
}

/// The row that a statement changed for one caller.
pub(in crate::store) struct ChangedRow {
    /// None if the statement's condition did not hold.
    pub(in crate::store) row: Option<Row>,
    /// False if an earlier run of the statement got no answer. It may have changed the row.
    pub(in crate::store) is_certain: bool,
}

/// A repeated statement found nothing to change: its first run may have been committed.
pub(in crate::store) fn answer_lost() -> StoreError {
    StoreError::OutcomeUnknown("the connection was closed before the answer".to_owned())
}

/// One writing statement, run again after a conflict, and once more if its connection turns out to be closed. A server
/// that does not answer may still work on the statement, so that one is not repeated.
async fn write_once(
    pool: &Arc<Pool>,
    share: Share,
    patience: Duration,
    sql: Sql,
    values: &[Value],
) -> Result<Answer, StoreError> {
    let (mut runs, mut is_certain) = (1, true);
    loop {
        let lease = match pool.acquire(share).await {
            Ok(lease) => lease,
            Err(Failure { error, .. }) if is_certain => return Err(error),
            Err(Failure { error, .. }) => return Err(error.after_commit_was_sent()),
        };
        match run_over(lease, pool, patience, sql, values).await {
            Ok(rows) => return Ok(Answer { rows, is_certain }),
            Err(Failure { fault: Fault::Contention, .. }) if runs < MAX_RUNS => {
                pause(runs).await;
            }
            Err(Failure { fault: Fault::Connection, error: StoreError::Unavailable(_) }) if is_certain => {
                is_certain = false;
            }
            Err(Failure { fault, error }) if fault.is_of_connection() => return Err(error.after_commit_was_sent()),
            // The first run may have made the change with which the second conflicts.
            Err(Failure { error, .. }) if !is_certain => return Err(StoreError::OutcomeUnknown(error.to_string())),
            Err(Failure { error, .. }) => return Err(error),
        }
        runs += 1;
    }
}

async fn run_over(
    Lease { mut connection, slot }: Lease,
    pool: &Pool,
    patience: Duration,
    sql: Sql,
    values: &[Value],
) -> Result<Vec<Row>, Failure> {
    let (answer, is_over) = match pool.postgres() {
        Some(connector) if connector.is_pooled() => {
            in_transaction(&mut connection, connector, patience, sql, values).await
        }
        _ => (connection.rows(sql, values, patience).await, true),
    };
    let is_dead = matches!(&answer, Err(failure) if failure.fault.is_of_connection());
    if is_over && !is_dead {
        slot.give_back(connection);
    } else {
        slot.give_up(connection);
    }
    answer
}

/// One statement in its own transaction, and whether that transaction has ended. A connection that may still be in a
/// transaction is not used again.
async fn in_transaction(
    connection: &mut Connection,
    connector: &PostgresConnector,
    patience: Duration,
    sql: Sql,
    values: &[Value],
) -> (Result<Vec<Row>, Failure>, bool) {
    let answer = match connection.script(connector.begin(), patience).await {
        Ok(()) => connection.rows(sql, values, patience).await,
        Err(failure) => Err(failure),
    };
    match answer {
        // On a dead connection a ROLLBACK would only wait for another timeout.
        Err(failure) if failure.fault.is_of_connection() => (Err(failure), false),
        Err(failure) => {
            let is_over = connection.script("ROLLBACK", patience).await.is_ok();
            (Err(failure), is_over)
        }
        // A refused commit has also ended the transaction.
        Ok(rows) => (connection.script("COMMIT", patience).await.map(|()| rows), true),
    }
}
