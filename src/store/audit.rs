//! The audit trail: events with their actors and subjects.

use crate::domain::{ClientId, SessionId, Timestamp, UserId};
use crate::store::db::{Database, Row, Sql, Tx, Value, values};
use crate::store::{Rows, StoreError};

/// An event to be written in the transaction of the change that it describes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditEvent {
    /// The event's name, such as `session.reused`.
    pub event: &'static str,
    /// The actor.
    pub actor: Option<String>,
    /// The object of the event.
    pub subject: Option<String>,
    /// The client used for the action.
    pub client: Option<String>,
    /// The user concerned, independent of the subject.
    pub user: Option<String>,
    /// The session concerned, independent of the subject.
    pub session: Option<String>,
    /// The request that caused it.
    pub request_id: Option<String>,
    /// Further details, as a JSON object. Never a secret, and never a user name without an account (security.md S4).
    pub detail: Option<String>,
}

impl AuditEvent {
    /// Sets the subject.
    #[must_use]
    pub fn about(mut self, subject: impl std::fmt::Display) -> Self {
        self.subject = Some(subject.to_string());
        self
    }

    /// Sets a user as the subject.
    #[must_use]
    pub fn about_user(self, user: UserId) -> Self {
        self.about(user).of_user(user)
    }

    /// Sets a session as the subject.
    #[must_use]
    pub fn about_session(self, session: SessionId) -> Self {
        self.about(session).of_session(session)
    }

    /// Sets the user concerned.
    #[must_use]
    pub fn of_user(mut self, user: UserId) -> Self {
        self.user = Some(user.to_string());
        self
    }

    /// Sets the session concerned.
    #[must_use]
    pub fn of_session(mut self, session: SessionId) -> Self {
        self.session = Some(session.to_string());
        self
    }

    /// Sets the client used for the action.
    #[must_use]
    pub fn on(mut self, client: &ClientId) -> Self {
        self.client = Some(client.to_string());
        self
    }

    /// Adds a member to [`AuditEvent::detail`].
    #[must_use]
    pub fn noting(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        let value = value.into();
        let before = self.detail.as_deref().and_then(|detail| detail.strip_suffix('}'));
        self.detail = Some(match before {
            Some(before) => format!("{before},\"{name}\":{value}}}"),
            None => format!("{{\"{name}\":{value}}}"),
        });
        self
    }
}

/// A recorded event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its position in the trail: the cursor of the next page.
    pub seq: i64,
    /// When it happened.
    pub at: Timestamp,
    /// As [`AuditEvent`].
    pub event: String,
    /// As [`AuditEvent`].
    pub actor: Option<String>,
    /// As [`AuditEvent`].
    pub subject: Option<String>,
    /// As [`AuditEvent`].
    pub client: Option<String>,
    /// As [`AuditEvent`]; none in events of releases before 0.2.
    pub user: Option<String>,
    /// As [`AuditEvent`]; none in events of releases before 0.2.
    pub session: Option<String>,
    /// As [`AuditEvent`].
    pub request_id: Option<String>,
    /// As [`AuditEvent`].
    pub detail: Option<String>,
}

/// The events to read; an unset criterion does not restrict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// This event alone.
    pub event: Option<String>,
    /// By this actor alone.
    pub actor: Option<String>,
    /// About this subject alone.
    pub subject: Option<String>,
    /// Through this client alone.
    pub client: Option<String>,
    /// Concerning this user alone.
    pub user: Option<String>,
    /// Concerning this session alone.
    pub session: Option<String>,
    /// At or after this time.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

/// The result of one bounded step of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditStep {
    /// The newest matching events, newest first.
    pub records: Vec<AuditRecord>,
    /// Matching events that cannot be read.
    pub unreadable: Vec<StoreError>,
    /// The start of the next step; none when no older event can match.
    pub next: Option<i64>,
}

/// Maximum number of index entries that one step of a search reads.
const STEP: u32 = 10_000;

/// The statements of a search that reads one index. Each has its own text, so that the server plans it separately.
struct Leader {
    /// Reads the matching events between two positions of the trail.
    page: &'static str,
    /// Reads the position of the oldest of the next [`STEP`] entries of the index.
    reach: &'static str,
}

macro_rules! leader {
    ($condition:literal) => {
        Leader {
            page: concat!(
                "SELECT seq, at, event, actor, subject, client, user_id, session, request_id, detail FROM audit WHERE ",
                $condition,
                " AND seq < $2 AND seq >= $3
                    AND ($4 IS NULL OR event = $4) AND ($5 IS NULL OR actor = $5) AND ($6 IS NULL OR subject = $6)
                    AND ($7 IS NULL OR client = $7) AND ($8 IS NULL OR user_id = $8) AND ($9 IS NULL OR session = $9)
                    AND at >= $10 AND at < $11
                ORDER BY seq DESC LIMIT $12"
            ),
            reach: concat!(
                "SELECT seq FROM audit WHERE ",
                $condition,
                " AND seq < $2 ORDER BY seq DESC LIMIT 1 OFFSET $3"
            ),
        }
    };
}

/// One for each criterion, in the order of [`AuditFilter`]'s members.
const LEADERS: [Leader; 6] = [
    leader!("event = $1"),
    leader!("actor = $1"),
    leader!("subject = $1"),
    leader!("client = $1"),
    leader!("user_id = $1"),
    leader!("session = $1"),
];

/// Reads the trail itself, without an index on a criterion.
const UNLED: Leader = leader!("$1 IS NULL");

/// The audit trail.
#[derive(Clone, Copy)]
pub struct Audit<'a>(pub(super) &'a Database);

