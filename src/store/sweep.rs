//! Deletes dead rows in bounded batches (security.md D7).
//!
//! One replica sweeps at a time. Every statement repeats the condition under which its rows are dead, so several
//! sweepers do no harm, and a live row is never touched. A grace period beyond each end makes small clock steps harmless.

use std::time::Duration;

use crate::domain::Timestamp;
use crate::store::db::{Row, values};
use crate::store::sessions::about_session_in;
use crate::store::{AuditEvent, Store, StoreError, audit};

/// Maximum number of rows of one table that a call deletes or reads.
pub const SWEEP_BATCH: u32 = 1000;

/// Revocations and notes stay on the feed for this long after they expired.
const FEED_GRACE: Duration = Duration::from_secs(3600);

/// Ended sessions stay for this long, so that their tokens are still refused by name.
const ENDED_GRACE: Duration = Duration::from_secs(3600);

/// Counts of failed logins stay for this long after their window, for replicas whose clocks are behind.
const ATTEMPT_GRACE: Duration = Duration::from_secs(60);

/// Sessions stay for this long after their idle or absolute end, and keys for this long after they were retired or
/// withdrawn.
const DAY: Duration = Duration::from_secs(86_400);

/// No replica takes a sweep for longer.
const LONGEST_LEASE: Duration = Duration::from_secs(3600);

/// A table that is scanned repeatedly in key order, because no index finds its dead rows. Such an index would contain
/// an expiry that almost every use of a row changes. PostgreSQL could then rewrite no row in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// Sessions, whose idle expiry every refresh extends.
    Sessions,
    /// Counts of failed logins, whose expiry every attempt may change.
    LoginAttempts,
}

/// The position of the rounds through a table. Keep it between calls; losing it only starts a new round.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SweepCursor {
    /// The key of the last row that was read.
    last: Vec<u8>,
}

/// The result of one step of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepStep {
    /// No further rows: the next step begins a new round.
    RoundOver,
    /// Rows were read; this many were deleted.
    Deleted(usize),
}

