//! Keeps the view, the clients and the keys of a replica in step with the change feed (design.md §5).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::{Change, ClientId, Revocation, Timestamp};
use crate::keyring::{Keyring, KeyringError};
use crate::store::{ChangeListener, FeedCursor, FeedEntry, FeedPage, FeedRead, Store, StoreError};
use crate::view::{Freshness, View};

/// How long to wait before a lost notification connection is made again. Polling goes on meanwhile.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// Follows the change feed for one replica.
pub struct Follower {
    store: Store,
    view: Arc<View>,
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    poll_interval: Duration,
    /// Where the feed was read up to; held while a sync runs, so that an older read never overwrites a newer one.
    cursor: Mutex<Option<FeedCursor>>,
    wake: Notify,
    on_lag: Box<dyn Fn(Duration) + Send + Sync>,
    last_lag_millis: AtomicI64,
}

/// Why a sync did not succeed. The view ages until one does.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The feed or the clients could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys could not be read or opened.
    #[error(transparent)]
    Keys(#[from] KeyringError),
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("poll_interval", &self.poll_interval).finish_non_exhaustive()
    }
}

impl Follower {
    /// A follower that has read nothing yet. `on_lag` is told, per applied change, the time from commit to applied.
    pub fn new(
        store: Store,
        view: Arc<View>,
        keyring: Arc<Keyring>,
        clock: Arc<dyn Clock>,
        poll_interval: Duration,
        on_lag: Box<dyn Fn(Duration) + Send + Sync>,
    ) -> Self {
        Self {
            store,
            view,
            keyring,
            clock,
            poll_interval,
            cursor: Mutex::new(None),
            wake: Notify::new(),
            on_lag,
            last_lag_millis: AtomicI64::new(0),
        }
    }

    /// Reads what has changed and applies it, then records the proof. Reads everything anew when nothing was read yet,
    /// when the view went stale, or when the feed says that it has a gap.
    pub async fn sync(&self) -> Result<(), SyncError> {
        let mut cursor = self.cursor.lock().await;
        // What was committed before this moment is in what is read below, whatever the clocks of other machines say.
        let asked = self.clock.elapsed();
        let known = cursor.as_ref().filter(|_| self.view.freshness(&*self.clock) == Freshness::Fresh);
        let news = match known {
            Some(known) => match self.store.feed_since(known).await? {
                FeedRead::Page(page) => Some(page),
                FeedRead::Gap => None,
            },
            None => None,
        };
        let page = match news {
            Some(page) => {
                self.apply_news(&page).await?;
                page
            }
            None => self.load_everything().await?,
        };
        self.clock.observe_database(page.database_now, asked, self.clock.elapsed());
        *cursor = Some(page.cursor);
        self.view.prove(asked, &*self.clock);
        Ok(())
    }

    /// Applies a revocation that this replica has just committed, so that it is honoured here at once.
    pub fn apply(&self, revocation: &Revocation, expires_at: Timestamp) {
        self.view.revoke(revocation, expires_at);
    }

    /// Reads one client again: after this replica changed it, and when the feed says that another did.
    pub async fn refresh_client(&self, id: &ClientId) -> Result<(), StoreError> {
        // Under the cursor's lock, so that a sync that read the row before cannot put its older state back after.
        let _serialised = self.cursor.lock().await;
        self.view.replace_client(id, self.store.client(id).await?);
        Ok(())
    }

    /// Reads the keys again, after this replica changed them.
    pub async fn refresh_keys(&self) -> Result<(), KeyringError> {
        let _serialised = self.cursor.lock().await;
        self.keyring.load().await?;
        self.view.moved();
        Ok(())
    }

    /// Asks for a sync soon.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Follows until cancelled: woken by notifications where the database has them, and by the poll in any case.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut listener: Option<ChangeListener> = None;
        let mut reconnect_at = Duration::ZERO;
        let mut was_failing = false;
        loop {
            if listener.is_none() && self.clock.elapsed() >= reconnect_at {
                listener = self.store.listen().await.unwrap_or_else(|error| {
                    tracing::debug!(%error, "no notifications; the poll goes on alone");
                    None
                });
                reconnect_at = self.clock.elapsed() + RECONNECT_AFTER;
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
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.poll_interval) => {}
                () = self.wake.notified() => {}
                notified = next(&mut listener) => {
                    if let Err(error) = notified {
                        tracing::info!(%error, "the notification connection was lost; the poll goes on alone");
                        listener = None;
                    }
                }
            }
        }
    }

    /// Commit-to-applied time of the last change that another replica made.
    pub fn last_lag(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.last_lag_millis.load(Ordering::Relaxed)).unwrap_or(0))
    }

    async fn load_everything(&self) -> Result<FeedPage, SyncError> {
        // The feed first: what changes after it was read is news for the next sync.
        let page = self.store.feed_load().await?;
        let clients = self.store.clients().await?;
        self.keyring.load().await?;
        self.view.replace_clients(clients);
        for entry in &page.entries {
            if let Change::Revoked(revocation) = &entry.change {
                self.view.revoke(revocation, entry.expires_at);
            }
        }
        Ok(page)
    }

    async fn apply_news(&self, page: &FeedPage) -> Result<(), SyncError> {
        let mut changed_clients: Vec<&ClientId> = Vec::new();
        let mut keys_changed = false;
        for FeedEntry { change, created_at, expires_at } in &page.entries {
            match change {
                Change::Revoked(revocation) => {
                    keys_changed |= matches!(revocation, Revocation::Key(_));
                    self.view.revoke(revocation, *expires_at);
                }
                Change::ClientChanged(id) => changed_clients.push(id),
                Change::KeysChanged => keys_changed = true,
            }
            let lag = self.clock.now().since(*created_at);
            self.last_lag_millis.store(i64::try_from(lag.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
            (self.on_lag)(lag);
        }
        changed_clients.sort_unstable();
        changed_clients.dedup();
        for id in changed_clients {
            self.view.replace_client(id, self.store.client(id).await?);
        }
        if keys_changed {
            self.keyring.load().await?;
            self.view.moved();
        }
        Ok(())
    }
}

/// The next notification; never, where there is no listener.
async fn next(listener: &mut Option<ChangeListener>) -> Result<(), StoreError> {
    match listener {
        Some(listener) => listener.next().await,
        None => std::future::pending().await,
    }
}
