//! Signing keys: the initial key, automatic rotation, import, withdrawal, and resealing under a new master key.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::{ImportError, Sealer, SigningKey, import_private_key};
use crate::domain::{Algorithm, KeyPhase, KeySchedule, Kid, Timestamp, signer_of};
use crate::replica::Replica;
use crate::replica::keyring::{Key, KeyringError, seal_context};
use crate::service::{Failure, REVOCATION_LIFE, Requester, Settings, apply_if_found};
use crate::store::{AfterWithdrawal, NewKey, StoreError, StoredKey};

/// How long a key stays published after the last token that it signed has expired.
const KEEP_BEYOND_LAST_TOKEN: Duration = Duration::from_secs(60 * 60);

/// Maximum lifetime of an access token.
const LONGEST_ACCESS_TTL: Duration = Duration::from_secs(60 * 60);

/// How often a withdrawal is tried again because another replica changed the keys concurrently.
const WITHDRAWAL_ATTEMPTS: u32 = 3;

/// The resolution of stored times.
const RESOLUTION: Duration = Duration::from_millis(1);

/// Some verifiers drop keys of a larger JWK set.
const MOST_PUBLISHED_KEYS: usize = 5;

/// A key for administrators.
#[derive(Debug, Clone)]
pub struct KeyInfo {
    pub kid: Kid,
    pub algorithm: Algorithm,
    pub schedule: KeySchedule,
    pub phase: KeyPhase,
}

/// Why a key was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddKeyError {
    /// The file contains no usable key.
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error("this key has been imported before")]
    Duplicate,
    #[error("another replica created a key concurrently; see `countersign keys list`")]
    Overtaken,
    /// [`MOST_PUBLISHED_KEYS`] are published.
    #[error(
        "five keys are published already, more than some verifiers keep: withdraw one, or wait until one has retired"
    )]
    TooMany,
    #[error("keys for {0} cannot be generated; import one: `countersign keys import --algorithm {0} FILE`")]
    NotGenerated(Algorithm),
    /// The key could not be stored.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Keys that are due but could not be created. Keys of other algorithms are not affected, and signing keys keep signing.
#[derive(Debug, thiserror::Error)]
#[error("{}", summary(.0))]
pub struct MaintenanceError(Vec<(Algorithm, AddKeyError)>);

impl MaintenanceError {
    /// Whether a later attempt may succeed.
    pub fn is_outage(&self) -> bool {
        self.0.iter().all(|(_, error)| matches!(error, AddKeyError::Failed(failure) if failure.is_outage()))
    }
}

fn summary(failures: &[(Algorithm, AddKeyError)]) -> String {
    let each = failures.iter().map(|(algorithm, error)| format!("no new key of {algorithm}: {error}"));
    each.collect::<Vec<_>>().join("; ")
}

impl From<KeyringError> for Failure {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::Store(error) => error.into(),
            error @ KeyringError::Unreadable { .. } => Self::Internal(Box::new(error)),
        }
    }
}

/// Makes, rotates and withdraws signing keys.
pub struct Keys {
    pub(crate) replica: Replica,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) settings: Settings,
}

