//! The change feed: loading all of it, and following it without missing a row (design.md, section 5).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::domain::{Change, Jti, Revocation, RevocationKind, Timestamp};
use crate::store::db::{
    ChangeListener, Database, Lane, Row, Sql, Written, is_subscriber, other_subscriptions, subscription, values,
};
use crate::store::rows::change_columns;
use crate::store::{AuditEvent, Rows, StoreError, audit};

/// How long a note such as "this client changed" stays on the feed. Revocations stay as long as the tokens they
/// concern.
pub(super) const NOTE_LIFE: Duration = Duration::from_secs(3600);

/// A follower that was offline for longer reads everything again: notes may have left the feed in the meantime.
const LONGEST_ABSENCE: Duration = Duration::from_secs(1800);

/// A clock that went back by no more than this still belongs to the same server, after a clock correction.
const LARGEST_STEP_BACK: Duration = Duration::from_secs(1);

/// Maximum number of entries that one statement returns, so that it stays within its time limit. [`Feed::read_on`]
/// returns the rest.
const MOST_NEWS: i64 = 10_000;
/// Rows per read during a full load. The process does not return the memory that one read takes.
const CHUNK: i64 = 1_000;

/// A change, and its lifetime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEntry {
    /// The change.
    pub change: Change,
    /// When it was written, by the clock of the replica that wrote it.
    pub created_at: Timestamp,
    /// From this time on the change has no effect.
    pub expires_at: Timestamp,
    /// The place from which it was read; `None` for an entry that was just written.
    pub place: Option<Place>,
}

/// A position in the feed. It is valid only for the database that made it, and it identifies that database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedCursor {
    /// SQLite: the highest sequence number given out. PostgreSQL: the snapshot's xmin, below which every transaction
    /// has ended.
    position: i64,
    /// PostgreSQL: the snapshot, which determines exactly which transactions were visible.
    snapshot: String,
    /// The server, and the start of its current run without a crash. A restart, a crash or a failover may have lost
    /// transactions and assigned their numbers again.
    origin: String,
    /// The database's clock when the cursor was made.
    database_now: Timestamp,
}

impl FeedCursor {
    /// Whether every entry since an older cursor can still be read.
    fn continues(&self, since: &Self) -> bool {
        // A clock that went back may belong to a server that was restored to an older state.
        let is_another = self.origin != since.origin
            || self.position < since.position
            || self.database_now.plus(LARGEST_STEP_BACK) < since.database_now;
        let was_away = self.database_now.since(since.database_now) > LONGEST_ABSENCE;
        !is_another && !was_away
    }

    /// The cursor as readers of the feed get it: the same text on every replica.
    pub fn to_public(&self) -> PublicCursor {
        PublicCursor {
            origin: origin_digest(&self.origin),
            at: self.database_now,
            snapshot: if self.snapshot.is_empty() {
                Snapshot { end: self.position.saturating_add(1), open: Vec::new() }
            } else {
                Snapshot::parse(&self.snapshot).unwrap_or_default()
            },
        }
    }
}

/// A reader's position in the feed: what a replica had applied when the reader was in step with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicCursor {
    origin: [u8; 8],
    /// The database's clock when the cursor was made.
    at: Timestamp,
    snapshot: Snapshot,
}

/// The entries that a cursor covers: below `end`, except those of the transactions in `open`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Snapshot {
    end: i64,
    open: Vec<i64>,
}

impl Snapshot {
    /// PostgreSQL's text form: `xmin:xmax:xip_list`.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once(':')?;
        let (end, open) = rest.split_once(':')?;
        let open = open.split(',').filter(|number| !number.is_empty()).map(str::parse);
        Some(Self { end: end.parse().ok()?, open: open.collect::<Result<_, _>>().ok()? })
    }

    fn covers(&self, position: i64) -> bool {
        position < self.end && !self.open.contains(&position)
    }
}

