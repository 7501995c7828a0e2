//! The life of signing keys: the first one, automatic rotation, import, withdrawal, and re-sealing under a new master key.

use std::time::Duration;

use crate::crypto::{self, ImportError, SigningKey};
use crate::domain::{Algorithm, KeyPhase, KeySchedule, Kid, Revocation, Timestamp};
use crate::keyring::{KeyringError, seal_context};
use crate::store::StoredKey;

use super::{Failure, REVOCATION_LIFE, Requester, Service};

/// A retired key stays published for the longest life of a token that it signed, and this much longer.
const KEEP_BEYOND_LAST_TOKEN: Duration = Duration::from_secs(60 * 60);

/// The longest life of any access token (contract.md §7).
const LONGEST_ACCESS_TTL: Duration = Duration::from_secs(60 * 60);

/// A JWK set of more than this makes some verifiers drop keys (contract.md §3).
const MOST_PUBLISHED_KEYS: usize = 5;

/// A key as administrators see it.
#[derive(Debug, Clone)]
pub struct KeyInfo {
    /// Its id.
    pub kid: Kid,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its appointments.
    pub schedule: KeySchedule,
    /// Where it stands now.
    pub phase: KeyPhase,
}

/// Why a key was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddKeyError {
    /// The file does not hold a key that can be used.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Exactly this key is there already.
    #[error("this key has been imported before")]
    Duplicate,
    /// Five keys are published.
    #[error("five keys are published already, more than some verifiers keep: withdraw one, or wait until one has retired")]
    TooMany,
    /// The service makes no keys of this algorithm.
    #[error("keys of {0} are not made here, import one: `countersign keys import --algorithm {0} FILE`")]
    NotGenerated(Algorithm),
    /// It could not be stored.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl From<KeyringError> for Failure {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::Store(error) => error.into(),
            error @ KeyringError::Unreadable { .. } => Self::Internal(Box::new(error)),
        }
    }
}

