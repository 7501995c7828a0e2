//! Revocation of a client's own token (RFC 7009), and revocation by an administrator.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{ClientId, EndReason, Jti, Kid, SessionId, Timestamp, UserId};
use crate::replica::Replica;
use crate::service::clients::failures::Buckets;
use crate::service::judge::Verdict;
use crate::service::{Caller, Failure, Judge, Keys, REVOCATION_LIFE, Requester, Sessions, Tokens, apply_if_found};
use crate::store::{Owner, StoreError, Turns};

/// Why a token was not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// RFC 7009 §2.1. Nothing was changed.
    #[error("the token belongs to another client")]
    ForeignToken,
    /// With the time until the next revocation is allowed.
    #[error("the client revokes too many access tokens")]
    TooMany(Duration),
    /// The service failed. The token may still be active.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// The target of a revocation by an administrator.
#[derive(Debug, Clone)]
pub enum Target {
    /// One token.
    Jti(Jti),
    /// One session with its refresh token and access tokens.
    Session(SessionId),
    /// All present tokens and sessions of a user.
    User(UserId),
    /// All present tokens and sessions of a client.
    Client(ClientId),
    /// Withdraws the key, so that all tokens it signed become inactive.
    Key(Kid),
}

/// Revokes tokens, sessions, users, clients and keys.
pub struct Revocations {
    pub(crate) replica: Replica,
    pub(crate) judge: Arc<Judge>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) limit: RevocationLimit,
    /// Running revocations of single tokens.
    pub(crate) revoking: Arc<Turns<[u8; 16], (), Result<(), StoreError>>>,
}

impl Revocations {
    /// Revokes a token of the calling client. An unknown or expired token, or other text, counts as revoked and leaves no row
    /// (security.md I9). `token_type_hint` is not needed, because the two kinds of token differ in their form (I5).
    pub async fn revoke_token(&self, caller: &Caller, token: &str, from: &Requester) -> Result<(), RevokeError> {
        if crate::crypto::looks_like_refresh_token(token) {
            return self.revoke_refresh_token(caller, token, from).await;
        }
        let claims = match &self.judge.judge(token).await.verdict {
            Verdict::Active(token) => token.claims.clone(),
            Verdict::Inactive(_) => return Ok(()),
            Verdict::Unavailable(reason) => return Err(Failure::no_verdict(*reason).into()),
        };
        if claims.client != caller.client.id {
            return Err(RevokeError::ForeignToken);
        }
        self.limit.count(&claims.client, self.replica.clock.elapsed()).map_err(RevokeError::TooMany)?;
        self.revoke_jti(&claims.jti, claims.expires_at.plus(REVOCATION_MARGIN), from).await?;
        self.judge.forget(token);
        Ok(())
    }

    async fn revoke_refresh_token(&self, caller: &Caller, token: &str, from: &Requester) -> Result<(), RevokeError> {
        let Ok(token) = self.tokens.refresh_codec.read(token) else {
            return Ok(());
        };
        if self.replica.view.has_ended_session(token.session, self.replica.clock.now()) {
            return Ok(());
        }
        let family = token.family.digest().0;
        let Some(found) = self.replica.store.sessions().matching(token.session, family).await.map_err(Failure::from)?
        else {
            return Ok(());
        };
        let client = found.detail.session.client;
        if client != caller.client.id {
            return Err(RevokeError::ForeignToken);
        }
        let owner = Owner::Family(family, Some(client));
        self.sessions.end_session(token.session, owner, EndReason::LoggedOut, from).await?;
        Ok(())
    }

    /// Revokes `target`. Returns whether it exists.
    pub async fn revoke(&self, target: Target, from: &Requester) -> Result<bool, Failure> {
        let now = self.replica.clock.now();
        let expires_at = now.plus(REVOCATION_LIFE);
        match target {
            Target::Jti(jti) => self.revoke_jti(&jti, expires_at, from).await.map(|()| true),
            Target::Key(kid) => self.keys.withdraw_key(&kid, from).await,
            Target::Session(session) => {
                self.sessions.end_session(session, Owner::Anyone, EndReason::Administrator, from).await
            }
            Target::User(user) => {
                let event = from.event("user.revoked").about_user(user);
                apply_if_found(
                    &self.replica.follower,
                    self.replica.store.users().revoke(user, expires_at, now, Some(event)).await,
                )
                .await
            }
            Target::Client(client) => {
                let event = from.event("client.revoked").on(&client);
                apply_if_found(
                    &self.replica.follower,
                    self.replica.store.clients().revoke(&client, expires_at, now, Some(event)).await,
                )
                .await
            }
        }
    }

    /// The session of a refresh token of this installation, for any generation.
    pub fn session_of(&self, refresh_token: &str) -> Option<SessionId> {
        self.tokens.refresh_codec.read(refresh_token).ok().map(|token| token.session)
    }

    /// Makes all tokens issued so far inactive. Needed after a restore from a backup, so that tokens revoked since the backup
    /// do not become active again (security.md D8).
    pub async fn revoke_everything(&self, from: &Requester) -> Result<(), Failure> {
        let now = self.replica.clock.now();
        let event = from.event("everything.revoked");
        let written = self.replica.store.revoke_everything(now.plus(REVOCATION_LIFE), now, Some(event)).await?;
        self.replica.follower.apply_locally(written).await;
        Ok(())
    }

    /// Revokes one token. Of concurrent requests for the same token, only one writes the entry.
    async fn revoke_jti(&self, jti: &Jti, expires_at: Timestamp, from: &Requester) -> Result<(), Failure> {
        let (subject, event) = (crate::crypto::id128(jti.as_str()), from.event("token.revoked").about(jti));
        let (store, view, follower) =
            (self.replica.store.clone(), Arc::clone(&self.replica.view), Arc::clone(&self.replica.follower));
        let (jti, now) = (jti.clone(), self.replica.clock.now());
        let work = async move {
            if view.has_revoked_token(&jti, now) {
                return Ok(());
            }
            let written = store.feed().revoke_jti(&jti, expires_at, now, Some(event)).await?;
            follower.apply_locally(written).await;
            Ok(())
        };
        let revoked = self.revoking.run(subject, (), |outcome| Some(outcome.clone()), work).await;
        Ok(revoked.ok_or_else(|| Failure::internal("a revocation did not run to its end"))??)
    }
}

/// Rate limit on access tokens revoked by a client (security.md L11). Each leaves an entry in the view of every replica until
/// the token expires. Sessions, users and clients have one entry each, so they are not limited. Each replica counts separately.
#[derive(Debug)]
pub struct RevocationLimit(Option<Buckets>);

impl RevocationLimit {
    /// Allows each client `burst` revocations, refilled with `per_minute`.
    pub fn new(burst: u32, per_minute: u32, entries: usize) -> Self {
        Self(Some(Buckets::new(burst, per_minute, entries)))
    }

    pub const fn unlimited() -> Self {
        Self(None)
    }

    fn count(&self, client: &ClientId, now: Duration) -> Result<(), Duration> {
        self.0.as_ref().map_or(Ok(()), |buckets| buckets.count(client.as_str(), now))
    }
}

/// How long a revocation is kept after its token has expired (security.md I12).
const REVOCATION_MARGIN: Duration = Duration::from_secs(120);