impl PublicCursor {
    /// Reads the text that [`PublicCursor`]'s `Display` writes. A made-up cursor deceives only its sender.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (origin, rest) = bytes.split_first_chunk::<8>()?;
        let mut numbers = std::str::from_utf8(rest).ok()?.splitn(3, ':');
        let at = Timestamp::from_millis(numbers.next()?.parse().ok()?);
        let end = numbers.next()?.parse().ok()?;
        let open = numbers.next()?.split(',').filter(|number| !number.is_empty()).map(str::parse);
        let open = open.collect::<Result<_, _>>().ok()?;
        Some(Self { origin: *origin, at, snapshot: Snapshot { end, open } })
    }

    /// Whether a replica at `self` can tell what a reader at `since` lacks. The reader may be ahead: another replica
    /// applied more.
    pub fn continues(&self, since: &Self) -> bool {
        let away = self.at.since(since.at).max(since.at.since(self.at));
        self.origin == since.origin && away <= LONGEST_ABSENCE
    }

    /// Whether the reader has the entry at this [`Place::position`].
    pub fn covers(&self, position: i64) -> bool {
        self.snapshot.covers(position)
    }
}

impl std::fmt::Display for PublicCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open: Vec<_> = self.snapshot.open.iter().map(ToString::to_string).collect();
        let text = format!("{}:{}:{}", self.at.millis(), self.snapshot.end, open.join(","));
        let bytes = [&self.origin[..], text.as_bytes()].concat();
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// The origin without the details of the server.
fn origin_digest(origin: &str) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&Sha256::digest(origin)[..8]);
    short
}

/// The place of an entry in the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// SQLite: the sequence number. PostgreSQL: the number of the transaction that wrote the entry.
    pub position: i64,
    /// The sequence number. It grows with every change of the same subject.
    pub seq: i64,
}

/// An answer of the feed, read in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The new entries. In a complete reading, [`Feed::each`] returns the entries instead.
    pub entries: Vec<FeedEntry>,
    /// Whether the whole feed must be read. The follower then replaces its entries, and reads clients and keys again.
    pub is_complete: bool,
    /// The position from which [`Feed::read_on`] continues, if one statement did not return all new entries.
    pub rest: Option<Place>,
    /// The cursor for the next call.
    pub cursor: FeedCursor,
    /// The database's clock in that snapshot, by which freshness is measured (security.md C3).
    pub database_now: Timestamp,
}

/// A revocation that has not expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRevocation {
    /// Its place in the feed: the cursor of the next page.
    pub seq: i64,
    /// The revoked subject.
    pub revocation: Revocation,
    /// When it was revoked.
    pub created_at: Timestamp,
    /// When the revocation expires.
    pub expires_at: Timestamp,
}

/// The feed, and the writes that go directly to it.
#[derive(Clone, Copy)]
pub struct Feed<'a>(pub(super) &'a Database);

