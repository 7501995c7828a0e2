//! PostgreSQL: combines the concurrent requests of many callers into one statement and one commit.
//!
//! While a statement runs, further callers queue; the next statement takes them all. A single caller therefore waits
//! for no other caller. Under load, callers share the cost of a round trip, of a statement's start and of a commit.
//! [`super::writer`] does the same for SQLite's one writer.

use std::collections::{HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use super::connection::Sql;
use super::pool::{Pool, Share};
use super::value::{Row, Value, columns};
use super::{ChangedRow, write_once};
use crate::store::StoreError;

/// Callers that may wait for a lane.
const QUEUE: usize = 1024;

/// Callers that share one statement; more would make the first of them wait for the last.
const MAX_BATCH: usize = 64;

/// Maximum number of concurrent statements. The second begins only when the first is [`LATE`]. Otherwise it would take
/// callers from the first, and both would share less.
const LANES: usize = 2;

/// A statement and its commit take a few milliseconds. A slower one waits for a lock, or for a server that is gone.
const LATE: Duration = Duration::from_millis(10);

/// The row that a caller wants to change.
pub(super) struct Asked {
    /// The bytes of the row's `id`, which match an answer to its caller. Two callers with the same id never share a
    /// statement: it would change the row only once.
    pub(super) id: [u8; 16],
    /// Returns the rows that it changed, with `id`. PostgreSQL's text takes one array for each of `values`. SQLite's
    /// text takes one JSON text: an array with an array of values for each caller.
    pub(super) sql: Sql,
    /// The caller's values, as elements of the arrays.
    pub(super) values: Vec<Value>,
    /// The table, named in the error for an unreadable answer.
    pub(super) table: &'static str,
}

struct Waiting {
    asked: Asked,
    /// A caller that has waited longer is not served: its values, including the time, date from its arrival.
    until: Instant,
    reply: oneshot::Sender<Result<ChangedRow, StoreError>>,
}

/// The handle through which callers reach the lanes.
pub(super) struct Combiner {
    queue: mpsc::Sender<Waiting>,
    deferred: Arc<AtomicUsize>,
    acquire_timeout: Duration,
}

/// State that the lanes share.
struct Lanes {
    /// Held by the lane that will take the next callers.
    line: Mutex<Line>,
    /// Held by the lane whose statement is running.
    turn: Mutex<()>,
    pool: Arc<Pool>,
    patience: Duration,
}

struct Line {
    queue: mpsc::Receiver<Waiting>,
    /// Callers taken from the queue that did not fit the previous batch.
    deferred: VecDeque<Waiting>,
    /// Their number, readable without holding the line.
    deferred_count: Arc<AtomicUsize>,
}

impl Combiner {
    /// Starts the lanes, which end when the `Combiner` is dropped.
    pub(super) fn start(pool: Arc<Pool>, patience: Duration, acquire_timeout: Duration) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let deferred = Arc::new(AtomicUsize::new(0));
        let line = Line { queue: waiting, deferred: VecDeque::new(), deferred_count: Arc::clone(&deferred) };
        let line = Mutex::new(line);
        let lanes = Arc::new(Lanes { line, turn: Mutex::default(), pool, patience });
        for _ in 0..LANES {
            let lanes = Arc::clone(&lanes);
            tokio::spawn(async move { lanes.run().await });
        }
        Self { queue, deferred, acquire_timeout }
    }

    /// The row after the statement; none if its condition did not hold. The statement runs to its end even when the
    /// caller is cancelled.
    pub(super) async fn ask(&self, asked: Asked) -> Result<ChangedRow, StoreError> {
        let (reply, answer) = oneshot::channel();
        let until = now() + self.acquire_timeout;
        let queued = tokio::time::timeout_at(until, self.queue.send(Waiting { asked, until, reply })).await;
        let stopped = || StoreError::Unavailable("the store is closed".to_owned());
        queued.map_err(|_| waited_too_long())?.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped().after_commit_was_sent())?
    }

    /// Callers that wait for a lane, for the metrics.
    pub(super) fn waiting(&self) -> usize {
        QUEUE - self.queue.capacity() + self.deferred.load(Ordering::Relaxed)
    }
}

impl Lanes {
    async fn run(&self) {
        loop {
            let mut line = self.line.lock().await;
            if !line.has_somebody().await {
                return;
            }
            let _turn = tokio::time::timeout(LATE, self.turn.lock()).await;
            let batch = line.take();
            drop(line);
            if AssertUnwindSafe(self.work(batch)).catch_unwind().await.is_err() {
                // Its callers received `Unavailable`; the lane continues.
                tracing::error!("a statement for many callers ended in a panic");
            }
        }
    }

