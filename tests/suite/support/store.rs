//! Users, clients and sessions for tests of the store.

use std::time::Duration;

use countersign::domain::{
    Audience, Client, ClientId, ClientKind, ClientSettings, EndReason, FeedRight, Grant, Grants, IntrospectRight, Role,
    ScopeSet, SecretDigest, SessionId, Timestamp, User, UserId, Username,
};
use countersign::store::{
    AuditEvent, EndOutcome, EndRequest, NewClient, NewSession, NewUser, Owner, RotateOutcome, RotateRequest, Store,
    StoreError, Written,
};

use super::database::START;

pub const IDLE: Duration = Duration::from_secs(14 * 86_400);
pub const ABSOLUTE: Duration = Duration::from_secs(90 * 86_400);
pub const WINDOW: Duration = Duration::from_secs(10);
/// The time for which tests keep revocations.
pub const REMEMBERED: Duration = Duration::from_secs(3720);

/// `seconds` after the start.
pub fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

pub fn client_id(name: &str) -> ClientId {
    ClientId::parse(name).unwrap()
}

pub fn username(name: &str) -> Username {
    Username::parse(name).unwrap()
}

pub fn session_id(number: u8) -> SessionId {
    SessionId::from_bytes([number; 16])
}

pub fn new_user(number: u8, name: &str) -> NewUser {
    NewUser {
        id: UserId::from_bytes([number; 16]),
        username: username(name),
        password_hash: format!("hash-{number}"),
        roles: vec![Role::parse("reader").unwrap()],
        disabled: false,
        created_at: None,
    }
}

pub fn settings() -> ClientSettings {
    ClientSettings {
        kind: ClientKind::Confidential,
        display_name: "An application".to_owned(),
        grants: Grants::new([Grant::PasswordLogin, Grant::RefreshToken]),
        audiences: vec![Audience::parse("https://api.example").unwrap()],
        scopes: ScopeSet::parse("read write").unwrap(),
        introspect: IntrospectRight::Own,
        access_ttl: Some(Duration::from_secs(60)),
        algorithm: None,
        token_type: None,
        jwks: None,
        feed: FeedRight::None,
    }
}

pub async fn add_user(store: &Store, number: u8, name: &str) -> User {
    store.users().create(new_user(number, name), START, None).await.unwrap()
}

pub async fn add_client(store: &Store, name: &str) -> Client {
    let new =
        NewClient { id: client_id(name), settings: settings(), secret: Some(SecretDigest([1; 32])), disabled: false };
    store.clients().create(new, START, None).await.unwrap().value
}

/// A session of `user` on `client`, with their current epochs.
pub fn new_session(number: u8, user: &User, client: &Client, now: Timestamp) -> NewSession {
    NewSession {
        id: session_id(number),
        user: user.id,
        user_epoch: user.epoch,
        client: client.id.clone(),
        client_epoch: client.epoch,
        installation_epoch: 0,
        family_digest: [number; 32],
        methods: vec!["pwd".to_owned()],
        scope: ScopeSet::parse("read").unwrap(),
        audience: vec![Audience::parse("https://api.example").unwrap()],
        idle_expires_at: now.plus(IDLE),
        absolute_expires_at: now.plus(ABSOLUTE),
        max_per_user: 100,
        revocation_expires_at: now.plus(REMEMBERED),
        settled: Vec::new(),
        audit: AuditEvent { event: "login.succeeded", ..AuditEvent::default() },
        displaced_audit: AuditEvent { event: "session.displaced", ..AuditEvent::default() },
        caller: tokio_util::sync::CancellationToken::new(),
    }
}

/// Ada on the application `app`, with session 1.
pub async fn ada_logged_in(store: &Store) -> (User, Client) {
    let (user, client) = (add_user(store, 1, "ada").await, add_client(store, "app").await);
    let opened = store.sessions().open(new_session(1, &user, &client, START), START).await.unwrap();
    assert!(opened.value.is_some());
    (user, client)
}

/// The token of `generation` of the session `number`, presented by `app`.
pub fn presented(number: u8, generation: u32) -> RotateRequest {
    RotateRequest {
        session: session_id(number),
        generation,
        family_digest: [number; 32],
        client: client_id("app"),
        idle_ttl: IDLE,
        retry_window: WINDOW,
        revocation_expires_at: START.plus(REMEMBERED),
        reuse_audit: AuditEvent { event: "session.reused", ..AuditEvent::default() },
        audiences: None,
    }
}

pub async fn rotate(store: &Store, number: u8, generation: u32, now: Timestamp) -> RotateOutcome {
    store.sessions().rotate(presented(number, generation), now).await.unwrap().value
}

pub async fn end(store: &Store, number: u8, owner: Owner, now: Timestamp) -> Written<EndOutcome> {
    let request = EndRequest {
        session: session_id(number),
        owner,
        reason: EndReason::LoggedOut,
        revocation_expires_at: now.plus(REMEMBERED),
        audit: Some(AuditEvent { event: "session.ended", ..AuditEvent::default() }),
    };
    store.sessions().end(request, now).await.unwrap()
}

/// The number of `event` records in the audit trail.
pub async fn count_of(store: &Store, event: &str) -> usize {
    let filter = countersign::store::AuditFilter { event: Some(event.to_owned()), ..Default::default() };
    store.audit().step(&filter, None, 1000).await.unwrap().records.len()
}

/// A random generator with a fixed seed, so that every run is the same.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound` (SplitMix64).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// The answer of a write that must succeed; tests of the store keep no view to which its changes could be applied.
pub fn done<T>(written: Result<Written<T>, StoreError>) -> T {
    written.unwrap().value
}
