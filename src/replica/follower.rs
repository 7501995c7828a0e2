//! Keeps the view, the clients and the keys of a replica in step with the change feed (design.md §5).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, MutexGuard, Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, ClockEvent};
use crate::crypto::Random;
use crate::domain::{Change, Client, ClientId, Revocation};
use crate::replica::keyring::{Keyring, KeyringError};
use crate::replica::log::Log;
use crate::replica::view::{Freshness, View};
use crate::store::{FeedCursor, FeedEntry, Rows, Store, StoreError, Written};

/// The delay before a failed notification connection is tried again. Polling continues concurrently.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// The time limit of a caller that waits for the poll's next sync: the longest poll interval plus a slow answer.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// The delay after a failed sync or a lost notification connection. It is short because the database may return at any
/// moment. Each attempt has its own time limits.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The interval at which unreadable clients and keys are read again.
const REREAD_EVERY: Duration = Duration::from_secs(10);

/// The shortest time between two syncs. Under a flood of revocations each sync reads many entries. The load on the
/// database is therefore bounded, whatever the number of notifications.
const MIN_SYNC_INTERVAL: Duration = Duration::from_millis(20);

/// A replica that must read everything again starts at a random moment within this time.
const LONGEST_RELOAD_DELAY: Duration = Duration::from_secs(1);

/// How long the log names a client whose row was repaired: longer than a reader is away with a cursor that still counts.
const REPAIR_LIFE: Duration = Duration::from_secs(3600);

/// A clock that differs from the database's clock by more than this is worth an alarm (security.md C7). The times that
/// replicas compare are already corrected for the difference.
const ALARMING_OFFSET_MILLIS: u64 = 5_000;

/// Follows the change feed for one replica.
pub struct Follower {
    store: Store,
    view: Arc<View>,
    keyring: Arc<Keyring>,
    log: Arc<Log>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    poll_interval: Duration,
    /// The feed cursor. The lock is held during a sync, so that an older read never overwrites a newer one.
    cursor: Mutex<Option<FeedCursor>>,
    /// The number of syncs that have begun.
    begun: AtomicU64,
    ended: watch::Sender<Ended>,
    /// Why the last sync failed.
    sync_error: ArcSwapOption<String>,
    unknown_clients: Mutex<UnknownClientSyncs>,
    wake: Notify,
    /// Whether no notifications arrive.
    polls_alone: AtomicBool,
    on_lag: Box<dyn Fn(Duration) + Send + Sync>,
    last_lag_millis: AtomicI64,
}

/// The last sync that ended.
#[derive(Debug, Clone, Copy, Default)]
struct Ended {
    /// The sync's number. Syncs are counted from one.
    number: u64,
    succeeded: bool,
}

/// The syncs on behalf of callers that are unknown to the view.
#[derive(Debug, Default)]
struct UnknownClientSyncs {
    /// When the last sync began.
    began_at: Option<Instant>,
    /// When the last successful sync began.
    good_since: Option<Instant>,
    /// When the last failed sync ended.
    failed_at: Option<Instant>,
}

/// Why a sync did not succeed. The view ages until a sync succeeds.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The feed or the clients could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys could not be read or opened.
    #[error(transparent)]
    Keys(#[from] KeyringError),
    /// A sync for another caller failed a moment ago, or has been running for long.
    #[error("the change feed could not be read a moment ago")]
    JustFailed,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("poll_interval", &self.poll_interval).finish_non_exhaustive()
    }
}

