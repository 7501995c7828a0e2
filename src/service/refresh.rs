//! Refresh: the next pair of tokens of a session, and the same pair again for a retry (design.md §4).

use crate::crypto::RefreshToken;
use crate::domain::{ClientKind, Grant, RefreshRefusal, ScopeSet};
use crate::store::{RotateOutcome, RotateRequest, SessionDetail};

use super::login::scope_of_user;
use super::{Caller, Failure, IssuedTokens, REVOCATION_LIFE, Requester, Service};

/// What a refresh did.
#[derive(Debug)]
pub enum Refreshed {
    /// This request made the next generation.
    Rotated(IssuedTokens),
    /// An earlier request did, within the retry window: the same pair again.
    Retried(IssuedTokens),
}

/// Why there are no new tokens.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The token is not good; the reason is for the operator.
    #[error("refresh refused: {}", .0.as_str())]
    Refused(RefreshRefusal),
    /// The client may not refresh.
    #[error("the client is not allowed to refresh")]
    ClientNotAllowed,
    /// More scope than the session has (RFC 6749 §6).
    #[error("the scope exceeds what was granted")]
    InvalidScope,
    /// It could not be decided; nothing was consumed (security.md R5).
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Service {
    /// Refreshes the session of `token` for `caller`.
    pub async fn refresh(
        &self,
        caller: &Caller,
        token: &str,
        scope: Option<ScopeSet>,
        from: &Requester,
    ) -> Result<Refreshed, RefreshError> {
        let client = &*caller.client;
        if !client.settings.grants.allow(Grant::RefreshToken) {
            return Err(RefreshError::ClientNotAllowed);
        }
        if client.settings.kind == ClientKind::Confidential && !caller.authenticated {
            return Err(RefreshError::Refused(RefreshRefusal::ForeignClient));
        }
        let Ok(presented) = self.refresh_codec.read(token) else {
            return Err(RefreshError::Refused(RefreshRefusal::Forged));
        };
        let successor = presented.successor().map_err(Failure::internal)?;
        if let Some(scope) = &scope {
            self.check_narrowing(&presented, scope).await?;
        }
        let now = self.clock.now();
        let request = RotateRequest {
            session: presented.session,
            generation: presented.generation,
            family_digest: presented.family.digest().0,
            client: client.id.clone(),
            idle_ttl: self.settings.idle_ttl,
            retry_window: self.settings.retry_window,
            revocation_expires_at: now.plus(REVOCATION_LIFE),
            reuse_audit: from.event("session.reused").about(presented.session).on(&client.id),
        };
        let written = self.store.sessions().rotate(request, now).await.map_err(Failure::from)?;
        match self.follower.honour(written).await {
            RotateOutcome::Rotated(detail) => self.answer(&detail, &successor, caller, scope).map(Refreshed::Rotated),
            RotateOutcome::Retried(detail) => self.answer(&detail, &successor, caller, scope).map(Refreshed::Retried),
            RotateOutcome::Refused(refusal) => {
                if refusal == RefreshRefusal::Reused {
                    tracing::warn!(session = %presented.session, client = %client.id, "refresh token reuse: session ended");
                }
                Err(RefreshError::Refused(refusal))
            }
        }
    }

    /// Refuses a wider scope before anything is consumed (security.md R5). A session's scope never changes, so reading it
    /// ahead of the rotation cannot race; a token that is not good is left to the rotation to refuse.
    async fn check_narrowing(&self, presented: &RefreshToken, scope: &ScopeSet) -> Result<(), RefreshError> {
        let found = self.store.sessions().proven(presented.session, presented.family.digest().0).await;
        match found.map_err(Failure::from)? {
            Some(found) if !scope.is_subset_of(&found.session.scope) => Err(RefreshError::InvalidScope),
            _ => Ok(()),
        }
    }

    /// What the client may still have of what was granted at login: narrowing only (security.md R9).
    fn answer(
        &self,
        detail: &SessionDetail,
        successor: &RefreshToken,
        caller: &Caller,
        scope: Option<ScopeSet>,
    ) -> Result<IssuedTokens, RefreshError> {
        let scope = scope.as_ref().unwrap_or(&detail.session.scope);
        let scope = scope_of_user(&caller.client, &detail.roles, scope);
        Ok(self.tokens_of_generation(detail, successor, &caller.client, scope)?)
    }
}