    async fn work(&self, batch: Vec<Waiting>) {
        let now = now();
        let (late, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(|waiting| waiting.until < now);
        for waiting in late {
            waiting.answer(Err(waited_too_long()));
        }
        let mut answer = self.execute(&batch).await;
        for waiting in batch {
            let own = answer.as_mut().map(|(changed, is_certain)| {
                let row = changed.take(&waiting.asked);
                ChangedRow { row, is_certain: *is_certain }
            });
            let own = own.map_err(|error| error.clone());
            waiting.answer(own);
        }
    }

    /// The changed rows, and whether no other row was changed.
    async fn execute(&self, batch: &[Waiting]) -> Result<(Changed, bool), StoreError> {
        let Some(first) = batch.first() else { return Ok((Changed::default(), true)) };
        let sql = first.asked.sql;
        let rows: Vec<_> = batch.iter().map(|waiting| &waiting.asked.values).collect();
        let columns = columns(&rows, first.asked.values.len())?;
        let answer = write_once(&self.pool, Share::Refresh, self.patience, sql, &columns).await?;
        Ok((Changed::new(answer.rows, first.asked.table)?, answer.is_certain))
    }
}

/// The rows that a combined statement changed, by their ids.
#[derive(Default)]
pub(super) struct Changed(Vec<([u8; 16], Row)>);

impl Changed {
    pub(super) fn new(rows: Vec<Row>, table: &'static str) -> Result<Self, StoreError> {
        rows.into_iter().map(|row| Ok((row.of(table, "id").array("id")?, row))).collect::<Result<_, _>>().map(Self)
    }

    /// The row of one caller, if it was changed.
    pub(super) fn take(&mut self, asked: &Asked) -> Option<Row> {
        let own = self.0.iter().position(|(id, _)| *id == asked.id)?;
        Some(self.0.swap_remove(own).1)
    }
}

impl Line {
    /// Waits for a caller; false when the queue is closed.
    async fn has_somebody(&mut self) -> bool {
        if self.deferred.is_empty() {
            self.deferred.extend(self.queue.recv().await);
            self.deferred_count.store(self.deferred.len(), Ordering::Relaxed);
        }
        !self.deferred.is_empty()
    }

    /// Takes the waiting callers that fit into one statement.
    fn take(&mut self) -> Vec<Waiting> {
        let Some(first) = self.deferred.pop_front() else { return Vec::new() };
        let (sql, mut ids) = (first.asked.sql, HashSet::from([first.asked.id]));
        let mut batch = vec![first];
        let mut passed = VecDeque::new();
        while batch.len() < MAX_BATCH {
            let Some(next) = self.deferred.pop_front().or_else(|| self.queue.try_recv().ok()) else { break };
            if next.asked.sql == sql && ids.insert(next.asked.id) {
                batch.push(next);
            } else {
                passed.push_back(next);
                // Limits how many deferred callers are examined for each statement, if many wait for one row.
                if passed.len() >= MAX_BATCH {
                    break;
                }
            }
        }
        passed.append(&mut self.deferred);
        self.deferred = passed;
        self.deferred_count.store(self.deferred.len(), Ordering::Relaxed);
        // Rows are mostly locked in this order, so two statements seldom wait for each other. When they deadlock, the
        // database ends one, and it is run again.
        batch.sort_unstable_by_key(|waiting| waiting.asked.id);
        batch
    }
}

/// The instant from which the time in the queue is measured.
#[expect(clippy::disallowed_methods, reason = "how long callers wait is real time, as for a connection of the pool")]
fn now() -> Instant {
    Instant::now()
}

fn waited_too_long() -> StoreError {
    StoreError::Unavailable("too many writes wait".to_owned())
}

impl Waiting {
    fn answer(self, answer: Result<ChangedRow, StoreError>) {
        // The caller may be gone; the commit remains valid.
        let _ = self.reply.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn callers_deferred_to_the_next_batch_are_counted_as_waiting() {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let deferred = Arc::new(AtomicUsize::new(0));
        let mut line = Line { queue: waiting, deferred: VecDeque::new(), deferred_count: Arc::clone(&deferred) };
        let combiner = Combiner { queue: queue.clone(), deferred, acquire_timeout: Duration::from_secs(1) };
        for id in [1, 1, 1, 2] {
            let asked = Asked { id: [id; 16], sql: "SELECT 1".into(), values: Vec::new(), table: "sessions" };
            queue.try_send(Waiting { asked, until: now(), reply: oneshot::channel().0 }).unwrap();
        }
        assert_eq!(combiner.waiting(), 4);
        for (served, left) in [(2, 2), (1, 1), (1, 0)] {
            assert!(line.has_somebody().await);
            assert_eq!((combiner.waiting(), line.take().len(), combiner.waiting()), (served + left, served, left));
        }
    }
}
