//! The signing keys that a replica holds in memory, each with its phase by the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::crypto::{self, KeySource, PublicJwk, Sealer, SigningKey, VerifyingKey};
use crate::domain::{Algorithm, KeyPhase, KeySchedule, Kid, Timestamp, signer_of};
use crate::store::{Store, StoreError, StoredKey, UnreadableRow};

/// The shortest time between two database reads for unknown keys, however many tokens name such keys (security.md K4).
const RELOAD_EVERY: Duration = Duration::from_secs(2);

/// A token's issue time may be this much later than the end of its key's signing phase: the permitted clock skew of
/// replicas.
const RETIREMENT_SKEW: Duration = Duration::from_secs(5);

/// Holds the set of keys. The set is replaced as a whole and never merged (security.md K5).
pub struct Keyring {
    store: Store,
    sealer: Arc<Sealer>,
    clock: Arc<dyn Clock>,
    keys: ArcSwap<KeySet>,
    /// Held from reading the rows to replacing the set, so that an older read never overwrites a newer one.
    loading: Mutex<()>,
    /// The number of reloads for unknown keys that have begun.
    reloads: AtomicU64,
    /// The last reload for an unknown key.
    reload: Mutex<Option<LastReload>>,
    jwks_max_age: Duration,
    rotation_lead: RotationLead,
    unreadable: UnreadableKeys,
}

/// A reload for an unknown key.
#[derive(Debug, Clone, Copy)]
struct LastReload {
    /// The reload's number. Reloads are counted from one.
    number: u64,
    /// When the reload ended ([`Clock::elapsed`]).
    ended: Duration,
    succeeded: bool,
}

/// The reaction to a master key that opens none of the stored keys. If it opens some, the others are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnreadableKeys {
    /// Loading fails: the master key is the wrong one.
    Refuse,
    /// The set is empty. This is for commands that withdraw or delete such keys.
    LeaveOut,
}

/// When the next key is due, relative to the start of the current one.
#[derive(Debug, Clone, Copy)]
pub struct RotationLead {
    /// `keys.rotate_every`.
    pub rotate_every: Duration,
    /// `keys.announce_for`.
    pub announce_for: Duration,
}

/// The keys that have not expired.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    unreadable: Vec<UnreadableKey>,
    /// The JWK set of these keys, cached until the clock changes it.
    document: ArcSwapOption<JwksDocument>,
}

/// A stored key that this replica cannot use, or could not open again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableKey {
    /// The key's id, if it can be read.
    pub kid: Option<Kid>,
    /// The problem and its remedy.
    pub problem: String,
}

/// One key, opened.
#[derive(Debug)]
pub struct Key {
    /// The schedule of the key's phases.
    pub schedule: KeySchedule,
    /// The private half.
    pub signing: Arc<SigningKey>,
    verifying: VerifyingKey,
    public: PublicJwk,
}

/// The JWK set in its served form.
#[derive(Debug, Clone)]
pub struct JwksDocument {
    /// RFC 7517 §5.
    pub body: Bytes,
    /// The strong validator (ETag) of the body, quoted.
    pub etag: Bytes,
    /// No change of the set is scheduled before this instant.
    pub valid_until: Timestamp,
}

/// The result of a lookup of an unknown key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The keyring holds it now.
    Found,
    /// The database does not have it.
    Absent,
    /// The database was read a moment ago and did not have it.
    RateLimited,
    /// The database could not be read.
    Failed,
}

/// Why the keys could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The rows could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row could not be opened.
    #[error(
        "signing key {kid} cannot be opened: {reason}. If the master key was replaced, set master_key_previous to the \
         former one and run `countersign keys reseal`; if the key is lost, run `countersign keys withdraw {kid}`"
    )]
    Unreadable {
        /// The key's id.
        kid: Kid,
        /// The cause.
        reason: String,
    },
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.keys.load()).finish_non_exhaustive()
    }
}

impl Keyring {
    /// An empty keyring. [`Keyring::load`] fills it.
    pub fn new(
        store: Store,
        sealer: Arc<Sealer>,
        clock: Arc<dyn Clock>,
        jwks_max_age: Duration,
        rotation_lead: RotationLead,
    ) -> Self {
        Self {
            store,
            sealer,
            clock,
            keys: ArcSwap::default(),
            loading: Mutex::new(()),
            reloads: AtomicU64::new(0),
            reload: Mutex::new(None),
            jwks_max_age,
            rotation_lead,
            unreadable: UnreadableKeys::Refuse,
        }
    }

