//! PostgreSQL: counts an attempt, and settles counts, with one statement each: one round trip and one commit.
//!
//! The statements state the rule of [`super::rule`] in SQL; `tests/suite/store_ledgers.rs` compares both.

use std::time::Duration;

use super::rule::NOT_BLOCKED;
use super::{AttemptKey, AttemptLimits, Attempts, Decision, Exemption, MAX_COUNTS, NOTED_AFTER, Settlement};
use crate::domain::Timestamp;
use crate::store::StoreError;
use crate::store::db::{Row, Value, Written, answer_lost, values};

/// Counts an attempt under every key, unless one of them is blocked.
///
/// A row that a concurrent attempt blocked after the snapshot is not counted, and is missing in the answer. The rows are
/// locked in the order of their keys, so two attempts never deadlock.
const COUNT: &str = "WITH asked AS (
        SELECT key, free, hard_stop, life
        FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[]) AS asked (key, free, hard_stop, life)),
    hit AS (
        SELECT asked.key, count.blocked_until,
            asked.key = $6 AND EXISTS (SELECT 1 FROM known_addresses WHERE key = $7 AND expires_at > $5) AS is_exempt
        FROM asked JOIN login_attempts AS count ON count.key = asked.key
        WHERE count.blocked_until > $5 AND count.window_started_at + life > $5 AND count.last_failure_at <= $5 + 30000),
    counted AS (
        INSERT INTO login_attempts AS count (key, failures, window_started_at, last_failure_at, blocked_until, expires_at)
        SELECT key, 1, $5, $5, until, greatest(until, $5 + life)
        FROM asked, LATERAL (SELECT CASE WHEN 1 >= hard_stop THEN $5 + life WHEN free >= 1 THEN 0 ELSE $5 + 1000 END AS until) AS first
        WHERE NOT EXISTS (SELECT 1 FROM hit WHERE is_exempt IS NOT TRUE) AND key NOT IN (SELECT key FROM hit)
        ORDER BY key
        ON CONFLICT (key) DO UPDATE
        SET (failures, window_started_at, last_failure_at, blocked_until, expires_at) = (
            SELECT failures, started, $5, until, greatest(until, started + life)
            FROM asked,
                LATERAL (SELECT count.failures > 0 AND count.window_started_at + life > $5
                    AND count.last_failure_at <= $5 + 30000 AS goes_on) AS present,
                LATERAL (SELECT CASE WHEN goes_on THEN count.failures ELSE 0 END + 1 AS failures,
                    CASE WHEN goes_on THEN count.window_started_at ELSE $5 END AS started) AS next,
                LATERAL (SELECT CASE WHEN next.failures >= hard_stop THEN started + life
                    WHEN next.failures <= free THEN 0
                    WHEN next.failures - free <= 2 THEN $5 + 1000
                    WHEN next.failures - free <= 8 THEN $5 + 3000
                    WHEN next.failures - free <= 24 THEN $5 + 5000
                    ELSE $5 + 10000 END AS until) AS delayed
            WHERE asked.key = count.key)
        WHERE NOT EXISTS (SELECT 1 FROM asked WHERE asked.key = count.key AND count.blocked_until > $5
            AND count.window_started_at + life > $5 AND count.last_failure_at <= $5 + 30000)
        RETURNING key, failures)
    SELECT key, 'counted' AS state, failures AS value FROM counted
    UNION ALL SELECT key, CASE WHEN is_exempt THEN 'exempt' ELSE 'blocked' END, blocked_until FROM hit";

/// The parts of a statement that settle counts, if `$guard` holds. The first five values are those of
/// [`settled_values`]. The counts are locked in the order of their keys. A count that becomes empty is deleted.
macro_rules! settle_together {
    ($guard:literal) => {
        concat!(
            "locked AS MATERIALIZED (
                SELECT key FROM login_attempts WHERE key = ANY ($1::bytea[] || $2::bytea[]) AND ",
            $guard,
            " ORDER BY key FOR UPDATE),
            forgotten AS (
                DELETE FROM login_attempts WHERE key = ANY ($1::bytea[]) AND key IN (SELECT key FROM locked)),
            emptied AS (
                DELETE FROM login_attempts AS count USING unnest($2::bytea[], $3::bigint[]) AS taken (key, counted_at)
                WHERE count.key = taken.key AND count.key IN (SELECT key FROM locked) AND count.failures = 1
                    AND (count.last_failure_at = taken.counted_at OR count.blocked_until = 0)
                RETURNING count.key),
            reduced AS (
                UPDATE login_attempts AS count SET failures = count.failures - 1, blocked_until =
                    CASE WHEN count.last_failure_at = taken.counted_at THEN 0 ELSE count.blocked_until END
                FROM unnest($2::bytea[], $3::bigint[]) AS taken (key, counted_at)
                WHERE count.key = taken.key AND count.key IN (SELECT key FROM locked) AND count.failures > 0
                    AND count.key NOT IN (SELECT key FROM emptied)),
            noted AS (
                INSERT INTO known_addresses (key, expires_at)
                SELECT key, until FROM unnest($4::bytea[], $5::bigint[]) AS known (key, until) WHERE ",
            $guard,
            " ORDER BY key
                ON CONFLICT (key) DO UPDATE SET expires_at = excluded.expires_at
                WHERE known_addresses.expires_at < excluded.expires_at - 86400000)"
        )
    };
}
pub(in crate::store) use settle_together;

