//! Admin keys: made by the command line, for scripts that administer.

use std::time::Duration;

use crate::crypto;
use crate::domain::SecretText;
use crate::store::{AdminKey, NewAdminKey, StoreError};

use super::{ADMIN_KEY_PREFIX, Failure, Requester, Service};

/// Times are kept in milliseconds.
const SHORTEST_LIFE: Duration = Duration::from_millis(1);

/// Why an admin key was not made.
#[derive(Debug, thiserror::Error)]
pub enum AdminKeyError {
    /// The name is taken.
    #[error("an admin key of this name exists already")]
    Taken,
    /// The name is empty, too long, or has characters that do not belong into a name.
    #[error("a name of an admin key is 1 to 64 of the characters A-Z a-z 0-9 . _ -")]
    BadName,
    /// It would have expired before anyone could use it.
    #[error("an admin key that expires at once would open nothing")]
    TooShort,
    /// It could not be stored.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Service {
    /// Makes a key, shown this once; only its digest is stored.
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
        let key = SecretText::new(format!("{ADMIN_KEY_PREFIX}{}", crypto::random_secret(&*self.random).expose()));
        let now = self.clock.now();
        let new = NewAdminKey {
            id: self.random.bytes(),
            name: name.to_owned(),
            digest: crypto::sha256(key.expose().as_bytes()),
            expires_at: life.map(|life| now.plus(life)),
        };
        let event = from.event("admin_key.created").about(name);
        match self.store.admin_keys().create(new, now, Some(event)).await {
            Ok(_) => Ok(key),
            Err(StoreError::Conflict { .. }) => Err(AdminKeyError::Taken),
            Err(error) => Err(Failure::from(error).into()),
        }
    }

    /// All admin keys, without what would let anyone use them.
    pub async fn admin_keys(&self) -> Result<Vec<AdminKey>, Failure> {
        Ok(self.store.admin_keys().all().await?)
    }

    /// Deletes a key. True when there was one.
    pub async fn delete_admin_key(&self, name: &str, from: &Requester) -> Result<bool, Failure> {
        let event = from.event("admin_key.deleted").about(name);
        Ok(self.store.admin_keys().delete(name, self.clock.now(), Some(event)).await?)
    }
}
