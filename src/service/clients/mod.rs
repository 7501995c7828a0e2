//! The administration of clients.

pub(crate) mod assertion_keys;
pub(crate) mod authenticate;
pub(crate) mod cache;
pub(crate) mod failures;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::crypto;
use crate::crypto::{JwkSetError, PublicKeySet};
use crate::domain::{
    Audience, Client, ClientId, ClientKind, ClientSettings, FeedRight, Grant, SecretDigest, SecretText, Timestamp,
    check_client,
};
use crate::replica::Replica;
use crate::service::{
    ADMIN_SCOPE, AssertionKeys, BUILT_IN_CLIENT, ClientCache, ClientFailures, Failure, Judge, REVOCATION_LIFE,
    Requester, Tokens,
};
use crate::store::{ClientChange, NewClient, StoreError};

/// A client secret, shown once. `Debug` hides it.
pub struct ClientSecret(pub SecretText);

impl std::fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientSecret(hidden)")
    }
}

/// Why a client was not created or changed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("a client of this id exists already")]
    Taken,
    #[error("the built-in client cannot be deleted, because logins without a client use it; disable it instead")]
    BuiltIn,
    #[error("there is no such client")]
    Unknown,
    /// A setting is invalid, or contradicts another.
    #[error("{field}: {problem}")]
    Invalid {
        /// The invalid setting, as named in the API and on the command line.
        field: &'static str,
        problem: &'static str,
    },
    /// The public keys are invalid.
    #[error("jwks: {0}")]
    Jwks(#[from] JwkSetError),
    /// The change could not be stored.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// How often an edit is tried when others edit the same client concurrently.
const MAX_EDITS: u32 = 4;

/// Manages clients, and authenticates them.
pub struct Clients {
    pub(crate) replica: Replica,
    pub(crate) judge: Arc<Judge>,
    pub(crate) failures: Arc<ClientFailures>,
    pub(crate) assertion_keys: AssertionKeys,
    /// Audiences accepted in client assertions (RFC 7523 §3).
    pub(crate) assertion_audiences: Vec<String>,
    /// [`UNKNOWN_CLIENTS`](super::UNKNOWN_CLIENTS) permits.
    pub(crate) unknown_clients: Semaphore,
    pub(crate) cache: ClientCache,
    pub(crate) tokens: Arc<Tokens>,
}

impl Clients {
    /// Creates a client; a confidential one without public keys gets a secret.
    pub async fn create_client(
        &self,
        id: ClientId,
        settings: ClientSettings,
        enabled: bool,
        from: &Requester,
    ) -> Result<(Client, Option<ClientSecret>), ClientError> {
        self.check(&settings)?;
        let secret = (settings.kind == ClientKind::Confidential && settings.jwks.is_none())
            .then(|| ClientSecret(crypto::random_secret(&*self.replica.random)));
        let new = NewClient { id, settings, secret: secret.as_ref().map(digest_of), disabled: !enabled };
        let event = from.event("client.created").on(&new.id);
        let created = self.replica.store.clients().create(new, self.replica.clock.now(), Some(event)).await;
        let client = self.replica.follower.apply_locally(created.map_err(refused)?).await;
        Ok((client, secret))
    }

    /// Changes a client's settings with `edit`, and whether it is enabled, in one step. `edit` runs again if another
    /// administrator changed the settings concurrently, so that no change is lost.
    pub async fn change_client<E: From<ClientError>>(
        &self,
        id: &ClientId,
        edit: impl Fn(ClientSettings) -> Result<ClientSettings, E>,
        enabled: Option<bool>,
        from: &Requester,
    ) -> Result<Client, E> {
        for _ in 0..MAX_EDITS {
            // From the database, because the view can be older.
            let client = self.replica.store.clients().by_id(id).await.map_err(refused)?.ok_or(ClientError::Unknown)?;
            let settings = edit(client.settings.clone())?;
            if settings == client.settings && enabled.is_none() {
                return Ok(client);
            }
            if settings != client.settings {
                self.check(&settings)?;
            }
            let event = |name| Some(from.event(name).on(id));
            let now = self.replica.clock.now();
            let change = ClientChange {
                present: client.settings,
                settings,
                audit: event("client.changed"),
                enabled: enabled
                    .map(|enabled| (enabled, event(if enabled { "client.enabled" } else { "client.disabled" }))),
                revocation_expires_at: now.plus(REVOCATION_LIFE),
            };
            match self.replica.store.clients().change(id, change, now).await {
                Err(StoreError::Conflict { .. }) => {}
                changed => return Ok(self.replica.follower.apply_locally(changed.map_err(refused)?).await),
            }
        }
        let busy = StoreError::Unavailable("the client changes too fast to be edited".to_owned());
        Err(ClientError::from(Failure::from(busy)).into())
    }

    /// Creates a new secret. The previous ones are accepted for `grace` (security.md S5).
    pub async fn new_client_secret(
        &self,
        id: &ClientId,
        grace: Duration,
        from: &Requester,
    ) -> Result<(ClientSecret, Timestamp), ClientError> {
        let client = self.replica.store.clients().by_id(id).await.map_err(refused)?.ok_or(ClientError::Unknown)?;
        if client.settings.kind == ClientKind::Public {
            return Err(ClientError::Invalid { field: "type", problem: "a public client has no secret" });
        }
        let secret = ClientSecret(crypto::random_secret(&*self.replica.random));
        let now = self.replica.clock.now();
        let until = now.plus(grace);
        let event = from.event("client.secret_replaced").on(id);
        let added = self.replica.store.clients().add_secret(id, digest_of(&secret), until, now, Some(event)).await;
        self.replica.follower.apply_locally(added.map_err(refused)?).await;
        Ok((secret, until))
    }

    /// Enables or disables a client. Disabling makes all its tokens and sessions inactive.
    pub async fn set_client_enabled(
        &self,
        id: &ClientId,
        enabled: bool,
        from: &Requester,
    ) -> Result<Client, ClientError> {
        let now = self.replica.clock.now();
        let changed = if enabled {
            self.replica.store.clients().enable(id, now, Some(from.event("client.enabled").on(id))).await
        } else {
            let event = from.event("client.disabled").on(id);
            self.replica.store.clients().disable(id, now.plus(REVOCATION_LIFE), now, Some(event)).await
        };
        Ok(self.replica.follower.apply_locally(changed.map_err(refused)?).await)
    }

    /// Deletes a client with its sessions. Returns whether it existed.
    pub async fn delete_client(&self, id: &ClientId, from: &Requester) -> Result<bool, ClientError> {
        if id.as_str() == BUILT_IN_CLIENT {
            return Err(ClientError::BuiltIn);
        }
        let now = self.replica.clock.now();
        let event = from.event("client.deleted").on(id);
        if self.replica.store.clients().has_many_sessions(id).await.map_err(refused)? {
            // If the process stops in between, a disabled client remains, which can be deleted again.
            let disabled = self.replica.store.clients().disable(id, now.plus(REVOCATION_LIFE), now, None).await;
            self.replica.follower.apply_locally(disabled.map_err(refused)?).await;
            self.replica.store.clients().delete_sessions(id).await.map_err(refused)?;
        }
        let deleted = self.replica.store.clients().delete(id, now.plus(REVOCATION_LIFE), now, Some(event)).await;
        Ok(self.replica.follower.apply_locally(deleted.map_err(refused)?).await)
    }

    /// Checks a client's settings against each other and against those of the service.
    fn check(&self, settings: &ClientSettings) -> Result<(), ClientError> {
        if settings.access_ttl.is_some_and(|ttl| ttl > self.tokens.settings.idle_ttl) {
            let problem = "is longer than sessions.idle_ttl, so a session would end before its access token";
            return Err(ClientError::Invalid { field: "access_ttl", problem });
        }
        // The tokens of a client without audiences can have these two.
        let defaults =
            || [self.tokens.settings.default_audience.clone()].into_iter().chain(Audience::parse(&self.tokens.issuer));
        let own = Some(&settings.audiences).filter(|own| !own.is_empty());
        let audiences = own.map_or_else(|| defaults().collect(), Clone::clone);
        check_client(&audiences, &settings.scopes)
            .map_err(|(field, problem)| ClientError::Invalid { field, problem })?;
        check(settings)
    }

    /// One client, from the view.
    pub fn client(&self, id: &ClientId) -> Option<Arc<Client>> {
        self.replica.view.client(id.as_str())
    }

    /// A page of clients ordered by id, from the view, and the id after which the next page begins.
    pub fn clients_after(&self, after: Option<&ClientId>, limit: u32) -> (Vec<Arc<Client>>, Option<ClientId>) {
        let mut clients = self.replica.view.clients();
        clients.retain(|client| after.is_none_or(|after| client.id > *after));
        clients.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = clients.len() > limit;
        clients.truncate(limit);
        let next = clients.last().filter(|_| has_more).map(|last| last.id.clone());
        (clients, next)
    }

    /// All clients, from the view, in no particular order.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.replica.view.clients()
    }
}