/// The values of [`settle_together`].
pub(in crate::store) fn settled_values(settlements: &[Settlement]) -> Vec<Value> {
    let (mut forgotten, mut taken, mut at, mut known, mut until) = (vec![], vec![], vec![], vec![], vec![]);
    for settlement in settlements {
        match settlement {
            Settlement::Forget(key) => forgotten.push(Some(key.0.to_vec())),
            Settlement::TakeBack(key, counted_at) => {
                taken.push(Some(key.0.to_vec()));
                at.push(Some(counted_at.millis()));
            }
            Settlement::Know(key, end) => {
                known.push(Some(key.0.to_vec()));
                until.push(Some(end.millis()));
            }
        }
    }
    debug_assert!(NOTED_AFTER == Duration::from_millis(86_400_000) && NOT_BLOCKED.millis() == 0, "as in the statement");
    vec![
        Value::ByteStrings(forgotten),
        Value::ByteStrings(taken),
        Value::Ints(at),
        Value::ByteStrings(known),
        Value::Ints(until),
    ]
}

/// The answer of [`COUNT`].
#[derive(Default)]
struct Counted {
    /// The keys with their new numbers of failures.
    counted: Vec<(AttemptKey, u32)>,
    blocked: Vec<(Duration, AttemptKey)>,
    exempt: usize,
}

impl Attempts<'_> {
    /// PostgreSQL: [`Attempts::register`] in one statement. None on SQLite.
    pub(super) async fn register_together(
        &self,
        keys: &[(AttemptKey, AttemptLimits)],
        exemption: Option<Exemption>,
        now: Timestamp,
    ) -> Result<Option<Decision>, StoreError> {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4);
        let asked = vec![
            Value::ByteStrings(keys.iter().map(|(key, _)| Some(key.0.to_vec())).collect()),
            Value::Ints(keys.iter().map(|(_, limits)| Some(i64::from(limits.free))).collect()),
            Value::Ints(keys.iter().map(|(_, limits)| Some(i64::from(limits.hard_stop))).collect()),
            Value::Ints(keys.iter().map(|(_, limits)| Some(millis(limits.window))).collect()),
        ];
        let exemption = (exemption.map(|exemption| exemption.from.0), exemption.map(|exemption| exemption.known.0));
        for _ in 0..MAX_COUNTS {
            let values = [asked.clone(), values![now, exemption.0, exemption.1]].concat();
            // An attempt that is counted twice is refused earlier, and never later.
            let read = move |rows: Vec<Row>, _| Ok(Written { value: counted(&rows, now)?, changes: Vec::new() });
            let Some(answer) = self.0.write_together("attempts_count", COUNT, values, read).await? else {
                return Ok(None);
            };
            let Counted { counted, blocked, exempt } = answer.value;
            if let Some((retry_after, by)) = blocked.into_iter().max() {
                return Ok(Some(Decision::Blocked { by, retry_after }));
            }
            if counted.len() + exempt == keys.len() {
                let limits_of = |key| keys.iter().find(|(known, _)| *known == key).map(|(_, limits)| limits);
                let is_last = |(key, failures): &(AttemptKey, u32)| {
                    limits_of(*key).is_some_and(|limits| *failures >= limits.hard_stop)
                };
                let is_last = counted.iter().any(is_last);
                let before = |(key, failures): (AttemptKey, u32)| (key, failures.saturating_sub(1));
                return Ok(Some(Decision::Allowed { counted: counted.into_iter().map(before).collect(), is_last }));
            }
            // A concurrent attempt has just blocked the missing key. The others must not stay counted.
            self.settle(counted.iter().map(|(key, _)| Settlement::TakeBack(*key, now)).collect()).await?;
        }
        Err(StoreError::Unavailable("the counts of an attempt change too fast".to_owned()))
    }

    /// PostgreSQL: [`Attempts::settle`] in one statement. None on SQLite.
    pub(super) async fn settle_in_one(&self, settlements: &[Settlement]) -> Result<Option<Written<()>>, StoreError> {
        const SETTLE: &str = concat!("WITH ", settle_together!("TRUE"), " SELECT 1::bigint AS is_settled");
        // A second run would take back the count of another attempt.
        let read = |_: Vec<Row>, is_certain| {
            if is_certain { Ok(Written { value: (), changes: Vec::new() }) } else { Err(answer_lost()) }
        };
        self.0.write_together("attempts_settle", SETTLE, settled_values(settlements), read).await
    }
}

fn counted(rows: &[Row], now: Timestamp) -> Result<Counted, StoreError> {
    let mut answer = Counted::default();
    for row in rows {
        let row = row.of("login_attempts", "key");
        let key = AttemptKey(row.array("key")?);
        match row.text("state")?.as_str() {
            "counted" => answer.counted.push((key, row.count("value")?)),
            "blocked" => answer.blocked.push((row.time("value")?.since(now), key)),
            _ => answer.exempt += 1,
        }
    }
    Ok(answer)
}
