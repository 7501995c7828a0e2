//! The administration of users.

pub(crate) mod import;
pub(crate) mod import_line;

use std::sync::Arc;

use crate::crypto::HashingError;
use crate::domain::{ParseError, Password, PasswordPolicy, PolicyRefusal, Role, User, UserId, Username, check_roles};
use crate::replica::Replica;
use crate::service::{Failure, Passwords, REVOCATION_LIFE, Requester};
use crate::store::{NewUser, PasswordChange, Rows, StoreError, UserChange};

/// Why a user was not created or changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("a user of this name exists already")]
    Taken,
    #[error("there is no such user")]
    Unknown,
    /// Too many roles.
    #[error("roles: {0}")]
    Roles(ParseError),
    /// The policy refuses the password.
    #[error(transparent)]
    Password(#[from] PolicyRefusal),
    /// The hashing pool is full or has failed.
    #[error(transparent)]
    Hashing(#[from] HashingError),
    /// The change could not be stored.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Manages users.
pub struct Users {
    pub(crate) replica: Replica,
    pub(crate) passwords: Arc<Passwords>,
    pub(crate) policy: Arc<PasswordPolicy>,
}

impl Users {
    pub async fn create_user(
        &self,
        username: Username,
        password: Password,
        roles: Vec<Role>,
        from: &Requester,
    ) -> Result<User, UserError> {
        check_roles(&roles).map_err(UserError::Roles)?;
        self.policy.check(&password, &username)?;
        let hash = self.passwords.hasher.hash(password).await?;
        let new = NewUser {
            id: UserId::from_bytes(self.replica.random.bytes()),
            username,
            password_hash: hash.as_str().to_owned(),
            roles,
            disabled: false,
            created_at: None,
        };
        let event = from.event("user.created").about_user(new.id);
        self.replica.store.users().create(new, self.replica.clock.now(), Some(event)).await.map_err(|error| match error
        {
            StoreError::Conflict { .. } => UserError::Taken,
            error => Failure::from(error).into(),
        })
    }

    pub async fn user(&self, id: UserId) -> Result<Option<User>, Failure> {
        Ok(self.replica.store.users().by_id(id).await?)
    }

    pub async fn user_named(&self, username: &Username) -> Result<Option<User>, Failure> {
        Ok(self.replica.store.users().by_username(username).await?)
    }

    /// A page of users ordered by name, with the rows that cannot be read, and the name after which the next page begins.
    pub async fn users(
        &self,
        after: Option<&Username>,
        limit: u32,
    ) -> Result<(Rows<User, Username>, Option<Username>), Failure> {
        let page = self.replica.store.users().page(after.map(Username::as_str), None, limit).await?;
        let is_full = page.readable.len() + page.unreadable.len() == usize::try_from(limit).unwrap_or(usize::MAX);
        let names = page.readable.iter().map(|user| &user.username);
        let last =
            names.chain(page.unreadable.iter().filter_map(|row| row.id.as_ref())).max_by_key(|name| name.as_str());
        let next = last.filter(|_| is_full).cloned();
        for row in &page.unreadable {
            tracing::error!(error = %row.error, "a user cannot be read");
        }
        Ok((page, next))
    }

    /// Replaces a user's roles. Issued access tokens keep the old roles until they expire; the next refresh has the new ones.
    pub async fn set_roles(&self, id: UserId, roles: Vec<Role>, from: &Requester) -> Result<(), UserError> {
        check_roles(&roles).map_err(UserError::Roles)?;
        let event = from.event("user.roles_changed").about_user(id);
        self.replica
            .store
            .users()
            .set_roles(id, roles, self.replica.clock.now(), Some(event))
            .await
            .map_err(unknown_or_failed)?;
        Ok(())
    }

    /// Changes the roles and the state of a user in one step.
    pub async fn change_user(
        &self,
        id: UserId,
        roles: Option<Vec<Role>>,
        enabled: Option<bool>,
        from: &Requester,
    ) -> Result<User, UserError> {
        roles.as_deref().map_or(Ok(()), check_roles).map_err(UserError::Roles)?;
        let event = |name| Some(from.event(name).about(id));
        let change = UserChange {
            roles: roles.map(|roles| (roles, event("user.roles_changed"))),
            enabled: enabled.map(|enabled| (enabled, event(if enabled { "user.enabled" } else { "user.disabled" }))),
        };
        let now = self.replica.clock.now();
        let changed = self.replica.store.users().change(id, change, now.plus(REVOCATION_LIFE), now).await;
        Ok(self.replica.follower.apply_locally(changed.map_err(unknown_or_failed)?).await)
    }

    /// Enables or disables a user. Disabling makes all tokens and sessions of the user inactive.
    pub async fn set_user_enabled(&self, id: UserId, enabled: bool, from: &Requester) -> Result<(), UserError> {
        let now = self.replica.clock.now();
        if enabled {
            let event = from.event("user.enabled").about_user(id);
            self.replica.store.users().enable(id, now, Some(event)).await.map_err(unknown_or_failed)?;
        } else {
            let event = from.event("user.disabled").about_user(id);
            let disabled = self.replica.store.users().disable(id, now.plus(REVOCATION_LIFE), now, Some(event)).await;
            self.replica.follower.apply_locally(disabled.map_err(unknown_or_failed)?).await;
        }
        Ok(())
    }

    /// Sets a user's password and ends all sessions of the user.
    pub async fn set_password(&self, id: UserId, password: Password, from: &Requester) -> Result<(), UserError> {
        let user = self.user(id).await?.ok_or(UserError::Unknown)?;
        self.policy.check(&password, &user.username)?;
        let hash = self.passwords.hasher.hash(password).await?;
        let now = self.replica.clock.now();
        let change = PasswordChange {
            user: id,
            expected_epoch: None,
            password_hash: hash.as_str().to_owned(),
            kept: None,
            revocation_expires_at: now.plus(REVOCATION_LIFE),
            audit: Some(from.event("user.password_set").about_user(id)),
        };
        let changed = self.replica.store.users().change_password(change, now).await.map_err(unknown_or_failed)?;
        self.replica.follower.apply_locally(changed).await;
        Ok(())
    }

    /// Deletes a user with all sessions. The id is never used again.
    pub async fn delete_user(&self, id: UserId, from: &Requester) -> Result<(), UserError> {
        let now = self.replica.clock.now();
        let event = from.event("user.deleted").about_user(id);
        let deleted = self.replica.store.users().delete(id, now.plus(REVOCATION_LIFE), now, Some(event)).await;
        if self.replica.follower.apply_locally(deleted.map_err(Failure::from)?).await {
            Ok(())
        } else {
            Err(UserError::Unknown)
        }
    }
}

fn unknown_or_failed(error: StoreError) -> UserError {
    match error {
        StoreError::NotFound { .. } => UserError::Unknown,
        error => Failure::from(error).into(),
    }
}
