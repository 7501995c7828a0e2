//! The live entries of the change feed in memory, for the readers of `/v1/revocations`.
//!
//! The follower publishes a new [`LogState`] after each sync. Readers hold a state as long as they need it and take no lock.
//! Entries are in segments that consecutive states share, so that a slow reader of everything costs little memory.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::crypto;
use crate::domain::{Change, ClientId, Kid, Revocation, SessionId, Timestamp, UserId};
use crate::store::{FeedCursor, FeedEntry, PublicCursor};

/// The entries of a segment. Appending copies the last segment if a reader holds it.
const SEGMENT: usize = 1024;

/// An entry of the change feed, in a form that takes 56 bytes.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// Counts up in the order of application.
    pub number: u64,
    /// The position of the entry's [`Place`](crate::store::Place). It decides whether a cursor covers the entry.
    position: i64,
    /// When a replica began to write it.
    pub written_at: Timestamp,
    pub expires_at: Timestamp,
    pub change: LoggedChange,
}

/// The change of an entry.
#[derive(Debug, Clone)]
pub enum LoggedChange {
    /// Truncated SHA-256 of the `jti`.
    Token([u8; 16]),
    Session(SessionId),
    /// Tokens of the user below this epoch are revoked.
    User(UserId, u32),
    Client(Box<LoggedClient>),
    Key(Box<Kid>),
    /// Tokens below this epoch of the installation are revoked.
    Everything(u32),
    KeysChanged,
}

/// A client that changed, or whose tokens were revoked.
#[derive(Debug, Clone)]
pub struct LoggedClient {
    pub id: ClientId,
    /// Tokens below this epoch are revoked; 0 for a change without a revocation.
    pub epoch: u32,
    /// The sequence number of the entry. A later change of the same client has a higher one.
    pub version: i64,
}

impl LoggedChange {
    fn new(change: Change, version: i64) -> Self {
        let client = |id, epoch| Self::Client(Box::new(LoggedClient { id, epoch, version }));
        match change {
            Change::Revoked(Revocation::Jti(jti)) => Self::Token(crypto::id128(jti.as_str())),
            Change::Revoked(Revocation::Session(session)) => Self::Session(session),
            Change::Revoked(Revocation::User(user, epoch)) => Self::User(user, epoch),
            Change::Revoked(Revocation::Client(id, epoch)) => client(id, epoch),
            Change::Revoked(Revocation::Key(kid)) => Self::Key(Box::new(kid)),
            Change::Revoked(Revocation::Everything(epoch)) => Self::Everything(epoch),
            Change::ClientChanged(id) => client(id, 0),
            Change::KeysChanged => Self::KeysChanged,
        }
    }
}

/// The log after a sync.
#[derive(Debug, Clone, Default)]
pub struct LogState {
    segments: Vec<Arc<Vec<LogEntry>>>,
    /// The number of the next entry.
    pub next: u64,
    /// Counts the complete loads. Entries of an earlier load may be missing.
    pub loads: u64,
    /// The cursor that the entries reach; `None` before the first sync.
    pub cursor: Option<PublicCursor>,
    /// [`Clock::elapsed`](crate::clock::Clock::elapsed) when the last successful sync began.
    pub synced_at: Duration,
}

impl LogState {
    /// The entries with at least this number, in segments.
    pub fn from(&self, number: u64) -> impl Iterator<Item = &[LogEntry]> {
        self.segments.iter().filter_map(move |segment| {
            let first = segment.partition_point(|entry| entry.number < number);
            segment.get(first..).filter(|rest| !rest.is_empty())
        })
    }

    /// The segments, for a reader of everything.
    pub fn segments(&self) -> &[Arc<Vec<LogEntry>>] {
        &self.segments
    }

    /// The entries from number `first` on that a reader at `since` lacks; `None` if this replica cannot tell.
    pub fn after<'a>(&'a self, since: &'a PublicCursor, first: u64) -> Option<impl Iterator<Item = &'a LogEntry>> {
        self.cursor.as_ref().filter(|own| own.continues(since))?;
        Some(self.from(first).flatten().filter(|entry| !since.covers(entry.position)))
    }

    fn push(&mut self, entry: FeedEntry) {
        // Entries of the feed have a place; those that were just written do not come here.
        let Some(place) = entry.place else { return };
        let FeedEntry { change, created_at: written_at, expires_at, .. } = entry;
        let change = LoggedChange::new(change, place.seq);
        self.append(LogEntry { number: self.next, position: place.position, written_at, expires_at, change });
    }

    fn append(&mut self, entry: LogEntry) {
        self.next += 1;
        match self.segments.last_mut() {
            Some(last) if last.len() < SEGMENT => Arc::make_mut(last).push(entry),
            _ => self.segments.push(Arc::new(vec![entry])),
        }
    }
}

/// The log, and the notification of its readers.
#[derive(Debug, Default)]
pub struct Log {
    state: ArcSwap<LogState>,
    synced: watch::Sender<()>,
}

impl Log {
    /// The state after the last sync.
    pub fn state(&self) -> Arc<LogState> {
        self.state.load_full()
    }

    /// Notifies after each sync.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.synced.subscribe()
    }

    /// Publishes a sync that began at `synced_at` and read `entries`. `is_complete`: they are all entries.
    /// The follower is the only caller, one sync at a time.
    pub(super) fn publish(&self, entries: Vec<FeedEntry>, is_complete: bool, cursor: &FeedCursor, synced_at: Duration) {
        // A concurrent sweep may be lost; the next one repeats it.
        let mut state = LogState::clone(&self.state.load());
        if is_complete {
            state.segments.clear();
            state.loads += 1;
        }
        for entry in entries {
            state.push(entry);
        }
        state.cursor = Some(cursor.to_public());
        state.synced_at = synced_at;
        self.state.store(Arc::new(state));
        self.synced.send_replace(());
    }

    /// Adds a client whose row can be read again. No cursor covers the entry, because no transaction notes a repair.
    /// The caller holds the follower's cursor.
    pub(super) fn add_repaired(&self, id: ClientId, now: Timestamp, expires_at: Timestamp) {
        let mut state = LogState::clone(&self.state.load());
        let versions =
            state.segments.iter().flat_map(|segment| segment.iter()).filter_map(|entry| match &entry.change {
                LoggedChange::Client(client) if client.id == id => Some(client.version),
                _ => None,
            });
        let version = versions.max().unwrap_or(0);
        let change = LoggedChange::Client(Box::new(LoggedClient { id, epoch: 0, version }));
        state.append(LogEntry { number: state.next, position: i64::MAX, written_at: now, expires_at, change });
        self.state.store(Arc::new(state));
        self.synced.send_replace(());
    }

    /// Frees the entries that expired before `now`.
    pub fn sweep(&self, now: Timestamp) {
        self.state.rcu(|state| {
            let mut state = LogState::clone(state);
            for segment in &mut state.segments {
                if segment.iter().any(|entry| entry.expires_at <= now) {
                    let live = segment.iter().filter(|entry| now < entry.expires_at);
                    *segment = Arc::new(live.cloned().collect());
                }
            }
            state.segments.retain(|segment| !segment.is_empty());
            state
        });
    }
}
