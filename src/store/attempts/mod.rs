//! Failed logins, counted across all replicas (security.md L2), and the addresses that an account is known to use.
//!
//! An attempt is counted as a failure before the password is checked, and a success removes the count. However many
//! attempts run at once, no more are checked than the limits allow (L3). The count is committed separately, so that no
//! later failure of the request rolls it back (P8).

mod rule;
mod together;

use std::time::Duration;

pub use self::rule::AttemptLimits;
use self::rule::{Count, NOT_BLOCKED, blocked_for, counted};
pub(super) use self::together::{settle_together, settled_values};
use crate::domain::Timestamp;
use crate::store::StoreError;
use crate::store::columns::attempt_columns;
use crate::store::db::{Database, Row, Sql, Tx, values};

/// Maximum number of keys under which one attempt is counted.
const MAX_KEYS: usize = 4;

/// A known address is recorded again only if that extends its expiry by this much.
const NOTED_AFTER: Duration = Duration::from_secs(86_400);

/// Maximum number of times that an attempt is counted again after a concurrent one blocked some of its keys.
const MAX_COUNTS: u32 = 5;

/// The key of a count: a digest of an account, an address, or both, made by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey(pub [u8; 32]);

/// A count that does not apply to a known caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemption {
    /// The count.
    pub from: AttemptKey,
    /// The caller's key, recorded by [`Settlement::Know`].
    pub known: AttemptKey,
}

/// Whether an attempt is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The attempt was counted and is allowed.
    Allowed {
        /// The keys under which it was counted, each with the number of earlier failures.
        counted: Vec<(AttemptKey, u32)>,
        /// If this attempt fails, one of the keys allows no further attempt until its window ends.
        is_last: bool,
    },
    /// The attempt was not counted, and its password must not be checked.
    Blocked {
        /// The key that is blocked the longest.
        by: AttemptKey,
        /// Time until the next attempt is allowed.
        retry_after: Duration,
    },
}

impl Decision {
    /// Whether the attempt is allowed.
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

/// The effect on a count of a success, or of an attempt without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Deletes the count: failures of an account count only while they are consecutive.
    Forget(AttemptKey),
    /// Removes the one attempt that was counted at this time, with the delay that it caused.
    TakeBack(AttemptKey, Timestamp),
    /// Exempts the bearers of this key until this time.
    Know(AttemptKey, Timestamp),
}

/// Counts of failed logins.
#[derive(Clone, Copy)]
pub struct Attempts<'a>(pub(super) &'a Database);

impl Attempts<'_> {
    /// Counts an attempt under every key, unless one of them is blocked; then it is counted under none. A key from
    /// which the caller is exempt does not block, and while blocked it does not count. At most four keys.
    pub async fn register(
        &self,
        mut keys: Vec<(AttemptKey, AttemptLimits)>,
        exemption: Option<Exemption>,
        now: Timestamp,
    ) -> Result<Decision, StoreError> {
        let Some(&(first, _)) = keys.first() else {
            return Ok(Decision::Allowed { counted: Vec::new(), is_last: false });
        };
        if keys.len() > MAX_KEYS {
            return Err(StoreError::Internal("an attempt is counted under too many keys".to_owned()));
        }
        if let Some(decision) = self.register_together(&keys, exemption, now).await? {
            return Ok(decision);
        }
        // A flood of attempts on a blocked key costs a read, and no lock.
        const LOOK: &str = concat!("SELECT ", attempt_columns!(), " FROM login_attempts WHERE key IN ($1, $2, $3, $4)");
        let key = |index: usize| keys.get(index).map_or(first, |(key, _)| *key).0;
        let rows = self.0.rows("attempts_read", LOOK, values![key(0), key(1), key(2), key(3)]).await?;
        let mut blocks = Vec::new();
        for row in &rows {
            let (key, count) = (AttemptKey(row.of("login_attempts", "key").array("key")?), Count::try_from(row)?);
            let limits = keys.iter().find(|(known, _)| *known == key).map(|(_, limits)| limits);
            blocks.extend(limits.and_then(|limits| blocked_for(&count, limits, now)).map(|wait| (wait, key)));
        }
        if let Some(Exemption { from, known }) = exemption
            && blocks.iter().any(|(_, key)| *key == from)
            && self.knows(known, now).await?
        {
            blocks.retain(|(_, key)| *key != from);
            keys.retain(|(key, _)| *key != from);
        }
        if let Some((retry_after, by)) = blocks.into_iter().max() {
            return Ok(Decision::Blocked { by, retry_after });
        }
        // Locks are taken in a fixed order, so two attempts never deadlock.
        keys.sort_unstable_by_key(|(key, _)| *key);
        let written = self.0.write("attempts_count", (keys, now), |tx, (keys, now)| Box::pin(count(tx, keys, *now)));
        Ok(written.await?.value)
    }

    /// Settles counts after a success that writes nothing else. A login settles them when it opens its session.
    pub async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), StoreError> {
        if self.settle_in_one(&settlements).await?.is_some() {
            return Ok(());
        }
        let written = self.0.write("attempts_settle", settlements, |tx, settlements| Box::pin(settle(tx, settlements)));
        written.await.map(|written| written.value)
    }

    async fn knows(&self, key: AttemptKey, now: Timestamp) -> Result<bool, StoreError> {
        const KNOWN: &str = "SELECT key FROM known_addresses WHERE key = $1 AND expires_at > $2";
        Ok(self.0.row("attempts_known", KNOWN, values![key.0, now]).await?.is_some())
    }
}

