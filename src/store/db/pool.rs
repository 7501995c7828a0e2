//! A connection pool that discards connections that may be dead.
//!
//! The driver's own pool pings without a time limit when a connection comes back. One cut cable then occupies every
//! slot of the pool until TCP gives up. That pool also tests idle connections one failed wait at a time, and does not
//! count waiting callers. Here every wait is bounded, and a connection comes back only after a call that ended well.
//! The first connection of a pool that turns out dead invalidates all older connections of that pool. Other pools are
//! unaffected: a hanging commit says nothing about the connection that only reads the feed.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::abandoned::Abandoned;
use super::connection::Connection;
use super::fault::Failure;
use super::postgres::PostgresConnector;
use super::sqlite::SqliteConnector;
use crate::clock::Clock;
use crate::store::StoreError;

/// A connection that was idle for longer is tested before it is handed out. Servers, proxies and firewalls close idle
/// connections, and a write on a dead connection is not repeated.
const TRUSTED_IDLE: Duration = Duration::from_secs(10);

/// Time limit for that test.
const PING_PATIENCE: Duration = Duration::from_millis(300);

/// Time limit for the query about abandoned statements, independent of the requests' wait for a connection.
const QUESTION_PATIENCE: Duration = Duration::from_secs(1);

/// Connections reserved for refreshes: one for each of the combiner's lanes, or for reading a token that did not
/// rotate. Refreshes continue however many logins wait for a lock.
const REFRESH_SHARE: usize = 2;

/// How the pool opens connections.
pub(super) enum Connector {
    /// Readers of the file.
    Sqlite(SqliteConnector),
    /// Connections to the server.
    Postgres(Box<PostgresConnector>),
}

impl Connector {
    async fn connect(&self) -> Result<Connection, Failure> {
        match self {
            Self::Sqlite(connector) => connector.connect_reader().await,
            Self::Postgres(connector) => connector.connect().await,
        }
    }
}

/// The load of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStatus {
    /// Connections in use.
    pub in_use: usize,
    /// Connections that are open and idle.
    pub idle: usize,
    /// Callers that wait for a connection.
    pub waiting: usize,
}

/// The purpose of a requested connection. Neither purpose can take the other's reserved share; in a pool of one they
/// share the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Refreshes.
    Refresh,
    /// All other callers.
    Rest,
}

pub(super) struct Pool {
    connector: Arc<Connector>,
    clock: Arc<dyn Clock>,
    acquire_timeout: Duration,
    places: Arc<Semaphore>,
    refresh_share: Arc<Semaphore>,
    rest_share: Arc<Semaphore>,
    size: usize,
    idle: Mutex<Vec<Idle>>,
    /// Connections that were opened under an older generation are not used again.
    generation: AtomicU64,
    waiting: AtomicUsize,
    /// None for the feed, which only reads. The server ends a read that exceeds the feed's timeout, and the feed's next
    /// connection must not wait for that.
    abandoned: Option<Abandoned>,
}

struct Idle {
    connection: Connection,
    generation: u64,
    since: Duration,
}

impl Pool {
    pub(super) fn new(
        connector: Arc<Connector>,
        clock: Arc<dyn Clock>,
        acquire_timeout: Duration,
        size: usize,
    ) -> Arc<Self> {
        Arc::new(Self::with(connector, clock, acquire_timeout, size, Some(Abandoned::default())))
    }

    /// The feed's pool of one connection.
    pub(super) fn of_feed(connector: Arc<Connector>, clock: Arc<dyn Clock>, acquire_timeout: Duration) -> Arc<Self> {
        Arc::new(Self::with(connector, clock, acquire_timeout, 1, None))
    }

    fn with(
        connector: Arc<Connector>,
        clock: Arc<dyn Clock>,
        acquire_timeout: Duration,
        size: usize,
        abandoned: Option<Abandoned>,
    ) -> Self {
        let size = size.max(1);
        let refresh = REFRESH_SHARE.min(size - 1).max(1);
        let places = |number| Arc::new(Semaphore::new(number));
        Self {
            connector,
            clock,
            acquire_timeout,
            places: places(size),
            refresh_share: places(refresh),
            rest_share: places((size - refresh).max(1)),
            size,
            idle: Mutex::default(),
            generation: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            abandoned,
        }
    }

    /// Hands out a connection, or fails within the acquire timeout. A refused server counts as an outage here: after a
    /// failover the next attempt may reach the new primary.
    pub(super) async fn acquire(self: &Arc<Self>, share: Share) -> Result<Lease, Failure> {
        let waiting = Waiting::new(&self.waiting);
        let found = tokio::time::timeout(self.acquire_timeout, async {
            let share = match share {
                Share::Refresh => &self.refresh_share,
                Share::Rest => &self.rest_share,
            };
            // The share first: a caller that waits for its share must not block the other purpose.
            let share = Arc::clone(share).acquire_owned().await.map_err(|_| closed())?;
            let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
            drop(waiting);
            let (connection, generation) = match self.take_idle().await {
                Some(found) => found,
                None => {
                    // Read after the idle connections were tested: a dead one increases the generation.
                    let generation = self.generation.load(Ordering::Acquire);
                    (self.connector.connect().await?, generation)
                }
            };
            let place = Place { _share: share, _place: place };
            Ok(Lease { connection, slot: Slot { pool: Arc::clone(self), generation, place } })
        });
        let lease = found.await.map_err(|_| Failure::of_statement(busy(self.acquire_timeout)))?;
        lease.map_err(Failure::into_outage)
    }

