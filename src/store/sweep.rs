//! Deleting what nothing depends on any more, in bounded batches (security.md D7).
//!
//! Every statement repeats the condition under which its rows are dead, so that any number of replicas may sweep at once
//! and a row that lives is never touched. A grace beyond each end keeps a small step of the clock from costing anything.

use std::time::Duration;

use crate::domain::Timestamp;
use crate::store::db::values;
use crate::store::{Store, StoreError};

/// Rows of one table that a call deletes, or looks at, at most.
const BATCH: i64 = 1000;

/// Revocations and notes stay on the feed for this long after they expired.
const FEED_GRACE: Duration = Duration::from_secs(3600);

/// Ended sessions stay for this long, so that their tokens are still refused by name.
const ENDED_GRACE: Duration = Duration::from_secs(3600);

/// Sessions stay for this long after their idle or absolute end, and keys after they are gone.
const DAY: Duration = Duration::from_secs(86_400);

/// Where the rounds through the sessions stand. Keep it between calls; losing it costs nothing but a new round.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SweepCursor {
    /// The last session that was looked at.
    session: Vec<u8>,
}

/// What one call deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Rows by table.
    pub deleted: Vec<(&'static str, usize)>,
    /// Whether more is waiting: call again soon.
    pub has_more: bool,
}

/// A table whose dead rows an index finds.
struct Rule {
    table: &'static str,
    delete: &'static str,
    grace: Duration,
}

const RULES: [Rule; 7] = [
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
        table: "login_attempts",
        delete: "DELETE FROM login_attempts WHERE expires_at < $1 AND key IN
            (SELECT key FROM login_attempts WHERE expires_at < $1 LIMIT $2) RETURNING key",
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

impl Store {
    /// Deletes a bounded number of dead rows of each table, and audit events older than `audit_retention`, if there is
    /// one. Each table's rows go in a transaction of their own.
    pub async fn sweep(
        &self,
        cursor: &mut SweepCursor,
        audit_retention: Option<Duration>,
        now: Timestamp,
    ) -> Result<Swept, StoreError> {
        const OLD_AUDIT: &str = "DELETE FROM audit WHERE at < $1 AND seq IN
            (SELECT seq FROM audit WHERE at < $1 ORDER BY at LIMIT $2) RETURNING seq";
        let audit = audit_retention.map(|grace| Rule { table: "audit", delete: OLD_AUDIT, grace });
        let mut swept = Swept::default();
        for Rule { table, delete, grace } in RULES.into_iter().chain(audit) {
            let deleted = self.0.write_one("sweep", delete, values![now.minus(grace), BATCH]).await?.len();
            swept.add(table, deleted);
        }
        swept.add("sessions", self.sweep_expired_sessions(cursor, now).await?);
        Ok(swept)
    }

    /// Looks at the next sessions in the order of their ids and deletes those that have expired. No index can help: it
    /// would hold the idle end, which every refresh moves.
    async fn sweep_expired_sessions(&self, cursor: &mut SweepCursor, now: Timestamp) -> Result<usize, StoreError> {
        const BATCH_END: &str = "SELECT id FROM (SELECT id FROM sessions WHERE id > $1 ORDER BY id LIMIT $2) AS batch
            ORDER BY id DESC LIMIT 1";
        const DELETE: &str = "DELETE FROM sessions WHERE id > $1 AND id <= $2
            AND (idle_expires_at < $3 OR absolute_expires_at < $3) RETURNING id";
        let row = self.0.row("sweep_look", BATCH_END, values![cursor.session.clone(), BATCH]).await?;
        let Some(row) = row else {
            cursor.session.clear();
            return Ok(0);
        };
        let end = row.of("sessions", "id").bytes("id")?;
        let values = values![std::mem::replace(&mut cursor.session, end.clone()), end, now.minus(DAY)];
        Ok(self.0.write_one("sweep", DELETE, values).await?.len())
    }
}

impl Swept {
    fn add(&mut self, table: &'static str, deleted: usize) {
        self.has_more |= i64::try_from(deleted).is_ok_and(|deleted| deleted >= BATCH);
        if deleted > 0 {
            self.deleted.push((table, deleted));
        }
    }
}