impl TryFrom<&Row> for Count {
    type Error = StoreError;

    fn try_from(row: &Row) -> Result<Self, StoreError> {
        let row = row.of("login_attempts", "key");
        Ok(Self {
            failures: row.count("failures")?,
            window_started_at: row.time("window_started_at")?,
            last_failure_at: row.time("last_failure_at")?,
            blocked_until: row.time("blocked_until")?,
        })
    }
}

async fn count(tx: &mut Tx, keys: &[(AttemptKey, AttemptLimits)], now: Timestamp) -> Result<Decision, StoreError> {
    // Creates the row if it is missing, locks it, and reads it.
    const LOCK: &str = concat!(
        "INSERT INTO login_attempts
            (key, failures, window_started_at, last_failure_at, blocked_until, expires_at)
        VALUES ($1, 0, $2, $2, $2, $2) ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING ",
        attempt_columns!()
    );
    const COUNT: &str = "UPDATE login_attempts SET failures = $2, window_started_at = $3, last_failure_at = $4,
        blocked_until = $5, expires_at = $6 WHERE key = $1";
    let mut counts = Vec::with_capacity(keys.len());
    let mut longest: Option<(Duration, AttemptKey)> = None;
    for (key, limits) in keys {
        let row = tx.row(LOCK, values![key.0, now]).await?;
        let row = row.ok_or_else(|| StoreError::Internal("a count was not made".to_owned()))?;
        let count = Count::try_from(&row)?;
        longest = longest.max(blocked_for(&count, limits, now).map(|wait| (wait, *key)));
        counts.push((key, limits, count));
    }
    if let Some((retry_after, by)) = longest {
        return Ok(Decision::Blocked { by, retry_after });
    }
    let (mut is_last, mut counted_before) = (false, Vec::with_capacity(keys.len()));
    for (key, limits, count) in counts {
        let next = counted(Some(&count), limits, now);
        let Count { failures, window_started_at, last_failure_at, blocked_until } = next;
        let times = (window_started_at, last_failure_at, blocked_until, next.expires_at(limits));
        tx.run(COUNT, values![key.0, failures, times.0, times.1, times.2, times.3]).await?;
        is_last |= failures >= limits.hard_stop;
        counted_before.push((*key, failures.saturating_sub(1)));
    }
    Ok(Decision::Allowed { counted: counted_before, is_last })
}

/// Settles counts in the transaction of the success.
pub(super) async fn settle(tx: &mut Tx, settlements: &[Settlement]) -> Result<(), StoreError> {
    const FORGET: &str = "DELETE FROM login_attempts WHERE key = $1";
    // A delay belongs to the last counted attempt: no other attempt is counted while it lasts. A count that becomes
    // empty is deleted. Otherwise a flood of attempts that are refused a hash would fill the table for a whole window.
    // SQLite has no MERGE, so a flag reports whether the count is empty.
    const TAKE_BACK: Sql = Sql::each(
        "UPDATE login_attempts SET failures = failures - 1,
            blocked_until = CASE WHEN last_failure_at = $2 THEN $3 ELSE blocked_until END
        WHERE key = $1 AND failures > 0
        RETURNING key, failures = 0 AND blocked_until = $3 AS is_empty",
        "MERGE INTO login_attempts AS count
        USING (SELECT $1::bytea AS key, $2::bigint AS counted_at, $3::bigint AS not_blocked) AS attempt
        ON count.key = attempt.key
        WHEN MATCHED AND count.failures = 1
            AND (count.last_failure_at = attempt.counted_at OR count.blocked_until = attempt.not_blocked) THEN DELETE
        WHEN MATCHED AND count.failures > 0 THEN UPDATE SET failures = count.failures - 1, blocked_until =
            CASE WHEN count.last_failure_at = attempt.counted_at THEN attempt.not_blocked ELSE count.blocked_until END",
    );
    const KNOW: &str = "INSERT INTO known_addresses (key, expires_at) VALUES ($1, $2)
        ON CONFLICT (key) DO UPDATE SET expires_at = excluded.expires_at WHERE known_addresses.expires_at < $3";
    let mut settlements: Vec<_> = settlements.iter().collect();
    settlements.sort_unstable_by_key(|settlement| match settlement {
        Settlement::Forget(key) | Settlement::TakeBack(key, _) | Settlement::Know(key, _) => *key,
    });
    for settlement in settlements {
        match settlement {
            Settlement::Forget(key) => tx.run(FORGET, values![key.0]).await?,
            Settlement::TakeBack(key, counted_at) => {
                let left = tx.row(TAKE_BACK, values![key.0, *counted_at, NOT_BLOCKED]).await?;
                let is_empty = left.map(|row| row.of("login_attempts", "key").int("is_empty")).transpose()?;
                if is_empty == Some(1) {
                    tx.run(FORGET, values![key.0]).await?;
                }
            }
            Settlement::Know(key, until) => {
                tx.run(KNOW, values![key.0, *until, until.minus(NOTED_AFTER)]).await?;
            }
        }
    }
    Ok(())
}