impl Keys {
    /// Creates the keys that are due: the initial key of each algorithm in use, and successors. All replicas may run this
    /// concurrently; exactly one succeeds in each step (security.md K8). After a failure, the current key keeps signing, and
    /// other algorithms still get their keys. While the time is unknown, no key is created: it would sign too early or late.
    pub async fn maintain_keys(&self) -> Result<(), MaintenanceError> {
        if !self.replica.view.has_time(&*self.replica.clock) {
            return Ok(());
        }
        let now = self.replica.clock.now();
        let mut algorithms = vec![self.settings.algorithm];
        algorithms.extend(self.replica.view.clients().iter().filter_map(|client| client.settings.algorithm));
        algorithms.sort_unstable();
        algorithms.dedup();
        let mut failures = Vec::new();
        for algorithm in algorithms.into_iter().filter(|algorithm| algorithm.is_generated()) {
            let is_due = self.newest_key(algorithm, now).is_none_or(|(_, schedule)| self.is_due(&schedule, now));
            if !is_due {
                continue;
            }
            match self.make_key(algorithm, &Requester::background()).await {
                Ok(kid) => tracing::info!(%kid, %algorithm, "a new signing key was made"),
                Err(AddKeyError::Overtaken) => {}
                Err(error) => failures.push((algorithm, error)),
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(MaintenanceError(failures)) }
    }

    /// Announces a new key of `algorithm` now; it signs after `keys.announce_for`.
    pub async fn rotate_key(&self, algorithm: Algorithm, from: &Requester) -> Result<Kid, AddKeyError> {
        if !algorithm.is_generated() {
            return Err(AddKeyError::NotGenerated(algorithm));
        }
        self.make_key(algorithm, from).await
    }

    /// Adds a private key from a PEM file. It is announced like a generated one; the first of its algorithm signs at once.
    pub async fn import_key(
        &self,
        pem: &str,
        algorithm: Option<Algorithm>,
        from: &Requester,
    ) -> Result<Kid, AddKeyError> {
        let key = import_private_key(pem, algorithm)?;
        self.add_key(key, from).await
    }

    /// Withdraws a compromised key: it leaves the JWK set, and its tokens become inactive, here at once and everywhere within
    /// the revocation bound. Returns whether the key exists. The master key need not be able to open it.
    ///
    /// - A signing key is replaced at once by an announced key or a new one. Verifiers may not have fetched that key yet,
    ///   which is better than signing with a stolen key.
    /// - For an announced key, the previous key keeps signing until a later one may.
    /// - For a retiring key, nothing else changes.
    pub async fn withdraw_key(&self, kid: &Kid, from: &Requester) -> Result<bool, Failure> {
        let mut attempts = 1..=WITHDRAWAL_ATTEMPTS;
        loop {
            let now = self.replica.clock.now();
            let then = self.successor_of_withdrawn(kid, &self.replica.store.keys().all().await?.readable, now)?;
            let event = from.event("key.withdrawn").about(kid);
            let withdrawn =
                self.replica.store.keys().withdraw(kid, then, now.plus(REVOCATION_LIFE), now, Some(event)).await;
            match withdrawn {
                // Another replica changed the keys concurrently, so the successor must be chosen again.
                Err(StoreError::Conflict { .. }) if attempts.next().is_some() => {}
                withdrawn => return apply_if_found(&self.replica.follower, withdrawn).await,
            }
        }
    }

    /// The key that signs after `kid` is withdrawn.
    fn successor_of_withdrawn(
        &self,
        kid: &Kid,
        stored: &[StoredKey],
        now: Timestamp,
    ) -> Result<AfterWithdrawal, Failure> {
        let published = || stored.iter().filter(|key| key.schedule.phase(now) != KeyPhase::Gone);
        let Some(withdrawn) = published().find(|key| key.kid == *kid) else {
            return Ok(AfterWithdrawal::Nothing);
        };
        let algorithm = withdrawn.algorithm;
        let of_algorithm = || published().filter(|key| key.algorithm == algorithm);
        let others = || of_algorithm().filter(|key| key.kid != *kid);
        let in_phase = |phase| others().filter(move |key| key.schedule.phase(now) == phase);
        if signer_of(of_algorithm(), |key| key.schedule, now).is_some_and(|signer| signer.kid != *kid) {
            // The signing key is not withdrawn, so no other key signs before verifiers have had time to fetch it.
            let was_to_retire = |key: &&StoredKey| key.schedule.retires_at == Some(withdrawn.schedule.signs_from);
            let before = others().filter(|key| key.schedule.retires_at.is_some_and(|at| now < at)).find(was_to_retire);
            return Ok(before.map_or(AfterWithdrawal::Nothing, |key| AfterWithdrawal::Reinstate(key.kid.clone())));
        }
        // If this process cannot open the withdrawn key, it may have the wrong master key. No replica could then open a
        // key that it creates. It creates none, and the replicas create the next key.
        let is_ours = || self.sealer.open(&withdrawn.sealed, &seal_context(kid, algorithm)).is_ok();
        // Of several keys, the one that has been published longest.
        match in_phase(KeyPhase::Announced).min_by_key(|key| key.schedule.signs_from) {
            Some(announced) => Ok(AfterWithdrawal::Promote(announced.kid.clone())),
            None if algorithm.is_generated() && is_ours() => {
                let key = SigningKey::generate(algorithm, &*self.replica.random).map_err(Failure::internal)?;
                Ok(AfterWithdrawal::Insert(self.seal(&key, now, now)?))
            }
            None => Ok(AfterWithdrawal::Nothing),
        }
    }

    /// All published keys.
    pub fn key_infos(&self) -> Vec<KeyInfo> {
        let now = self.replica.clock.now();
        let keys = self.replica.keyring.keys();
        let info = |key: &Key| KeyInfo {
            kid: key.signing.kid().clone(),
            algorithm: key.signing.algorithm(),
            schedule: key.schedule,
            phase: key.schedule.phase(now),
        };
        keys.iter().map(info).filter(|key| key.phase != KeyPhase::Gone).collect()
    }

    /// All stored keys that are published, including those that the master key does not open.
    pub async fn stored_key_infos(&self) -> Result<Vec<KeyInfo>, Failure> {
        let now = self.replica.clock.now();
        let info = |key: StoredKey| KeyInfo {
            phase: key.schedule.phase(now),
            kid: key.kid,
            algorithm: key.algorithm,
            schedule: key.schedule,
        };
        let keys = self.replica.store.keys().all().await?;
        Ok(keys.readable.into_iter().map(info).filter(|key| key.phase != KeyPhase::Gone).collect())
    }

    /// Reseals every key that is sealed under the previous master key, and returns their number.
    pub async fn reseal_keys(&self) -> Result<usize, Failure> {
        let mut resealed = 0;
        for stored in self.replica.store.keys().all().await?.readable {
            let context = seal_context(&stored.kid, stored.algorithm);
            let opened = self.sealer.open(&stored.sealed, &context).map_err(|error| {
                Failure::from(KeyringError::Unreadable { kid: stored.kid.clone(), reason: error.to_string() })
            })?;
            if opened.under_previous {
                let sealed =
                    self.sealer.seal(&opened.plaintext, &context, &*self.replica.random).map_err(Failure::internal)?;
                resealed += usize::from(self.replica.store.keys().reseal(&stored.kid, &stored.sealed, &sealed).await?);
            }
        }
        Ok(resealed)
    }

    /// The key of `algorithm` without a successor.
    fn newest_key(&self, algorithm: Algorithm, now: Timestamp) -> Option<(Kid, KeySchedule)> {
        let keys = self.replica.keyring.keys();
        let is_newest = |key: &&Key| {
            let usable = matches!(key.schedule.phase(now), KeyPhase::Announced | KeyPhase::Signing);
            key.signing.algorithm() == algorithm && key.schedule.retires_at.is_none() && usable
        };
        keys.iter().find(is_newest).map(|key| (key.signing.kid().clone(), key.schedule))
    }

    /// Whether a successor must be announced now, to sign when the key has signed for `keys.rotate_every`.
    fn is_due(&self, newest: &KeySchedule, now: Timestamp) -> bool {
        now >= newest.signs_from.plus(self.settings.rotate_every).minus(self.settings.announce_for)
    }

    async fn make_key(&self, algorithm: Algorithm, from: &Requester) -> Result<Kid, AddKeyError> {
        let key = SigningKey::generate(algorithm, &*self.replica.random).map_err(Failure::internal)?;
        self.add_key(key, from).await
    }

    /// Stores a key. The first of its algorithm signs at once. A later one signs after `keys.announce_for`, when the previous
    /// one retires.
    async fn add_key(&self, key: SigningKey, from: &Requester) -> Result<Kid, AddKeyError> {
        let now = self.replica.clock.now();
        if self.key_infos().len() >= MOST_PUBLISHED_KEYS {
            return Err(AddKeyError::TooMany);
        }
        let kid = key.kid().clone();
        let event = from.event("key.added").about(&kid);
        let added = match self.newest_key(key.algorithm(), now) {
            None => self.replica.store.keys().insert_first(self.seal(&key, now, now)?, now, Some(event)).await,
            Some((current, schedule)) => {
                // Strictly increasing, so that the schedules define the order of the keys.
                let signs_from = now.plus(self.settings.announce_for).max(schedule.signs_from.plus(RESOLUTION));
                let gone_at = signs_from.plus(LONGEST_ACCESS_TTL).plus(KEEP_BEYOND_LAST_TOKEN);
                let new = self.seal(&key, now, signs_from)?;
                self.replica.store.keys().rotate(&current, signs_from, gone_at, new, now, Some(event)).await
            }
        };
        let added = added.map_err(|error| match error {
            StoreError::Conflict { .. } => AddKeyError::Duplicate,
            error => Failure::from(error).into(),
        })?;
        if self.replica.follower.apply_locally(added).await {
            return Ok(kid);
        }
        // Another replica created the key first.
        self.replica.follower.sync().await.map_err(|error| AddKeyError::Failed(Failure::internal(error)))?;
        Err(AddKeyError::Overtaken)
    }

    fn seal(&self, key: &SigningKey, announced_at: Timestamp, signs_from: Timestamp) -> Result<NewKey, Failure> {
        let context = seal_context(key.kid(), key.algorithm());
        let sealed = self.sealer.seal(key.pkcs8(), &context, &*self.replica.random).map_err(Failure::internal)?;
        let public_jwk = serde_json::to_string(&key.public()).map_err(Failure::internal)?;
        Ok(NewKey { kid: key.kid().clone(), algorithm: key.algorithm(), sealed, public_jwk, announced_at, signs_from })
    }
}
