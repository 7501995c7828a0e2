//! The audit trail: what happened, who did it, and to whom.

use crate::domain::{ClientId, Timestamp};
use crate::store::StoreError;
use crate::store::db::{Database, Row, Tx, values};

/// Something to be remembered, in the transaction of what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditEvent {
    /// What happened, such as `session.reused`.
    pub event: &'static str,
    /// Who did it.
    pub actor: Option<String>,
    /// Whom it was about.
    pub subject: Option<String>,
    /// The client through which it happened.
    pub client: Option<String>,
    /// The request that caused it.
    pub request_id: Option<String>,
    /// More, as JSON. Never a secret, and never a name that no account has (security.md S4).
    pub detail: Option<String>,
}

impl AuditEvent {
    /// Whom or what it was about.
    #[must_use]
    pub fn about(mut self, subject: impl std::fmt::Display) -> Self {
        self.subject = Some(subject.to_string());
        self
    }

    /// The client through which it happened.
    #[must_use]
    pub fn on(mut self, client: &ClientId) -> Self {
        self.client = Some(client.to_string());
        self
    }

    /// How many it was about, beside what [`AuditEvent::detail`] says already.
    #[must_use]
    pub fn counting(mut self, what: &'static str, count: usize) -> Self {
        let told = self.detail.as_deref().and_then(|detail| detail.strip_suffix('}'));
        self.detail = Some(match told {
            Some(told) => format!("{told},\"{what}\":{count}}}"),
            None => format!("{{\"{what}\":{count}}}"),
        });
        self
    }
}

/// A remembered event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its place in the trail: the cursor of the next page.
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
    /// As [`AuditEvent`].
    pub request_id: Option<String>,
    /// As [`AuditEvent`].
    pub detail: Option<String>,
}

/// Which events to read; what is not set does not restrict.
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
    /// From here on.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
}

/// The audit trail.
#[derive(Clone, Copy)]
pub struct Audit<'a>(pub(super) &'a Database);

impl Audit<'_> {
    /// Remembers events that accompany no other change.
    pub async fn append(&self, events: Vec<AuditEvent>, now: Timestamp) -> Result<(), StoreError> {
        self.0
            .write("audit_append", (events, now), |tx, (events, now)| {
                Box::pin(async move { record(tx, *now, events).await })
            })
            .await
            .map(|written| written.value)
    }

    /// The newest events that pass `filter`, from before `before` (a `seq`) on.
    pub async fn page(
        &self,
        filter: AuditFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        const PAGE: &str = "SELECT seq, at, event, actor, subject, client, request_id, detail FROM audit
            WHERE seq < $1 AND ($2 IS NULL OR event = $2) AND ($3 IS NULL OR actor = $3)
              AND ($4 IS NULL OR subject = $4) AND ($5 IS NULL OR client = $5)
              AND at >= $6 AND at < $7
            ORDER BY seq DESC LIMIT $8";
        let AuditFilter { event, actor, subject, client, since, until } = filter;
        let (since, until) = (since.map_or(i64::MIN, Timestamp::millis), until.map_or(i64::MAX, Timestamp::millis));
        let before = before.unwrap_or(i64::MAX);
        let rows = self.0.rows("audit_page", PAGE, values![before, event, actor, subject, client, since, until, limit]);
        rows.await?.iter().map(AuditRecord::try_from).collect()
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
            request_id: row.opt_text("request_id")?,
            detail: row.opt_text("detail")?,
        })
    }
}

/// Writes events in the transaction of what they are about.
pub(super) async fn record(
    tx: &mut Tx,
    now: Timestamp,
    events: impl IntoIterator<Item = &AuditEvent>,
) -> Result<(), StoreError> {
    const INSERT: &str = "INSERT INTO audit (at, event, actor, subject, client, request_id, detail)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    for AuditEvent { event, actor, subject, client, request_id, detail } in events {
        let (actor, subject, client) = (actor.clone(), subject.clone(), client.clone());
        let values = values![now, *event, actor, subject, client, request_id.clone(), detail.clone()];
        tx.run(INSERT, values).await?;
    }
    Ok(())
}