    /// Opens the first connection, so that the error for an unsuitable server is reported as such.
    pub(super) async fn open_first(self: &Arc<Self>) -> Result<(), StoreError> {
        let opened = tokio::time::timeout(self.acquire_timeout, self.connector.connect()).await;
        let connection = opened.map_err(|_| busy(self.acquire_timeout))?.map_err(|failure| failure.error)?;
        self.put_back(connection, self.generation.load(Ordering::Acquire));
        Ok(())
    }

    /// Opens a connection, which makes every check of the server, and closes it.
    pub(super) async fn examine(&self) -> Result<(), StoreError> {
        let opened = tokio::time::timeout(self.acquire_timeout, self.connector.connect()).await;
        opened.map_err(|_| busy(self.acquire_timeout))?.map(drop).map_err(|failure| failure.error)
    }

    /// The connector for PostgreSQL, if the pool uses it.
    pub(super) fn postgres(&self) -> Option<&PostgresConnector> {
        match &*self.connector {
            Connector::Postgres(connector) => Some(connector),
            Connector::Sqlite(_) => None,
        }
    }

    /// The connector for the SQLite file, if the pool uses it.
    pub(super) fn sqlite(&self) -> Option<&SqliteConnector> {
        match &*self.connector {
            Connector::Sqlite(connector) => Some(connector),
            Connector::Postgres(_) => None,
        }
    }

    /// Abandoned statements, which keep their slots.
    pub(super) const fn abandoned(&self) -> Option<&Abandoned> {
        self.abandoned.as_ref()
    }

    /// The given server processes that still work on a statement.
    pub(super) async fn still_working(&self, backends: &[i32]) -> Result<Vec<i32>, Failure> {
        let Some(connector) = self.postgres() else { return Ok(Vec::new()) };
        let patience = self.acquire_timeout.min(QUESTION_PATIENCE);
        let asked = tokio::time::timeout(patience, connector.still_working(backends)).await;
        asked.map_err(|_| Failure::no_answer(patience))?
    }

    pub(super) fn status(&self) -> PoolStatus {
        PoolStatus {
            in_use: self.size - self.places.available_permits().min(self.size),
            idle: self.idle.lock().unwrap_or_else(PoisonError::into_inner).len(),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// An idle connection, with the generation that it was opened under.
    async fn take_idle(&self) -> Option<(Connection, u64)> {
        loop {
            // The most recently used connection first; the others may stay idle until they are needed.
            let Idle { mut connection, generation, since } =
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if generation != self.generation.load(Ordering::Acquire) {
                continue;
            }
            let is_trusted = self.clock.elapsed().saturating_sub(since) < TRUSTED_IDLE;
            if is_trusted || connection.answers(PING_PATIENCE).await {
                return Some((connection, generation));
            }
            self.condemn(generation);
        }
    }

    /// Closes every idle connection of generation `dead` or older. Connections in use are closed when they come back.
    /// Of many simultaneous failures only the first increases the generation.
    fn condemn(&self, dead: u64) {
        let next = dead.wrapping_add(1);
        if self.generation.compare_exchange(dead, next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let condemned: Vec<Idle> = idle.extract_if(.., |idle| idle.generation != next).collect();
            drop(idle);
            drop(condemned);
        }
    }

    fn put_back(&self, connection: Connection, generation: u64) {
        if generation == self.generation.load(Ordering::Acquire) {
            let since = self.clock.elapsed();
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(Idle { connection, generation, since });
        }
    }
}

/// A connection and its slot in the pool. If this is dropped, the connection is closed, so a caller cancelled during a
/// call leaves no half-read answer behind.
pub(super) struct Lease {
    pub(super) connection: Connection,
    pub(super) slot: Slot,
}

/// The slot of a lent connection.
pub(super) struct Slot {
    pool: Arc<Pool>,
    generation: u64,
    place: Place,
}

/// Takes one slot from the pool until it is dropped.
pub(super) struct Place {
    _share: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Slot {
    /// Returns the connection for reuse.
    pub(super) fn give_back(self, connection: Connection) {
        self.pool.put_back(connection, self.generation);
    }

    /// Closes a dead connection and invalidates every older connection of its pool.
    pub(super) fn give_up(self, connection: Connection) {
        self.pool.condemn(self.generation);
        if let (Some(abandoned), Some(backend)) = (self.pool.abandoned(), connection.unanswered_backend()) {
            abandoned.keep(&self.pool, backend, self.place);
        }
    }
}

/// Counts one waiting caller for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn busy(timeout: Duration) -> StoreError {
    StoreError::Unavailable(format!("no connection within {} ms", timeout.as_millis()))
}

fn closed() -> Failure {
    Failure::of_statement(StoreError::Unavailable("the store is closed".to_owned()))
}
