//! Operations of users on their own account: read it, change the password, end sessions.

use std::sync::Arc;

use crate::crypto::{FamilySecret, HashingError, RefreshToken};
use crate::domain::{Client, EndReason, Password, PasswordPolicy, PolicyRefusal, SessionId, User};
use crate::replica::Replica;
use crate::service::sessions::logout::Bearer;
use crate::service::tokens::granted::{Granted, Narrowing};
use crate::service::{
    Failure, IssuedTokens, Limit, LoginError, Passwords, REVOCATION_LIFE, Requester, Revocations, Sessions, Settings,
    Tokens,
};
use crate::store::{KeptSession, Owner, PasswordChange, SessionDetail, StoreError};

/// Why a password was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordChangeError {
    #[error("the current password is wrong")]
    WrongPassword,
    /// The policy refuses the new password.
    #[error(transparent)]
    Refused(#[from] PolicyRefusal),
    /// A rate limit on wrong passwords is exceeded.
    #[error("too many attempts")]
    TooManyAttempts {
        /// The limit that refuses attempts the longest.
        limit: Limit,
        /// Time until the next attempt is allowed.
        retry_after: std::time::Duration,
    },
    /// The hashing pool is full or has failed.
    #[error(transparent)]
    Hashing(#[from] HashingError),
    #[error("the session has ended")]
    SessionEnded,
    /// The service failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Operations of users on their own account.
pub struct Account {
    pub(crate) replica: Replica,
    pub(crate) passwords: Arc<Passwords>,
    pub(crate) policy: Arc<PasswordPolicy>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) settings: Settings,
}

impl Account {
    /// The bearer's user; `None` if it was deleted.
    pub async fn me(&self, bearer: &Bearer) -> Result<Option<User>, Failure> {
        Ok(self.replica.store.users().by_id(bearer.user).await?)
    }

    /// Changes the bearer's password. All other sessions end; this session continues with a new pair (security.md P12).
    /// Wrong passwords count as failed logins (security.md section 1, point 8).
    pub async fn change_password(
        &self,
        bearer: &Bearer,
        current: Password,
        new: Password,
        from: &Requester,
    ) -> Result<IssuedTokens, PasswordChangeError> {
        let user = self.me(bearer).await?.ok_or(PasswordChangeError::SessionEnded)?;
        self.policy.check(&new, &user.username)?;
        let verified =
            self.passwords.verify_password(&user.username, current, &bearer.token.claims.client, from).await?;
        // The password was right, so a later failure does not count as a failed attempt.
        let changed = self.change_verified(bearer, &verified.user, new, from).await;
        self.passwords.settle_attempt(&verified.attempt).await;
        changed
    }

    async fn change_verified(
        &self,
        bearer: &Bearer,
        user: &User,
        new: Password,
        from: &Requester,
    ) -> Result<IssuedTokens, PasswordChangeError> {
        let client =
            self.replica.view.client(bearer.token.claims.client.as_str()).ok_or(PasswordChangeError::SessionEnded)?;
        let session = self.replica.store.sessions().by_id(bearer.session).await.map_err(Failure::from)?;
        let session = session.ok_or(PasswordChangeError::SessionEnded)?;
        let now = self.replica.clock.now();
        let family = FamilySecret::generate(&*self.replica.random);
        let token = RefreshToken { session: session.session.id, generation: session.session.generation, family };
        self.granted_as_before(&session, &client)?;
        let hash = self.passwords.hasher.hash(new).await?;
        let change = PasswordChange {
            user: user.id,
            expected_epoch: Some(user.epoch),
            password_hash: hash.as_str().to_owned(),
            kept: Some(KeptSession {
                session: bearer.session,
                family_digest: token.family.digest().0,
                idle_ttl: self.settings.idle_ttl,
            }),
            revocation_expires_at: now.plus(REVOCATION_LIFE),
            audit: Some(
                from.acting(user.id)
                    .event("user.password_changed")
                    .about_user(user.id)
                    .of_session(bearer.session)
                    .on(&client.id),
            ),
        };
        let changed = match self.replica.store.users().change_password(change, now).await {
            Ok(written) => self.replica.follower.apply_locally(written).await,
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {
                return Err(PasswordChangeError::SessionEnded);
            }
            Err(error) => return Err(Failure::from(error).into()),
        };
        let detail = changed.session.ok_or(PasswordChangeError::SessionEnded)?;
        let token = RefreshToken { generation: detail.session.generation, ..token };
        let granted = self.granted_as_before(&detail, &client)?;
        Ok(self.tokens.tokens_of_generation(&detail, &token, &client, granted)?)
    }

    /// The full grant of a session. If the client has lost all audiences of the session, the session counts as ended.
    fn granted_as_before(&self, session: &SessionDetail, client: &Client) -> Result<Granted, PasswordChangeError> {
        let granted = self.tokens.granted_now(&session.session, &session.roles, client, &Narrowing::default());
        granted.map_err(|_| PasswordChangeError::SessionEnded)
    }

    /// Ends one of the bearer's sessions. Returns whether it exists.
    pub async fn end_own_session(
        &self,
        bearer: &Bearer,
        session: SessionId,
        from: &Requester,
    ) -> Result<bool, Failure> {
        self.sessions
            .end_session(session, Owner::User(bearer.user), EndReason::UserRevoked, &from.acting(bearer.user))
            .await
    }

    /// Ends all sessions of the bearer with one revocation, regardless of their number (security.md I13).
    pub async fn log_out_everywhere(&self, bearer: &Bearer, from: &Requester) -> Result<(), Failure> {
        self.revocations.revoke(super::Target::User(bearer.user), &from.acting(bearer.user)).await.map(drop)
    }
}

impl From<LoginError> for PasswordChangeError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::TooManyAttempts { limit, retry_after } => Self::TooManyAttempts { limit, retry_after },
            LoginError::Hashing(error) => Self::Hashing(error),
            LoginError::Failed(failure) => Self::Failed(failure),
            _ => Self::WrongPassword,
        }
    }
}
