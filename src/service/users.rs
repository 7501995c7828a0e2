//! The administration of users.

use crate::crypto::Busy;
use crate::domain::{Password, PolicyRefusal, Revocation, Role, User, UserId, Username};
use crate::store::{NewUser, StoreError};

use super::{Failure, REVOCATION_LIFE, Requester, Service};

/// Why a user was not created or changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The name is taken.
    #[error("a user of this name exists already")]
    Taken,
    /// There is no such user.
    #[error("there is no such user")]
    Unknown,
    /// The password is not good enough.
    #[error(transparent)]
    Password(#[from] PolicyRefusal),
    /// The hashing queue is full.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It could not be stored.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Service {
    /// Creates a user.
    pub async fn create_user(
        &self,
        username: Username,
        password: &Password,
        roles: Vec<Role>,
        from: &Requester,
    ) -> Result<User, UserError> {
        self.policy.check(password, &username)?;
        let hash = self.passwords.hash(password.clone()).await?;
        let new = NewUser {
            id: UserId::from_bytes(self.random.bytes()),
            username,
            password_hash: hash.as_str().to_owned(),
            roles,
            disabled: false,
        };
        let id = new.id;
        match self.store.create_user(new, from, self.clock.now()).await {
            Ok(()) => {}
            Err(StoreError::Conflict { .. }) => return Err(UserError::Taken),
            Err(error) => return Err(Failure::from(error).into()),
        }
        self.user(&id).await?.ok_or(UserError::Unknown)
    }

    /// One user.
    pub async fn user(&self, id: &UserId) -> Result<Option<User>, Failure> {
        Ok(self.store.user(id).await?)
    }

    /// One user by name.
    pub async fn user_named(&self, username: &Username) -> Result<Option<User>, Failure> {
        Ok(self.store.user_named(username).await?)
    }

    /// A page of users by name.
    pub async fn users(&self, after: Option<&Username>, limit: u32) -> Result<(Vec<User>, Option<Username>), Failure> {
        let page = self.store.users(after, limit).await?;
        Ok((page.items, page.next))
    }

    /// Replaces a user's roles. Tokens that are out keep the former ones until they expire; the next refresh has the new.
    pub async fn set_roles(&self, id: &UserId, roles: Vec<Role>, from: &Requester) -> Result<(), UserError> {
        let found = self.store.set_roles(id, &roles, from, self.clock.now()).await.map_err(Failure::from)?;
        if found { Ok(()) } else { Err(UserError::Unknown) }
    }

    /// Disables a user, and with that every token and session, or enables the account again.
    pub async fn set_user_enabled(&self, id: &UserId, enabled: bool, from: &Requester) -> Result<(), UserError> {
        let now = self.clock.now();
        let expires_at = now.plus(REVOCATION_LIFE);
        let epoch = self.store.set_user_enabled(id, enabled, from, now, expires_at).await.map_err(Failure::from)?;
        self.raised(id, epoch, expires_at)
    }

    /// Sets a user's password; every session of the user ends.
    pub async fn set_password(&self, id: &UserId, password: &Password, from: &Requester) -> Result<(), UserError> {
        let user = self.user(id).await?.ok_or(UserError::Unknown)?;
        self.policy.check(password, &user.username)?;
        let hash = self.passwords.hash(password.clone()).await?;
        let now = self.clock.now();
        let expires_at = now.plus(REVOCATION_LIFE);
        let epoch = self.store.set_password(id, hash.as_str(), from, now, expires_at).await.map_err(Failure::from)?;
        self.raised(id, epoch, expires_at)
    }

    /// Deletes a user with every session; the id is never used again.
    pub async fn delete_user(&self, id: &UserId, from: &Requester) -> Result<(), UserError> {
        let now = self.clock.now();
        let expires_at = now.plus(REVOCATION_LIFE);
        let epoch = self.store.delete_user(id, from, now, expires_at).await.map_err(Failure::from)?;
        self.raised(id, epoch, expires_at)
    }

    /// Honours a raised epoch here at once; none means that there is no such user.
    fn raised(&self, id: &UserId, epoch: Option<u32>, expires_at: crate::domain::Timestamp) -> Result<(), UserError> {
        let epoch = epoch.ok_or(UserError::Unknown)?;
        self.follower.apply(&Revocation::User(*id, epoch), expires_at);
        Ok(())
    }
}
