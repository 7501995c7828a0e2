//! Operations that make all older tokens and sessions of a user inactive. They raise the epoch, and iterate over no
//! tokens.

use super::{Users, end_sessions};
use crate::domain::{Revocation, Timestamp, User, UserId};
use crate::store::columns::user_columns;
use crate::store::db::{Tx, Written, values};
use crate::store::{AuditEvent, StoreError, audit};

impl Users<'_> {
    /// Ends all sessions of a user.
    pub async fn revoke(
        &self,
        id: UserId,
        revocation_expires_at: Timestamp,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<User>, StoreError> {
        const BUMP: &str = concat!("UPDATE users SET epoch = epoch + 1 WHERE id = $1 RETURNING ", user_columns!());
        let input = (id, revocation_expires_at, now, audit);
        self.0
            .write("user_revoke", input, |tx, (id, until, now, audit)| {
                Box::pin(async move {
                    let row = tx.row(BUMP, values![*id]).await?;
                    let user = row.as_ref().map(User::try_from).ok_or(StoreError::NotFound { what: "user" })??;
                    revoked(tx, &user, *now, *until).await?;
                    audit::record(tx, *now, audit).await?;
                    Ok(user)
                })
            })
            .await
    }

    /// Disables a user: no login, no refresh, every token inactive. Repeating this changes nothing.
    pub async fn disable(
        &self,
        id: UserId,
        revocation_expires_at: Timestamp,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<User>, StoreError> {
        let input = (id, revocation_expires_at, now, audit);
        self.0
            .write("user_disable", input, |tx, (id, until, now, audit)| Box::pin(disable(tx, *id, *now, *until, audit)))
            .await
    }

    /// Lets a disabled user log in again. Tokens revoked by disabling stay revoked. Repeating this changes nothing.
    pub async fn enable(&self, id: UserId, now: Timestamp, audit: Option<AuditEvent>) -> Result<User, StoreError> {
        let written = self
            .0
            .write("user_enable", (id, now, audit), |tx, (id, now, audit)| Box::pin(enable(tx, *id, *now, audit)));
        Ok(written.await?.value)
    }

    /// Deletes a user with all sessions; false if there is none. The id is never assigned again, so its revocation
    /// needs to outlive only its tokens.
    pub async fn delete(
        &self,
        id: UserId,
        revocation_expires_at: Timestamp,
        now: Timestamp,
        audit: Option<AuditEvent>,
    ) -> Result<Written<bool>, StoreError> {
        const DELETE: &str = concat!("DELETE FROM users WHERE id = $1 RETURNING ", user_columns!());
        let input = (id, revocation_expires_at, now, audit);
        self.0
            .write("user_delete", input, |tx, (id, until, now, audit)| {
                Box::pin(async move {
                    let Some(row) = tx.row(DELETE, values![*id]).await? else {
                        return Ok(false);
                    };
                    let epoch = User::try_from(&row)?.epoch.saturating_add(1);
                    tx.revoke(Revocation::User(*id, epoch), *now, *until).await?;
                    audit::record(tx, *now, audit).await?;
                    Ok(true)
                })
            })
            .await
    }
}

pub(super) async fn disable(
    tx: &mut Tx,
    id: UserId,
    now: Timestamp,
    until: Timestamp,
    audit: &Option<AuditEvent>,
) -> Result<User, StoreError> {
    const DISABLE: &str = concat!(
        "UPDATE users SET disabled_at = $1, epoch = epoch + 1
        WHERE id = $2 AND disabled_at IS NULL RETURNING ",
        user_columns!()
    );
    let Some(row) = tx.row(DISABLE, values![now, id]).await? else {
        return existing(tx, id).await;
    };
    let user = User::try_from(&row)?;
    revoked(tx, &user, now, until).await?;
    audit::record(tx, now, audit).await?;
    Ok(user)
}

pub(super) async fn enable(
    tx: &mut Tx,
    id: UserId,
    now: Timestamp,
    audit: &Option<AuditEvent>,
) -> Result<User, StoreError> {
    const ENABLE: &str = concat!(
        "UPDATE users SET disabled_at = NULL WHERE id = $1 AND disabled_at IS NOT NULL RETURNING ",
        user_columns!()
    );
    let Some(row) = tx.row(ENABLE, values![id]).await? else {
        return existing(tx, id).await;
    };
    audit::record(tx, now, audit).await?;
    User::try_from(&row)
}

/// Puts a user's new epoch on the feed, and marks the sessions of older epochs.
async fn revoked(tx: &mut Tx, user: &User, now: Timestamp, until: Timestamp) -> Result<(), StoreError> {
    end_sessions(tx, user.id, None, now).await?;
    tx.revoke(Revocation::User(user.id, user.epoch), now, until).await
}

pub(super) async fn existing(tx: &mut Tx, id: UserId) -> Result<User, StoreError> {
    let row = tx.row(concat!("SELECT ", user_columns!(), " FROM users WHERE id = $1"), values![id]).await?;
    row.as_ref().map(User::try_from).ok_or(StoreError::NotFound { what: "user" })?
}
