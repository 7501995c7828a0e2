//! Login: a user name and a password for a pair of tokens.

use std::time::Duration;

use crate::crypto::{FamilySecret, HashingError, PasswordHash, RefreshToken};
use crate::domain::{
    Audience, Client, Grant, Password, Role, ScopeSet, Session, SessionId, SessionState, Timestamp, User, UserState,
    Username,
};
use crate::store::{NewSession, SessionDetail};

use super::{ADMIN_SCOPE, Caller, Failure, IssuedTokens, REVOCATION_LIFE, Requester, Service};

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

/// A user who gave the right password.
pub(super) struct Proven {
    /// Who, as of when the hash was read.
    pub(super) user: User,
    /// The stored hash and a better one, where the stored one is outdated.
    upgrade: Option<(String, PasswordHash)>,
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
        let Some(Proven { user, upgrade }) = self.check_password(&login.username, login.password).await? else {
            self.note_failed_login(&login.username, &client.id, from).await?;
            return Err(LoginError::InvalidCredentials);
        };
        let asked = login.scope.as_ref();
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
        let idle_expires_at = now.plus(self.settings.idle_ttl).min(absolute_expires_at);
        let new = NewSession {
            id: token.session,
            user: user.id,
            user_epoch: user.epoch,
            client: client.id.clone(),
            client_epoch: client.epoch,
            family_digest: token.family.digest().0,
            methods: vec!["pwd".to_owned()],
            scope: scope.clone(),
            audience: audience.clone(),
            idle_expires_at,
            absolute_expires_at,
            max_per_user: self.settings.max_sessions,
            revocation_expires_at: now.plus(REVOCATION_LIFE),
            settled: attempt.settlements(),
            audit: vec![from.event("login.succeeded").about(user.id).on(&client.id)],
        };
        // The user or the client may have been disabled, deleted or revoked between the look-up and now.
        let client_epoch = self.open_session(new, now).await?.ok_or(LoginError::InvalidCredentials)?;
        self.attempt_succeeded(&attempt);
        self.upgrade_hash(&user, upgrade).await;
        let session = Session {
            id: token.session,
            user: user.id,
            client: client.id.clone(),
            generation: 0,
            authenticated_at: now,
            rotated_at: now,
            idle_expires_at,
            absolute_expires_at,
            scope: scope.clone(),
            audience,
            user_epoch: user.epoch,
            client_epoch,
            state: SessionState::Live,
        };
        let methods = vec!["pwd".to_owned()];
        let detail = SessionDetail { session, methods, username: user.username, roles: user.roles };
        Ok(self.tokens_of_generation(&detail, &token, client, scope)?)
    }

    /// Opens a session, and says under which epoch of the client. One that this replica has not heard of yet is read anew,
    /// once: that the client was revoked ends what was issued before, and the user's password was right.
    async fn open_session(&self, mut new: NewSession, now: Timestamp) -> Result<Option<u32>, Failure> {
        let opened = self.store.sessions().open(new.clone(), now).await?;
        if self.follower.honour(opened).await.is_some() {
            return Ok(Some(new.client_epoch));
        }
        self.follower.sync().await.map_err(|error| Failure::Unavailable(Box::new(error)))?;
        let client = self.view.client(new.client.as_str()).filter(|client| !client.disabled);
        let Some(epoch) = client.map(|client| client.epoch).filter(|epoch| *epoch != new.client_epoch) else {
            return Ok(None);
        };
        new.client_epoch = epoch;
        let opened = self.store.sessions().open(new, now).await?;
        Ok(self.follower.honour(opened).await.map(|_| epoch))
    }

    /// The user of this name, if this is the password and the account can log in. One path and one cost for every refusal:
    /// a name that does not exist, an account that is disabled and a stored hash that cannot be read are hashed like a
    /// wrong password (security.md P6, P11).
    pub(super) async fn check_password(
        &self,
        username: &Username,
        password: Password,
    ) -> Result<Option<Proven>, LoginError> {
        let credentials = self.store.users().credentials(username).await.map_err(Failure::from)?;
        let usable = credentials.filter(|credentials| credentials.user.state == UserState::Enabled);
        let stored = usable.as_ref().and_then(|credentials| {
            PasswordHash::parse(&credentials.password_hash)
                .inspect_err(|error| tracing::error!(user = %credentials.user.id, %error, "the stored password hash is unreadable"))
                .ok()
        });
        let verdict = self.passwords.verify(password, stored).await?;
        Ok(usable.filter(|_| verdict.matches).map(|credentials| Proven {
            upgrade: verdict.replacement.map(|better| (credentials.password_hash, better)),
            user: credentials.user,
        }))
    }

    /// Stores a better hash of the password that was just proven. Its failure costs nothing but the next attempt.
    async fn upgrade_hash(&self, user: &User, upgrade: Option<(String, PasswordHash)>) {
        if let Some((old, better)) = upgrade
            && let Err(error) = self.store.users().upgrade_hash(user.id, &old, better.as_str()).await
        {
            tracing::warn!(user = %user.id, %error, "the password hash could not be upgraded");
        }
    }
}

/// What a user's tokens may carry of `scope`: what the client may have, and the administration only with the role of the
/// same name, because a client that may carry its scope must not make every user of it an administrator.
pub(super) fn scope_of_user(client: &Client, roles: &[Role], scope: &ScopeSet) -> ScopeSet {
    let is_administrator = roles.iter().any(|role| role.as_str() == ADMIN_SCOPE);
    scope.filter(|word| client.settings.scopes.contains(word) && (is_administrator || word != ADMIN_SCOPE))
}
