//! Login with user name and password.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::crypto::{FamilySecret, HashingError, RefreshToken};
use crate::domain::{
    Audience, Client, EndReason, Grant, Password, RetryMarks, ScopeSet, Session, SessionId, SessionState, Timestamp,
    Username,
};
use crate::service::passwords::VerifiedUser;
use crate::service::tokens::granted::{Granted, scope_of_user};
use crate::service::{Caller, Failure, IssuedTokens, Limit, REVOCATION_LIFE, Requester, Sessions};
use crate::store::{NewSession, Owner, SessionDetail};

/// A parsed login request.
#[derive(Debug)]
pub struct Login {
    pub username: Username,
    pub password: Password,
    /// `None`: all scopes of the client.
    pub scope: Option<ScopeSet>,
    /// `None`: all audiences of the client.
    pub audience: Option<Audience>,
}

/// Why a login failed. An unknown user, a wrong password and a disabled user cannot be distinguished (security.md P6).
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The user name is unknown, the password is wrong, or the user is disabled.
    #[error("invalid credentials")]
    InvalidCredentials,
    /// The limit of the account, the address or the pair is exceeded.
    #[error("too many attempts")]
    TooManyAttempts {
        /// The limit that refuses attempts the longest.
        limit: Limit,
        /// Time until the next attempt is allowed.
        retry_after: Duration,
    },
    /// The hashing pool is full or has failed.
    #[error(transparent)]
    Hashing(#[from] HashingError),
    /// The client's settings do not allow logins.
    #[error("the client is not allowed to log users in")]
    ClientNotAllowed,
    /// A scope that the client or the user must not have.
    #[error("the scope is not allowed")]
    InvalidScope,
    #[error("the audience is not allowed")]
    InvalidAudience,
    /// The service failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A session and its tokens, computed before anything is written.
struct Prepared {
    new: NewSession,
    at: Timestamp,
    tokens: IssuedTokens,
}

/// A committed session whose tokens the caller does not have yet. Dropping it ends the session, so that a caller that
/// disconnected leaves no unused session behind (security.md R13).
struct OpenedSession {
    sessions: Arc<Sessions>,
    session: SessionId,
    from: Requester,
    /// `None` after they were claimed.
    tokens: Option<IssuedTokens>,
}

impl OpenedSession {
    /// Takes the tokens for the response. `None` only if they were taken before.
    fn claim(mut self) -> Option<IssuedTokens> {
        self.tokens.take()
    }
}

impl Drop for OpenedSession {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.tokens.is_none() {
            return;
        }
        let (sessions, session, from) = (Arc::clone(&self.sessions), self.session, self.from.clone());
        let ending = async move {
            tracing::info!(%session, "the caller of a login disconnected; its session ends");
            if let Err(error) = sessions.end_session(session, Owner::Anyone, EndReason::LoggedOut, &from).await {
                tracing::warn!(%session, %error, "ending the session of a disconnected caller failed; it stays until it expires");
            }
        };
        runtime.spawn(ending.in_current_span());
    }
}

impl Sessions {
    /// Logs a user in on `caller`'s client.
    ///
    /// The attempt is counted before the password is hashed (security.md L3). The hash is computed for unknown names too (P6).
    /// The session is created only if the user's epoch is still the one that was read with the hash, so a login that began
    /// before a revocation cannot outlive it.
    ///
    /// Dropping the future leaves no session: a session that was opened concurrently is ended. If the response is lost on the
    /// way to the client, the session stays until it expires, because the server cannot detect the loss.
    pub async fn log_in(
        self: &Arc<Self>,
        caller: &Caller,
        login: Login,
        from: &Requester,
    ) -> Result<IssuedTokens, LoginError> {
        let client = &*caller.client;
        if !client.settings.grants.allow(Grant::PasswordLogin) {
            return Err(LoginError::ClientNotAllowed);
        }
        let audience =
            self.tokens.audience_for(client, login.audience.as_slice()).ok_or(LoginError::InvalidAudience)?;
        if !login.scope.as_ref().is_none_or(|scope| scope.is_subset_of(&client.settings.scopes)) {
            return Err(LoginError::InvalidScope);
        }
        let verified = self.passwords.verify_password(&login.username, login.password, &client.id, from).await?;
        let Some(opened) = self.open_session(client, &verified, login.scope.as_ref(), &audience, from).await? else {
            // The user or the client was disabled, deleted or revoked since it was read.
            self.passwords.note_failed_login(&verified.attempt, Some(verified.user.id), &client.id, from).await?;
            return Err(LoginError::InvalidCredentials);
        };
        self.passwords.forget_refusals(&verified.attempt);
        self.passwords.upgrade_hash(&verified).await;
        opened.claim().ok_or_else(|| Failure::internal("the tokens of a login were taken twice").into())
    }

