//! Opens a session: the last step of a login.

use tokio_util::sync::CancellationToken;

use super::{Sessions, about_session_in};
use crate::domain::{Audience, Change, ClientId, EndReason, Revocation, ScopeSet, SessionId, Timestamp, UserId};
use crate::store::attempts::{Settlement, settle, settle_together, settled_values};
use crate::store::columns::id_text;
use crate::store::db::{Row, Tx, Written, values};
use crate::store::rows::joined;
use crate::store::{AuditEvent, FeedEntry, StoreError, audit};

/// Maximum number of sessions that one login can end. This bounds the statement, and is far above the excess after
/// lowering the maximum.
const MOST_DISPLACED: u32 = 10_000;

/// A login that succeeded.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Fresh random id.
    pub id: SessionId,
    /// The user who logged in.
    pub user: UserId,
    /// The user's epoch, read before the password was checked.
    pub user_epoch: u32,
    /// The client of the login.
    pub client: ClientId,
    /// The client's epoch, as this replica knows it.
    pub client_epoch: u32,
    /// The installation's epoch, as this replica knew it before the password was checked.
    pub installation_epoch: u32,
    /// SHA-256 of the family secret.
    pub family_digest: [u8; 32],
    /// The user's authentication methods (`amr`).
    pub methods: Vec<String>,
    /// The granted scope.
    pub scope: ScopeSet,
    /// The audience of the access tokens; at least one.
    pub audience: Vec<Audience>,
    /// The idle end, unless the session is refreshed before.
    pub idle_expires_at: Timestamp,
    /// The absolute end, which a refresh does not move.
    pub absolute_expires_at: Timestamp,
    /// Maximum number of the user's sessions, including this one (security.md R12). At least 1.
    pub max_per_user: u32,
    /// When the revocations of displaced sessions expire.
    pub revocation_expires_at: Timestamp,
    /// Counts of failed logins that this success settles.
    pub settled: Vec<Settlement>,
    /// The event of the login.
    pub audit: AuditEvent,
    /// The event of each displaced session. The user, session and client are filled in.
    pub displaced_audit: AuditEvent,
    /// Cancelled when the caller disconnects: a transaction that has not begun then opens nothing.
    pub caller: CancellationToken,
}

/// A session was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Sessions that were ended to stay within the maximum: those with the oldest last refresh.
    pub displaced: Vec<SessionId>,
}

impl Sessions<'_> {
    /// Opens a session, and records the login on the user. Returns None, and writes nothing, if the user or client was
    /// disabled, deleted or revoked since their epochs were read. A login that began earlier can therefore not yield a
    /// live session. The same applies if the caller disconnected before the transaction.
    pub async fn open(&self, new: NewSession, now: Timestamp) -> Result<Written<Option<Opened>>, StoreError> {
        if let Some(opened) = self.open_together(&new, now).await? {
            return Ok(opened.map(Some));
        }
        self.database.write("session_open", (new, now), |tx, (new, now)| Box::pin(open(tx, new, *now))).await
    }

    /// Opens the session with one statement of PostgreSQL. Returns None on SQLite, for a disconnected caller, and if the
    /// statement changed nothing. The caller then runs the transaction, which determines the reason.
    async fn open_together(&self, new: &NewSession, now: Timestamp) -> Result<Option<Written<Opened>>, StoreError> {
        if new.caller.is_cancelled() {
            return Ok(None);
        }
        let NewSession { audit, displaced_audit, .. } = new.clone();
        let values = [
            settled_values(&new.settled),
            values![now, new.user, new.user_epoch, &new.client, new.client_epoch, new.installation_epoch],
            values![new.id, new.family_digest, new.idle_expires_at, new.absolute_expires_at],
            values![new.scope.to_string(), joined(&new.audience), joined(&new.methods)],
            values![EndReason::Displaced.as_str(), MOST_DISPLACED, new.max_per_user.saturating_sub(1)],
            values![new.revocation_expires_at],
            values![audit.event, audit.actor, audit.subject, audit.client, audit.user, audit.session],
            values![audit.request_id, audit.detail],
            values![displaced_audit.event, displaced_audit.actor, displaced_audit.request_id, displaced_audit.detail],
        ];
        let until = new.revocation_expires_at;
        let read = move |rows: Vec<Row>, _| {
            let mut displaced = Vec::new();
            for row in &rows {
                displaced.extend(row.of("sessions", "id").opt_array("id")?.map(SessionId::from_bytes));
            }
            let revoked = |id: &SessionId| FeedEntry {
                change: Change::Revoked(Revocation::Session(*id)),
                created_at: now,
                expires_at: until,
                place: None,
            };
            let changes = displaced.iter().map(revoked).collect();
            let opened = (!rows.is_empty()).then_some(Opened { displaced });
            Ok(Written { value: opened, changes })
        };
        let written = self.database.write_together("session_open", OPEN_TOGETHER, values.concat(), read).await?;
        Ok(written.and_then(|Written { value, changes }| Some(Written { value: value?, changes })))
    }
}

