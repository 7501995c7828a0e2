//! Logout: ending one session, by its refresh token or by an access token of it.

use crate::domain::{EndReason, Revocation, RevocationKind, SessionId, UserId};
use crate::service::judge::{Inactivity, Unavailable, Verdict};
use crate::service::{Failure, JudgedToken, REVOCATION_LIFE, Requester, Sessions};
use crate::store::{EndOutcome, EndRequest, Owner};

/// An active token whose audience is another service.
#[derive(Debug, thiserror::Error)]
#[error("the audience of the access token does not name this service")]
pub struct WrongAudience;

/// Why a bearer token was refused.
#[derive(Debug, thiserror::Error)]
pub enum BearerError {
    /// The token is inactive, or does not belong to a user's session.
    #[error("the access token is not active")]
    Inactive,
    /// The token is active, but its audience is not this service.
    #[error(transparent)]
    WrongAudience(#[from] WrongAudience),
    /// The token is inactive because its session has ended.
    #[error("the session of the access token has ended")]
    SessionEnded,
    /// The replica gives no verdict now.
    #[error("no verdict available: {0}")]
    Unavailable(Unavailable),
}

/// The user that an access token authenticates.
#[derive(Debug, Clone)]
pub struct Bearer {
    pub user: UserId,
    pub session: SessionId,
    pub token: std::sync::Arc<JudgedToken>,
}

impl Sessions {
    /// Authenticates a user by an access token. Its audience must be this service: a resource server that received a user's
    /// token must not act on the user's account (security.md I16).
    pub async fn bearer(&self, access_token: &str) -> Result<Bearer, BearerError> {
        match self.judge.judge(access_token).await.verdict {
            Verdict::Active(token) => match (&token.claims.subject, &token.claims.login) {
                (crate::domain::Subject::User(user), Some(login)) => {
                    check_audience(&token, &self.tokens.issuer)?;
                    Ok(Bearer { user: *user, session: login.session, token: token.clone() })
                }
                _ => Err(BearerError::Inactive),
            },
            Verdict::Inactive(Inactivity::Revoked(RevocationKind::Session)) => Err(BearerError::SessionEnded),
            Verdict::Inactive(_) => Err(BearerError::Inactive),
            Verdict::Unavailable(reason) => Err(BearerError::Unavailable(reason)),
        }
    }

    /// Ends the session of a refresh token of any generation, because each contains the family secret. A token of another
    /// installation, or of a session that does not exist, is not an error.
    pub async fn log_out_by_refresh_token(&self, token: &str, from: &Requester) -> Result<(), Failure> {
        let Ok(token) = self.tokens.refresh_codec.read(token) else {
            return Ok(());
        };
        if self.replica.view.has_ended_session(token.session, self.replica.clock.now()) {
            return Ok(());
        }
        let owner = Owner::Family(token.family.digest().0, None);
        self.end_session(token.session, owner, EndReason::LoggedOut, from).await.map(drop)
    }

    /// Ends the session that an access token belongs to.
    pub async fn log_out_bearer(&self, bearer: &Bearer, from: &Requester) -> Result<(), Failure> {
        self.end_session(bearer.session, Owner::User(bearer.user), EndReason::LoggedOut, &from.acting(bearer.user))
            .await
            .map(drop)
    }

    /// Ends one session if it belongs to `owner`. Returns whether such a session exists, even if it had ended before.
    pub async fn end_session(
        &self,
        session: SessionId,
        owner: Owner,
        reason: EndReason,
        from: &Requester,
    ) -> Result<bool, Failure> {
        let now = self.replica.clock.now();
        let revocation_expires_at = now.plus(REVOCATION_LIFE);
        let request = EndRequest {
            session,
            owner,
            reason,
            revocation_expires_at,
            audit: Some(from.event("session.ended").noting("reason", reason.as_str())),
        };
        let written = self.replica.store.sessions().end(request, now).await?;
        let outcome = self.replica.follower.apply_locally(written).await;
        if outcome == EndOutcome::AlreadyEnded {
            // It may have ended on another replica a moment ago. After this response, this replica must not answer that the
            // session's tokens are active.
            self.replica.view.revoke(&Revocation::Session(session), revocation_expires_at);
        }
        Ok(outcome != EndOutcome::Unknown)
    }
}

/// Checks that a token may be used on this service's own endpoints. Its audience must contain the issuer;
/// `tokens.default_audience` is not accepted instead.
pub(crate) fn check_audience(token: &JudgedToken, issuer: &str) -> Result<(), WrongAudience> {
    let is_named = token.claims.audience.iter().any(|audience| audience.as_str() == issuer);
    if is_named { Ok(()) } else { Err(WrongAudience) }
}
