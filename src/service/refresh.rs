//! Refresh: the next pair of tokens of a session, and the current pair again for a retry (design.md §4).

use crate::crypto::RefreshToken;
use crate::domain::{Client, ClientKind, EndReason, Grant, RefreshRefusal, SessionState, Timestamp};
use crate::store::{Answerable, ProvenSession, RotateOutcome, RotateRequest, SessionDetail};

use super::granted::{Granted, Narrowing, NotGranted};
use super::{Caller, Failure, IssuedTokens, REVOCATION_LIFE, Requester, Service};

/// Of one character in a claim there are so many bytes in JSON at most: escaped, or UTF-8, or a word of one letter in a list.
const BYTES_OF_CHAR: usize = 6;

/// For the log, should it ever be seen.
const UNDECIDED: &str = "a rotation that asked for no kind of session was left undecided";

/// What a refresh did.
#[derive(Debug)]
pub enum Refreshed {
    /// This request made the next generation.
    Rotated(IssuedTokens),
    /// The token was superseded within the retry window: the current pair again.
    Retried(IssuedTokens),
}

/// Why there are no new tokens.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The token does not refresh. The cause is for the operator.
    #[error("refresh refused: {}", .0.as_str())]
    Refused(RefreshRefusal),
    /// The client may not refresh.
    #[error("the client is not allowed to refresh")]
    ClientNotAllowed,
    /// More scope than the session has (RFC 6749 §6).
    #[error("the scope exceeds what was granted")]
    InvalidScope,
    /// An audience that the session does not have (RFC 8707 §2.2), alone or among others.
    #[error("the audience is none of the session's")]
    InvalidAudience,
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
        let Ok(mut presented) = self.refresh_codec.read(token) else {
            tracing::info!(cause = RefreshRefusal::Forged.as_str(), client = %client.id, "refresh refused");
            return Err(RefreshError::Refused(RefreshRefusal::Forged));
        };
        let mut outcome = self.decide(client, &presented, asked, from).await?;
        if let RotateOutcome::Retried(detail) = &outcome
            && self.clock.now() >= self.access_expires_at(&detail.session, client)
        {
            // The pair to answer with has an access token that has expired. Its refresh token is current, and rotates.
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

    /// Rotates the session of a presented token, after everything that could stop the answer was ruled out.
    async fn decide(
        &self,
        client: &Client,
        presented: &RefreshToken,
        asked: &Narrowing,
        from: &Requester,
    ) -> Result<RotateOutcome, RefreshError> {
        let successor = presented.successor().map_err(Failure::internal)?;
        let now = self.clock.now();
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
            only: None,
        };
        if !asked.is_none() {
            let found = self.store.sessions().proven_for_refresh(presented.session, family_digest).await;
            let found = found.map_err(Failure::from)?;
            if let Some(found) = found.filter(|found| is_next(found, presented, client, now)) {
                self.check_answerable(found.detail, &successor, client, asked, now)?;
            }
        } else {
            request.only = Some(self.answerable(&successor, client, now)?);
        }
        let outcome = self.rotate(request.clone(), now).await?;
        if let RotateOutcome::Undecided(detail) = outcome {
            self.check_answerable(*detail, &successor, client, asked, now)?;
            return Ok(self.rotate(RotateRequest { only: None, ..request }, now).await?);
        }
        Ok(outcome)
    }

    async fn rotate(&self, request: RotateRequest, now: Timestamp) -> Result<RotateOutcome, Failure> {
        Ok(self.follower.honour(self.store.sessions().rotate(request, now).await?).await)
    }

    /// What sessions say whose next tokens can be written for certain, if nothing narrower is asked for: then one
    /// statement decides and rotates, and reads nothing before. Almost all are such; of any other, what
    /// [`Service::check_answerable`] needs is read first.
    fn answerable(&self, successor: &RefreshToken, client: &Client, now: Timestamp) -> Result<Answerable, Failure> {
        let all = self.audience_for(client, &[]).unwrap_or_default();
        let each = all.iter().map(|audience| vec![audience.clone()]).filter(|_| all.len() > 1);
        let audiences = std::iter::once(all.clone()).chain(each).collect();
        Ok(Answerable { audiences, most_chars: self.remaining_token_length(successor, client, now)? / BYTES_OF_CHAR })
    }

    /// Refuses what could not be answered before anything is consumed (security.md R5): a wider scope, another audience, a client
    /// without the session's audiences, a token over its limit. What decides this does not change with a rotation.
    fn check_answerable(
        &self,
        mut detail: SessionDetail,
        successor: &RefreshToken,
        client: &Client,
        asked: &Narrowing,
        now: Timestamp,
    ) -> Result<(), RefreshError> {
        let granted = self.grant(&detail, client, asked)?;
        detail.session.generation = successor.generation;
        detail.session.rotated_at = now;
        Ok(self.check_length(&detail, successor, client, granted)?)
    }

    fn answer(
        &self,
        detail: &SessionDetail,
        token: &RefreshToken,
        client: &Client,
        asked: &Narrowing,
    ) -> Result<IssuedTokens, RefreshError> {
        let granted = self.grant(detail, client, asked)?;
        Ok(self.tokens_of_generation(detail, token, client, granted)?)
    }

    fn grant(&self, detail: &SessionDetail, client: &Client, asked: &Narrowing) -> Result<Granted, RefreshError> {
        self.granted_now(&detail.session, &detail.roles, client, asked).map_err(|error| match error {
            NotGranted::WiderScope => RefreshError::InvalidScope,
            NotGranted::OtherAudience => RefreshError::InvalidAudience,
            NotGranted::NoAudience => RefreshError::Refused(RefreshRefusal::Revoked),
        })
    }
}

/// Whether `presented` would rotate this session now. If not, the rotation names the cause, and sees reuse whatever else the
/// request asks for.
fn is_next(found: &ProvenSession, presented: &RefreshToken, client: &Client, now: Timestamp) -> bool {
    let session = &found.detail.session;
    let is_live = found.is_current && session.state == SessionState::Live && !session.has_expired(now);
    is_live && session.client == client.id && session.generation == presented.generation
}
