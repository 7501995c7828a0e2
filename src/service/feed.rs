//! The revocation feed for verifiers and edges: what has been revoked, and how old that knowledge is.
//!
//! A reader may not compare clocks with the service. Each answer therefore says how long before or after the arrival of
//! the request the view was last synced (`covered`), and the reader adds that to its own monotonic clock (docs/api.md).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::domain::{Client, ClientId, FeedRight, Kid, SessionId, Timestamp, UserId};
use crate::replica::Replica;
use crate::replica::log::{LogEntry, LogState, LoggedChange, LoggedClient};
use crate::service::{Caller, Judge, Unavailable};
use crate::store::PublicCursor;

/// Clients of a full answer that are rendered at once.
const CLIENTS: usize = 1024;

/// Serves the revocation feed.
pub struct Feed {
    pub(crate) replica: Replica,
    pub(crate) judge: Arc<Judge>,
    /// `feed.max_readers` permits.
    pub(crate) readers: Arc<Semaphore>,
    /// `feed.max_readers`.
    pub(crate) max_readers: usize,
    /// Whether the replica drains.
    pub(crate) stopping: Arc<AtomicBool>,
}

/// Why a reader gets no feed.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The client lacks the right: its setting `feed` is `none`.
    #[error("the client may not read the revocation feed")]
    NotAllowed,
    /// `feed.max_readers` is reached.
    #[error("too many readers of the revocation feed")]
    TooManyReaders,
    /// The view was never loaded.
    #[error("{0}")]
    Unavailable(Unavailable),
}

/// A reader's permission, and the instant at which its request arrived.
pub struct Reader {
    client: ClientId,
    right: FeedRight,
    arrived_at: Duration,
    synced: watch::Receiver<()>,
    /// The load and the next entry of the log, when a diff query found nothing.
    searched: Option<(u64, u64)>,
    _permit: OwnedSemaphorePermit,
}

/// One item of the feed.
#[derive(Debug, Clone)]
pub enum FeedItem {
    /// Truncated SHA-256 of the `jti`.
    Token([u8; 16], Timestamp),
    Session(SessionId, Timestamp),
    /// Tokens of the user below this epoch.
    Subject(UserId, u32, Timestamp),
    Client(ClientItem),
    Key(Kid, Timestamp),
    /// Tokens below this epoch of the installation.
    All(u32, Timestamp),
    /// The JWKS changed.
    Keys,
    /// The data that authenticates a caller, only for edges, and the version of the client.
    Caller(Arc<Client>, i64),
}

/// The state of a client.
#[derive(Debug, Clone)]
pub struct ClientItem {
    pub id: ClientId,
    /// Tokens below this epoch are inactive.
    pub epoch: u32,
    pub state: ClientState,
    /// Of two items of one client the higher version is newer.
    pub version: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientState {
    Active,
    Disabled,
    Deleted,
    /// The row cannot be read (security.md D18): a reader gives no verdict on its tokens.
    Unknown,
}

impl ClientState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Deleted => "deleted",
            Self::Unknown => "unknown",
        }
    }
}

/// A part of the feed's answer to a reader.
pub enum Part {
    /// Everything follows; the reader forgets what it had when it ends.
    FullBegins,
    Items {
        items: Vec<FeedItem>,
        /// The start of the write of the newest entry, if the entries were new when they were sent.
        written_at: Option<Timestamp>,
    },
    FullEnds,
    /// The reader has everything that was committed up to `covered`.
    Fresh(Fresh),
}

/// The proof of freshness that follows the items.
#[derive(Debug, Clone)]
pub struct Fresh {
    pub cursor: PublicCursor,
    /// The start of the last sync minus the arrival of the request, in milliseconds.
    pub covered_millis: i64,
}

impl Feed {
    /// Admits a reader whose request arrived now.
    pub fn admit(&self, caller: &Caller) -> Result<Reader, FeedError> {
        let arrived_at = self.replica.clock.elapsed();
        let right = caller.client.settings.feed;
        if !caller.authenticated || right == FeedRight::None {
            return Err(FeedError::NotAllowed);
        }
        if !self.replica.view.is_loaded() {
            return Err(FeedError::Unavailable(self.judge.unavailable().unwrap_or(Unavailable::Loading)));
        }
        let permit = Arc::clone(&self.readers).try_acquire_owned().map_err(|_| FeedError::TooManyReaders)?;
        let synced = self.replica.follower.log().subscribe();
        Ok(Reader { client: caller.client.id.clone(), right, arrived_at, synced, searched: None, _permit: permit })
    }

    /// Number of requests that read the feed now.
    pub fn readers(&self) -> usize {
        self.max_readers.saturating_sub(self.readers.available_permits())
    }

