//! Refresh: issues the next pair of a session, or the current pair again for a retry (design.md §4).

use crate::crypto::RefreshToken;
use crate::domain::{
    Audience, Client, ClientKind, EndReason, Grant, RefreshRefusal, Revocation, SessionState, Timestamp,
};
use crate::service::tokens::granted::{Granted, Narrowing, NotGranted};
use crate::service::{Caller, Failure, IssuedTokens, REVOCATION_LIFE, Requester, Sessions};
use crate::store::{MatchingSession, RotateOutcome, RotateRequest, SessionDetail};

const UNDECIDED: &str = "a rotation that names no audiences was left undecided";

#[derive(Debug)]
pub enum Refreshed {
    /// This request created the next generation.
    Rotated(IssuedTokens),
    /// The token was superseded within the retry window, so this is the current pair again.
    Retried(IssuedTokens),
}

/// Why a refresh failed.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The refresh token is refused. The cause is only for the log.
    #[error("refresh refused: {}", .0.as_str())]
    Refused(RefreshRefusal),
    /// The client's settings do not allow refreshes.
    #[error("the client is not allowed to refresh")]
    ClientNotAllowed,
    /// The requested scope exceeds that of the session (RFC 6749 §6).
    #[error("the scope exceeds what was granted")]
    InvalidScope,
    /// A requested audience does not belong to the session (RFC 8707 §2.2).
    #[error("the audience is none of the session's")]
    InvalidAudience,
    /// The service failed. The refresh token is not consumed (security.md R5).
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Sessions {
    /// Refreshes the session of `token` for `caller`.
    pub async fn refresh(
        &self,
        caller: &Caller,
        token: &str,
        asked: &Narrowing,
        from: &Requester,
    ) -> Result<Refreshed, RefreshError> {
        let client = &*caller.client;
        if !client.settings.grants.allow(Grant::RefreshToken) {
            return Err(RefreshError::ClientNotAllowed);
        }
        if client.settings.kind == ClientKind::Confidential && !caller.authenticated {
            let cause = "client_not_authenticated";
            tracing::info!(cause, client = %client.id, "refresh refused");
            return Err(RefreshError::Refused(RefreshRefusal::ForeignClient));
        }
        let Ok(mut presented) = self.tokens.refresh_codec.read(token) else {
            tracing::info!(cause = RefreshRefusal::Forged.as_str(), client = %client.id, "refresh refused");
            return Err(RefreshError::Refused(RefreshRefusal::Forged));
        };
        let mut outcome = self.decide(client, &presented, asked, from).await?;
        if let RotateOutcome::Retried(detail) = &outcome
            && self.replica.clock.now() >= self.tokens.access_expires_at(&detail.session, client)
        {
            // The access token of the current pair has expired, so its refresh token, which is the current one, is rotated.
            presented.generation = detail.session.generation;
            outcome = self.decide(client, &presented, asked, from).await?;
        }
        let answer = |detail: SessionDetail| {
            let token = RefreshToken { generation: detail.session.generation, ..presented };
            self.answer(&detail, &token, client, asked)
        };
        match outcome {
            RotateOutcome::Rotated(detail) => answer(detail).map(Refreshed::Rotated),
            RotateOutcome::Retried(detail) => answer(detail).map(Refreshed::Retried),
            RotateOutcome::Refused(refusal) => Err(RefreshError::Refused(refusal)),
            RotateOutcome::Undecided(_) => Err(Failure::internal(UNDECIDED).into()),
        }
    }

    /// Rotates the session of a presented token after checking that its scope and audience can be granted.
    async fn decide(
        &self,
        client: &Client,
        presented: &RefreshToken,
        asked: &Narrowing,
        from: &Requester,
    ) -> Result<RotateOutcome, RefreshError> {
        if presented.generation == u32::MAX {
            return Err(RefreshError::Refused(RefreshRefusal::Expired));
        }
        let now = self.replica.clock.now();
        let family_digest = presented.family.digest().0;
        let mut request = RotateRequest {
            session: presented.session,
            generation: presented.generation,
            family_digest,
            client: client.id.clone(),
            idle_ttl: self.settings.idle_ttl,
            retry_window: self.settings.retry_window,
            revocation_expires_at: now.plus(REVOCATION_LIFE),
            reuse_audit: from.event("session.reused").noting("reason", EndReason::Reused.as_str()),
            audiences: None,
        };
        if !asked.is_none() {
            let found = self.replica.store.sessions().matching_for_refresh(presented.session, family_digest).await;
            let found = found.map_err(Failure::from)?;
            if let Some(found) = found.filter(|found| is_next(found, presented, client, now)) {
                self.grant(&found.detail, client, asked)?;
            }
        } else {
            request.audiences = Some(self.usual_audiences(client));
        }
        let outcome = self.rotate(request.clone(), now).await?;
        if let RotateOutcome::Undecided(detail) = outcome {
            self.grant(&detail, client, asked)?;
            return Ok(self.rotate(RotateRequest { audiences: None, ..request }, now).await?);
        }
        Ok(outcome)
    }

    async fn rotate(&self, request: RotateRequest, now: Timestamp) -> Result<RotateOutcome, Failure> {
        let (session, revoked_until) = (request.session, request.revocation_expires_at);
        let written = self.replica.store.sessions().rotate(request, now).await?;
        let outcome = self.replica.follower.apply_locally(written).await;
        if let RotateOutcome::Refused(RefreshRefusal::Reused) = &outcome {
            // Another replica or request may have ended the session a moment ago.
            self.replica.view.revoke(&Revocation::Session(session), revoked_until);
        }
        Ok(outcome)
    }

    /// The lists of audiences that the sessions of a client usually have: all of the client's, or one of them. A session
    /// with such a list can be refreshed without reading it first. [`Sessions::grant`] decides about any other session
    /// before the refresh token is consumed (security.md R5).
    fn usual_audiences(&self, client: &Client) -> Vec<Vec<Audience>> {
        let all = self.tokens.audience_for(client, &[]).unwrap_or_default();
        let each: Vec<_> = all.iter().map(|audience| vec![audience.clone()]).filter(|_| all.len() > 1).collect();
        [vec![all], each].concat()
    }

    fn answer(
        &self,
        detail: &SessionDetail,
        token: &RefreshToken,
        client: &Client,
        asked: &Narrowing,
    ) -> Result<IssuedTokens, RefreshError> {
        let granted = self.grant(detail, client, asked)?;
        Ok(self.tokens.tokens_of_generation(detail, token, client, granted)?)
    }

    fn grant(&self, detail: &SessionDetail, client: &Client, asked: &Narrowing) -> Result<Granted, RefreshError> {
        self.tokens.granted_now(&detail.session, &detail.roles, client, asked).map_err(|error| match error {
            NotGranted::WiderScope => RefreshError::InvalidScope,
            NotGranted::OtherAudience => RefreshError::InvalidAudience,
            NotGranted::NoAudience => RefreshError::Refused(RefreshRefusal::Revoked),
        })
    }
}

/// Whether `presented` would rotate this session now. If not, the rotation is still tried: it reports the cause and detects
/// reuse.
fn is_next(found: &MatchingSession, presented: &RefreshToken, client: &Client, now: Timestamp) -> bool {
    let session = &found.detail.session;
    let is_live = found.is_current && session.state == SessionState::Live && !session.has_expired(now);
    is_live && session.client == client.id && session.generation == presented.generation
}
