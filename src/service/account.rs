//! What users do with their own account: look at it, change the password, end sessions.

use crate::crypto::{Busy, FamilySecret, RefreshToken};
use crate::domain::{EndReason, Password, PolicyRefusal, Revocation, Session, SessionId, User};
use crate::store::{ChangePassword, SessionOwner};

use super::logout::Bearer;
use super::{Failure, IssuedTokens, LoginError, REVOCATION_LIFE, Requester, Service, SessionGrant};

/// Why a password was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordChangeError {
    /// The present password is not the one given.
    #[error("the current password is wrong")]
    WrongPassword,
    /// The new one is not good enough.
    #[error(transparent)]
    Refused(#[from] PolicyRefusal),
    /// Too many wrong guesses at the present password.
    #[error("too many attempts")]
    TooManyAttempts {
        /// When the next attempt is counted.
        retry_after: std::time::Duration,
    },
    /// The hashing queue is full.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The session ended meanwhile.
    #[error("the session has ended")]
    SessionEnded,
    /// It could not be carried out.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A page of a user's or client's sessions.
#[derive(Debug)]
pub struct SessionPage {
    /// Newest first.
    pub sessions: Vec<Session>,
    /// Where the next page begins; none on the last.
    pub next: Option<SessionId>,
}

impl Service {
    /// The bearer's own account.
    pub async fn me(&self, bearer: &Bearer) -> Result<Option<User>, Failure> {
        Ok(self.store.user(&bearer.user).await?)
    }

    /// Changes the bearer's password. Every other session ends, and this one goes on with a new pair of tokens
    /// (security.md P12). Guesses at the present password count like failed logins: it is one more way in (section 1, 8).
    pub async fn change_password(
        &self,
        bearer: &Bearer,
        current: Password,
        new: &Password,
        from: &Requester,
    ) -> Result<IssuedTokens, PasswordChangeError> {
        let user = self.me(bearer).await?.ok_or(PasswordChangeError::SessionEnded)?;
        self.policy.check(new, &user.username)?;
        let attempt = self.begin_attempt(&user.username, from).await.map_err(PasswordChangeError::from)?;
        let credentials = self.store.credentials(&user.username).await.map_err(Failure::from)?;
        let Some((user, _)) = self.check_password(credentials, current).await.map_err(PasswordChangeError::from)? else {
            self.attempt_failed(&user.username, &bearer.token.claims.client, from).await?;
            return Err(PasswordChangeError::WrongPassword);
        };
        let hash = self.passwords.hash(new.clone()).await?;
        let now = self.clock.now();
        let family = FamilySecret::generate(&*self.random);
        let expires_at = now.plus(REVOCATION_LIFE);
        let change = ChangePassword {
            user: user.id,
            expected_epoch: user.epoch,
            hash: hash.as_str().to_owned(),
            session: bearer.session,
            family_digest: family.digest(),
        };
        let changed = self.store.change_password(change, from, now, expires_at).await.map_err(Failure::from)?;
        let Some(session) = changed else {
            return Err(PasswordChangeError::SessionEnded);
        };
        self.follower.apply(&Revocation::User(user.id, session.user_epoch), expires_at);
        self.attempt_succeeded(attempt, &user, None).await;
        let client = self.view.client(session.client.as_str()).ok_or(PasswordChangeError::SessionEnded)?;
        let token = RefreshToken { session: session.id, generation: session.generation, family };
        let scope = session.scope.clone();
        let grant = SessionGrant { session, username: user.username, roles: user.roles };
        Ok(self.tokens_of_generation(&grant, &token, &client, scope)?)
    }

    /// A page of the user's live sessions, newest first.
    pub async fn sessions_of_user(
        &self,
        user: &crate::domain::UserId,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<SessionPage, Failure> {
        let page = self.store.sessions_of_user(user, after.as_ref(), limit, self.clock.now()).await?;
        Ok(SessionPage { sessions: page.items, next: page.next })
    }

    /// Ends one of the bearer's sessions. True when it exists.
    pub async fn end_own_session(&self, bearer: &Bearer, session: &SessionId, from: &Requester) -> Result<bool, Failure> {
        self.end_session(session, SessionOwner::User(bearer.user), EndReason::UserRevoked, from).await
    }

    /// Logs the bearer out everywhere: one record, whatever the number of sessions (security.md I13).
    pub async fn log_out_everywhere(&self, bearer: &Bearer, from: &Requester) -> Result<(), Failure> {
        self.revoke(super::Target::User(bearer.user), from).await.map(drop)
    }
}

impl From<LoginError> for PasswordChangeError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::TooManyAttempts { retry_after } => Self::TooManyAttempts { retry_after },
            LoginError::Busy(busy) => Self::Busy(busy),
            LoginError::Failed(failure) => Self::Failed(failure),
            _ => Self::WrongPassword,
        }
    }
}
