//! Changes a password: every session ends, except optionally the one in which it was changed.

use std::time::Duration;

use super::scheme::scheme_of;
use super::{Users, end_sessions};
use crate::domain::{Revocation, SessionId, Timestamp, User, UserId};
use crate::store::columns::{installation_epoch, session_columns, user_columns};
use crate::store::db::{Tx, Written, values};
use crate::store::sessions::SessionDetail;
use crate::store::{AuditEvent, StoreError, audit};

/// A new password for a user. Has no `Debug`: it holds the hash.
#[derive(Clone)]
pub struct PasswordChange {
    /// The user's id.
    pub user: UserId,
    /// The user's epoch when the current password was checked. None when an administrator sets a new password without
    /// the current one.
    pub expected_epoch: Option<u32>,
    /// Hash of the new password, in PHC form.
    pub password_hash: String,
    /// The session that remains, under the new epoch and with a new family of refresh tokens.
    pub kept: Option<KeptSession>,
    /// When the revocation of all older tokens expires.
    pub revocation_expires_at: Timestamp,
    /// The audit event.
    pub audit: Option<AuditEvent>,
}

/// The session in which a user changes the password.
#[derive(Debug, Clone, Copy)]
pub struct KeptSession {
    /// The session's id.
    pub session: SessionId,
    /// SHA-256 of its new family secret. The server does not store the old secret.
    pub family_digest: [u8; 32],
    /// Its new idle end is this far from now.
    pub idle_ttl: Duration,
}

/// The result of a password change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotatedByPassword {
    /// The user, with the new epoch.
    pub user: User,
    /// The session that remains, in its new state.
    pub session: Option<SessionDetail>,
}

impl Users<'_> {
    /// Changes a password and raises the user's epoch. Returns [`StoreError::Conflict`], and changes nothing, if the
    /// epoch changed since the current password was checked. The same applies if the user is disabled, or the session
    /// to be kept is not live.
    pub async fn change_password(
        &self,
        change: PasswordChange,
        now: Timestamp,
    ) -> Result<Written<RotatedByPassword>, StoreError> {
        self.0.write("user_password", (change, now), |tx, (change, now)| Box::pin(apply(tx, change, *now))).await
    }
}

async fn apply(tx: &mut Tx, change: &PasswordChange, now: Timestamp) -> Result<RotatedByPassword, StoreError> {
    const CHANGE: &str = concat!(
        "UPDATE users SET password_hash = $1, password_scheme = $5, password_changed_at = $2, epoch = epoch + 1
        WHERE id = $3 AND ($4 IS NULL OR (epoch = $4 AND disabled_at IS NULL)) RETURNING ",
        user_columns!()
    );
    const EXISTS: &str = "SELECT id FROM users WHERE id = $1";
    let hash = change.password_hash.as_str();
    let values = values![hash, now, change.user, change.expected_epoch, scheme_of(hash)];
    let Some(row) = tx.row(CHANGE, values).await? else {
        let exists = tx.row(EXISTS, values![change.user]).await?.is_some();
        return Err(if exists {
            StoreError::Conflict { what: "user epoch" }
        } else {
            StoreError::NotFound { what: "user" }
        });
    };
    let user = User::try_from(&row)?;
    let session = match change.kept {
        Some(kept) => Some(keep(tx, kept, &user, now).await?),
        None => None,
    };
    end_sessions(tx, user.id, change.kept.map(|kept| kept.session), now).await?;
    tx.revoke(Revocation::User(user.id, user.epoch), now, change.revocation_expires_at).await?;
    audit::record(tx, now, &change.audit).await?;
    Ok(RotatedByPassword { user, session })
}

/// Moves one session to the user's new epoch and gives it a new family secret. Every earlier refresh token then belongs
/// to an unknown family. The thief of such a token neither receives its successor nor can end the session.
async fn keep(tx: &mut Tx, kept: KeptSession, user: &User, now: Timestamp) -> Result<SessionDetail, StoreError> {
    const KEEP: &str = concat!(
        "UPDATE sessions
        SET user_epoch = $1, generation = generation + 1, rotated_at = $2, idle_expires_at = $3, family_digest = $6
        WHERE id = $4 AND user_id = $5 AND user_epoch = $1 - 1 AND ended_at IS NULL
          AND idle_expires_at > $2 AND absolute_expires_at > $2
          AND EXISTS (SELECT 1 FROM clients
              WHERE clients.id = client_id AND clients.epoch = client_epoch AND clients.disabled_at IS NULL)
          AND installation_epoch = ",
        installation_epoch!(),
        "
        RETURNING ",
        session_columns!(),
        ", (SELECT username FROM users WHERE users.id = user_id) AS username,
            (SELECT roles FROM users WHERE users.id = user_id) AS roles"
    );
    let idle_expires_at = now.plus(kept.idle_ttl);
    let row =
        tx.row(KEEP, values![user.epoch, now, idle_expires_at, kept.session, user.id, kept.family_digest]).await?;
    row.as_ref().map(SessionDetail::try_from).ok_or(StoreError::Conflict { what: "session" })?
}
