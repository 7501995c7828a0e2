//! Ends a session.

use super::rotate::interrupted;
use super::{Sessions, about_session_in};
use crate::domain::{Change, ClientId, EndReason, Revocation, SessionId, Timestamp, UserId};
use crate::store::columns::id_text;
use crate::store::db::{Database, Row, Tx, Value, Written, values};
use crate::store::{AuditEvent, FeedEntry, StoreError, audit};

/// A session to be ended.
#[derive(Debug, Clone)]
pub struct EndRequest {
    /// The session's id.
    pub session: SessionId,
    /// The required owner.
    pub owner: Owner,
    /// The reason.
    pub reason: EndReason,
    /// When its revocation expires.
    pub revocation_expires_at: Timestamp,
    /// The event to write if the session was live. The user, session and client are filled in.
    pub audit: Option<AuditEvent>,
}

/// The owner that a request requires of the session to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Any owner: an administrator ends it.
    Anyone,
    /// This user's.
    User(UserId),
    /// The bearer of a refresh token of any generation: the family whose secret has this SHA-256. The session must also
    /// be on this client, if one is named.
    Family([u8; 32], Option<ClientId>),
}

/// Requests with the same key end the same session in the same way.
pub(super) type EndKey = (Owner, EndReason);

/// The outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOutcome {
    /// The session was live and is now ended.
    Ended,
    /// The session had already ended.
    AlreadyEnded,
    /// There is no such session of this owner.
    Unknown,
}

impl Sessions<'_> {
    /// Ends a session and revokes its tokens. Repeating this changes nothing.
    pub async fn end(&self, request: EndRequest, now: Timestamp) -> Result<Written<EndOutcome>, StoreError> {
        let key = (request.owner.clone(), request.reason);
        let (database, session) = (self.database.clone(), request.session);
        let work = async move { end_session(&database, "session_end", request, now).await };
        let ended = self.gate.ends.run(session, key, |outcome| Some(repeated(outcome)), work).await;
        ended.unwrap_or_else(|| Err(interrupted("session_end")))
    }
}

/// Ends a session, with its revocation and its audit event.
pub(super) async fn end_session(
    database: &Database,
    name: &'static str,
    request: EndRequest,
    now: Timestamp,
) -> Result<Written<EndOutcome>, StoreError> {
    let (session, until) = (request.session, request.revocation_expires_at);
    let event = request.audit.clone();
    let (is_written, event) = (event.is_some(), event.unwrap_or_default());
    let mut values = owned(&request);
    values.extend(values![now, request.reason.as_str(), until, is_written]);
    values.extend(values![event.event, event.actor, event.request_id, event.detail]);
    let read = move |rows: Vec<Row>, _| {
        let row = rows.first().map(|row| row.of("sessions", "ended"));
        let is = |column| row.map_or(Ok(0), |row| row.int(column)).map(|number| number > 0);
        let outcome = match (is("ended")?, is("existed")?) {
            (true, _) => EndOutcome::Ended,
            (false, true) => EndOutcome::AlreadyEnded,
            (false, false) => EndOutcome::Unknown,
        };
        let change = Change::Revoked(Revocation::Session(session));
        let entry = FeedEntry { change, created_at: now, expires_at: until, place: None };
        let changes = if outcome == EndOutcome::Ended { vec![entry] } else { Vec::new() };
        Ok(Written { value: outcome, changes })
    };
    if let Some(ended) = database.write_together(name, END_TOGETHER, values, read).await? {
        return Ok(ended);
    }
    database.write(name, (request, now), |tx, (request, now)| Box::pin(end(tx, request, *now))).await
}

/// The statements of [`end`] in one. A password change may commit while the statement waits for the row, so the update
/// repeats the conditions.
const END_TOGETHER: &str = concat!(
    "WITH owned AS (
        SELECT id FROM sessions WHERE id = $1 AND ($2 IS NULL OR user_id = $2) AND ($3 IS NULL OR family_digest = $3)
            AND ($4 IS NULL OR client_id = $4)),
    ended AS (
        UPDATE sessions SET ended_at = $5, end_reason = $6
        WHERE id = (SELECT id FROM owned) AND ended_at IS NULL AND ($2 IS NULL OR user_id = $2)
            AND ($3 IS NULL OR family_digest = $3) AND ($4 IS NULL OR client_id = $4)
        RETURNING id, user_id, client_id),
    revoked AS (
        INSERT INTO changes (kind, subject, epoch, created_at, expires_at) SELECT 'session', id, 0, $5, $7 FROM ended),
    audited AS (
        INSERT INTO audit (at, event, actor, subject, client, user_id, session, request_id, detail)
        SELECT $5, $9, $10, ",
    id_text!("ses_", "id"),
    ", client_id, ",
    id_text!("usr_", "user_id"),
    ", ",
    id_text!("ses_", "id"),
    ", $11, $12 FROM ended WHERE $8 = 1)
    SELECT (SELECT count(*) FROM ended) AS ended, (SELECT count(*) FROM owned) AS existed"
);

/// The outcome that a request shares with an equal one.
fn repeated(outcome: &Result<Written<EndOutcome>, StoreError>) -> Result<Written<EndOutcome>, StoreError> {
    let value = match outcome.as_ref().map_err(Clone::clone)?.value {
        EndOutcome::Ended | EndOutcome::AlreadyEnded => EndOutcome::AlreadyEnded,
        EndOutcome::Unknown => EndOutcome::Unknown,
    };
    Ok(Written { value, changes: Vec::new() })
}

async fn end(tx: &mut Tx, request: &EndRequest, now: Timestamp) -> Result<EndOutcome, StoreError> {
    const END: &str = "UPDATE sessions SET ended_at = $5, end_reason = $6
        WHERE id = $1 AND ($2 IS NULL OR user_id = $2) AND ($3 IS NULL OR family_digest = $3)
          AND ($4 IS NULL OR client_id = $4) AND ended_at IS NULL
        RETURNING id, user_id, client_id";
    const EXISTS: &str = "SELECT id FROM sessions
        WHERE id = $1 AND ($2 IS NULL OR user_id = $2) AND ($3 IS NULL OR family_digest = $3)
          AND ($4 IS NULL OR client_id = $4)";
    let mut ending = owned(request);
    ending.extend(values![now, request.reason.as_str()]);
    if let Some(row) = tx.row(END, ending).await? {
        tx.revoke(Revocation::Session(request.session), now, request.revocation_expires_at).await?;
        if let Some(event) = &request.audit {
            audit::record(tx, now, [&about_session_in(&row, event)?]).await?;
        }
        return Ok(EndOutcome::Ended);
    }
    let exists = tx.row(EXISTS, owned(request)).await?.is_some();
    Ok(if exists { EndOutcome::AlreadyEnded } else { EndOutcome::Unknown })
}

/// The session's id, and the conditions of its owner: user, family, client.
fn owned(request: &EndRequest) -> Vec<Value> {
    let (user, family, client) = match &request.owner {
        Owner::Anyone => (None, None, None),
        Owner::User(user) => (Some(*user), None, None),
        Owner::Family(digest, client) => (None, Some(*digest), client.as_ref()),
    };
    values![request.session, user, family, client]
}