impl Follower {
    /// A follower that has read nothing yet. `on_lag` receives the lag of each revocation that is newly applied here:
    /// the time since a replica began to write it.
    pub fn new(
        store: Store,
        view: Arc<View>,
        keyring: Arc<Keyring>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        poll_interval: Duration,
        on_lag: Box<dyn Fn(Duration) + Send + Sync>,
    ) -> Self {
        Self {
            store,
            view,
            keyring,
            log: Arc::default(),
            clock,
            random,
            poll_interval,
            cursor: Mutex::new(None),
            begun: AtomicU64::new(0),
            ended: watch::Sender::default(),
            sync_error: ArcSwapOption::empty(),
            unknown_clients: Mutex::default(),
            wake: Notify::new(),
            polls_alone: AtomicBool::new(true),
            on_lag,
            last_lag_millis: AtomicI64::new(0),
        }
    }

    /// Reads and applies the changes, then marks the view as synced. Reads everything at the first sync, and when the
    /// feed cannot tell which entries are new. A stale view does not trigger a full read. A full read can take longer
    /// than the bound, and would then never make the view fresh.
    pub async fn sync(&self) -> Result<(), SyncError> {
        self.sync_holding(self.cursor.lock().await).await
    }

    /// The number of syncs that have begun. A sync with a higher number sees everything that was committed before this
    /// call.
    pub fn syncs_begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Returns when the view knows everything that was committed before the call. Concurrent callers share one sync.
    pub async fn catch_up(&self) -> Result<(), SyncError> {
        self.catch_up_since(self.syncs_begun()).await
    }

    /// Like [`Follower::catch_up`], for everything that was committed when [`Follower::syncs_begun`] returned `syncs`.
    pub async fn catch_up_since(&self, syncs: u64) -> Result<(), SyncError> {
        let cursor = self.cursor.lock().await;
        let Ended { number, succeeded } = *self.ended.borrow();
        if succeeded && number > syncs { Ok(()) } else { self.sync_holding(cursor).await }
    }

    /// The same, but starts no sync. It waits for the next sync of the poll, which is due within the poll interval.
    pub async fn wait_for_sync_after(&self, syncs: u64) -> Result<(), SyncError> {
        let mut ended = self.ended.subscribe();
        let waited = tokio::time::timeout(LONGEST_WAIT, ended.wait_for(|ended| ended.number > syncs)).await;
        match waited {
            Ok(Ok(ended)) if ended.succeeded => Ok(()),
            _ => Err(SyncError::JustFailed),
        }
    }

    /// The same for a client that is unknown to the view and not authenticated. At most one sync starts per [`MIN_SYNC_INTERVAL`],
    /// however many such clients call. Callers that waited share its result.
    pub async fn catch_up_for_unknown_client(&self) -> Result<(), SyncError> {
        let arrived_at = now();
        let mut unknown_clients = self.unknown_clients.lock().await;
        if unknown_clients.failed_at.is_some_and(|failed_at| failed_at > arrived_at) {
            return Err(SyncError::JustFailed);
        }
        if unknown_clients.good_since.is_some_and(|good_since| good_since > arrived_at) {
            return Ok(());
        }
        if let Some(began_at) = unknown_clients.began_at {
            tokio::time::sleep_until(began_at + MIN_SYNC_INTERVAL).await;
        }
        unknown_clients.began_at = Some(now());
        let result = self.catch_up().await;
        match &result {
            Ok(()) => unknown_clients.good_since = unknown_clients.began_at,
            Err(_) => unknown_clients.failed_at = Some(now()),
        }
        result
    }

    async fn sync_holding(&self, cursor: MutexGuard<'_, Option<FeedCursor>>) -> Result<(), SyncError> {
        // The number is taken before anything is read.
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let result = self.read_and_apply(cursor).await;
        self.sync_error.store(result.as_ref().err().map(|error| Arc::new(error.to_string())));
        self.ended.send_replace(Ended { number, succeeded: result.is_ok() });
        result
    }

