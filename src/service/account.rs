//! Operations of users on their own account: read it, change the password, end sessions.

use crate::crypto::{FamilySecret, HashingError, RefreshToken};
use crate::domain::{Client, ClientId, EndReason, Password, PolicyRefusal, Session, SessionId, User, UserId};
use crate::store::{KeptSession, Owner, PasswordChange, SessionDetail, StoreError};

use super::granted::{Granted, Narrowing};
use super::logout::Bearer;
use super::{Failure, IssuedTokens, Limit, LoginError, REVOCATION_LIFE, Requester, Service};

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

/// A page of a user's or client's sessions.
#[derive(Debug)]
pub struct SessionPage {
    /// Ordered by id.
    pub sessions: Vec<Session>,
    /// The id after which the next page begins; `None` on the last page.
    pub next: Option<SessionId>,
}

impl Service {
    /// The bearer's user; `None` if it was deleted.
    pub async fn me(&self, bearer: &Bearer) -> Result<Option<User>, Failure> {
        Ok(self.store.users().by_id(bearer.user).await?)
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
        let verified = self.verify_password(&user.username, current, &bearer.token.claims.client, from).await?;
        // The password was right, so a later failure does not count as a failed attempt.
        let changed = self.change_verified(bearer, &verified.user, new, from).await;
        self.settle_attempt(&verified.attempt).await;
        changed
    }

    async fn change_verified(
        &self,
        bearer: &Bearer,
        user: &User,
        new: Password,
        from: &Requester,
    ) -> Result<IssuedTokens, PasswordChangeError> {
        let client = self.view.client(bearer.token.claims.client.as_str()).ok_or(PasswordChangeError::SessionEnded)?;
        let session = self.store.sessions().by_id(bearer.session).await.map_err(Failure::from)?;
        let session = session.ok_or(PasswordChangeError::SessionEnded)?;
        let now = self.clock.now();
        let family = FamilySecret::generate(&*self.random);
        let token = RefreshToken { session: session.session.id, generation: session.session.generation, family };
        self.check_length(&session, &token, &client, self.granted_as_before(&session, &client)?)?;
        let hash = self.passwords.hash(new).await?;
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
        let changed = match self.store.users().change_password(change, now).await {
            Ok(written) => self.follower.apply_locally(written).await,
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {
                return Err(PasswordChangeError::SessionEnded);
            }
            Err(error) => return Err(Failure::from(error).into()),
        };
        let detail = changed.session.ok_or(PasswordChangeError::SessionEnded)?;
        let token = RefreshToken { generation: detail.session.generation, ..token };
        let granted = self.granted_as_before(&detail, &client)?;
        Ok(self.tokens_of_generation(&detail, &token, &client, granted)?)
    }

    /// The full grant of a session. If the client has lost all audiences of the session, the session counts as ended.
    fn granted_as_before(&self, session: &SessionDetail, client: &Client) -> Result<Granted, PasswordChangeError> {
        let granted = self.granted_now(&session.session, &session.roles, client, &Narrowing::default());
        granted.map_err(|_| PasswordChangeError::SessionEnded)
    }

    /// A page of a user's live sessions, ordered by id.
    pub async fn sessions_of_user(
        &self,
        user: UserId,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<SessionPage, Failure> {
        let page = self.store.sessions().of_user(user, after, limit, self.clock.now()).await?;
        Ok(SessionPage::new(page, limit))
    }

    /// How many sessions have neither ended nor expired: of a user, of a client, or of all.
    pub async fn count_sessions(&self, user: Option<UserId>, client: Option<&ClientId>) -> Result<i64, Failure> {
        Ok(self.store.sessions().count(user, client, self.clock.now()).await?)
    }

    /// A page of a client's live sessions, ordered by id.
    pub async fn sessions_of_client(
        &self,
        client: &ClientId,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<SessionPage, Failure> {
        let page = self.store.sessions().of_client(client, after, limit, self.clock.now()).await?;
        Ok(SessionPage::new(page, limit))
    }

    /// Ends one of the bearer's sessions. Returns whether it exists.
    pub async fn end_own_session(
        &self,
        bearer: &Bearer,
        session: SessionId,
        from: &Requester,
    ) -> Result<bool, Failure> {
        self.end_session(session, Owner::User(bearer.user), EndReason::UserRevoked, &from.acting(bearer.user)).await
    }

    /// Ends all sessions of the bearer with one revocation, regardless of their number (security.md I13).
    pub async fn log_out_everywhere(&self, bearer: &Bearer, from: &Requester) -> Result<(), Failure> {
        self.revoke(super::Target::User(bearer.user), &from.acting(bearer.user)).await.map(drop)
    }
}

impl SessionPage {
    /// Only a full page can have a next page.
    fn new(details: Vec<SessionDetail>, limit: u32) -> Self {
        let is_full = details.len() == usize::try_from(limit).unwrap_or(usize::MAX);
        let next = details.last().filter(|_| is_full).map(|last| last.session.id);
        Self { sessions: details.into_iter().map(|detail| detail.session).collect(), next }
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