impl Audit<'_> {
    /// Writes events without another change.
    pub async fn append(&self, events: Vec<AuditEvent>, now: Timestamp) -> Result<(), StoreError> {
        self.0
            .write("audit_append", (events, now), |tx, (events, now)| {
                Box::pin(async move { record(tx, *now, events).await })
            })
            .await
            .map(|written| written.value)
    }

    /// The newest events that match `filter`, from before `before` (a `seq`). Reads a bounded number of index entries,
    /// independent of the filter and the size of the trail.
    ///
    /// One criterion is answered by its index. With several criteria, the step follows the index whose next [`STEP`]
    /// entries reach back the furthest: the index of the rarest value.
    pub async fn step(&self, filter: &AuditFilter, before: Option<i64>, limit: u32) -> Result<AuditStep, StoreError> {
        let AuditFilter { event, actor, subject, client, user, session, since, until } = filter;
        let before = before.unwrap_or(i64::MAX);
        let criteria = [event, actor, subject, client, user, session];
        let is_timed = since.is_some() || until.is_some();
        let mut leaders: Vec<(&Leader, Option<&String>)> =
            LEADERS.iter().zip(criteria).filter_map(|(leader, value)| Some((leader, Some(value.as_ref()?)))).collect();
        if leaders.is_empty() {
            leaders.push((&UNLED, None));
        }
        let (mut best, mut floor) = (leaders[0], i64::MIN);
        if leaders.len() > 1 || is_timed {
            floor = i64::MAX;
            for (leader, value) in leaders {
                let reach = self.reach(leader, value, before).await?;
                if reach < floor {
                    (best, floor) = ((leader, value), reach);
                }
                if floor == i64::MIN {
                    break;
                }
            }
        }
        let (since, until) = (since.map_or(i64::MIN, Timestamp::millis), until.map_or(i64::MAX, Timestamp::millis));
        let (leader, value) = best;
        let mut bound = values![value.cloned(), before, floor];
        bound.extend(criteria.map(|value| Value::from(value.clone())));
        bound.extend(values![since, until, limit]);
        let rows = self.0.rows("audit_page", leader.page, bound).await?;
        let (mut records, mut unreadable) = (Vec::new(), Vec::new());
        for row in &rows {
            match AuditRecord::try_from(row) {
                Ok(record) => records.push(record),
                Err(error) => unreadable.push(error),
            }
        }
        let is_full = rows.len() == usize::try_from(limit).unwrap_or(usize::MAX);
        let next = match rows.last().filter(|_| is_full) {
            Some(last) => Some(last.of("audit", "seq").int("seq")?),
            None => Some(floor).filter(|seq| *seq > i64::MIN),
        };
        Ok(AuditStep { records, unreadable, next })
    }

    /// The events before `before`, in the order of their times, after an event's time and place.
    pub async fn export(
        &self,
        after: Option<(Timestamp, i64)>,
        before: Timestamp,
        limit: u32,
    ) -> Result<Rows<AuditRecord, (Timestamp, i64)>, StoreError> {
        const PAGE: &str =
            "SELECT seq, at, event, actor, subject, client, user_id, session, request_id, detail FROM audit
            WHERE at >= $1 AND at < $2 AND (at > $1 OR seq > $3) ORDER BY at, seq LIMIT $4";
        let (at, seq) = after.map_or((i64::MIN, i64::MIN), |(at, seq)| (at.millis(), seq));
        let mut events = Rows::default();
        for row in &self.0.rows("audit_export", PAGE, values![at, before, seq, limit]).await? {
            let fields = row.of("audit", "seq");
            let place = || Some((fields.time("at").ok()?, fields.int("seq").ok()?));
            events.add(place, AuditRecord::try_from(row));
        }
        Ok(events)
    }

    /// The position of the oldest of the next [`STEP`] index entries.
    async fn reach(&self, leader: &Leader, value: Option<&String>, before: i64) -> Result<i64, StoreError> {
        let row = self.0.row("audit_reach", leader.reach, values![value.cloned(), before, STEP - 1]).await?;
        row.map_or(Ok(i64::MIN), |row| row.of("audit", "seq").int("seq"))
    }
}

impl TryFrom<&Row> for AuditRecord {
    type Error = StoreError;

    fn try_from(row: &Row) -> Result<Self, StoreError> {
        let row = row.of("audit", "seq");
        Ok(Self {
            seq: row.int("seq")?,
            at: row.time("at")?,
            event: row.text("event")?,
            actor: row.opt_text("actor")?,
            subject: row.opt_text("subject")?,
            client: row.opt_text("client")?,
            user: row.opt_text("user_id")?,
            session: row.opt_text("session")?,
            request_id: row.opt_text("request_id")?,
            detail: row.opt_text("detail")?,
        })
    }
}

/// Writes events in the transaction of the change that they describe, with one statement.
pub(super) async fn record(
    tx: &mut Tx,
    now: Timestamp,
    events: impl IntoIterator<Item = &AuditEvent>,
) -> Result<(), StoreError> {
    const INSERT: Sql = Sql::each(
        "INSERT INTO audit (at, event, actor, subject, client, user_id, session, request_id, detail)
        SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
            value ->> 8
        FROM json_each($1)",
        "INSERT INTO audit (at, event, actor, subject, client, user_id, session, request_id, detail)
        SELECT at, event, actor, subject, client, user_id, session, request_id, detail
        FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[]) AS new (at, event, actor, subject, client, user_id, session, request_id, detail)",
    );
    let rows = events.into_iter().map(|event| {
        let AuditEvent { event, actor, subject, client, user, session, request_id, detail } = event.clone();
        values![now, event, actor, subject, client, user, session, request_id, detail]
    });
    tx.run_many(INSERT, &rows.collect::<Vec<_>>()).await
}
