//! A replica's in-memory copy of the live entries of the change feed, with the time of its last sync.
//!
//! Reads take no lock. Live revocations are never evicted, even if memory is short (design.md §5). The maps grow with
//! each revocation and shrink when it expires. Expiry is checked on read; sweeping only frees memory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use crate::clock::{Clock, ClockFault};
use crate::domain::{
    Audience, Client, ClientId, Jti, Kid, Revocation, RevocationKind, Session, SessionId, Timestamp, UserId,
};

/// Maximum accepted change of the offset between the time and the monotonic clock since the last sync. A larger change
/// means that the process was suspended between the two readings, and makes the view stale.
const TOLERATED_STEP_MILLIS: i64 = 1_000;

/// The properties of a token that a revocation check needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMarks {
    /// Truncated SHA-256 of the `jti`.
    pub jti: [u8; 16],
    /// The session, for tokens of a login.
    pub session: Option<SessionId>,
    /// The user and the epoch in the token, for tokens of a login.
    pub user: Option<(UserId, u32)>,
    /// The client to which the token was issued, and the epoch in the token.
    pub client: (ClientId, u32),
    /// The installation's epoch in the token.
    pub installation: u32,
    /// The key that signed it.
    pub kid: Kid,
}

/// Whether the view may be used to judge tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// The last sync is at most the bound old.
    Fresh,
    /// The last sync is older than the bound, or the clock was stepped since.
    Stale,
    /// The time is unknown: the clocks disagree.
    TimeUnknown(ClockFault),
    /// The view was never loaded.
    Empty,
}

/// The live revocations, the clients, and the freshness of both.
pub struct View {
    tokens: Revoked<[u8; 16]>,
    sessions: Revoked<[u8; 16]>,
    users: Floors<[u8; 16]>,
    client_floors: Floors<ClientId>,
    keys: Revoked<Kid>,
    /// Tokens and sessions below this epoch of the installation are revoked.
    installation: AtomicU32,
    clients: ArcSwap<Known>,
    own_audiences: Vec<Audience>,
    /// Changes with every applied change. A judgement made under the current generation remains valid.
    generation: AtomicU64,
    loaded: AtomicBool,
    /// [`Clock::elapsed`] when the last successful sync began, in milliseconds.
    synced_at: AtomicU64,
    /// The time minus the monotonic clock when the sync ended.
    wall_origin: AtomicI64,
    max_lag: Duration,
}

/// Every client of the installation by id. Clients are few, so each replica holds them all.
pub type Clients = HashMap<ClientId, Arc<Client>>;

/// The clients and the audiences derived from them.
#[derive(Debug, Default)]
struct Known {
    clients: Clients,
    /// Clients whose rows cannot be read, with the problem.
    unreadable: Vec<(Option<ClientId>, String)>,
    audiences: HashSet<Audience>,
}