    /// Opens a session and issues its first tokens. If another replica revoked the client's tokens a moment ago, it syncs and
    /// tries once more with the new epoch. The revocation affects only earlier tokens, and the password was right.
    async fn open_session(
        self: &Arc<Self>,
        client: &Client,
        verified: &VerifiedUser,
        asked: Option<&ScopeSet>,
        audience: &[Audience],
        from: &Requester,
    ) -> Result<Option<OpenedSession>, LoginError> {
        if let Some(opened) = self.try_open_session(client, verified, asked, audience, from).await? {
            return Ok(Some(opened));
        }
        self.replica.follower.sync().await.map_err(|error| Failure::Unavailable(Box::new(error)))?;
        if self.replica.view.installation_epoch() != verified.installation_epoch {
            self.passwords.settle_attempt(&verified.attempt).await;
            return Err(Failure::Unavailable("everything was revoked during this login; log in again".into()).into());
        }
        match self.replica.view.client(client.id.as_str()) {
            Some(newer) if !newer.disabled && newer.epoch != client.epoch => {
                self.try_open_session(&newer, verified, asked, audience, from).await
            }
            _ => Ok(None),
        }
    }

    async fn try_open_session(
        self: &Arc<Self>,
        client: &Client,
        verified: &VerifiedUser,
        asked: Option<&ScopeSet>,
        audience: &[Audience],
        from: &Requester,
    ) -> Result<Option<OpenedSession>, LoginError> {
        let Prepared { new, at, tokens } = match self.prepare(client, verified, asked, audience, from) {
            Ok(prepared) => prepared,
            Err(error) => {
                // The password was right, so another error does not count as a failed attempt.
                self.passwords.settle_attempt(&verified.attempt).await;
                return Err(error);
            }
        };
        let caller = new.caller.clone();
        // Cancelled when this future is dropped. The task continues, because the transaction may commit.
        let _guard = caller.drop_guard();
        let (answer, opened) = oneshot::channel();
        let (sessions, session, from) = (Arc::clone(self), new.id, from.acting(verified.user.id));
        let opening = async move {
            let written = match sessions.replica.store.sessions().open(new, at).await {
                Ok(written) => Ok(sessions.replica.follower.apply_locally(written).await),
                Err(error) => Err(Failure::from(error)),
            };
            let opened = written.map(|opened| {
                opened.map(|_| OpenedSession { sessions: Arc::clone(&sessions), session, from, tokens: Some(tokens) })
            });
            // Without a receiver the session is dropped here, which ends it.
            drop(answer.send(opened));
        };
        tokio::spawn(opening.in_current_span());
        let opened = opened.await.unwrap_or_else(|_| Err(Failure::internal("a login did not run to its end")));
        Ok(opened?)
    }

    /// The session and its first tokens. Nothing is written.
    fn prepare(
        &self,
        client: &Client,
        verified: &VerifiedUser,
        asked: Option<&ScopeSet>,
        audience: &[Audience],
        from: &Requester,
    ) -> Result<Prepared, LoginError> {
        let user = &verified.user;
        let scope = scope_of_user(client, &user.roles, asked.unwrap_or(&client.settings.scopes));
        if asked.is_some_and(|asked| *asked != scope) {
            return Err(LoginError::InvalidScope);
        }
        let now = self.replica.clock.now();
        let installation_epoch = verified.installation_epoch;
        let token = RefreshToken {
            session: SessionId::at(now, self.replica.random.bytes()),
            generation: 0,
            family: FamilySecret::generate(&*self.replica.random),
        };
        let absolute_expires_at = now.plus(self.settings.absolute_ttl);
        let session = Session {
            id: token.session,
            user: user.id,
            client: client.id.clone(),
            generation: 0,
            authenticated_at: now,
            rotated_at: now,
            marks: RetryMarks::NEW,
            idle_expires_at: now.plus(self.settings.idle_ttl).min(absolute_expires_at),
            absolute_expires_at,
            scope: scope.clone(),
            audience: audience.to_vec(),
            user_epoch: user.epoch,
            client_epoch: client.epoch,
            installation_epoch,
            state: SessionState::Live,
        };
        let methods = vec!["pwd".to_owned()];
        let from = from.acting(user.id);
        let new = NewSession {
            id: session.id,
            user: user.id,
            user_epoch: user.epoch,
            client: client.id.clone(),
            client_epoch: client.epoch,
            installation_epoch,
            family_digest: token.family.digest().0,
            methods: methods.clone(),
            scope: scope.clone(),
            audience: audience.to_vec(),
            idle_expires_at: session.idle_expires_at,
            absolute_expires_at,
            max_per_user: self.settings.max_sessions,
            revocation_expires_at: now.plus(REVOCATION_LIFE),
            settled: verified.attempt.settlements(),
            audit: from.event("login.succeeded").about_user(user.id).of_session(session.id).on(&client.id),
            displaced_audit: from.event("session.displaced").noting("reason", EndReason::Displaced.as_str()),
            caller: CancellationToken::new(),
        };
        let detail = SessionDetail { session, methods, username: user.username.clone(), roles: user.roles.clone() };
        let tokens = self.tokens.tokens_of_generation(
            &detail,
            &token,
            client,
            Granted { scope, audience: audience.to_vec(), narrowing: String::new() },
        )?;
        Ok(Prepared { new, at: now, tokens })
    }
}
