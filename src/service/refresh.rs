//! Refresh: the next pair of tokens of a session, and the same pair again for a retry (design.md §4).

use crate::crypto::RefreshToken;
use crate::domain::{ClientKind, Grant, RefreshRefusal, ScopeSet};
use crate::store::{Rotate, Rotation};

use super::{Caller, Failure, IssuedTokens, REVOCATION_LIFE, Requester, Service, SessionGrant};

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
        let rotate = Rotate {
            session: presented.session,
            generation: presented.generation,
            family_digest: presented.family.digest(),
            client: client.id.clone(),
            scope: scope.clone(),
            idle_ttl: self.settings.idle_ttl,
            retry_window: self.settings.retry_window,
            revocation_expires_at: now.plus(REVOCATION_LIFE),
            request: from.clone(),
            now,
        };
        match self.store.rotate(rotate).await.map_err(Failure::from)? {
            Rotation::Rotated(grant) => self.answer(&grant, &successor, caller, scope).map(Refreshed::Rotated),
            Rotation::Retried(grant) => self.answer(&grant, &successor, caller, scope).map(Refreshed::Retried),
            Rotation::Refused(refusal) => {
                if refusal == RefreshRefusal::Reused {
                    let ended = crate::domain::Revocation::Session(presented.session);
                    self.follower.apply(&ended, now.plus(REVOCATION_LIFE));
                    tracing::warn!(session = %presented.session, client = %client.id, "refresh token reuse: session ended");
                }
                Err(RefreshError::Refused(refusal))
            }
        }
    }

    /// Refuses a wider scope before anything is consumed (security.md R5). A session's scope never changes, so reading it
    /// ahead of the rotation cannot race; a token that is not good is left to the rotation to refuse.
    async fn check_narrowing(&self, presented: &RefreshToken, scope: &ScopeSet) -> Result<(), RefreshError> {
        let found = self.store.session_grant(&presented.session).await.map_err(Failure::from)?;
        match found.filter(|found| found.family_digest == presented.family.digest()) {
            Some(found) if !scope.is_subset_of(&found.session.scope) => Err(RefreshError::InvalidScope),
            _ => Ok(()),
        }
    }

    fn answer(
        &self,
        grant: &SessionGrant,
        successor: &RefreshToken,
        caller: &Caller,
        scope: Option<ScopeSet>,
    ) -> Result<IssuedTokens, RefreshError> {
        let scope = scope.unwrap_or_else(|| grant.session.scope.clone());
        Ok(self.tokens_of_generation(grant, successor, &caller.client, scope)?)
    }
}
