//! Login: a user name and a password for a pair of tokens.

use std::time::Duration;

use crate::crypto::{FamilySecret, HashingError, RefreshToken};
use crate::domain::{
    Audience, Client, EndReason, Grant, Password, ScopeSet, Session, SessionId, SessionState, Timestamp, Username,
};
use crate::store::{NewSession, SessionDetail};

use super::granted::{Granted, scope_of_user};
use super::password::Proven;
use super::{Caller, Failure, IssuedTokens, Limit, REVOCATION_LIFE, Requester, Service};

/// A request to log in, with its fields read.
#[derive(Debug)]
pub struct Login {
    /// Who.
    pub username: Username,
    /// The proof.
    pub password: Password,
    /// What the tokens should be good for; none: everything that the client may have.
    pub scope: Option<ScopeSet>,
    /// Whom the tokens should be for; none: all of the client's audiences.
    pub audience: Option<Audience>,
}

/// Why there is no session. Unknown, wrong, disabled and locked users are told apart by nobody (security.md P6).
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The name and the password do not fit, or the account cannot log in.
    #[error("invalid credentials")]
    InvalidCredentials,
    /// Too many attempts on this name, from this address or on this pair.
    #[error("too many attempts")]
    TooManyAttempts {
        /// The count that stands against it the longest.
        limit: Limit,
        /// When the next attempt is counted.
        retry_after: Duration,
    },
    /// The password could not be hashed now.
    #[error(transparent)]
    Hashing(#[from] HashingError),
    /// The client may not log users in.
    #[error("the client is not allowed to log users in")]
    ClientNotAllowed,
    /// A scope that the client, or this user, may not have.
    #[error("the scope is not allowed")]
    InvalidScope,
    /// An audience that is not the client's.
    #[error("the audience is not allowed")]
    InvalidAudience,
    /// It could not be decided.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Everything of a login that can fail before it is written.
struct Prepared {
    new: NewSession,
    at: Timestamp,
    tokens: IssuedTokens,
}

impl Service {
    /// Logs a user in on `caller`'s client.
    ///
    /// The attempt is counted before the password is hashed (security.md L3), the hash is computed whatever is known of
    /// the name (P6), and the session is created only if the user's epoch is still the one that was read with the hash:
    /// a login that began before a revocation cannot outlive it.
    pub async fn log_in(&self, caller: &Caller, login: Login, from: &Requester) -> Result<IssuedTokens, LoginError> {
        let client = &*caller.client;
        if !client.settings.grants.allow(Grant::PasswordLogin) {
            return Err(LoginError::ClientNotAllowed);
        }
        let audience = self.audience_for(client, login.audience.as_slice()).ok_or(LoginError::InvalidAudience)?;
        if !login.scope.as_ref().is_none_or(|scope| scope.is_subset_of(&client.settings.scopes)) {
            return Err(LoginError::InvalidScope);
        }
        let proven = self.prove(&login.username, login.password, &client.id, from).await?;
        let Some(tokens) = self.open_session(client, &proven, login.scope.as_ref(), &audience, from).await? else {
            // The user or the client was disabled, deleted or revoked between the look-up and now.
            self.note_failed_login(&proven.attempt, Some(proven.user.id), &client.id, from).await?;
            return Err(LoginError::InvalidCredentials);
        };
        self.upgrade_hash(&proven).await;
        Ok(tokens)
    }

    /// Opens a session and writes its first tokens. A client that was revoked elsewhere, of which this replica has not heard
    /// yet, is read anew, once: the revocation ended what was issued before it, and the user's password was right.
    async fn open_session(
        &self,
        client: &Client,
        proven: &Proven,
        asked: Option<&ScopeSet>,
        audience: &[Audience],
        from: &Requester,
    ) -> Result<Option<IssuedTokens>, LoginError> {
        if let Some(tokens) = self.try_open_session(client, proven, asked, audience, from).await? {
            return Ok(Some(tokens));
        }
        self.follower.sync().await.map_err(|error| Failure::Unavailable(Box::new(error)))?;
        match self.view.client(client.id.as_str()) {
            Some(newer) if !newer.disabled && newer.epoch != client.epoch => {
                self.try_open_session(&newer, proven, asked, audience, from).await
            }
            _ => Ok(None),
        }
    }

    async fn try_open_session(
        &self,
        client: &Client,
        proven: &Proven,
        asked: Option<&ScopeSet>,
        audience: &[Audience],
        from: &Requester,
    ) -> Result<Option<IssuedTokens>, LoginError> {
        let Prepared { new, at, tokens } = match self.prepare(client, proven, asked, audience, from) {
            Ok(prepared) => prepared,
            Err(error) => {
                // The password was right: whatever else is wrong with the request is no guess.
                self.settle_attempt(&proven.attempt).await;
                return Err(error);
            }
        };
        let opened = self.store.sessions().open(new, at).await.map_err(Failure::from)?;
        Ok(self.follower.honour(opened).await.map(|_| tokens))
    }

    /// The session and its first tokens, of which nothing is written yet.
    fn prepare(
        &self,
        client: &Client,
        proven: &Proven,
        asked: Option<&ScopeSet>,
        audience: &[Audience],
        from: &Requester,
    ) -> Result<Prepared, LoginError> {
        let user = &proven.user;
        let scope = scope_of_user(client, &user.roles, asked.unwrap_or(&client.settings.scopes));
        if asked.is_some_and(|asked| *asked != scope) {
            return Err(LoginError::InvalidScope);
        }
        let now = self.clock.now();
        let token = RefreshToken {
            session: SessionId::from_bytes(self.random.bytes()),
            generation: 0,
            family: FamilySecret::generate(&*self.random),
        };
        let absolute_expires_at = now.plus(self.settings.absolute_ttl);
        let session = Session {
            id: token.session,
            user: user.id,
            client: client.id.clone(),
            generation: 0,
            authenticated_at: now,
            rotated_at: now,
            idle_expires_at: now.plus(self.settings.idle_ttl).min(absolute_expires_at),
            absolute_expires_at,
            scope: scope.clone(),
            audience: audience.to_vec(),
            user_epoch: user.epoch,
            client_epoch: client.epoch,
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
            family_digest: token.family.digest().0,
            methods: methods.clone(),
            scope: scope.clone(),
            audience: audience.to_vec(),
            idle_expires_at: session.idle_expires_at,
            absolute_expires_at,
            max_per_user: self.settings.max_sessions,
            revocation_expires_at: now.plus(REVOCATION_LIFE),
            settled: proven.attempt.settlements(),
            audit: from.event("login.succeeded").about_user(user.id).of_session(session.id).on(&client.id),
            displaced_audit: from.event("session.displaced").noting("reason", EndReason::Displaced.as_str()),
        };
        let detail = SessionDetail { session, methods, username: user.username.clone(), roles: user.roles.clone() };
        let tokens = self.tokens_of_generation(
            &detail,
            &token,
            client,
            Granted { scope, audience: audience.to_vec(), narrowing: String::new() },
        )?;
        Ok(Prepared { new, at: now, tokens })
    }
}