fn refused(error: StoreError) -> ClientError {
    match error {
        StoreError::Conflict { .. } => ClientError::Taken,
        StoreError::NotFound { .. } => ClientError::Unknown,
        error => Failure::from(error).into(),
    }
}

/// Checks a client's settings against each other.
fn check(settings: &ClientSettings) -> Result<(), ClientError> {
    let invalid = |field, problem| Err(ClientError::Invalid { field, problem });
    let is_public = settings.kind == ClientKind::Public;
    if is_public && settings.grants.allow(Grant::ClientCredentials) {
        return invalid(
            "grants",
            "client_credentials needs a confidential client, because a public client cannot authenticate",
        );
    }
    if is_public && settings.jwks.is_some() {
        return invalid("jwks", "only a confidential client authenticates with keys");
    }
    if is_public && settings.introspect == crate::domain::IntrospectRight::Any {
        return invalid("introspect", "only a confidential client may introspect every token");
    }
    if is_public && settings.feed != FeedRight::None {
        return invalid("feed", "only a confidential client may read the revocation feed");
    }
    let acts_for_itself_alone =
        settings.grants.allow(Grant::ClientCredentials) && !settings.grants.allow(Grant::PasswordLogin);
    if acts_for_itself_alone && settings.scopes.contains(ADMIN_SCOPE) {
        return invalid(
            "scopes",
            "countersign:admin is for users with the role of that name; a program needs an admin key, created by \
             `countersign admin-key create`",
        );
    }
    let lifetimes = Duration::from_secs(30)..=Duration::from_secs(3600);
    if settings.access_ttl.is_some_and(|ttl| !lifetimes.contains(&ttl)) {
        return invalid("access_ttl", "an access token lives between 30 s and 1 h");
    }
    if settings.display_name.len() > 256 {
        return invalid("display_name", "a display name is at most 256 bytes");
    }
    if let Some(jwks) = &settings.jwks {
        PublicKeySet::parse(jwks)?;
    }
    Ok(())
}

fn digest_of(secret: &ClientSecret) -> SecretDigest {
    SecretDigest(crypto::sha256(secret.0.expose().as_bytes()))
}