impl Known {
    fn new(clients: Clients, unreadable: Vec<(Option<ClientId>, String)>, own_audiences: &[Audience]) -> Self {
        let theirs = clients.values().flat_map(|client| &client.settings.audiences);
        let audiences = theirs.chain(own_audiences).cloned().collect();
        Self { clients, unreadable, audiences }
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl View {
    /// An empty view, unusable until it is loaded and synced. `max_lag` is `revocation.max_lag`. `own_audiences` are
    /// known whatever the clients are.
    pub fn new(max_lag: Duration, own_audiences: Vec<Audience>) -> Self {
        Self {
            tokens: Revoked::default(),
            sessions: Revoked::default(),
            users: Floors::default(),
            client_floors: Floors::default(),
            keys: Revoked::default(),
            installation: AtomicU32::new(0),
            clients: ArcSwap::default(),
            own_audiences,
            generation: AtomicU64::new(1),
            loaded: AtomicBool::new(false),
            synced_at: AtomicU64::new(0),
            wall_origin: AtomicI64::new(0),
            max_lag,
        }
    }

    /// Whether the view may judge tokens now. The monotonic clock counts suspension, so a resumed process detects that
    /// its view is stale before its first answer (security.md C11).
    pub fn freshness(&self, clock: &dyn Clock) -> Freshness {
        let now = clock.now();
        self.freshness_at(clock, now, clock.elapsed())
    }

    /// The same for a given time, and a reading of the monotonic clock that was taken after it. If the process was
    /// suspended between the two readings, the view is stale.
    pub fn freshness_at(&self, clock: &dyn Clock, now: Timestamp, elapsed: Duration) -> Freshness {
        if !self.is_loaded() {
            return Freshness::Empty;
        }
        let age = elapsed.saturating_sub(Duration::from_millis(self.synced_at.load(Ordering::Acquire)));
        let stepped = wall_origin(now, elapsed).saturating_sub(self.wall_origin.load(Ordering::Acquire));
        if age > self.max_lag || stepped.abs() > TOLERATED_STEP_MILLIS {
            return Freshness::Stale;
        }
        match clock.fault(elapsed) {
            None => Freshness::Fresh,
            Some(ClockFault::Stepped) => Freshness::Stale,
            Some(reason) => Freshness::TimeUnknown(reason),
        }
    }

    /// Whether the view has been loaded once.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Whether the time is known: the machine's clock and the database's do not disagree.
    pub fn has_time(&self, clock: &dyn Clock) -> bool {
        !matches!(self.freshness(clock), Freshness::TimeUnknown(_))
    }

    /// Time since the last successful sync began: an upper bound of the view's age.
    pub fn age(&self, clock: &dyn Clock) -> Duration {
        clock.elapsed().saturating_sub(Duration::from_millis(self.synced_at.load(Ordering::Acquire)))
    }

    /// Records that everything committed before `requested_at` ([`Clock::elapsed`]) has been applied.
    pub fn mark_synced(&self, requested_at: Duration, clock: &dyn Clock) {
        self.wall_origin.store(wall_origin(clock.now(), clock.elapsed()), Ordering::Release);
        let millis = u64::try_from(requested_at.as_millis()).unwrap_or(u64::MAX);
        self.synced_at.fetch_max(millis, Ordering::AcqRel);
        self.loaded.store(true, Ordering::Release);
    }

    /// The generation under which a judgement may be cached. It must be read before judging (security.md C6).
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Adds a revocation that is live until `expires_at`. Adding it twice is harmless. An older revocation never
    /// shortens or lowers a newer one (security.md I4). Returns whether the view changed.
    pub fn revoke(&self, revocation: &Revocation, expires_at: Timestamp) -> bool {
        let is_new = match revocation {
            Revocation::Jti(jti) => self.tokens.add(crate::crypto::id128(jti.as_str()), expires_at),
            Revocation::Session(session) => self.sessions.add(*session.as_bytes(), expires_at),
            Revocation::User(user, epoch) => self.users.raise(*user.as_bytes(), *epoch, expires_at),
            Revocation::Client(client, epoch) => self.client_floors.raise(client.clone(), *epoch, expires_at),
            Revocation::Key(kid) => self.keys.add(kid.clone(), expires_at),
            Revocation::Everything(epoch) => self.installation.fetch_max(*epoch, Ordering::AcqRel) < *epoch,
        };
        self.bump_generation();
        is_new
    }

    /// The revocation, if any, that makes a token with these marks inactive at `now`.
    pub fn revoked(&self, marks: &TokenMarks, now: Timestamp) -> Option<RevocationKind> {
        if marks.installation < self.installation_epoch() {
            return Some(RevocationKind::Everything);
        }
        if self.tokens.contains(&marks.jti, now) {
            return Some(RevocationKind::Jti);
        }
        if marks.session.is_some_and(|session| self.sessions.contains(session.as_bytes(), now)) {
            return Some(RevocationKind::Session);
        }
        if marks.user.is_some_and(|(user, epoch)| self.users.is_below(user.as_bytes(), epoch, now)) {
            return Some(RevocationKind::User);
        }
        if self.client_floors.is_below(&marks.client.0, marks.client.1, now) {
            return Some(RevocationKind::Client);
        }
        self.keys.contains(&marks.kid, now).then_some(RevocationKind::Key)
    }

    /// Whether a session that was read as live has been ended since, or its user or client revoked.
    pub fn has_ended(&self, session: &Session, now: Timestamp) -> bool {
        self.sessions.contains(session.id.as_bytes(), now)
            || self.users.is_below(session.user.as_bytes(), session.user_epoch, now)
            || self.client_floors.is_below(&session.client, session.client_epoch, now)
            || session.installation_epoch < self.installation_epoch()
    }

    /// The installation's epoch, as written into new tokens and sessions.
    pub fn installation_epoch(&self) -> u32 {
        self.installation.load(Ordering::Acquire)
    }

    /// Raises the installation's epoch to a value of the database.
    pub fn raise_installation_epoch(&self, epoch: u32) {
        if self.installation.fetch_max(epoch, Ordering::AcqRel) < epoch {
            self.bump_generation();
        }
    }

    /// Whether this session is known to be revoked. An ended session never becomes live again, so the answer does not
    /// depend on freshness.
    pub fn has_ended_session(&self, session: SessionId, now: Timestamp) -> bool {
        self.sessions.contains(session.as_bytes(), now)
    }

    /// Whether this single token is known to be revoked.
    pub fn has_revoked_token(&self, jti: &Jti, now: Timestamp) -> bool {
        self.tokens.contains(&crate::crypto::id128(jti.as_str()), now)
    }

    /// The client with this id, including disabled clients.
    pub fn client(&self, id: &str) -> Option<Arc<Client>> {
        self.clients.load().clients.get(id).cloned()
    }

    /// All clients, in no particular order.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.clients.load().clients.values().cloned().collect()
    }

    /// Whether any resource server of this name exists (security.md T7).
    pub fn knows(&self, audience: &Audience) -> bool {
        self.clients.load().audiences.contains(audience)
    }

    /// Whether this client's row cannot be read. Decisions that depend on it are impossible (security.md D18).
    pub fn is_unreadable_client(&self, id: &str) -> bool {
        self.clients.load().unreadable.iter().any(|(known, _)| known.as_ref().is_some_and(|known| known.as_str() == id))
    }

    /// The problem of each client row that cannot be read.
    pub fn unreadable_clients(&self) -> Vec<String> {
        self.clients.load().unreadable.iter().map(|(_, problem)| problem.clone()).collect()
    }

    /// Whether an unknown audience may belong to a client whose row cannot be read.
    pub fn has_unreadable_clients(&self) -> bool {
        !self.clients.load().unreadable.is_empty()
    }

    /// Replaces the set of clients. It is never merged, so that a deleted client disappears. `unreadable` holds the
    /// clients whose rows cannot be read, with the problem.
    pub fn replace_clients(
        &self,
        clients: impl IntoIterator<Item = Client>,
        unreadable: Vec<(Option<ClientId>, String)>,
    ) {
        let clients = clients.into_iter().map(|client| (client.id.clone(), Arc::new(client))).collect();
        self.clients.store(Arc::new(Known::new(clients, unreadable, &self.own_audiences)));
        self.bump_generation();
    }

    /// Replaces the clients in `found`, and removes the others of `ids`. `new_unreadable` names the rows of these that
    /// cannot be read. The set changes in one step, whatever their number.
    pub fn update_clients(
        &self,
        ids: &BTreeSet<ClientId>,
        found: Vec<Client>,
        new_unreadable: Vec<(Option<ClientId>, String)>,
    ) {
        let found: Vec<_> = found.into_iter().map(Arc::new).collect();
        self.clients.rcu(|known| {
            let (mut clients, mut unreadable) = (known.clients.clone(), known.unreadable.clone());
            clients.retain(|id, _| !ids.contains(id));
            clients.extend(found.iter().map(|client| (client.id.clone(), Arc::clone(client))));
            unreadable.retain(|(id, _)| id.as_ref().is_none_or(|id| !ids.contains(id)));
            unreadable.extend(new_unreadable.iter().cloned());
            Known::new(clients, unreadable, &self.own_audiences)
        });
        self.bump_generation();
    }

    /// Invalidates every cached judgement, for example because the keys changed.
    pub fn bump_generation(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Frees the entries that expired before `now`.
    pub fn sweep(&self, now: Timestamp) {
        self.tokens.sweep(now);
        self.sessions.sweep(now);
        self.users.sweep(now);
        self.client_floors.sweep(now);
        self.keys.sweep(now);
    }

    /// The number of revocations of a kind in memory, including expired ones that are not swept yet.
    pub fn count(&self, kind: RevocationKind) -> usize {
        match kind {
            RevocationKind::Jti => self.tokens.0.len(),
            RevocationKind::Session => self.sessions.0.len(),
            RevocationKind::User => self.users.0.len(),
            RevocationKind::Client => self.client_floors.0.len(),
            RevocationKind::Key => self.keys.0.len(),
            RevocationKind::Everything => usize::from(self.installation_epoch() > 0),
        }
    }
}

/// The time minus the monotonic clock.
fn wall_origin(now: Timestamp, elapsed: Duration) -> i64 {
    let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
    now.millis().saturating_sub(elapsed)
}

/// Revoked subjects, with the expiry of each record.
struct Revoked<K>(papaya::HashMap<K, Timestamp, RandomState>);

impl<K> Default for Revoked<K> {
    fn default() -> Self {
        Self(papaya::HashMap::with_hasher(RandomState::default()))
    }
}

impl<K: Hash + Eq + Clone> Revoked<K> {
    fn add(&self, key: K, expires_at: Timestamp) -> bool {
        let held = self.0.pin();
        let is_new = held.get(&key).is_none_or(|held| *held < expires_at);
        held.update_or_insert(key, |held| (*held).max(expires_at), expires_at);
        is_new
    }

    fn contains(&self, key: &K, now: Timestamp) -> bool {
        !self.0.is_empty() && self.0.pin().get(key).is_some_and(|expires_at| now < *expires_at)
    }

    fn sweep(&self, now: Timestamp) {
        self.0.pin().retain(|_, expires_at| now < *expires_at);
    }
}

/// Subjects whose tokens below an epoch are revoked.
struct Floors<K>(papaya::HashMap<K, (u32, Timestamp), RandomState>);

impl<K> Default for Floors<K> {
    fn default() -> Self {
        Self(papaya::HashMap::with_hasher(RandomState::default()))
    }
}

impl<K: Hash + Eq + Clone> Floors<K> {
    fn raise(&self, key: K, epoch: u32, expires_at: Timestamp) -> bool {
        let raise = |held: &(u32, Timestamp)| (held.0.max(epoch), held.1.max(expires_at));
        let held = self.0.pin();
        let is_new = held.get(&key).is_none_or(|held| held.0 < epoch || held.1 < expires_at);
        held.update_or_insert(key, raise, (epoch, expires_at));
        is_new
    }

    fn is_below(&self, key: &K, epoch: u32, now: Timestamp) -> bool {
        !self.0.is_empty()
            && self.0.pin().get(key).is_some_and(|(floor, expires_at)| epoch < *floor && now < *expires_at)
    }

    fn sweep(&self, now: Timestamp) {
        self.0.pin().retain(|_, (_, expires_at)| now < *expires_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::domain::Jti;

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    fn marks() -> TokenMarks {
        TokenMarks {
            jti: crate::crypto::id128("one"),
            session: Some(SessionId::from_bytes([1; 16])),
            user: Some((UserId::from_bytes([2; 16]), 3)),
            client: (ClientId::parse("web").unwrap(), 4),
            installation: 6,
            kid: Kid::parse("key").unwrap(),
        }
    }

    fn view() -> View {
        View::new(Duration::from_secs(3), Vec::new())
    }

    #[test]
    fn i4_each_level_of_revocation_alone_makes_a_token_inactive() {
        let later = NOW.plus(Duration::from_secs(60));
        let revocations = [
            Revocation::Jti(Jti::parse("one").unwrap()),
            Revocation::Session(SessionId::from_bytes([1; 16])),
            Revocation::User(UserId::from_bytes([2; 16]), 4),
            Revocation::Client(ClientId::parse("web").unwrap(), 5),
            Revocation::Key(Kid::parse("key").unwrap()),
        ];
        for revocation in revocations {
            let view = view();
            assert_eq!(view.revoked(&marks(), NOW), None);
            view.revoke(&revocation, later);
            assert_eq!(view.revoked(&marks(), NOW), Some(revocation.kind()));
            assert_eq!(view.revoked(&marks(), later), None, "a record ends with the tokens that it concerns");
        }
    }

    #[test]
    fn i13_a_token_of_the_current_epoch_stays_active() {
        let view = view();
        view.revoke(&Revocation::User(UserId::from_bytes([2; 16]), 3), NOW.plus(Duration::from_secs(60)));
        assert_eq!(view.revoked(&marks(), NOW), None);
    }

    #[test]
    fn i4_an_older_revocation_never_lowers_or_shortens_a_newer_one() {
        let view = view();
        let user = UserId::from_bytes([2; 16]);
        view.revoke(&Revocation::User(user, 9), NOW.plus(Duration::from_secs(60)));
        view.revoke(&Revocation::User(user, 1), NOW.plus(Duration::from_secs(1)));
        assert_eq!(view.revoked(&marks(), NOW.plus(Duration::from_secs(59))), Some(RevocationKind::User));
    }

    #[test]
    fn sweeping_keeps_live_entries() {
        let view = view();
        view.revoke(&Revocation::Jti(Jti::parse("one").unwrap()), NOW.plus(Duration::from_secs(60)));
        view.revoke(&Revocation::Jti(Jti::parse("two").unwrap()), NOW);
        view.sweep(NOW);
        assert_eq!(view.count(RevocationKind::Jti), 1);
        assert_eq!(view.revoked(&marks(), NOW), Some(RevocationKind::Jti));
    }

    #[test]
    fn c2_a_view_is_empty_then_fresh_then_stale() {
        let (view, clock) = (view(), ManualClock::starting_at(NOW));
        assert_eq!(view.freshness(&clock), Freshness::Empty);
        view.mark_synced(clock.elapsed(), &clock);
        clock.advance(Duration::from_secs(3));
        assert_eq!(view.freshness(&clock), Freshness::Fresh);
        clock.advance(Duration::from_millis(1));
        assert_eq!(view.freshness(&clock), Freshness::Stale);
        view.mark_synced(clock.elapsed(), &clock);
        assert_eq!(view.freshness(&clock), Freshness::Fresh);
    }

    #[test]
    fn a_stepped_wall_clock_makes_the_view_stale_until_the_next_sync() {
        for step in [-3_600_000, 3_600_000] {
            let (view, clock) = (view(), ManualClock::starting_at(NOW));
            view.mark_synced(clock.elapsed(), &clock);
            clock.step(step);
            assert_eq!(view.freshness(&clock), Freshness::Stale);
            view.mark_synced(clock.elapsed(), &clock);
            assert_eq!(view.freshness(&clock), Freshness::Fresh);
        }
    }

    #[test]
    fn c6_the_generation_moves_with_every_change() {
        let view = view();
        let before = view.generation();
        view.revoke(&Revocation::Jti(Jti::parse("one").unwrap()), NOW);
        view.replace_clients([], Vec::new());
        assert_eq!(view.generation(), before + 2);
    }
}