    async fn read_and_apply(&self, mut cursor: MutexGuard<'_, Option<FeedCursor>>) -> Result<(), SyncError> {
        // The reads below see everything that was committed before this moment, whatever the clocks of other machines
        // say.
        let mut requested_at = self.clock.elapsed();
        let mut reading = match &*cursor {
            Some(known) => self.store.feed().read_since(known).await?,
            None => self.store.feed().head().await?,
        };
        let answered = self.clock.elapsed();
        // This precedes the changes: applying them takes time and stores times.
        if let Some(event) = self.clock.observe_database(reading.database_now, requested_at, answered) {
            log_clock(event, self.clock.offset_millis());
            // The set of expired keys was computed with the previous time.
            self.keyring.load().await?;
            self.view.bump_generation();
        }
        if reading.is_complete {
            if cursor.is_some() {
                // A failover makes every replica read everything. Their reads are spread over this time.
                tokio::time::sleep(self.reload_delay()).await;
                requested_at = self.clock.elapsed();
                reading = self.store.feed().head().await?;
            }
            reading.entries = self.load_everything().await?;
        } else {
            self.apply(&reading.entries).await?;
        }
        let mut entries = reading.entries;
        let mut rest = reading.rest;
        while let (Some(known), Some(place)) = (&*cursor, &rest) {
            let (page, further) = self.store.feed().read_on(known, place).await?;
            self.apply(&page).await?;
            entries.extend(page);
            rest = further;
        }
        self.view.mark_synced(requested_at, &*self.clock);
        self.log.publish(entries, reading.is_complete, &reading.cursor, requested_at);
        *cursor = Some(reading.cursor);
        Ok(())
    }

    /// Applies at once what this replica has just committed, and returns the answer. Revocations are in the view when
    /// this returns. Clients and keys are read again. If that fails now, the next sync repeats it.
    pub async fn apply_locally<T>(&self, written: Written<T>) -> T {
        for entry in &written.changes {
            if let Change::Revoked(revocation) = &entry.change {
                self.view.revoke(revocation, entry.expires_at);
            }
        }
        if !written.changes.is_empty() && self.polls_alone.load(Ordering::Relaxed) {
            // Readers of the feed get the entries from the next sync.
            self.wake();
        }
        if written.changes.iter().any(|entry| is_to_be_read(&entry.change)) {
            // The cursor's lock is held, so that a concurrent sync cannot restore an older state of a row.
            let _serialised = self.cursor.lock().await;
            if let Err(error) = self.reread(&written.changes).await {
                tracing::warn!(%error, "a change of this replica could not be read back; the next sync will");
                self.wake();
            }
        }
        written.value
    }

    /// The entries that this follower has applied.
    pub const fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Why the last sync failed, if it did.
    pub fn sync_error(&self) -> Option<String> {
        self.sync_error.load().as_deref().cloned()
    }

