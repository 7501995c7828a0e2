//! Refresh: the next pair of tokens of a session, and the same pair again for a retry (design.md §4).

use crate::crypto::RefreshToken;
use crate::domain::{Client, ClientKind, Grant, RefreshRefusal, ScopeSet, SessionState, Timestamp};
use crate::store::{ProvenSession, RotateOutcome, RotateRequest, SessionDetail};

use super::granted::{Granted, NotGranted};
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
        let now = self.clock.now();
        let scope = scope.as_ref();
        let family_digest = presented.family.digest().0;
        let found = self.store.sessions().proven(presented.session, family_digest).await.map_err(Failure::from)?;
        if let Some(found) = found.filter(|found| is_next(found, &presented, client, now)) {
            self.check_answerable(found.detail, &successor, client, scope, now)?;
        }
        let request = RotateRequest {
            session: presented.session,
            generation: presented.generation,
            family_digest,
            client: client.id.clone(),
            idle_ttl: self.settings.idle_ttl,
            retry_window: self.settings.retry_window,
            revocation_expires_at: now.plus(REVOCATION_LIFE),
            reuse_audit: from.event("session.reused").about(presented.session).on(&client.id),
        };
        let written = self.store.sessions().rotate(request, now).await.map_err(Failure::from)?;
        match self.follower.honour(written).await {
            RotateOutcome::Rotated(detail) => self.answer(&detail, &successor, client, scope).map(Refreshed::Rotated),
            RotateOutcome::Retried(detail) => self.answer(&detail, &successor, client, scope).map(Refreshed::Retried),
            RotateOutcome::Refused(refusal) => {
                if refusal == RefreshRefusal::Reused {
                    tracing::warn!(session = %presented.session, client = %client.id, "refresh token reuse: session ended");
                }
                Err(RefreshError::Refused(refusal))
            }
        }
    }

    /// Refuses what could not be answered before anything is consumed (security.md R5): a wider scope, a client without
    /// the session's audiences, a token over its limit. What decides this does not change with a rotation.
    fn check_answerable(
        &self,
        mut detail: SessionDetail,
        successor: &RefreshToken,
        client: &Client,
        scope: Option<&ScopeSet>,
        now: Timestamp,
    ) -> Result<(), RefreshError> {
        let granted = self.grant(&detail, client, scope)?;
        detail.session.generation = successor.generation;
        detail.session.rotated_at = now;
        Ok(self.check_length(&detail, successor, client, granted)?)
    }

    fn answer(
        &self,
        detail: &SessionDetail,
        successor: &RefreshToken,
        client: &Client,
        scope: Option<&ScopeSet>,
    ) -> Result<IssuedTokens, RefreshError> {
        let granted = self.grant(detail, client, scope)?;
        Ok(self.tokens_of_generation(detail, successor, client, granted)?)
    }

    fn grant(
        &self,
        detail: &SessionDetail,
        client: &Client,
        scope: Option<&ScopeSet>,
    ) -> Result<Granted, RefreshError> {
        self.granted_now(&detail.session, &detail.roles, client, scope).map_err(|error| match error {
            NotGranted::WiderScope => RefreshError::InvalidScope,
            NotGranted::NoAudience => RefreshError::Refused(RefreshRefusal::Revoked),
        })
    }
}

/// Whether `presented` would rotate this session now. What would not is left to the rotation, which names the cause, and
/// sees reuse whatever else the request asks for.
fn is_next(found: &ProvenSession, presented: &RefreshToken, client: &Client, now: Timestamp) -> bool {
    let session = &found.detail.session;
    let is_live = found.is_current && session.state == SessionState::Live && !session.has_expired(now);
    is_live && session.client == client.id && session.generation == presented.generation
}