impl Feed<'_> {
    /// Reads everything at once. No entry is omitted because of its age: the reader checks expiry by its own clock.
    pub async fn load_all(&self) -> Result<Reading, StoreError> {
        let mut reading = self.head().await?;
        self.each(|entry| reading.entries.push(entry)).await?;
        Ok(reading)
    }

    /// The current end of the feed, as a complete reading whose entries [`Feed::each`] returns.
    ///
    /// The cursor is taken first and the rows are read after it, in chunks. Rows written concurrently may be read
    /// twice, which is harmless, and are never missed.
    pub async fn head(&self) -> Result<Reading, StoreError> {
        let heads = self.0.read("feed_head", Lane::Feed, HEAD, Vec::new()).await?;
        let cursor = self.cursor(&heads).await?;
        let database_now = cursor.database_now;
        Ok(Reading { entries: Vec::new(), is_complete: true, rest: None, cursor, database_now })
    }

    /// Passes on every entry in turn. Even of a million entries, memory holds no more than one chunk.
    pub async fn each(&self, mut take: impl FnMut(FeedEntry) + Send) -> Result<(), StoreError> {
        const NEXT: Sql = Sql::each(
            "SELECT seq, seq AS place, kind, subject, epoch, created_at, expires_at FROM changes
            WHERE seq > $1 ORDER BY seq LIMIT $2",
            "SELECT seq, xid AS place, kind, subject, epoch, created_at, expires_at FROM changes
            WHERE seq > $1 ORDER BY seq LIMIT $2",
        );
        let mut last = i64::MIN;
        loop {
            let rows = self.0.read("feed_load", Lane::Feed, NEXT, values![last, CHUNK]).await?;
            let Some(end) = rows.last() else { return Ok(()) };
            last = end.of("changes", "seq").int("seq")?;
            for row in &rows {
                take(FeedEntry::try_from(row)?);
            }
        }
    }

    /// Reads the entries committed since `since`. If they cannot be determined, returns a complete reading, to be taken
    /// from [`Feed::each`].
    pub async fn read_since(&self, since: &FeedCursor) -> Result<Reading, StoreError> {
        let rows = self.follow(since, &Place { position: since.position, seq: i64::MIN }).await?;
        let cursor = self.cursor(&rows).await?;
        if !cursor.continues(since) {
            return self.head().await;
        }
        let (entries, rest) = new_entries(&rows)?;
        let database_now = cursor.database_now;
        Ok(Reading { entries, is_complete: false, rest, cursor, database_now })
    }

    /// Further new entries of a poll after `place`, and the position from which to continue. They are read after the
    /// poll's cursor was taken. Rows written concurrently may be read twice, which is harmless, and are never missed.
    pub async fn read_on(
        &self,
        since: &FeedCursor,
        place: &Place,
    ) -> Result<(Vec<FeedEntry>, Option<Place>), StoreError> {
        new_entries(&self.follow(since, place).await?)
    }

    async fn cursor(&self, rows: &[Row]) -> Result<FeedCursor, StoreError> {
        let head = rows.first().ok_or_else(headless)?;
        let fields = head.of("changes", "position");
        if let Some(subscription) = fields.opt_text("subscription")? {
            return Err(self.0.refuse_subscriber(is_subscriber(&subscription)));
        }
        if fields.opt_text("other_subscriptions")?.is_some() {
            self.0.examine_again().await?;
        }
        let mut cursor = cursor(head)?;
        cursor.origin.push_str(&self.0.origin());
        Ok(cursor)
    }

    async fn follow(&self, since: &FeedCursor, after: &Place) -> Result<Vec<Row>, StoreError> {
        let values = values![after.position, since.snapshot.as_str(), MOST_NEWS, after.seq];
        self.0.read("feed_follow", Lane::Feed, FOLLOW, values).await
    }

    /// A listener that wakes the follower. None on SQLite and behind a pooler in transaction mode, where only polling
    /// is possible.
    pub async fn listener(&self) -> Result<Option<ChangeListener>, StoreError> {
        self.0.listener().await
    }

    /// Revokes one token until `expires_at`.
    pub async fn revoke_jti(
        &self,
        jti: &Jti,
        expires_at: Timestamp,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<()>, StoreError> {
        const REVOKE: &str = "WITH revoked AS (
                INSERT INTO changes (kind, subject, epoch, created_at, expires_at) VALUES ($1, $2, 0, $3, $4)),
            audited AS (
                INSERT INTO audit (at, event, actor, subject, client, user_id, session, request_id, detail)
                SELECT $3, $6, $7, $8, $9, $10, $11, $12, $13 WHERE $5 = 1)
            SELECT 1::bigint AS is_revoked";
        let entry = FeedEntry {
            change: Change::Revoked(Revocation::Jti(jti.clone())),
            created_at: now,
            expires_at,
            place: None,
        };
        let (kind, subject, _) = change_columns(&entry.change);
        let event = audit.clone().unwrap_or_default();
        let bound = [
            values![kind, subject, now, expires_at, audit.is_some(), event.event, event.actor, event.subject],
            values![event.client, event.user, event.session, event.request_id, event.detail],
        ];
        // A second entry for one token does no harm.
        let read = move |_: Vec<Row>, _| Ok(Written { value: (), changes: vec![entry] });
        if let Some(written) = self.0.write_together("revoke_jti", REVOKE, bound.concat(), read).await? {
            return Ok(written);
        }
        self.0
            .write("revoke_jti", (jti.clone(), expires_at, now, audit), |tx, (jti, expires_at, now, audit)| {
                Box::pin(async move {
                    tx.revoke(Revocation::Jti(jti.clone()), *now, *expires_at).await?;
                    audit::record(tx, *now, audit).await
                })
            })
            .await
    }

    /// Revocations that have not expired at `now`, newest last, after the place `after`.
    pub async fn live_revocations(
        &self,
        kind: Option<RevocationKind>,
        after: Option<i64>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Rows<LiveRevocation, i64>, StoreError> {
        const PAGE: &str = "SELECT seq, seq AS place, kind, subject, epoch, created_at, expires_at FROM changes
            WHERE seq > $1 AND expires_at > $2 AND kind NOT IN ('client_changed', 'keys_changed')
              AND ($3 IS NULL OR kind = $3)
            ORDER BY seq LIMIT $4";
        let kind = kind.map(RevocationKind::as_str);
        let values = values![after.unwrap_or(i64::MIN), now, kind, limit];
        let rows = self.0.rows("revocations_page", PAGE, values).await?;
        let mut page = Rows::default();
        for row in &rows {
            let seq = row.of("changes", "seq").int("seq")?;
            let entry = FeedEntry::try_from(row);
            page.add(
                || Some(seq),
                entry.and_then(|FeedEntry { change, created_at, expires_at, .. }| match change {
                    Change::Revoked(revocation) => Ok(LiveRevocation { seq, revocation, created_at, expires_at }),
                    _ => Err(row.of("changes", "seq").corrupt("kind", "is no revocation")),
                }),
            );
        }
        Ok(page)
    }
}