    /// Requests a sync soon.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Follows the feed until cancelled. The poll always wakes it, and so do notifications if the database has them.
    /// Both share only the wake-up: a listener that is blocked on a dead network never delays the poll.
    pub async fn run(&self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            ((), ()) = async { tokio::join!(self.poll(), self.listen()) } => {}
        }
    }

    /// Reads the unreadable clients and keys again: an operator may have repaired them.
    pub async fn reread_unreadable(&self) -> Result<(), SyncError> {
        if self.view.has_unreadable_clients() {
            // The cursor's lock is held, so that a concurrent sync cannot restore an older state of a row.
            let _serialised = self.cursor.lock().await;
            let clients = self.store.clients().all().await?;
            if clients.unreadable.len() < self.view.unreadable_clients().len() {
                let (clients, unreadable) = partition(clients);
                let is_repaired = |client: &&Client| self.view.is_unreadable_client(client.id.as_str());
                let repaired: Vec<_> = clients.iter().filter(is_repaired).map(|client| client.id.clone()).collect();
                self.view.replace_clients(clients, unreadable);
                let now = self.clock.now();
                for id in repaired {
                    self.log.add_repaired(id, now, now.plus(REPAIR_LIFE));
                }
            }
        }
        let unreadable_keys = self.keyring.keys().unreadable().len();
        if unreadable_keys > 0 {
            let _serialised = self.cursor.lock().await;
            self.keyring.load().await?;
            if self.keyring.keys().unreadable().len() < unreadable_keys {
                self.view.bump_generation();
            }
        }
        Ok(())
    }

    async fn poll(&self) {
        let (mut was_failing, mut was_alarming) = (false, false);
        let mut reread_at = now() + REREAD_EVERY;
        loop {
            if now() >= reread_at {
                reread_at = now() + REREAD_EVERY;
                if let Err(error) = self.reread_unreadable().await {
                    tracing::debug!(%error, "the unreadable rows could not be read again");
                }
            }
            match self.sync().await {
                Ok(()) if was_failing => {
                    was_failing = false;
                    tracing::info!("the change feed is followed again");
                }
                Ok(()) => {}
                Err(error) => {
                    if !std::mem::replace(&mut was_failing, true) {
                        tracing::error!(%error, "the change feed cannot be followed; answers stop when the view is too old");
                    }
                }
            }
            let offset = self.clock.offset_millis();
            let is_alarming = offset.unsigned_abs() > ALARMING_OFFSET_MILLIS;
            if is_alarming && !was_alarming {
                tracing::error!(
                    offset_millis = offset,
                    "this machine's clock differs from the database's: set it right"
                );
            }
            was_alarming = is_alarming;
            let pause = if was_failing {
                RETRY_AFTER.min(self.poll_interval)
            } else if matches!(self.view.freshness(&*self.clock), Freshness::Stale | Freshness::Empty) {
                // The read took longer than the bound, so the view is not fresh. The next sync is short. The replica
                // serves no request before it.
                Duration::ZERO
            } else {
                self.poll_interval
            };
            tokio::time::sleep(MIN_SYNC_INTERVAL).await;
            tokio::select! {
                () = tokio::time::sleep(pause.saturating_sub(MIN_SYNC_INTERVAL)) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Forwards notifications as wake-ups. The connection is made again whenever it is lost.
    async fn listen(&self) {
        loop {
            match self.store.feed().listener().await {
                Ok(Some(mut listener)) => {
                    // Notifications that were sent before the listener was ready are lost, so a sync starts now.
                    self.polls_alone.store(false, Ordering::Relaxed);
                    self.wake();
                    let error = loop {
                        match listener.next().await {
                            Ok(()) => self.wake(),
                            Err(error) => break error,
                        }
                    };
                    self.polls_alone.store(true, Ordering::Relaxed);
                    tracing::info!(%error, "the notification connection was lost; the poll goes on alone");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "no notifications; the poll goes on alone");
                    tokio::time::sleep(RECONNECT_AFTER).await;
                }
            }
        }
    }

    /// The lag of the last revocation that another replica accepted: from the start of its write until it was applied
    /// here.
    pub fn last_lag(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.last_lag_millis.load(Ordering::Relaxed)).unwrap_or(0))
    }

    fn reload_delay(&self) -> Duration {
        let fraction = f64::from(u32::from_le_bytes(self.random.bytes())) / f64::from(u32::MAX);
        LONGEST_RELOAD_DELAY.mul_f64(fraction)
    }

    /// Applies the clients and the keys first. A revocation is then never in the view without its subject.
    async fn load_everything(&self) -> Result<Vec<FeedEntry>, SyncError> {
        self.view.raise_installation_epoch(self.store.installation_epoch().await?);
        let clients = self.store.clients().all().await?;
        self.keyring.load().await?;
        let (clients, unreadable) = partition(clients);
        self.view.replace_clients(clients, unreadable);
        let mut entries = Vec::new();
        let revoke = |entry: FeedEntry| {
            if let Change::Revoked(revocation) = &entry.change {
                self.view.revoke(revocation, entry.expires_at);
            }
            entries.push(entry);
        };
        self.store.feed().each(revoke).await?;
        Ok(entries)
    }

    async fn apply(&self, entries: &[FeedEntry]) -> Result<(), SyncError> {
        for entry in entries {
            let Change::Revoked(revocation) = &entry.change else { continue };
            // This replica's own revocations are already applied, unless this sync was faster than the acknowledgement.
            if self.view.revoke(revocation, entry.expires_at) {
                let lag = self.clock.now().since(entry.created_at);
                self.last_lag_millis.store(i64::try_from(lag.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
                (self.on_lag)(lag);
            }
        }
        self.reread(entries).await
    }

    /// Reads the clients and keys again that the entries name as changed.
    async fn reread(&self, entries: &[FeedEntry]) -> Result<(), SyncError> {
        let changed_client = |entry: &FeedEntry| match &entry.change {
            Change::ClientChanged(id) => Some(id.clone()),
            _ => None,
        };
        let clients: BTreeSet<ClientId> = entries.iter().filter_map(changed_client).collect();
        // After a restore, clients and keys may also differ.
        let is_restored =
            entries.iter().any(|entry| matches!(entry.change, Change::Revoked(Revocation::Everything(_))));
        if is_restored {
            let (clients, unreadable) = partition(self.store.clients().all().await?);
            self.view.replace_clients(clients, unreadable);
        } else if !clients.is_empty() {
            let (found, unreadable) = partition(self.store.clients().by_ids(&clients).await?);
            self.view.update_clients(&clients, found, unreadable);
        }
        let is_about_keys =
            |entry: &FeedEntry| matches!(entry.change, Change::KeysChanged | Change::Revoked(Revocation::Key(_)));
        if is_restored || entries.iter().any(is_about_keys) {
            self.keyring.load().await?;
            self.view.bump_generation();
        }
        Ok(())
    }
}

/// Clients, and the problems of the rows that cannot be read.
fn partition(rows: Rows<Client, ClientId>) -> (Vec<Client>, Vec<(Option<ClientId>, String)>) {
    let unreadable = rows.unreadable.into_iter().map(|row| {
        tracing::error!(error = %row.error, "a client cannot be read");
        (row.id, row.error.to_string())
    });
    (rows.readable, unreadable.collect())
}

/// Whether a change requires reading clients or keys again.
const fn is_to_be_read(change: &Change) -> bool {
    match change {
        Change::Revoked(Revocation::Everything(_)) | Change::ClientChanged(_) | Change::KeysChanged => true,
        Change::Revoked(_) => false,
    }
}

fn log_clock(event: ClockEvent, offset_millis: i64) {
    match event {
        ClockEvent::MachineStepped(by_millis) => tracing::error!(
            by_millis,
            offset_millis,
            "this machine's clock was stepped; this replica keeps its time, which the database's clock and the stopwatch show"
        ),
        ClockEvent::DatabaseStepped(by_millis) => tracing::error!(
            by_millis,
            offset_millis,
            "the database's clock was stepped; this replica keeps its time, which its own clock and the stopwatch show"
        ),
        ClockEvent::BothStepped(by_millis) if by_millis < 0 => tracing::error!(
            by_millis,
            offset_millis,
            "this machine's clock and the database's were set back together; no token is judged until the time before is \
             reached again: restart the replica if the earlier time is right"
        ),
        ClockEvent::BothStepped(by_millis) => tracing::warn!(
            by_millis,
            offset_millis,
            "this machine's clock and the database's were set forward together; their time is taken"
        ),
        ClockEvent::Disagree(offset_millis) => tracing::error!(
            offset_millis,
            "this machine's clock and the database's disagree, and it is not known which is right; no token is judged until \
             they agree"
        ),
        ClockEvent::Agree => tracing::info!(offset_millis, "this machine's clock and the database's agree again"),
    }
}

/// The current instant of the real clock, for pauses.
#[expect(clippy::disallowed_methods, reason = "pauses between syncs run on real time, as those of the poll do")]
fn now() -> Instant {
    Instant::now()
}