impl Service {
    /// Sees to it that the default algorithm has a key, and makes the next one when its time has come. Any replica may
    /// do it at any time; exactly one wins each step (security.md K8). A failure leaves the present key signing.
    pub async fn maintain_keys(&self) -> Result<(), AddKeyError> {
        let now = self.clock.now();
        let mut algorithms = vec![self.settings.algorithm];
        algorithms.extend(self.view.clients().iter().filter_map(|client| client.settings.algorithm));
        algorithms.sort_unstable();
        algorithms.dedup();
        for algorithm in algorithms {
            let newest = self.newest_key(algorithm, now);
            match newest {
                None if algorithm.is_generated() => self.make_first_key(algorithm).await?,
                Some(newest) if algorithm.is_generated() && self.is_due(&newest, now) => {
                    self.make_successor(algorithm, &Requester::background()).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Announces a new key of `algorithm` now; it signs after `keys.announce_for`.
    pub async fn rotate_key(&self, algorithm: Algorithm, from: &Requester) -> Result<Kid, AddKeyError> {
        if !algorithm.is_generated() {
            return Err(AddKeyError::NotGenerated(algorithm));
        }
        self.make_successor(algorithm, from).await
    }

    /// Adds a private key from a PEM file. It is announced like any other; the first of its algorithm signs when asked.
    pub async fn import_key(&self, pem: &str, algorithm: Option<Algorithm>, from: &Requester) -> Result<Kid, AddKeyError> {
        let key = crypto::import_pem(pem, algorithm)?;
        self.add_key(key, from).await
    }

    /// Withdraws a key as compromised: gone from the JWK set and its tokens inactive, here at once and everywhere within
    /// the bound. If it was the one that signs, a new key is made that signs at once: its tokens may meet verifiers that
    /// have not fetched it yet, which is better than signing with a stolen key. True when there is such a key.
    pub async fn withdraw_key(&self, kid: &Kid, from: &Requester) -> Result<bool, Failure> {
        let now = self.clock.now();
        let expires_at = now.plus(REVOCATION_LIFE);
        let Some(algorithm) = self.store.withdraw_key(kid, from, now, expires_at).await? else {
            return Ok(false);
        };
        self.follower.apply(&Revocation::Key(kid.clone()), expires_at);
        self.follower.refresh_keys().await?;
        if algorithm.is_generated() && self.keyring.keys().signer(algorithm, now).is_none() {
            self.make_first_key(algorithm).await.map_err(|error| match error {
                AddKeyError::Failed(failure) => failure,
                other => Failure::internal(other),
            })?;
        }
        Ok(true)
    }

    /// Every key that is not gone, with its state.
    pub fn key_infos(&self) -> Vec<KeyInfo> {
        let now = self.clock.now();
        let keys = self.keyring.keys();
        let info = |key: &crate::keyring::Key| KeyInfo {
            kid: key.signing.kid().clone(),
            algorithm: key.signing.algorithm(),
            schedule: key.schedule,
            phase: key.schedule.phase(now),
        };
        keys.iter().map(info).filter(|key| key.phase != KeyPhase::Gone).collect()
    }

    /// Seals every key that is still sealed under the previous master key anew. Returns how many were.
    pub async fn reseal_keys(&self) -> Result<usize, Failure> {
        let mut resealed = 0;
        for stored in self.store.keys().await? {
            let context = seal_context(&stored.kid, stored.algorithm);
            let opened = self.sealer.open(&stored.sealed, &context).map_err(|error| {
                Failure::from(KeyringError::Unreadable { kid: stored.kid.clone(), reason: error.to_string() })
            })?;
            if opened.under_previous {
                let sealed = self.sealer.seal(&opened.plaintext, &context, &*self.random).map_err(Failure::internal)?;
                resealed += usize::from(self.store.reseal_key(&stored.kid, &stored.sealed, &sealed).await?);
            }
        }
        Ok(resealed)
    }

    fn newest_key(&self, algorithm: Algorithm, now: Timestamp) -> Option<KeySchedule> {
        let keys = self.keyring.keys();
        let usable = |key: &&crate::keyring::Key| {
            key.signing.algorithm() == algorithm
                && matches!(key.schedule.phase(now), KeyPhase::Announced | KeyPhase::Signing)
        };
        keys.iter().filter(usable).map(|key| key.schedule).max_by_key(|schedule| schedule.signs_from)
    }

    /// A successor is announced early enough to sign when the present key has signed for `keys.rotate_every`.
    fn is_due(&self, newest: &KeySchedule, now: Timestamp) -> bool {
        now >= newest.signs_from.plus(self.settings.rotate_every).minus(self.settings.announce_for)
    }

    async fn make_first_key(&self, algorithm: Algorithm) -> Result<(), AddKeyError> {
        let key = SigningKey::generate(algorithm, &*self.random).map_err(Failure::internal)?;
        let now = self.clock.now();
        let stored = self.seal(&key, KeySchedule::signing_from(now, now))?;
        self.store.insert_first_key(stored, now).await.map_err(Failure::from)?;
        self.follower.refresh_keys().await.map_err(Failure::from)?;
        Ok(())
    }

    async fn make_successor(&self, algorithm: Algorithm, from: &Requester) -> Result<Kid, AddKeyError> {
        let key = SigningKey::generate(algorithm, &*self.random).map_err(Failure::internal)?;
        self.add_key(key, from).await
    }

    /// Stores a key that signs from `announce_for` on, and lets the ones before it retire then.
    async fn add_key(&self, key: SigningKey, from: &Requester) -> Result<Kid, AddKeyError> {
        let now = self.clock.now();
        if self.key_infos().len() >= MOST_PUBLISHED_KEYS {
            return Err(AddKeyError::TooMany);
        }
        let newest = self.newest_key(key.algorithm(), now);
        let signs_from = now.plus(self.settings.announce_for);
        let stored = self.seal(&key, KeySchedule::signing_from(now, signs_from))?;
        let gone_at = signs_from.plus(LONGEST_ACCESS_TTL).plus(KEEP_BEYOND_LAST_TOKEN);
        let expected = newest.map(|schedule| schedule.signs_from);
        let inserted = self.store.insert_successor_key(stored, expected, gone_at, from, now).await.map_err(Failure::from)?;
        self.follower.refresh_keys().await.map_err(Failure::from)?;
        if inserted { Ok(key.kid().clone()) } else { Err(AddKeyError::Duplicate) }
    }

    fn seal(&self, key: &SigningKey, schedule: KeySchedule) -> Result<StoredKey, Failure> {
        let context = seal_context(key.kid(), key.algorithm());
        let sealed = self.sealer.seal(key.pkcs8(), &context, &*self.random).map_err(Failure::internal)?;
        Ok(StoredKey {
            kid: key.kid().clone(),
            algorithm: key.algorithm(),
            sealed,
            schedule,
        })
    }
}
