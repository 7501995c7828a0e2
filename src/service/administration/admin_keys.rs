//! Admin keys: created on the command line, for scripts that use the administration API.

use std::time::Duration;

use crate::crypto;
use crate::domain::SecretText;
use crate::service::{ADMIN_KEY_PREFIX, Administration, Failure, Requester};
use crate::store::{AdminKey, NewAdminKey, Rows, StoreError};

/// Times are stored in milliseconds.
const SHORTEST_LIFE: Duration = Duration::from_millis(1);

/// Why an admin key was not created.
#[derive(Debug, thiserror::Error)]
pub enum AdminKeyError {
    #[error("an admin key of this name exists already")]
    Taken,
    #[error("the name of an admin key must consist of 1 to 64 of the characters A-Z a-z 0-9 . _ -")]
    BadName,
    #[error("the lifetime of an admin key must be at least one millisecond")]
    TooShort,
    /// The key could not be stored.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Administration {
    /// Creates a key. Only its digest is stored, so it cannot be shown again.
    pub async fn create_admin_key(
        &self,
        name: &str,
        life: Option<Duration>,
        from: &Requester,
    ) -> Result<SecretText, AdminKeyError> {
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name_byte) {
            return Err(AdminKeyError::BadName);
        }
        if life.is_some_and(|life| life < SHORTEST_LIFE) {
            return Err(AdminKeyError::TooShort);
        }
        let key =
            SecretText::new(format!("{ADMIN_KEY_PREFIX}{}", crypto::random_secret(&*self.replica.random).expose()));
        let now = self.replica.clock.now();
        let new = NewAdminKey {
            id: self.replica.random.bytes(),
            name: name.to_owned(),
            digest: crypto::sha256(key.expose().as_bytes()),
            expires_at: life.map(|life| now.plus(life)),
        };
        let event = from.event("admin_key.created").about(name);
        match self.replica.store.admin_keys().create(new, now, Some(event)).await {
            Ok(_) => Ok(key),
            Err(StoreError::Conflict { .. }) => Err(AdminKeyError::Taken),
            Err(error) => Err(Failure::from(error).into()),
        }
    }

    /// All admin keys, without their secrets.
    pub async fn admin_keys(&self) -> Result<Rows<AdminKey, String>, Failure> {
        Ok(self.replica.store.admin_keys().all().await?)
    }

    /// Deletes a key. Returns whether it existed.
    pub async fn delete_admin_key(&self, name: &str, from: &Requester) -> Result<bool, Failure> {
        let event = from.event("admin_key.deleted").about(name);
        Ok(self.replica.store.admin_keys().delete(name, self.replica.clock.now(), Some(event)).await?)
    }
}