macro_rules! sqlite_head {
    () => {
        "(SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0) AS position,
                '' AS snapshot, 'sqlite' AS origin, 0 AS is_standby, NULL AS subscription, NULL AS other_subscriptions,
                CAST(unixepoch('subsec') * 1000 AS INTEGER) AS database_now) AS head"
    };
}

// After a crash, PostgreSQL continues numbering transactions from the last number in its log. Transactions that were
// rolled back without reaching the disk lose their numbers, which are then assigned again. To a snapshot from before
// the crash, the new transactions look old and already visible. The server process remains the same when one of its
// children crashes. But a crash discards the statistics, so the start time of the statistics changes.
macro_rules! postgres_head {
    () => {
        concat!(
            "(SELECT pg_snapshot_xmin(snapshot)::text::bigint AS position, snapshot::text AS snapshot,
                concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()),
                    extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()),
                    (SELECT oid FROM pg_database WHERE datname = current_database()), 'changes'::regclass::oid) AS origin,
                pg_is_in_recovery()::int::bigint AS is_standby, ",
            subscription!(),
            " AS subscription, ",
            other_subscriptions!(),
            " AS other_subscriptions,
                (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS database_now
            FROM (SELECT pg_current_snapshot() AS snapshot) AS taken) AS head"
        )
    };
}

const HEAD: Sql =
    Sql::each(concat!("SELECT head.* FROM ", sqlite_head!()), concat!("SELECT head.* FROM ", postgres_head!()));

