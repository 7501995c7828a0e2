//! Sealed signing keys. If several replicas create, rotate or withdraw a key at once, exactly one wins.

use crate::domain::{Algorithm, Change, KeySchedule, Kid, Revocation, Timestamp};
use crate::store::columns::key_columns;
use crate::store::db::{Database, Row, Tx, Written, values};
use crate::store::feed::NOTE_LIFE;
use crate::store::{AuditEvent, FeedEntry, Rows, StoreError, audit};

/// A key to be stored. It has no successor yet.
#[derive(Clone)]
pub struct NewKey {
    /// Its id.
    pub kid: Kid,
    /// The key's algorithm.
    pub algorithm: Algorithm,
    /// The private key, sealed under the master key.
    pub sealed: Vec<u8>,
    /// The public key as a JWK in JSON.
    pub public_jwk: String,
    /// Published from this time.
    pub announced_at: Timestamp,
    /// Signs from this time.
    pub signs_from: Timestamp,
}

/// A stored key. `Debug` shows no key material.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Its id.
    pub kid: Kid,
    /// The key's algorithm.
    pub algorithm: Algorithm,
    /// The private key, sealed under the master key.
    pub sealed: Vec<u8>,
    /// The public key as a JWK in JSON.
    pub public_jwk: String,
    /// The key's schedule.
    pub schedule: KeySchedule,
    /// When it was stored.
    pub created_at: Timestamp,
}

impl std::fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kid, algorithm, schedule, .. } = self;
        f.debug_struct("StoredKey")
            .field("kid", kid)
            .field("algorithm", algorithm)
            .field("schedule", schedule)
            .finish_non_exhaustive()
    }
}

/// The replacement of a withdrawn key.
#[derive(Clone)]
pub enum AfterWithdrawal {
    /// No replacement: another key already signs, or none shall.
    Nothing,
    /// This announced key signs at once.
    Promote(Kid),
    /// The withdrawn key had only been announced. Its predecessor continues to sign for as long as the withdrawn key
    /// would have signed.
    Reinstate(Kid),
    /// This new key.
    Insert(NewKey),
}

/// Signing keys.
#[derive(Clone, Copy)]
pub struct Keys<'a>(pub(super) &'a Database);

