//! SQLite's one writer: a task that owns the write connection and commits many jobs with one `fsync`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::combiner::{Asked, Changed};
use super::connection::Sql;
use super::sqlite::SqliteConnector;
use super::turnstile::Turnstile;
use super::tx::{Tx, Written};
use super::value::{Row, Value, json_rows, values};
use super::{Fault, NO_PATIENCE};
use crate::store::StoreError;

/// Jobs that may wait for the writer.
const QUEUE: usize = 1024;

/// Jobs that share one commit; more would make the first of them wait for the last.
const MAX_BATCH: usize = 128;

/// A job in the queue, of any answer type.
trait Queued: Send {
    /// Whether the job is one statement. SQLite itself undoes a failed statement, so the job needs no savepoint.
    fn is_one_statement(&self) -> bool {
        false
    }

    /// The job as one row that a statement changes together with the rows of other callers.
    fn as_row(&mut self) -> Option<&mut OneRow> {
        None
    }

    /// Runs the job, within a savepoint if it needs one, and keeps the answer until the commit.
    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Sends the answer: the kept one, or the reason why the commit failed.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Job<I, T, F> {
    input: Arc<I>,
    job: Arc<F>,
    outcome: Option<Result<Written<T>, StoreError>>,
    reply: oneshot::Sender<Result<Written<T>, StoreError>>,
}

impl<I, T, F> Queued for Job<I, T, F>
where
    I: Send + Sync,
    T: Send,
    F: for<'a> Fn(&'a mut Tx, &'a I) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync,
{
    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            // A job that panics must not end the writer of the whole service.
            let ran = std::panic::AssertUnwindSafe((self.job)(tx, &self.input)).catch_unwind().await;
            let outcome = ran.unwrap_or_else(|_| Err(StoreError::Internal("a job panicked".to_owned())));
            let outcome = outcome.and_then(|value| tx.unless_failed(value));
            let result = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
            self.outcome = Some(outcome.map(|value| Written { value, changes: tx.take_changes() }));
            result
        }
        .boxed()
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { outcome, reply, .. } = *self;
        // The caller may be gone; the commit remains valid.
        let _ = reply.send(committed.and_then(|()| outcome.unwrap_or_else(never_ran)));
    }
}

struct OneStatement {
    sql: &'static str,
    values: Vec<Value>,
    outcome: Option<Result<Vec<Row>, StoreError>>,
    reply: oneshot::Sender<Result<Vec<Row>, StoreError>>,
}

impl Queued for OneStatement {
    fn is_one_statement(&self) -> bool {
        true
    }

    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let outcome = tx.rows(self.sql, std::mem::take(&mut self.values)).await;
            let result = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
            self.outcome = Some(outcome);
            result
        }
        .boxed()
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { outcome, reply, .. } = *self;
        // The caller may be gone; the commit remains valid.
        let _ = reply.send(committed.and_then(|()| outcome.unwrap_or_else(never_ran)));
    }
}

struct OneRow {
    asked: Asked,
    outcome: Option<Result<Option<Row>, StoreError>>,
    reply: oneshot::Sender<Result<Option<Row>, StoreError>>,
}

impl Queued for OneRow {
    fn is_one_statement(&self) -> bool {
        true
    }

    fn as_row(&mut self) -> Option<&mut OneRow> {
        Some(self)
    }

    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<(), StoreError>> {
        change_rows(vec![self], tx).boxed()
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { outcome, reply, .. } = *self;
        // The caller may be gone; the commit remains valid.
        let _ = reply.send(committed.and_then(|()| outcome.unwrap_or_else(never_ran)));
    }
}

/// Changes the rows of many jobs: one shared statement, and each row at most once.
async fn change_rows(mut jobs: Vec<&mut OneRow>, tx: &mut Tx) -> Result<(), StoreError> {
    let Some(first) = jobs.first() else { return Ok(()) };
    let (sql, table) = (first.asked.sql, first.asked.table);
    let asked = json_rows(jobs.iter().map(|job| job.asked.values.as_slice()));
    let mut answer = match tx.rows(sql, values![asked]).await {
        Ok(rows) => Changed::new(rows, table),
        Err(error) => Err(error),
    };
    for job in &mut jobs {
        job.outcome = Some(answer.as_mut().map(|changed| changed.take(&job.asked)).map_err(|error| error.clone()));
    }
    answer.map(|_| ())
}

fn never_ran<T>() -> Result<T, StoreError> {
    Err(StoreError::Internal("a job was never run".to_owned()))
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the writer has stopped".to_owned())
}

/// The handle to the writer.
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Queued>>,
    acquire_timeout: Duration,
}

impl Writer {
    /// Opens the write connection and starts the task, which ends when the last `Writer` is dropped.
    pub(super) async fn start(connector: SqliteConnector, acquire_timeout: Duration) -> Result<Self, StoreError> {
        let turnstile = connector.turnstile()?;
        let turn = turnstile.turn().await?;
        let connection = connector.connect_writer().await.map_err(|failure| failure.error)?;
        drop(turn);
        let (queue, jobs) = mpsc::channel(QUEUE);
        let tx = Some(Tx::new(connection, NO_PATIENCE));
        tokio::spawn(Task { connector, turnstile, tx, jobs }.run());
        Ok(Self { queue, acquire_timeout })
    }