    /// Sets the treatment of keys that cannot be opened.
    #[must_use]
    pub fn with_unreadable(self, unreadable: UnreadableKeys) -> Self {
        Self { unreadable, ..self }
    }

    /// Reads all keys and replaces the set. A key that cannot be read or opened does not prevent the others from
    /// loading (security.md D18).
    pub async fn load(&self) -> Result<(), KeyringError> {
        let _one_at_a_time = self.loading.lock().await;
        let now = self.clock.now();
        let held = self.keys();
        let stored = self.store.keys().all().await?;
        let of_row = |row: UnreadableRow<Kid>| UnreadableKey { kid: row.id, problem: row.error.to_string() };
        let mut keys = Vec::new();
        let mut unreadable: Vec<_> = stored.unreadable.into_iter().map(of_row).collect();
        let mut refusal = None;
        for stored in stored.readable.iter().filter(|stored| stored.schedule.phase(now) != KeyPhase::Gone) {
            match open(&self.sealer, stored) {
                Ok(key) => keys.push(key),
                Err(error) => {
                    unreadable.push(UnreadableKey { kid: Some(stored.kid.clone()), problem: error.to_string() });
                    // Another replica may have sealed the keys under a master key that this replica does not have yet.
                    keys.extend(held.get(&stored.kid).and_then(|key| key.reopened(stored)));
                    refusal.get_or_insert(error);
                }
            }
        }
        if let Some(error) = refusal.filter(|_| keys.is_empty() && self.unreadable == UnreadableKeys::Refuse) {
            return Err(error);
        }
        for key in unreadable.iter().filter(|key| !held.unreadable.contains(key)) {
            tracing::error!(error = key.problem, "a signing key cannot be used");
        }
        self.keys.store(Arc::new(KeySet { keys, unreadable, document: ArcSwapOption::empty() }));
        Ok(())
    }

    /// The number of reloads for unknown keys that have begun. A reload with a higher number finds every key that was
    /// stored before this call.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Acquire)
    }

    /// Looks up a key that this replica does not hold. `reloads` is the value of [`Keyring::reloads`] when the token
    /// with the unknown key arrived.
    pub async fn reload_for(&self, kid: &Kid, reloads: u64) -> Reload {
        let mut last = self.reload.lock().await;
        if self.keys().find(kid).is_some() {
            return Reload::Found;
        }
        if let Some(LastReload { number, ended, succeeded }) = *last
            && self.clock.elapsed().saturating_sub(ended) < RELOAD_EVERY
        {
            return match succeeded {
                true if number > reloads => Reload::Absent,
                true => Reload::RateLimited,
                false => Reload::Failed,
            };
        }
        let number = self.reloads.fetch_add(1, Ordering::AcqRel) + 1;
        let loaded = self.load().await;
        if let Err(error) = &loaded {
            tracing::warn!(%error, "a token named an unknown kid, and reloading the keys failed");
        }
        // The interval counts from the reload's end. Callers that waited for a slow read must not repeat it one after
        // the other.
        *last = Some(LastReload { number, ended: self.clock.elapsed(), succeeded: loaded.is_ok() });
        match (loaded, self.keys().find(kid)) {
            (Err(_), _) => Reload::Failed,
            (Ok(()), Some(_)) => Reload::Found,
            (Ok(()), None) => Reload::Absent,
        }
    }

    /// The current keys.
    pub fn keys(&self) -> arc_swap::Guard<Arc<KeySet>> {
        self.keys.load()
    }

    /// The JWK set at `now` and its cache lifetime. The lifetime is at most `keys.jwks_max_age` and never extends past
    /// the next known change of keys.
    pub fn jwks(&self, now: Timestamp) -> (Arc<JwksDocument>, Duration) {
        let keys = self.keys();
        let document = match keys.document.load_full() {
            Some(document) if now < document.valid_until => document,
            _ => {
                let document = Arc::new(keys.document(now, self.rotation_lead));
                keys.document.store(Some(Arc::clone(&document)));
                document
            }
        };
        let max_age = document.valid_until.since(now).min(self.jwks_max_age);
        (document, max_age)
    }
}

