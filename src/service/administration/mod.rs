//! Authentication of administrators: a user with the role and an access token with the scope, or an admin key.

pub(crate) mod admin_keys;
pub(crate) mod audit;

use std::sync::Arc;

use crate::crypto;
use crate::domain::{Subject, UserState};
use crate::replica::Replica;
use crate::service::judge::{Unavailable, Verdict};
use crate::service::sessions::logout::{WrongAudience, check_audience};
use crate::service::{ADMIN_SCOPE, AuditSearches, Failure, Judge, Tokens};

pub const ADMIN_KEY_PREFIX: &str = "cs_admin_";

/// Why a caller is not an administrator.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The token is inactive, or the key is unknown or expired.
    #[error("the token is not valid")]
    Refused,
    /// The token is active, but its audience is not this service.
    #[error(transparent)]
    WrongAudience(#[from] WrongAudience),
    /// The token lacks the scope, its subject is a client, or its user does not have the role now.
    #[error("the token does not allow administration")]
    NotAllowed,
    /// The replica gives no verdict now.
    #[error("no verdict available: {0}")]
    Unavailable(Unavailable),
    /// The database, which holds the admin keys and users, failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Administrators, their keys, and the audit trail.
pub struct Administration {
    pub(crate) replica: Replica,
    pub(crate) judge: Arc<Judge>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) audit_searches: AuditSearches,
}

impl Administration {
    /// The administrator that `token` authenticates, as an actor of audit events. An access token must have this service as
    /// its audience, because resource servers receive tokens too. Its subject must be a user, and it must have the scope. The
    /// user must also have the role now: the scope only says that it had the role at issue (security.md I16, I17).
    pub async fn administrator(&self, token: &str) -> Result<String, AdminError> {
        if token.starts_with(ADMIN_KEY_PREFIX) {
            // Until the start has completed, the database may not have its tables.
            if !self.replica.view.is_loaded() {
                return Err(AdminError::Unavailable(Unavailable::Loading));
            }
            let digest = crypto::sha256(token.as_bytes());
            let found = self
                .replica
                .store
                .admin_keys()
                .accept(digest, self.replica.clock.now())
                .await
                .map_err(Failure::from)?;
            return found.map(|key| format!("admin-key:{}", key.name)).ok_or(AdminError::Refused);
        }
        match self.judge.judge(token).await.verdict {
            Verdict::Active(token) => {
                check_audience(&token, &self.tokens.issuer)?;
                let claims = &token.claims;
                let Subject::User(id) = claims.subject else { return Err(AdminError::NotAllowed) };
                if !claims.scope.contains(ADMIN_SCOPE) {
                    return Err(AdminError::NotAllowed);
                }
                let user = self.replica.store.users().by_id(id).await.map_err(Failure::from)?;
                let administers = user.is_some_and(|user| {
                    user.state == UserState::Enabled && user.roles.iter().any(|role| role.as_str() == ADMIN_SCOPE)
                });
                if administers { Ok(id.to_string()) } else { Err(AdminError::NotAllowed) }
            }
            Verdict::Inactive(_) => Err(AdminError::Refused),
            Verdict::Unavailable(reason) => Err(AdminError::Unavailable(reason)),
        }
    }
}