    /// The items that a reader at `since` lacks; `None` if this replica cannot tell.
    pub fn diff(&self, reader: &mut Reader, since: &PublicCursor) -> Option<(Vec<FeedItem>, Fresh)> {
        reader.synced.mark_unchanged();
        let state = self.replica.follower.log().state();
        // A repeated search looks at the entries that were added since.
        let first = reader.searched.filter(|(loads, _)| *loads == state.loads).map_or(0, |(_, next)| next);
        reader.searched = Some((state.loads, state.next));
        let items = state.after(since, first)?.flat_map(|entry| self.items(entry, reader.right)).collect();
        Some((items, fresh(&state, reader)?))
    }

    /// Waits for the next sync, for at most `patience` and not much longer than the reader may wait.
    pub async fn wait(&self, reader: &mut Reader, patience: Duration) {
        let _ = tokio::time::timeout(patience.min(HEARTBEAT), reader.synced.changed()).await;
    }

    /// Whether the client may still read the feed, and the replica does not drain.
    pub fn may_wait(&self, reader: &Reader) -> bool {
        let client = self.replica.view.client(reader.client.as_str());
        let may_read = client.is_some_and(|client| !client.disabled && client.settings.feed >= reader.right);
        may_read && !self.stopping.load(Ordering::Relaxed)
    }

    /// Begins to read everything; `None` before the first sync.
    pub fn full(&self, reader: &Reader) -> Option<FullRead> {
        let state = self.replica.follower.log().state();
        let fresh = fresh(&state, reader)?;
        let mut logged: HashMap<ClientId, LoggedClient> = HashMap::new();
        for entry in state.segments().iter().flat_map(|segment| segment.iter()) {
            if let LoggedChange::Client(client) = &entry.change {
                let known = logged.entry(client.id.clone()).or_insert_with(|| LoggedClient::clone(client));
                known.version = known.version.max(client.version);
                known.epoch = known.epoch.max(client.epoch);
            }
        }
        for client in self.replica.view.clients() {
            let unchanged = || LoggedClient { id: client.id.clone(), epoch: 0, version: 0 };
            logged.entry(client.id.clone()).or_insert_with(unchanged);
        }
        Some(FullRead { state, fresh, segment: 0, clients: logged.into_values().collect() })
    }

    /// The next items of a full read; `None` at its end.
    pub fn next_of_full(&self, full: &mut FullRead, reader: &Reader) -> Option<Vec<FeedItem>> {
        if let Some(segment) = full.state.segments().get(full.segment) {
            full.segment += 1;
            // Each client follows once, as the view has it.
            let is_sent =
                |entry: &&LogEntry| !matches!(entry.change, LoggedChange::Client(_) | LoggedChange::KeysChanged);
            return Some(segment.iter().filter(is_sent).flat_map(|entry| self.items(entry, reader.right)).collect());
        }
        if full.clients.is_empty() {
            return None;
        }
        let rest = full.clients.split_off(full.clients.len().saturating_sub(CLIENTS));
        Some(rest.iter().flat_map(|client| self.client(client, reader.right)).collect())
    }

    /// Follows the feed after a full read, or from a cursor that this replica can continue.
    pub fn follow(&self, reader: Reader, since: Option<&PublicCursor>) -> Following {
        let state = self.replica.follower.log().state();
        let ends_at = reader.arrived_at + self.lifetime();
        let phase = match since.map(|since| state.after(since, 0).map(|entries| entries.cloned().collect::<Vec<_>>())) {
            Some(Some(missed)) => Phase::Missed(missed),
            _ => Phase::Begin,
        };
        Following { reader, phase, next: state.next, loads: state.loads, proven: None, ends_at }
    }

    /// The next parts of a stream; `None` when it ends.
    pub async fn next(&self, stream: &mut Following) -> Option<Vec<Part>> {
        let mut is_due = false;
        loop {
            if !self.may_continue(stream) {
                return None;
            }
            match std::mem::replace(&mut stream.phase, Phase::Live) {
                Phase::Begin => {
                    stream.phase = Phase::Full(self.full(&stream.reader)?);
                    return Some(vec![Part::FullBegins]);
                }
                Phase::Full(mut full) => match self.next_of_full(&mut full, &stream.reader) {
                    Some(items) => {
                        stream.phase = Phase::Full(full);
                        return Some(vec![Part::Items { items, written_at: None }]);
                    }
                    None => {
                        (stream.next, stream.loads) = (full.state.next, full.state.loads);
                        stream.proven = Some(full.state.synced_at);
                        return Some(vec![Part::FullEnds, Part::Fresh(full.fresh)]);
                    }
                },
                Phase::Missed(entries) => {
                    let items = entries.iter().flat_map(|entry| self.items(entry, stream.reader.right)).collect();
                    return Some(vec![Part::Items { items, written_at: None }]);
                }
                Phase::Live => {}
            }
            stream.reader.synced.mark_unchanged();
            let state = self.replica.follower.log().state();
            if state.loads != stream.loads {
                stream.phase = Phase::Begin;
                continue;
            }
            let first = state.from(stream.next).next();
            let is_late = stream.proven.is_none_or(|proven| state.synced_at >= proven + PROOF_EVERY);
            if first.is_some() || is_late || is_due {
                let entries = first.unwrap_or_default();
                let items: Vec<_> = entries.iter().flat_map(|entry| self.items(entry, stream.reader.right)).collect();
                // Entries that were swept before they were sent have expired.
                stream.next = entries.last().map_or(state.next, |entry| entry.number + 1);
                let mut parts = Vec::with_capacity(2);
                if !items.is_empty() {
                    let written_at = entries.last().map(|entry| entry.written_at);
                    parts.push(Part::Items { items, written_at });
                }
                // The proof covers every entry of the state, so it follows the last of them.
                if stream.next >= state.next {
                    stream.proven = Some(state.synced_at);
                    parts.extend(fresh(&state, &stream.reader).map(Part::Fresh));
                }
                if !parts.is_empty() {
                    return Some(parts);
                }
            }
            is_due = tokio::time::timeout(HEARTBEAT, stream.reader.synced.changed()).await.is_err();
        }
    }

