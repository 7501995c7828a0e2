//! Opens a session: the last step of a login.

use tokio_util::sync::CancellationToken;

use super::{Sessions, about_session_in};
use crate::domain::{Audience, ClientId, EndReason, Revocation, ScopeSet, SessionId, Timestamp, UserId};
use crate::store::attempts::{Settlement, settle};
use crate::store::db::{Tx, Written, values};
use crate::store::rows::joined;
use crate::store::{AuditEvent, StoreError, audit};

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
        self.database.write("session_open", (new, now), |tx, (new, now)| Box::pin(open(tx, new, *now))).await
    }
}

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
