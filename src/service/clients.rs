//! The administration of clients.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::{self, SecretText, ClientKeys, JwkError};
use crate::domain::{Client, ClientId, ClientKind, ClientSettings, Grant, SecretDigest, Timestamp};
use crate::store::StoreError;

use super::{Failure, REVOCATION_LIFE, Requester, Service};

/// A client secret, shown once. Not printable.
pub struct ClientSecret(pub SecretText);

impl std::fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientSecret(hidden)")
    }
}

/// Why a client was not created or changed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The id is taken.
    #[error("a client of this id exists already")]
    Taken,
    /// There is no such client.
    #[error("there is no such client")]
    Unknown,
    /// The settings do not go together.
    #[error("{field}: {problem}")]
    Invalid {
        /// The setting at fault, as the API and the command line name it.
        field: &'static str,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// The public keys cannot be used.
    #[error("jwks: {0}")]
    Jwks(#[from] JwkError),
    /// It could not be stored.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Service {
    /// Creates a client; a confidential one without public keys gets a secret.
    pub async fn create_client(
        &self,
        id: ClientId,
        settings: ClientSettings,
        from: &Requester,
    ) -> Result<(Arc<Client>, Option<ClientSecret>), ClientError> {
        check(&settings)?;
        let secret = (settings.kind == ClientKind::Confidential && settings.jwks.is_none())
            .then(|| ClientSecret(crypto::random_secret(&*self.random)));
        let digest = secret.as_ref().map(digest_of);
        let created = self.store.create_client(&id, &settings, digest, from, self.clock.now()).await;
        match created {
            Ok(()) => {}
            Err(StoreError::Conflict { .. }) => return Err(ClientError::Taken),
            Err(error) => return Err(Failure::from(error).into()),
        }
        Ok((self.reread(&id).await?, secret))
    }

    /// Replaces a client's settings.
    pub async fn change_client(
        &self,
        id: &ClientId,
        settings: ClientSettings,
        from: &Requester,
    ) -> Result<Arc<Client>, ClientError> {
        check(&settings)?;
        let changed = self.store.update_client(id, &settings, from, self.clock.now()).await.map_err(Failure::from)?;
        if !changed {
            return Err(ClientError::Unknown);
        }
        self.reread(id).await
    }

    /// Gives a client a new secret; the ones before it are accepted for `grace` more (security.md S5).
    pub async fn new_client_secret(
        &self,
        id: &ClientId,
        grace: Duration,
        from: &Requester,
    ) -> Result<(ClientSecret, Timestamp), ClientError> {
        let client = self.store.client(id).await.map_err(Failure::from)?.ok_or(ClientError::Unknown)?;
        if client.settings.kind == ClientKind::Public {
            return Err(ClientError::Invalid { field: "type", problem: "a public client has no secret" });
        }
        let secret = ClientSecret(crypto::random_secret(&*self.random));
        let now = self.clock.now();
        let until = now.plus(grace);
        self.store.add_client_secret(id, digest_of(&secret), until, from, now).await.map_err(Failure::from)?;
        self.reread(id).await?;
        Ok((secret, until))
    }

    /// Disables a client, and with it every token and session of it, or enables it again.
    pub async fn set_client_enabled(&self, id: &ClientId, enabled: bool, from: &Requester) -> Result<bool, Failure> {
        let now = self.clock.now();
        let changed = self.store.set_client_enabled(id, enabled, from, now, now.plus(REVOCATION_LIFE)).await?;
        self.follower.refresh_client(id).await?;
        Ok(changed)
    }

    /// Deletes a client with its sessions. True when there was one.
    pub async fn delete_client(&self, id: &ClientId, from: &Requester) -> Result<bool, Failure> {
        let now = self.clock.now();
        let deleted = self.store.delete_client(id, from, now, now.plus(REVOCATION_LIFE)).await?;
        self.follower.refresh_client(id).await?;
        Ok(deleted)
    }

    async fn reread(&self, id: &ClientId) -> Result<Arc<Client>, ClientError> {
        self.follower.refresh_client(id).await.map_err(Failure::from)?;
        self.view.client(id.as_str()).ok_or(ClientError::Unknown)
    }
}

/// What must hold between the settings of a client.
fn check(settings: &ClientSettings) -> Result<(), ClientError> {
    let invalid = |field, problem| Err(ClientError::Invalid { field, problem });
    let is_public = settings.kind == ClientKind::Public;
    if is_public && settings.grants.allow(Grant::ClientCredentials) {
        return invalid("grants", "client_credentials needs a confidential client, because a public one cannot prove who it is");
    }
    if is_public && settings.jwks.is_some() {
        return invalid("jwks", "only a confidential client authenticates with keys");
    }
    if is_public && settings.introspect == crate::domain::IntrospectRight::Any {
        return invalid("introspect", "only a confidential client may introspect every token");
    }
    let lifetimes = Duration::from_secs(30)..=Duration::from_secs(3600);
    if settings.access_ttl.is_some_and(|ttl| !lifetimes.contains(&ttl)) {
        return invalid("access_ttl", "an access token lives between 30 s and 1 h");
    }
    if settings.display_name.len() > 256 {
        return invalid("display_name", "a display name is at most 256 bytes");
    }
    if let Some(jwks) = &settings.jwks {
        ClientKeys::parse(jwks)?;
    }
    Ok(())
}

fn digest_of(secret: &ClientSecret) -> SecretDigest {
    SecretDigest(crypto::sha256(secret.0.expose().as_bytes()))
}