    /// Whether the stream's client may still read it, its time is not over, and the replica does not drain.
    fn may_continue(&self, stream: &Following) -> bool {
        self.may_wait(&stream.reader) && self.replica.clock.elapsed() < stream.ends_at
    }

    /// The delay of an entry: from the start of its write until now.
    pub fn delay_of(&self, written_at: Timestamp) -> Duration {
        self.replica.clock.now().since(written_at)
    }

    /// The lifetime of a stream, five minutes give or take one. Streams that began together do not end together.
    fn lifetime(&self) -> Duration {
        let fraction = f64::from(u32::from_le_bytes(self.replica.random.bytes())) / f64::from(u32::MAX);
        SHORTEST_STREAM + (LONGEST_STREAM - SHORTEST_STREAM).mul_f64(fraction)
    }

    fn items(&self, entry: &LogEntry, right: FeedRight) -> Vec<FeedItem> {
        let expires_at = entry.expires_at;
        match &entry.change {
            LoggedChange::Token(id) => vec![FeedItem::Token(*id, expires_at)],
            LoggedChange::Session(session) => vec![FeedItem::Session(*session, expires_at)],
            LoggedChange::User(user, epoch) => vec![FeedItem::Subject(*user, *epoch, expires_at)],
            LoggedChange::Client(client) => self.client(client, right),
            LoggedChange::Key(kid) => vec![FeedItem::Key(Kid::clone(kid), expires_at)],
            LoggedChange::Everything(epoch) => vec![FeedItem::All(*epoch, expires_at)],
            LoggedChange::KeysChanged => vec![FeedItem::Keys],
        }
    }

    /// The client as the view has it now.
    fn client(&self, logged: &LoggedClient, right: FeedRight) -> Vec<FeedItem> {
        let LoggedClient { id, epoch, version } = logged;
        match self.replica.view.client(id.as_str()) {
            Some(client) => of_client(&client, client.epoch.max(*epoch), *version, right),
            None => {
                let is_unreadable = self.replica.view.is_unreadable_client(id.as_str());
                let state = if is_unreadable { ClientState::Unknown } else { ClientState::Deleted };
                vec![FeedItem::Client(ClientItem { id: id.clone(), epoch: *epoch, state, version: *version })]
            }
        }
    }
}

/// The shortest interval between two proofs of freshness without items.
const PROOF_EVERY: Duration = Duration::from_millis(250);
/// The longest interval between two events of a stream.
const HEARTBEAT: Duration = Duration::from_millis(500);
const SHORTEST_STREAM: Duration = Duration::from_secs(4 * 60);
const LONGEST_STREAM: Duration = Duration::from_secs(6 * 60);

/// A full read in progress.
pub struct FullRead {
    state: Arc<LogState>,
    /// Holds for the whole answer.
    pub fresh: Fresh,
    segment: usize,
    /// The clients of the view and of the log that are still to be sent.
    clients: Vec<LoggedClient>,
}

/// A stream in progress.
pub struct Following {
    reader: Reader,
    phase: Phase,
    /// The number of the next log entry.
    next: u64,
    loads: u64,
    /// The start of the sync that the last proof covers.
    proven: Option<Duration>,
    ends_at: Duration,
}

enum Phase {
    Begin,
    Full(FullRead),
    /// Entries since the reader's cursor.
    Missed(Vec<LogEntry>),
    Live,
}

fn of_client(client: &Arc<Client>, epoch: u32, version: i64, right: FeedRight) -> Vec<FeedItem> {
    let state = if client.disabled { ClientState::Disabled } else { ClientState::Active };
    let mut items = vec![FeedItem::Client(ClientItem { id: client.id.clone(), epoch, state, version })];
    if right == FeedRight::Edge {
        items.push(FeedItem::Caller(Arc::clone(client), version));
    }
    items
}

fn fresh(state: &LogState, reader: &Reader) -> Option<Fresh> {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    // The arrival is rounded up, so that the reader never believes its knowledge to be newer than it is.
    let covered_millis = millis(state.synced_at) - millis(reader.arrived_at) - 1;
    Some(Fresh { cursor: state.cursor.clone()?, covered_millis })
}