/// The rows that one call deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Rows by table.
    pub deleted: Vec<(&'static str, usize)>,
    /// Whether more rows are waiting: call again soon.
    pub has_more: bool,
    /// Tables that could not be swept, with their errors.
    pub failed: Vec<(&'static str, StoreError)>,
}

/// A table whose dead rows are found by an index, or a table that always stays small: client secrets and signing keys.
struct Rule {
    table: &'static str,
    delete: &'static str,
    grace: Duration,
}

/// The statements of a [`Round`]. The reading statement writes nothing, so it takes no turn of SQLite's one writer.
struct RoundRule {
    table: &'static str,
    key: &'static str,
    /// The last of the next rows after a key, and the number of dead rows among them.
    look: &'static str,
    /// Deletes the dead rows up to that key.
    delete: &'static str,
    grace: Duration,
}

const RULES: [Rule; 6] = [
    Rule {
        table: "changes",
        delete: "DELETE FROM changes WHERE expires_at < $1 AND seq IN
            (SELECT seq FROM changes WHERE expires_at < $1 ORDER BY expires_at LIMIT $2) RETURNING seq",
        grace: FEED_GRACE,
    },
    Rule {
        table: "sessions",
        delete: "DELETE FROM sessions WHERE ended_at < $1 AND id IN
            (SELECT id FROM sessions WHERE ended_at IS NOT NULL AND ended_at < $1 ORDER BY ended_at LIMIT $2)
            RETURNING id",
        grace: ENDED_GRACE,
    },
    Rule {
        table: "client_secrets",
        delete: "DELETE FROM client_secrets WHERE expires_at < $1 AND digest IN
            (SELECT digest FROM client_secrets WHERE expires_at < $1 LIMIT $2) RETURNING digest",
        grace: Duration::ZERO,
    },
    Rule {
        table: "client_assertions",
        delete: "DELETE FROM client_assertions WHERE expires_at < $1 AND digest IN
            (SELECT digest FROM client_assertions WHERE expires_at < $1 ORDER BY expires_at LIMIT $2) RETURNING digest",
        grace: Duration::from_secs(60),
    },
    Rule {
        table: "known_addresses",
        delete: "DELETE FROM known_addresses WHERE expires_at < $1 AND key IN
            (SELECT key FROM known_addresses WHERE expires_at < $1 ORDER BY expires_at LIMIT $2) RETURNING key",
        grace: Duration::ZERO,
    },
    Rule {
        table: "signing_keys",
        delete: "DELETE FROM signing_keys WHERE (gone_at < $1 OR withdrawn_at < $1) AND kid IN
            (SELECT kid FROM signing_keys WHERE gone_at < $1 OR withdrawn_at < $1 LIMIT $2) RETURNING kid",
        grace: DAY,
    },
];

impl Round {
    const fn rule(self) -> RoundRule {
        match self {
            Self::Sessions => RoundRule {
                table: "sessions",
                key: "id",
                look: "SELECT id,
                        COUNT(CASE WHEN idle_expires_at < $2 OR absolute_expires_at < $2
                            OR installation_epoch < (SELECT epoch FROM installation) THEN 1 END) OVER () AS dead
                    FROM (SELECT id, idle_expires_at, absolute_expires_at, installation_epoch FROM sessions
                        WHERE id > $1 ORDER BY id LIMIT $3) AS batch
                    ORDER BY id DESC LIMIT 1",
                delete: "DELETE FROM sessions WHERE id > $1 AND id <= $2
                    AND (idle_expires_at < $3 OR absolute_expires_at < $3
                        OR installation_epoch < (SELECT epoch FROM installation))
                    RETURNING id, user_id, client_id, idle_expires_at, absolute_expires_at,
                        CAST(CASE WHEN ended_at IS NULL
                            AND installation_epoch = (SELECT epoch FROM installation)
                            AND user_epoch = (SELECT epoch FROM users WHERE users.id = user_id)
                            AND client_epoch = (SELECT epoch FROM clients WHERE clients.id = client_id)
                            THEN 1 ELSE 0 END AS BIGINT) AS was_live",
                grace: DAY,
            },
            Self::LoginAttempts => RoundRule {
                table: "login_attempts",
                key: "key",
                look: "SELECT key, COUNT(CASE WHEN expires_at < $2 THEN 1 END) OVER () AS dead
                    FROM (SELECT key, expires_at FROM login_attempts WHERE key > $1 ORDER BY key LIMIT $3) AS batch
                    ORDER BY key DESC LIMIT 1",
                delete: "DELETE FROM login_attempts WHERE key > $1 AND key <= $2 AND expires_at < $3 RETURNING key",
                grace: ATTEMPT_GRACE,
            },
        }
    }
}

impl SweepCursor {
    /// A first round that begins at a random place. Replicas that sweep at the same time then start at different rows.
    /// Replicas that restart often also reach the last rows.
    pub fn beginning_at(place: [u8; 16]) -> Self {
        Self { last: place.to_vec() }
    }
}

impl Store {
    /// Takes a sweep for this replica, until `until` at the latest. Returns the position at which to continue. None if
    /// another replica has it, or it is not due. A conditional statement decides, so it works behind any pooler.
    pub async fn take_sweep(
        &self,
        name: &'static str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Option<SweepCursor>, StoreError> {
        // A time far ahead was written before the clock was stepped back.
        const TAKE: &str = "INSERT INTO sweeps (name, place, next_at) VALUES ($1, $2, $3)
            ON CONFLICT (name) DO UPDATE SET next_at = excluded.next_at
            WHERE sweeps.next_at <= $4 OR sweeps.next_at > $5 RETURNING name, place";
        let far_ahead = now.plus(LONGEST_LEASE);
        let rows = self.0.write_one("sweep_take", TAKE, values![name, Vec::<u8>::new(), until, now, far_ahead]).await?;
        rows.first().map(|row| Ok(SweepCursor { last: row.of("sweeps", "name").bytes("place")? })).transpose()
    }

    /// Returns a sweep, to be continued from `next_at` on by any replica.
    pub async fn return_sweep(
        &self,
        name: &'static str,
        cursor: &SweepCursor,
        next_at: Timestamp,
    ) -> Result<(), StoreError> {
        const RETURN: &str = "UPDATE sweeps SET place = $2, next_at = $3 WHERE name = $1 RETURNING name";
        self.0.write_one("sweep_return", RETURN, values![name, cursor.last.clone(), next_at]).await.map(drop)
    }

    /// Deletes a bounded number of dead rows of each table, and audit events older than `audit_retention`, if it is
    /// set. Each table has its own transaction, so a failing table does not stop the sweep of the others. Tables
    /// without an index for dead rows are not included; see [`Store::sweep_round`].
    pub async fn sweep(&self, audit_retention: Option<Duration>, now: Timestamp) -> Swept {
        const OLD_AUDIT: &str = "DELETE FROM audit WHERE at < $1 AND seq IN
            (SELECT seq FROM audit WHERE at < $1 ORDER BY at LIMIT $2) RETURNING seq";
        let audit = audit_retention.map(|grace| Rule { table: "audit", delete: OLD_AUDIT, grace });
        let mut swept = Swept::default();
        for Rule { table, delete, grace } in RULES.into_iter().chain(audit) {
            match self.0.write_one("sweep", delete, values![now.minus(grace), SWEEP_BATCH]).await {
                Ok(rows) => swept.add(table, rows.len()),
                Err(error) => swept.failed.push((table, error)),
            }
        }
        swept
    }

    /// Reads the next rows of a round and deletes the dead ones. Each expired session gets its audit event in the same
    /// transaction.
    pub async fn sweep_round(
        &self,
        round: Round,
        cursor: &mut SweepCursor,
        now: Timestamp,
    ) -> Result<SweepStep, StoreError> {
        let RoundRule { table, key, look, delete, grace } = round.rule();
        let end_of_life = now.minus(grace);
        let row = self.0.row("sweep_step", look, values![cursor.last.clone(), end_of_life, SWEEP_BATCH]).await?;
        let Some(row) = row else {
            cursor.last.clear();
            return Ok(SweepStep::RoundOver);
        };
        let row = row.of(table, key);
        let (end, dead) = (row.bytes(key)?, row.int("dead")?);
        let deleted = if dead == 0 {
            0
        } else {
            let input = (round, delete, cursor.last.clone(), end.clone(), end_of_life, now);
            let deleted = self.0.write("sweep", input, |tx, (round, delete, after, end, end_of_life, now)| {
                Box::pin(async move {
                    let rows = tx.rows(*delete, values![after, end, *end_of_life]).await?;
                    if *round == Round::Sessions {
                        audit::record(tx, *now, &expired_sessions(&rows)?).await?;
                    }
                    Ok(rows.len())
                })
            });
            deleted.await?.value
        };
        cursor.last = end;
        Ok(SweepStep::Deleted(deleted))
    }
}

/// The events of expired sessions. Sessions that were ended or revoked before already have their events.
fn expired_sessions(deleted: &[Row]) -> Result<Vec<AuditEvent>, StoreError> {
    let event = AuditEvent { event: "session.expired", actor: Some("background".to_owned()), ..AuditEvent::default() };
    let mut events = Vec::new();
    for row in deleted {
        let fields = row.of("sessions", "id");
        if fields.int("was_live")? == 0 {
            continue;
        }
        let (idle, absolute) = (fields.time("idle_expires_at")?, fields.time("absolute_expires_at")?);
        let (reason, at) = if idle < absolute { ("idle_ttl", idle) } else { ("absolute_ttl", absolute) };
        let event = event.clone().noting("reason", reason).noting("expired_at", at.rfc3339());
        events.push(about_session_in(row, &event)?);
    }
    Ok(events)
}

impl Swept {
    fn add(&mut self, table: &'static str, deleted: usize) {
        self.has_more |= u32::try_from(deleted).is_ok_and(|deleted: u32| deleted >= SWEEP_BATCH);
        if deleted > 0 {
            self.deleted.push((table, deleted));
        }
    }
}