impl KeySource for KeySet {
    fn find(&self, kid: &Kid) -> Option<&VerifyingKey> {
        self.get(kid).map(|key| &key.verifying)
    }
}

impl Key {
    /// The same key, with the current schedule of its row.
    fn reopened(&self, stored: &StoredKey) -> Option<Self> {
        let is_same = self.signing.algorithm() == stored.algorithm && self.public.is_described_by(&stored.public_jwk);
        is_same.then(|| Self {
            schedule: stored.schedule,
            signing: Arc::clone(&self.signing),
            verifying: self.verifying.clone(),
            public: self.public.clone(),
        })
    }
}

impl KeySet {
    /// Stored keys that this replica cannot use, or could not open again.
    pub fn unreadable(&self) -> &[UnreadableKey] {
        &self.unreadable
    }

    /// Whether a key with this id is stored but unusable here. Its tokens cannot be judged.
    pub fn is_unreadable(&self, kid: &Kid) -> bool {
        self.get(kid).is_none() && self.unreadable.iter().any(|key| key.kid.as_ref() == Some(kid))
    }

    /// The key with this id.
    pub fn get(&self, kid: &Kid) -> Option<&Key> {
        self.keys.iter().find(|key| key.signing.kid() == kid)
    }

    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// The key that signs with `algorithm` at `now`.
    pub fn signer(&self, algorithm: Algorithm, now: Timestamp) -> Option<&Key> {
        signer_of(self.keys.iter().filter(|key| key.signing.algorithm() == algorithm), |key| key.schedule, now)
    }

    /// Whether a token that `kid` signed at `issued_at` is still accepted at `now` (security.md K5, K10).
    pub fn admits(&self, kid: &Kid, issued_at: Timestamp, now: Timestamp) -> bool {
        self.get(kid).is_some_and(|key| {
            let signed_in_time = key.schedule.retires_at.is_none_or(|at| issued_at <= at.plus(RETIREMENT_SKEW));
            key.schedule.phase(now) != KeyPhase::Gone && signed_in_time
        })
    }

    fn document(&self, now: Timestamp, lead: RotationLead) -> JwksDocument {
        let published = || self.keys.iter().filter(|key| key.schedule.phase(now) != KeyPhase::Gone);
        let keys: Vec<_> = published().map(|key| key.public.clone()).collect();
        let body = crypto::jwks_json(&keys);
        let etag = format!("\"{}\"", hex(&crypto::sha256(body.as_bytes())[..16]));
        let valid_until = published()
            .flat_map(|key| {
                let successor = key
                    .schedule
                    .retires_at
                    .is_none()
                    .then(|| key.schedule.signs_from.plus(lead.rotate_every).minus(lead.announce_for));
                [key.schedule.next_change(now), successor]
            })
            .flatten()
            .filter(|at| *at > now)
            .min()
            .unwrap_or_else(|| now.plus(lead.rotate_every));
        JwksDocument { body: body.into(), etag: etag.into(), valid_until }
    }
}

/// Opens a stored key. The kid and the algorithm are bound to the sealed bytes (security.md K6). The published key is
/// derived from the private half. The stored public half must equal it, so that the table never shows a wrong public
/// key.
fn open(sealer: &Sealer, stored: &StoredKey) -> Result<Key, KeyringError> {
    let unreadable = |reason: String| KeyringError::Unreadable { kid: stored.kid.clone(), reason };
    let opened = sealer
        .open(&stored.sealed, &seal_context(&stored.kid, stored.algorithm))
        .map_err(|error| unreadable(error.to_string()))?;
    let signing =
        SigningKey::from_pkcs8(stored.algorithm, &opened.plaintext).map_err(|error| unreadable(error.to_string()))?;
    if signing.kid() != &stored.kid {
        return Err(unreadable("its kid is not the thumbprint of the key".to_owned()));
    }
    let public = signing.public();
    if !public.is_described_by(&stored.public_jwk) {
        return Err(unreadable("public_jwk is not its public half".to_owned()));
    }
    Ok(Key {
        schedule: stored.schedule,
        verifying: signing.verifying_key().clone(),
        public,
        signing: Arc::new(signing),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The additional data to which a sealed private key is bound.
pub fn seal_context(kid: &Kid, algorithm: Algorithm) -> Vec<u8> {
    format!("signing-key:{kid}:{algorithm}").into_bytes()
}
