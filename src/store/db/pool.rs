//! A pool of connections that forgets what may be dead.
//!
//! The driver's own pool pings without a time limit when a connection comes back, so that one cut cable occupies every
//! place of the pool until TCP gives up; it tests idle connections one failed wait at a time, and does not count who
//! waits. Here every wait is bounded, a connection comes back only after a call that ended well, and the first
//! connection that is found dead condemns all that were opened before it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// The count that condemns connections: those opened under an older one are not used again. Shared by all pools of a
/// database, since they lead to the same server.
pub(super) type Generation = Arc<AtomicU64>;

pub(super) struct Pool {
    connector: Arc<Connector>,
    clock: Arc<dyn Clock>,
    acquire_timeout: Duration,
    places: Arc<Semaphore>,
    size: usize,
    idle: Mutex<Vec<Idle>>,
    generation: Generation,
    waiting: AtomicUsize,
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
        generation: Generation,
    ) -> Arc<Self> {
        let size = size.max(1);
        let places = Arc::new(Semaphore::new(size));
        let (idle, waiting) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self { connector, clock, acquire_timeout, places, size, idle, generation, waiting })
    }

    /// Hands out a connection, or says within the acquire timeout that there is none. A refused server is an outage
    /// here: after a failover the next attempt may reach the new primary.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Lease, Failure> {
        let waiting = Waiting::new(&self.waiting);
        let found = tokio::time::timeout(self.acquire_timeout, async {
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
            Ok(Lease { connection, slot: Slot { pool: Arc::clone(self), generation, _place: place } })
        });
        let lease = found.await.map_err(|_| Failure::of_statement(busy(self.acquire_timeout)))?;
        lease.map_err(|failure: Failure| match failure.error {
            StoreError::Misconfigured(text) => Failure { error: StoreError::Unavailable(text), ..failure },
            _ => failure,
        })
    }

    /// Opens the first connection, so that a server that must be refused is refused as such.
    pub(super) async fn open_first(self: &Arc<Self>) -> Result<(), StoreError> {
        let opened = tokio::time::timeout(self.acquire_timeout, self.connector.connect()).await;
        let connection = opened.map_err(|_| busy(self.acquire_timeout))?.map_err(|failure| failure.error)?;
        self.put_back(connection, self.generation.load(Ordering::Acquire));
        Ok(())
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

    /// Condemns every connection that was opened under `dead`, or before. Once for many that fail together: only the first
    /// to find its own generation dead moves it on.
    fn condemn(&self, dead: u64) {
        let next = dead.wrapping_add(1);
        let _ = self.generation.compare_exchange(dead, next, Ordering::AcqRel, Ordering::Acquire);
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
    _place: OwnedSemaphorePermit,
}

impl Slot {
    /// Returns the connection for reuse.
    pub(super) fn give_back(self, connection: Connection) {
        self.pool.put_back(connection, self.generation);
    }

    /// Condemns every connection that was opened before now.
    pub(super) fn condemn_all(&self) {
        self.pool.condemn(self.generation);
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