impl Keys<'_> {
    /// Every stored key, including withdrawn ones, in the order in which they sign.
    pub async fn all(&self) -> Result<Rows<StoredKey, Kid>, StoreError> {
        const READ: &str =
            concat!("SELECT ", key_columns!(), " FROM signing_keys ORDER BY signs_from, created_at, kid");
        let mut keys = Rows::default();
        for row in &self.0.rows("keys_all", READ, Vec::new()).await? {
            let kid = || row.of("signing_keys", "kid").parsed("kid", Kid::parse).ok();
            keys.add(kid, StoredKey::try_from(row));
        }
        Ok(keys)
    }

    /// Stores a key if its algorithm has no key without a successor. False if another replica stored one first
    /// (security.md K8).
    pub async fn insert_first(
        &self,
        key: NewKey,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<bool>, StoreError> {
        self.0
            .write("key_insert", (key, now, audit), |tx, (key, now, audit)| {
                Box::pin(async move {
                    let is_first = insert(tx, key, *now).await?;
                    if is_first {
                        note_change(tx, *now).await?;
                        audit::record(tx, *now, audit).await?;
                    }
                    Ok(is_first)
                })
            })
            .await
    }

    /// Gives the key `current` a successor. The key retires at `retires_at`, when the new one starts to sign, and is
    /// gone at `gone_at`. False if `current` already has a successor or was withdrawn: another replica won.
    /// [`StoreError::Conflict`] if the new key is already stored.
    pub async fn rotate(
        &self,
        current: &Kid,
        retires_at: Timestamp,
        gone_at: Timestamp,
        new: NewKey,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<bool>, StoreError> {
        const RETIRE: &str = "UPDATE signing_keys SET retires_at = $1, gone_at = $2
            WHERE kid = $3 AND algorithm = $4 AND retires_at IS NULL AND withdrawn_at IS NULL RETURNING kid";
        let input = (current.clone(), retires_at, gone_at, new, now, audit);
        self.0
            .write("key_rotate", input, |tx, (current, retires_at, gone_at, new, now, audit)| {
                Box::pin(async move {
                    let retiring = values![*retires_at, *gone_at, current, new.algorithm.as_str()];
                    if tx.row(RETIRE, retiring).await?.is_none() {
                        return Ok(false);
                    }
                    if !insert(tx, new, *now).await? {
                        return Err(StoreError::Conflict { what: "kid" });
                    }
                    note_change(tx, *now).await?;
                    audit::record(tx, *now, audit).await?;
                    Ok(true)
                })
            })
            .await
    }

    /// Withdraws a key as compromised: it leaves the JWKS, and every token that it signed is inactive. False if it was
    /// already withdrawn. [`StoreError::Conflict`] if the replacement cannot take its place.
    pub async fn withdraw(
        &self,
        kid: &Kid,
        then: AfterWithdrawal,
        revocation_expires_at: Timestamp,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<bool>, StoreError> {
        const WITHDRAW: &str =
            "UPDATE signing_keys SET withdrawn_at = $1 WHERE kid = $2 AND withdrawn_at IS NULL RETURNING kid";
        const EXISTS: &str = "SELECT kid FROM signing_keys WHERE kid = $1";
        let input = (kid.clone(), then, revocation_expires_at, now, audit);
        self.0
            .write("key_withdraw", input, |tx, (kid, then, until, now, audit)| {
                Box::pin(async move {
                    if tx.row(WITHDRAW, values![*now, kid]).await?.is_none() {
                        let exists = tx.row(EXISTS, values![kid]).await?.is_some();
                        return if exists { Ok(false) } else { Err(StoreError::NotFound { what: "key" }) };
                    }
                    replace(tx, kid, then, *now).await?;
                    tx.revoke(Revocation::Key(kid.clone()), *now, *until).await?;
                    note_change(tx, *now).await?;
                    audit::record(tx, *now, audit).await?;
                    Ok(true)
                })
            })
            .await
    }

    /// Replaces the sealed form `old` by `new`, which is sealed by a new master key. False if it was already replaced.
    pub async fn reseal(&self, kid: &Kid, old: &[u8], new: &[u8]) -> Result<bool, StoreError> {
        const RESEAL: &str = "UPDATE signing_keys SET sealed = $1 WHERE kid = $2 AND sealed = $3 RETURNING kid";
        Ok(!self.0.write_one("key_reseal", RESEAL, values![new, kid, old]).await?.is_empty())
    }
}

impl TryFrom<&Row> for StoredKey {
    type Error = StoreError;

    fn try_from(row: &Row) -> Result<Self, StoreError> {
        let row = row.of("signing_keys", "kid");
        let schedule = KeySchedule {
            announced_at: row.time("announced_at")?,
            signs_from: row.time("signs_from")?,
            retires_at: row.opt_time("retires_at")?,
            gone_at: row.opt_time("gone_at")?,
            withdrawn_at: row.opt_time("withdrawn_at")?,
        };
        if schedule.announced_at > schedule.signs_from {
            return Err(row.corrupt("signs_from", "is before `announced_at`"));
        }
        match (schedule.retires_at, schedule.gone_at) {
            (None, None) => {}
            (Some(retires_at), Some(gone_at)) if retires_at <= gone_at => {}
            _ => return Err(row.corrupt("gone_at", "does not agree with `retires_at`")),
        }
        Ok(Self {
            kid: row.parsed("kid", Kid::parse)?,
            algorithm: row.parsed("algorithm", Algorithm::parse)?,
            sealed: row.bytes("sealed")?,
            public_jwk: row.text("public_jwk")?,
            schedule,
            created_at: row.time("created_at")?,
        })
    }
}

/// False if the kid is stored, or the algorithm has a key without a successor.
async fn insert(tx: &mut Tx, key: &NewKey, now: Timestamp) -> Result<bool, StoreError> {
    const INSERT: &str = "INSERT INTO signing_keys
            (kid, algorithm, sealed, public_jwk, announced_at, signs_from, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING kid";
    let NewKey { kid, algorithm, sealed, public_jwk, announced_at, signs_from } = key;
    let values = values![kid, algorithm.as_str(), sealed, public_jwk, *announced_at, *signs_from, now];
    Ok(tx.row(INSERT, values).await?.is_some())
}

async fn replace(tx: &mut Tx, withdrawn: &Kid, then: &AfterWithdrawal, now: Timestamp) -> Result<(), StoreError> {
    const PROMOTE: &str = "UPDATE signing_keys
        SET signs_from = $1, announced_at = CASE WHEN announced_at > $1 THEN $1 ELSE announced_at END
        WHERE kid = $2 AND (retires_at IS NULL OR retires_at > $1) AND withdrawn_at IS NULL RETURNING kid";
    const REINSTATE: &str = "UPDATE signing_keys
        SET (retires_at, gone_at) = (SELECT retires_at, gone_at FROM signing_keys WHERE kid = $3)
        WHERE kid = $2 AND retires_at > $1 AND withdrawn_at IS NULL RETURNING kid";
    let is_replaced = match then {
        AfterWithdrawal::Nothing => true,
        AfterWithdrawal::Promote(kid) => tx.row(PROMOTE, values![now, kid]).await?.is_some(),
        AfterWithdrawal::Reinstate(kid) => tx.row(REINSTATE, values![now, kid, withdrawn]).await?.is_some(),
        AfterWithdrawal::Insert(key) => insert(tx, key, now).await?,
    };
    if is_replaced { Ok(()) } else { Err(StoreError::Conflict { what: "successor" }) }
}

async fn note_change(tx: &mut Tx, now: Timestamp) -> Result<(), StoreError> {
    tx.publish(FeedEntry { change: Change::KeysChanged, created_at: now, expires_at: now.plus(NOTE_LIFE), place: None })
        .await
}