    /// Runs `job` in its turn. It runs to its end even if the caller is cancelled.
    pub(super) async fn write<I, T, F>(&self, input: Arc<I>, job: Arc<F>) -> Result<Written<T>, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Tx, &'a I) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.queue(Box::new(Job { input, job, outcome: None, reply })).await?;
        answer.await.map_err(|_| stopped().after_commit_was_sent())?
    }

    /// Runs one statement in its turn. It is a single step for the connection's thread; a job takes two more, for its
    /// savepoint.
    pub(super) async fn write_one(&self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue(Box::new(OneStatement { sql, values, outcome: None, reply })).await?;
        answer.await.map_err(|_| stopped().after_commit_was_sent())?
    }

    /// Changes one row in its turn, together with the rows of neighbouring jobs in the queue.
    pub(super) async fn write_row(&self, asked: Asked) -> Result<Option<Row>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue(Box::new(OneRow { asked, outcome: None, reply })).await?;
        answer.await.map_err(|_| stopped().after_commit_was_sent())?
    }

    async fn queue(&self, job: Box<dyn Queued>) -> Result<(), StoreError> {
        let queued = tokio::time::timeout(self.acquire_timeout, self.queue.send(job)).await;
        queued.map_err(|_| StoreError::Unavailable("too many writes wait".to_owned()))?.map_err(|_| stopped())
    }

    /// Jobs that wait, for the metrics.
    pub(super) fn waiting(&self) -> usize {
        QUEUE - self.queue.capacity()
    }
}

struct Task {
    connector: SqliteConnector,
    turnstile: Turnstile,
    tx: Option<Tx>,
    jobs: mpsc::Receiver<Box<dyn Queued>>,
}

impl Task {
    async fn run(mut self) {
        while let Some(first) = self.jobs.recv().await {
            let mut batch = Vec::with_capacity(1);
            let committed = self.commit_together(first, &mut batch).await;
            if committed.is_err() {
                // The state of the connection is unknown, so the next batch starts with a new one.
                self.tx = None;
            }
            for job in batch {
                job.answer(committed.clone());
            }
        }
    }

    /// Runs `first` and the jobs queued behind it in one transaction; `batch` holds all jobs taken from the queue.
    async fn commit_together(
        &mut self,
        first: Box<dyn Queued>,
        batch: &mut Vec<Box<dyn Queued>>,
    ) -> Result<(), StoreError> {
        batch.push(first);
        let turn = self.turnstile.turn().await?;
        if self.tx.as_ref().is_some_and(|tx| !tx.has_its_file()) {
            self.tx = None;
        }
        let tx = match &mut self.tx {
            Some(tx) => tx,
            None => {
                let connected = self.connector.connect_writer().await;
                // The file could be opened at the start: it is missing now, and may return.
                let connection = connected.map_err(|failure| match failure.error {
                    StoreError::Misconfigured(text) => StoreError::Unavailable(text),
                    error => error,
                })?;
                self.tx.insert(Tx::new(connection, NO_PATIENCE))
            }
        };
        tx.control("BEGIN IMMEDIATE").await.map_err(|failure| failure.error)?;
        drop(turn);
        let mut next = 0;
        loop {
            while batch.len() < MAX_BATCH
                && let Ok(job) = self.jobs.try_recv()
            {
                batch.push(job);
            }
            let Some(waiting) = batch.get_mut(next..).filter(|waiting| !waiting.is_empty()) else { break };
            next += run_first(waiting, tx).await?;
        }
        tx.control("COMMIT").await.map_err(|failure| failure.error)
    }
}

/// Runs the first job, and the jobs behind it that share its statement. Returns their number.
async fn run_first(waiting: &mut [Box<dyn Queued>], tx: &mut Tx) -> Result<usize, StoreError> {
    let (mut together, mut ids) = (Vec::new(), HashSet::new());
    let mut shared: Option<Sql> = None;
    for job in &mut *waiting {
        let Some(job) = job.as_row() else { break };
        if *shared.get_or_insert(job.asked.sql) != job.asked.sql || !ids.insert(job.asked.id) {
            break;
        }
        together.push(job);
    }
    let count = together.len();
    if count > 1 {
        tx.start_job();
        // A failure undoes the one statement, and each of its jobs gets that failure as its answer.
        return match change_rows(together, tx).await {
            Err(error) if tx.fault().is_some_and(Fault::is_of_connection) => Err(error),
            _ => Ok(count),
        };
    }
    drop(together);
    match waiting.first_mut() {
        Some(job) => run_alone(job.as_mut(), tx).await.map(|()| 1),
        None => Ok(0),
    }
}

/// Runs one job so that its failure undoes only its own changes. An error means that the whole transaction is lost:
/// SQLite rolls it back by itself when the disk is full or fails.
async fn run_alone(job: &mut dyn Queued, tx: &mut Tx) -> Result<(), StoreError> {
    let lost = |failure: super::Failure| failure.error;
    let needs_savepoint = !job.is_one_statement();
    tx.start_job();
    if needs_savepoint {
        tx.control("SAVEPOINT job").await.map_err(lost)?;
    }
    let outcome = job.run(tx).await;
    match (outcome, tx.fault()) {
        (Err(error), Some(fault)) if fault.is_of_connection() => Err(error),
        (_, _) if !needs_savepoint => Ok(()),
        (Err(_), _) => tx.control("ROLLBACK TO job; RELEASE job").await.map_err(lost),
        (Ok(()), _) => tx.control("RELEASE job").await.map_err(lost),
    }
}