/// The statements of [`open`] in one.
///
/// Its parts see the snapshot from before it waited for the user's row. After a concurrent login of the same user, that
/// snapshot lacks a session, and the maximum would be exceeded. The transaction that wrote the row must therefore be
/// visible in the snapshot; otherwise nothing is changed. `xmin` has 32 bits of the transaction's number, which the
/// snapshot's number extends.
const OPEN_TOGETHER: &str = concat!(
    "WITH login AS (
        UPDATE users SET last_login_at = $6
        WHERE id = $7 AND epoch = $8 AND disabled_at IS NULL
          AND EXISTS (SELECT 1 FROM clients WHERE clients.id = $9 AND clients.epoch = $10 AND clients.disabled_at IS NULL)
          AND EXISTS (SELECT 1 FROM installation WHERE installation.epoch = $11)
          AND pg_visible_in_snapshot((
              SELECT (CASE WHEN difference < 2147483648 THEN latest - difference ELSE latest - difference + 4294967296 END)
                  ::text::xid8
              FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS latest) AS snapshot,
                  LATERAL (SELECT (latest - users.xmin::text::bigint) & 4294967295 AS difference) AS distance
            ), pg_current_snapshot())
        RETURNING id),
    opened AS (
        INSERT INTO sessions (id, user_id, client_id, family_digest, generation, authenticated_at, created_at, rotated_at,
            idle_expires_at, absolute_expires_at, scope, audience, methods, user_epoch, client_epoch, installation_epoch)
        SELECT $12, login.id, $9, $13, 0, $6, $6, $6, $14, $15, $16, $17, $18, $8, $10, $11 FROM login
        RETURNING id),
    displaced AS (
        UPDATE sessions SET ended_at = $6, end_reason = $19
        WHERE ended_at IS NULL AND id IN (
            SELECT id FROM sessions
            WHERE user_id = (SELECT id FROM login) AND id <> $12 AND user_epoch = $8 AND installation_epoch = $11
              AND ended_at IS NULL AND idle_expires_at > $6 AND absolute_expires_at > $6
            ORDER BY rotated_at DESC, id LIMIT $20 OFFSET $21)
        RETURNING id, client_id),
    revoked AS (
        INSERT INTO changes (kind, subject, epoch, created_at, expires_at) SELECT 'session', id, 0, $6, $22 FROM displaced),
    audited AS (
        INSERT INTO audit (at, event, actor, subject, client, user_id, session, request_id, detail)
        SELECT $6, $23, $24, $25, $26, $27, $28, $29, $30 FROM opened
        UNION ALL
        SELECT $6, $31, $32, text, client_id, $27, text, $33, $34 FROM displaced,
            LATERAL (SELECT ",
    id_text!("ses_", "id"),
    " AS text) AS named),
    ",
    settle_together!("EXISTS (SELECT 1 FROM opened)"),
    " SELECT opened.id AS opened, displaced.id AS id FROM opened LEFT JOIN displaced ON TRUE"
);

async fn open(tx: &mut Tx, new: &NewSession, now: Timestamp) -> Result<Option<Opened>, StoreError> {
    // Locks the user's row, so that logins of one user are serialized and the maximum holds.
    const NOTE_LOGIN: &str = "UPDATE users SET last_login_at = $1
        WHERE id = $2 AND epoch = $3 AND disabled_at IS NULL
          AND EXISTS (SELECT 1 FROM clients WHERE clients.id = $4 AND clients.epoch = $5 AND clients.disabled_at IS NULL)
          AND EXISTS (SELECT 1 FROM installation WHERE installation.epoch = $6)
        RETURNING id";
    // If a client is revoked between these two statements, the new session has an old epoch and is dead.
    const INSERT: &str = "INSERT INTO sessions (id, user_id, client_id, family_digest, generation, authenticated_at,
            created_at, rotated_at, idle_expires_at, absolute_expires_at, scope, audience, methods, user_epoch, client_epoch,
            installation_epoch)
        SELECT $1, $2, clients.id, $4, 0, $5, $5, $5, $6, $7, $8, $9, $10, $11, $12, $13
        FROM clients WHERE clients.id = $3
        RETURNING id";
    const DISPLACE: &str = "UPDATE sessions SET ended_at = $1, end_reason = $2
        WHERE ended_at IS NULL AND id IN (
            SELECT id FROM sessions
            WHERE user_id = $3 AND id <> $4 AND user_epoch = $5 AND installation_epoch = $8 AND ended_at IS NULL
              AND idle_expires_at > $1 AND absolute_expires_at > $1
            ORDER BY rotated_at DESC, id LIMIT $6 OFFSET $7)
        RETURNING id, user_id, client_id";
    if new.caller.is_cancelled() {
        return Ok(None);
    }
    let login = values![now, new.user, new.user_epoch, &new.client, new.client_epoch, new.installation_epoch];
    if tx.row(NOTE_LOGIN, login).await?.is_none() {
        return Ok(None);
    }
    let (ends, grants) =
        ((new.idle_expires_at, new.absolute_expires_at), (new.scope.to_string(), joined(&new.audience)));
    let session = values![
        new.id,
        new.user,
        &new.client,
        new.family_digest,
        now,
        ends.0,
        ends.1,
        grants.0,
        grants.1,
        joined(&new.methods),
        new.user_epoch,
        new.client_epoch,
        new.installation_epoch,
    ];
    if tx.row(INSERT, session).await?.is_none() {
        return Ok(None);
    }
    let (reason, others) = (EndReason::Displaced.as_str(), new.max_per_user.saturating_sub(1));
    let excess = values![now, reason, new.user, new.id, new.user_epoch, MOST_DISPLACED, others, new.installation_epoch];
    let (mut displaced, mut events) = (Vec::new(), vec![new.audit.clone()]);
    for row in tx.rows(DISPLACE, excess).await? {
        let id = SessionId::from_bytes(row.of("sessions", "id").array("id")?);
        tx.revoke(Revocation::Session(id), now, new.revocation_expires_at).await?;
        displaced.push(id);
        events.push(about_session_in(&row, &new.displaced_audit)?);
    }
    settle(tx, &new.settled).await?;
    audit::record(tx, now, &events).await?;
    Ok(Some(Opened { displaced }))
}
