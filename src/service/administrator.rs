//! Who may administer: bearers of an access token with the scope, and of admin keys.

use crate::crypto;
use crate::domain::Subject;

use super::judge::{Doubt, Verdict};
use super::{ADMIN_SCOPE, Failure, Service};

/// What every admin key begins with.
pub const ADMIN_KEY_PREFIX: &str = "cs_admin_";

/// Why somebody may not administer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The token or key is not good.
    #[error("the token is not valid")]
    Refused,
    /// The token is good but lacks the scope, or is for somebody else.
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
    /// Who administers with `token`, as the audit trail names them. An access token must carry the scope and be for this
    /// service: one that a resource server received must not open the administration.
    pub async fn administrator(&self, token: &str) -> Result<String, AdminError> {
        if token.starts_with(ADMIN_KEY_PREFIX) {
            let digest = crypto::sha256(token.as_bytes());
            let found = self.store.admin_keys().accept(digest, self.clock.now()).await.map_err(Failure::from)?;
            return found.map(|key| format!("admin-key:{}", key.name)).ok_or(AdminError::Refused);
        }
        match self.judge.judge(token).await.verdict {
            Verdict::Active(token) => {
                let claims = &token.claims;
                let is_for_us = claims
                    .audience
                    .iter()
                    .any(|audience| *audience == self.settings.default_audience || audience.as_str() == self.issuer);
                if !is_for_us || !claims.scope.contains(ADMIN_SCOPE) {
                    return Err(AdminError::NotAllowed);
                }
                Ok(match &claims.subject {
                    Subject::User(user) => user.to_string(),
                    Subject::Client(client) => client.to_string(),
                })
            }
            Verdict::Inactive(_) => Err(AdminError::Refused),
            Verdict::CannotJudge(doubt) => Err(AdminError::Doubt(doubt)),
        }
    }
}
