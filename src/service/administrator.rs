//! Who may administer: users with the role, by an access token with the scope, and bearers of admin keys.

use crate::crypto;
use crate::domain::{Subject, UserState};

use super::judge::{Doubt, Verdict};
use super::logout::WrongAudience;
use super::{ADMIN_SCOPE, Failure, Service};

/// Prefix of every admin key.
pub const ADMIN_KEY_PREFIX: &str = "cs_admin_";

/// Why a caller may not administer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The token or key is not good.
    #[error("the token is not valid")]
    Refused,
    /// The token is good but not issued for this service.
    #[error(transparent)]
    WrongAudience(#[from] WrongAudience),
    /// The token lacks the scope, is a client's own, or its user does not have the role now.
    #[error("the token does not allow administration")]
    NotAllowed,
    /// It cannot be judged now.
    #[error("cannot judge now: {0}")]
    Doubt(Doubt),
    /// Admin keys are in the database, and it does not answer.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Service {
    /// The administrator behind `token`, as the audit trail names them. An access token must name this service as its
    /// audience, because resource servers receive tokens too. It must be a user's and carry the scope. The user must have the
    /// role now: the scope only says that the user had it when the token was issued (security.md I16, I17).
    pub async fn administrator(&self, token: &str) -> Result<String, AdminError> {
        if token.starts_with(ADMIN_KEY_PREFIX) {
            // Before the start is over, the database may lack its tables.
            if !self.has_started() {
                return Err(AdminError::Doubt(Doubt::Loading));
            }
            let digest = crypto::sha256(token.as_bytes());
            let found = self.store.admin_keys().accept(digest, self.clock.now()).await.map_err(Failure::from)?;
            return found.map(|key| format!("admin-key:{}", key.name)).ok_or(AdminError::Refused);
        }
        match self.judge.judge(token).await.verdict {
            Verdict::Active(token) => {
                self.check_audience(&token)?;
                let claims = &token.claims;
                let Subject::User(id) = claims.subject else { return Err(AdminError::NotAllowed) };
                if !claims.scope.contains(ADMIN_SCOPE) {
                    return Err(AdminError::NotAllowed);
                }
                let user = self.store.users().by_id(id).await.map_err(Failure::from)?;
                let administers = user.is_some_and(|user| {
                    user.state == UserState::Enabled && user.roles.iter().any(|role| role.as_str() == ADMIN_SCOPE)
                });
                if administers { Ok(id.to_string()) } else { Err(AdminError::NotAllowed) }
            }
            Verdict::Inactive(_) => Err(AdminError::Refused),
            Verdict::CannotJudge(doubt) => Err(AdminError::Doubt(doubt)),
        }
    }
}
