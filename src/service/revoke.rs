//! Revocation: a client's own token (RFC 7009), and an administrator's revocation of anything.

use crate::crypto::TokenRefusal;
use crate::domain::{ClientId, EndReason, Jti, Kid, Revocation, SessionId, Timestamp, UserId};
use crate::store::SessionOwner;

use super::judge::{Inactivity, Verdict};
use super::{Caller, Failure, REVOCATION_LIFE, Requester, Service};

/// Why a token was not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// It belongs to another client (RFC 7009 §2.1). Nothing was changed.
    #[error("the token belongs to another client")]
    ForeignToken,
    /// It could not be decided, or not be recorded: the token may still be good.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What an administrator revokes.
#[derive(Debug, Clone)]
pub enum Target {
    /// One token.
    Jti(Jti),
    /// A session: refresh token and access tokens.
    Session(SessionId),
    /// Every token and session of a user so far.
    User(UserId),
    /// Every token and session of a client so far.
    Client(ClientId),
    /// Everything that a key signed; the key is withdrawn.
    Key(Kid),
}

impl Service {
    /// Revokes a token for the client that it was issued to. What is unknown, expired or not a token is as good as revoked
    /// and leaves no row (security.md I9). The hint is not needed: the two kinds cannot be mistaken (I5).
    pub async fn revoke_token(&self, caller: &Caller, token: &str, from: &Requester) -> Result<(), RevokeError> {
        if crate::crypto::looks_like_refresh_token(token) {
            return self.revoke_refresh_token(caller, token, from).await;
        }
        let claims = match self.judge.judge(token).await.verdict {
            Verdict::Active(token) => token.claims.clone(),
            Verdict::Inactive(Inactivity::Refused(TokenRefusal::UnknownKey(_)) | _) => return Ok(()),
            Verdict::CannotJudge(doubt) => {
                return Err(Failure::Unavailable(format!("cannot judge now: {doubt:?}").into()).into());
            }
        };
        if claims.client != caller.client.id {
            return Err(RevokeError::ForeignToken);
        }
        self.revoke_jti(claims.jti, claims.expires_at, from).await?;
        Ok(())
    }

    async fn revoke_refresh_token(&self, caller: &Caller, token: &str, from: &Requester) -> Result<(), RevokeError> {
        let Ok(token) = self.refresh_codec.read(token) else {
            return Ok(());
        };
        let Some(found) = self.store.session_grant(&token.session).await.map_err(Failure::from)? else {
            return Ok(());
        };
        if found.family_digest != token.family.digest() {
            return Ok(());
        }
        if found.session.client != caller.client.id {
            return Err(RevokeError::ForeignToken);
        }
        let owner = SessionOwner::Family(found.family_digest);
        self.end_session(&token.session, owner, EndReason::LoggedOut, from).await?;
        Ok(())
    }

    /// Revokes what an administrator names. True when it exists.
    pub async fn revoke(&self, target: Target, from: &Requester) -> Result<bool, Failure> {
        let now = self.clock.now();
        let expires_at = now.plus(REVOCATION_LIFE);
        let revocation = match target {
            Target::Jti(jti) => return self.revoke_jti(jti, expires_at, from).await.map(|()| true),
            Target::Session(session) => {
                return self.end_session(&session, SessionOwner::Anyone, EndReason::Administrator, from).await;
            }
            Target::Key(kid) => return self.withdraw_key(&kid, from).await,
            Target::User(user) => {
                let epoch = self.store.bump_user_epoch(&user, from, now, expires_at).await?;
                epoch.map(|epoch| Revocation::User(user, epoch))
            }
            Target::Client(client) => {
                let epoch = self.store.bump_client_epoch(&client, from, now, expires_at).await?;
                epoch.map(|epoch| Revocation::Client(client, epoch))
            }
        };
        let Some(revocation) = revocation else {
            return Ok(false);
        };
        self.follower.apply(&revocation, expires_at);
        if let Revocation::Client(client, _) = &revocation {
            self.follower.refresh_client(client).await?;
        }
        Ok(true)
    }

    /// Makes everything issued so far inactive: after a restore from a backup, what was revoked since must not come back
    /// (security.md D8).
    pub async fn revoke_everything(&self, from: &Requester) -> Result<(), Failure> {
        let now = self.clock.now();
        self.store.bump_every_epoch(from, now, now.plus(REVOCATION_LIFE)).await?;
        self.follower.wake();
        Ok(())
    }

    async fn revoke_jti(&self, jti: Jti, token_expires_at: Timestamp, from: &Requester) -> Result<(), Failure> {
        let now = self.clock.now();
        let expires_at = token_expires_at.plus(REVOCATION_MARGIN);
        let revocation = Revocation::Jti(jti);
        self.store.revoke(&revocation, from, now, expires_at).await?;
        self.follower.apply(&revocation, expires_at);
        Ok(())
    }
}

/// How long a record outlives the token that it is about (security.md I12).
const REVOCATION_MARGIN: std::time::Duration = std::time::Duration::from_secs(120);