/// The entries committed since the cursor and after a place, with the new cursor, in one statement and so in one
/// snapshot.
///
/// PostgreSQL: the last snapshot could not see transactions after its xmax, and those in progress in it. Each group is
/// a range of the index. A transaction that stays open for hours, in any database of the server, holds xmin back. A
/// poll that began at xmin would read all entries since then again. The two scans are each in order and cut off
/// separately. Their plan is therefore also good for unknown values, and PostgreSQL may keep it instead of planning
/// each poll.
const FOLLOW: Sql = Sql::each(
    concat!(
        "SELECT head.*, changes.seq AS place, changes.seq, kind, subject, epoch, created_at, expires_at FROM ",
        sqlite_head!(),
        " LEFT JOIN changes ON changes.seq > $1 ORDER BY changes.seq LIMIT $3"
    ),
    concat!(
        "SELECT head.*, news.xid AS place, news.seq, kind, subject, epoch, created_at, expires_at FROM ",
        postgres_head!(),
        " LEFT JOIN (
            (SELECT xid, seq, kind, subject, epoch, created_at, expires_at FROM changes
                WHERE xid >= pg_snapshot_xmax($2::text::pg_snapshot)::text::bigint
                AND xid >= $1 AND (xid > $1 OR seq > $4) ORDER BY xid, seq LIMIT $3)
            UNION ALL
            (SELECT xid, seq, kind, subject, epoch, created_at, expires_at FROM changes
                WHERE xid = ANY (ARRAY(
                    SELECT open::text::bigint FROM pg_snapshot_xip($2::text::pg_snapshot) AS open))
                AND xid >= $1 AND (xid > $1 OR seq > $4) ORDER BY xid, seq LIMIT $3)
            ORDER BY xid, seq LIMIT $3
          ) AS news ON TRUE ORDER BY news.xid, news.seq"
    ),
);

fn cursor(row: &Row) -> Result<FeedCursor, StoreError> {
    let row = row.of("changes", "position");
    if row.int("is_standby")? != 0 {
        // A standby can lag indefinitely while its clock looks current.
        return Err(StoreError::Unavailable("the database server has become a standby".to_owned()));
    }
    Ok(FeedCursor {
        position: row.int("position")?,
        snapshot: row.text("snapshot")?,
        origin: row.text("origin")?,
        database_now: row.time("database_now")?,
    })
}

/// The entries of a statement's rows, and the place where it was cut off.
fn new_entries(rows: &[Row]) -> Result<(Vec<FeedEntry>, Option<Place>), StoreError> {
    let mut entries = Vec::new();
    let mut last = None;
    for row in rows {
        let fields = row.of("changes", "seq");
        // If there are no entries, the head is returned with a row of nulls.
        if fields.opt_int("seq")?.is_some() {
            let entry = FeedEntry::try_from(row)?;
            last = entry.place;
            entries.push(entry);
        }
    }
    let is_cut_off = i64::try_from(rows.len()).is_ok_and(|rows| rows >= MOST_NEWS);
    Ok((entries, last.filter(|_| is_cut_off)))
}

fn headless() -> StoreError {
    StoreError::Internal("the feed answered without its head".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    fn cursor(database_now: Timestamp) -> FeedCursor {
        FeedCursor { position: 7, snapshot: "7:9:".to_owned(), origin: "here".to_owned(), database_now }
    }

    #[test]
    fn c7_a_clock_set_back_by_up_to_a_second_does_not_cause_a_full_load() {
        for (back, continues) in [(0, true), (1, true), (1000, true), (1001, false), (60_000, false)] {
            let later = cursor(NOW.minus(Duration::from_millis(back)));
            assert_eq!(later.continues(&cursor(NOW)), continues, "{back} ms");
        }
    }

    #[test]
    fn c4_another_server_an_older_state_or_a_long_gap_causes_a_full_load() {
        let since = cursor(NOW);
        assert!(!FeedCursor { origin: "there".to_owned(), ..cursor(NOW) }.continues(&since));
        assert!(!FeedCursor { position: 6, ..cursor(NOW) }.continues(&since));
        assert!(!cursor(NOW.plus(LONGEST_ABSENCE + Duration::from_secs(1))).continues(&since));
        assert!(cursor(NOW.plus(LONGEST_ABSENCE)).continues(&since));
    }
}
