//! Login: a user name and a password for a pair of tokens.

use std::time::Duration;

use crate::crypto::{FamilySecret, HashingError, PasswordHash, RefreshToken};
use crate::domain::{Audience, Client, Grant, Password, Role, ScopeSet, SessionId, User, UserState, Username};
use crate::store::{AuditEvent, Credentials, NewSession};

use super::{ADMIN_SCOPE, Caller, Failure, IssuedTokens, REVOCATION_LIFE, Requester, Service, SessionGrant};

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
        let audience = self.audience_for(client, login.audience).ok_or(LoginError::InvalidAudience)?;
        if !login.scope.as_ref().is_none_or(|scope| scope.is_subset_of(&client.settings.scopes)) {
            return Err(LoginError::InvalidScope);
        }
        let attempt = self.begin_attempt(&login.username, from).await?;
        let credentials = self.store.credentials(&login.username).await.map_err(Failure::from)?;
        let Some((user, rehash)) = self.check_password(credentials, login.password).await? else {
            self.attempt_failed(&login.username, &client.id, from).await?;
            return Err(LoginError::InvalidCredentials);
        };
        let scope = scope_for(client, &user, login.scope)?;
        let now = self.clock.now();
        let token = RefreshToken {
            session: SessionId::from_bytes(self.random.bytes()),
            generation: 0,
            family: FamilySecret::generate(&*self.random),
        };
        let session = NewSession {
            id: token.session,
            user: user.id,
            user_epoch: user.epoch,
            client: client.id.clone(),
            client_epoch: client.epoch,
            family_digest: token.family.digest(),
            scope: scope.clone(),
            audience,
            idle_expires_at: now.plus(self.settings.idle_ttl).min(now.plus(self.settings.absolute_ttl)),
            absolute_expires_at: now.plus(self.settings.absolute_ttl),
        };
        let event = AuditEvent::login_succeeded(from, &session);
        let created = self.store.create_session(session, self.settings.max_sessions, event, now).await;
        let Some(created) = created.map_err(Failure::from)? else {
            // The user or the client was disabled, deleted or revoked between the look-up and now.
            return Err(LoginError::InvalidCredentials);
        };
        for displaced in &created.displaced {
            self.follower.apply(displaced, now.plus(REVOCATION_LIFE));
        }
        self.attempt_succeeded(attempt, &user, rehash).await;
        let grant = SessionGrant { session: created.session, username: user.username, roles: user.roles };
        Ok(self.tokens_of_generation(&grant, &token, client, scope)?)
    }

    /// The user whose password this is, with the stored hash and a better one where the stored one is outdated.
    async fn check_password(
        &self,
        credentials: Option<Credentials>,
        password: Password,
    ) -> Result<Option<(User, Option<PasswordHash>)>, LoginError> {
        unimplemented!()
    }
}

/// What a login yields when it asks for nothing, or for `asked`. The administration needs a role as well: a client that
/// may carry its scope must not make every user of it an administrator.
fn scope_for(client: &Client, user: &User, asked: Option<ScopeSet>) -> Result<ScopeSet, LoginError> {
    let is_administrator = user.roles.iter().any(|role| role.as_str() == ADMIN_SCOPE);
    match asked {
        Some(scope) if scope.contains(ADMIN_SCOPE) && !is_administrator => Err(LoginError::InvalidScope),
        Some(scope) => Ok(scope),
        None if is_administrator => Ok(client.settings.scopes.clone()),
        None => Ok(client.settings.scopes.without(ADMIN_SCOPE)),
    }
}
