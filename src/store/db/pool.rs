//! A pool of connections that forgets what may be dead.
//!
//! The driver's own pool pings without a time limit when a connection comes back, so that one cut cable occupies every
//! place of the pool until TCP gives up; it tests idle connections one failed wait at a time, and does not count who
//! waits. Here every wait is bounded, a connection comes back only after a call that ended well, and the first
//! connection of a pool that is found dead condemns all of that pool that were opened before it. Of that pool alone: a
//! commit that hangs says nothing about the connection that only reads the feed.

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

/// A connection that lay idle for longer is asked whether it still answers before it is handed out: servers, proxies and
/// firewalls end idle connections, and a write that meets a dead one is not repeated.
const TRUSTED_IDLE: Duration = Duration::from_secs(10);

/// How long that question may take.
const PING_PATIENCE: Duration = Duration::from_millis(300);

/// How long the question about abandoned statements may take, however long requests wait for a connection.
const QUESTION_PATIENCE: Duration = Duration::from_secs(1);

/// Connections that are kept for refreshes: one for each of the combiner's lanes, or for a look at a token that did not
/// rotate. However many logins wait for a lock, refreshes go on.
const REFRESH_SHARE: usize = 2;

/// How connections of the pool are made.
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

/// How busy a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStatus {
    /// Connections that are working.
    pub in_use: usize,
    /// Connections that are open and free.
    pub idle: usize,
    /// Callers that wait for one.
    pub waiting: usize,
}

/// For whom a connection is asked. Neither can take what the other is sure of; a pool of one they share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Refreshes.
    Refresh,
    /// Everybody else.
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
    /// Connections that were opened under an older one are not used again.
    generation: AtomicU64,
    waiting: AtomicUsize,
    /// None for the feed: it only reads, the server ends what reads for longer than the feed waits, and its next connection
    /// must not wait until that is known.
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

    /// The feed's pool of one.
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

    /// Hands out a connection, or says within the acquire timeout that there is none. A refused server is an outage
    /// here: after a failover the next attempt may reach the new primary.
    pub(super) async fn acquire(self: &Arc<Self>, share: Share) -> Result<Lease, Failure> {
        let waiting = Waiting::new(&self.waiting);
        let found = tokio::time::timeout(self.acquire_timeout, async {
            let share = match share {
                Share::Refresh => &self.refresh_share,
                Share::Rest => &self.rest_share,
            };
            // The share first: whoever must wait for it does not stand in the other's way.
            let share = Arc::clone(share).acquire_owned().await.map_err(|_| closed())?;
            let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
            drop(waiting);
            let (connection, generation) = match self.take_idle().await {
                Some(found) => found,
                None => {
                    // Read after the idle ones were looked at: one that was found dead has moved it on.
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

    /// Opens the first connection, so that a server that must be refused is refused as such.
    pub(super) async fn open_first(self: &Arc<Self>) -> Result<(), StoreError> {
        let opened = tokio::time::timeout(self.acquire_timeout, self.connector.connect()).await;
        let connection = opened.map_err(|_| busy(self.acquire_timeout))?.map_err(|failure| failure.error)?;
        self.put_back(connection, self.generation.load(Ordering::Acquire));
        Ok(())
    }

    /// How PostgreSQL is reached, if it is.
    pub(super) fn postgres(&self) -> Option<&PostgresConnector> {
        match &*self.connector {
            Connector::Postgres(connector) => Some(connector),
            Connector::Sqlite(_) => None,
        }
    }

    /// How the SQLite file is opened, if it is one.
    pub(super) fn sqlite(&self) -> Option<&SqliteConnector> {
        match &*self.connector {
            Connector::Sqlite(connector) => Some(connector),
            Connector::Postgres(_) => None,
        }
    }

    /// Statements that were given up and keep their places.
    pub(super) const fn abandoned(&self) -> Option<&Abandoned> {
        self.abandoned.as_ref()
    }

    /// Which of these server processes still work on a statement.
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

    /// A free connection, with the generation that it was opened under.
    async fn take_idle(&self) -> Option<(Connection, u64)> {
        loop {
            // The one used last first: the others may rest until they are needed.
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

    /// Closes every idle connection that was opened under `dead`, or before; those in use are closed when they come back. Once
    /// for many that fail together: only the first to find its own generation dead moves it on.
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

/// A connection and its place in the pool. Dropped as it is, the connection is closed: whoever was cut off in the middle
/// of a call leaves nothing half-read behind.
pub(super) struct Lease {
    pub(super) connection: Connection,
    pub(super) slot: Slot,
}

/// The place of a lent connection.
pub(super) struct Slot {
    pool: Arc<Pool>,
    generation: u64,
    place: Place,
}

/// One connection less for the others, until it is dropped.
pub(super) struct Place {
    _share: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Slot {
    /// Returns the connection for reuse.
    pub(super) fn give_back(self, connection: Connection) {
        self.pool.put_back(connection, self.generation);
    }

    /// Closes a dead connection and condemns every one of its pool that was opened before now.
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
