//! Client authentication (RFC 6749 §2.3), from the view.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::crypto;
use crate::crypto::UnverifiedAssertion;
use crate::domain::{Client, ClientKind, Timestamp};
use crate::service::judge::Unavailable;
use crate::service::{Clients, Failure};

/// The client authentication that a request presents.
#[derive(Clone)]
pub enum ClientAuth<'a> {
    /// At most a `client_id`, which is enough for a public client.
    Named(Option<&'a str>),
    /// Pairs of id and secret. There are several if the encoding is ambiguous (RFC 6749 §2.3.1).
    Secret(Vec<(&'a str, &'a str)>),
    /// A signed assertion (RFC 7523 §2.2), and the `client_id` parameter if there was one.
    Assertion { client: Option<&'a str>, jwt: &'a str },
}

impl ClientAuth<'_> {
    /// The `client_id`; empty if there is none. The claims of an unverified assertion are not used.
    fn name(&self) -> &str {
        match self {
            Self::Named(id) => id.unwrap_or_default(),
            Self::Secret(candidates) => candidates.first().map_or("", |(id, _)| *id),
            Self::Assertion { client, .. } => client.unwrap_or_default(),
        }
    }
}

impl std::fmt::Debug for ClientAuth<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Named(_) => "ClientAuth::Named",
            Self::Secret(_) => "ClientAuth::Secret(hidden)",
            Self::Assertion { .. } => "ClientAuth::Assertion(hidden)",
        })
    }
}

/// The client that sent a request.
#[derive(Debug, Clone)]
pub struct Caller {
    pub client: Arc<Client>,
    /// False for a public client, which only names itself.
    pub authenticated: bool,
}

/// Why client authentication failed. Unknown clients, disabled clients and wrong secrets get the same error (security.md
/// I1).
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// No client is named, or the secret or assertion is invalid.
    #[error("client authentication failed")]
    Refused,
    /// As `Refused`, and the rate limit of the client or the address is exceeded.
    #[error("client authentication failed too often")]
    TooManyFailures {
        /// Time until the next failure is within the limit.
        retry_after: Duration,
    },
    /// The service could not decide.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Clients {
    /// Authenticates the client that sent a request. Secrets are compared in memory. An assertion costs one insert, so that
    /// it cannot be used twice on any replica.
    ///
    /// A stale view authenticates no client, because it may miss that a client was disabled or a secret added. A fresh view
    /// may miss a client or secret of the last moments. A caller is therefore refused only after the replica has caught up
    /// with the change feed. A caller above the rate limit is refused without catching up.
    pub async fn authenticate(&self, auth: &ClientAuth<'_>, address: IpAddr) -> Result<Caller, CallerError> {
        if let Some(reason) = self.judge.unavailable() {
            return Err(Failure::no_verdict(reason).into());
        }
        let generation = self.replica.view.generation();
        match self.decided_caller(auth).await {
            Err(CallerError::Refused) => {}
            decided => return decided,
        }
        let counted = self.failures.count(auth.name(), address, self.replica.clock.elapsed());
        counted.map_err(|retry_after| CallerError::TooManyFailures { retry_after })?;
        if matches!(auth, ClientAuth::Named(None)) {
            return Err(CallerError::Refused);
        }
        let Ok(_permit) = self.unknown_clients.try_acquire() else {
            return Err(Failure::no_verdict(Unavailable::BehindCaller).into());
        };
        let caught_up = Box::pin(self.replica.follower.catch_up_for_unknown_client()).await;
        caught_up.map_err(|_| Failure::no_verdict(Unavailable::BehindCaller))?;
        if self.replica.view.generation() == generation {
            return Err(CallerError::Refused);
        }
        self.decided_caller(auth).await
    }

    /// The caller. Freshness is checked after the view was read, and a refusal because of an unreadable row is no refusal.
    async fn decided_caller(&self, auth: &ClientAuth<'_>) -> Result<Caller, CallerError> {
        let unavailable = |reason| Err(Failure::no_verdict(reason).into());
        match (self.caller_by(auth).await, self.judge.unavailable()) {
            (Ok(_) | Err(CallerError::Refused), Some(reason)) => unavailable(reason),
            (Err(CallerError::Refused), None) if self.names_unreadable_client(auth) => {
                unavailable(Unavailable::UnreadableClient)
            }
            (decided, _) => decided,
        }
    }

    async fn caller_by(&self, auth: &ClientAuth<'_>) -> Result<Caller, CallerError> {
        match auth {
            ClientAuth::Named(id) => self.named_client(*id),
            ClientAuth::Secret(candidates) => self.client_by_secret(candidates),
            ClientAuth::Assertion { client, jwt } => Box::pin(self.client_by_assertion(*client, jwt)).await,
        }
    }

    /// Whether the request names a client whose row cannot be read.
    fn names_unreadable_client(&self, auth: &ClientAuth<'_>) -> bool {
        let is_unreadable = |id: &str| self.replica.view.is_unreadable_client(id);
        match auth {
            ClientAuth::Named(id) => id.is_some_and(is_unreadable),
            ClientAuth::Secret(candidates) => candidates.iter().any(|(id, _)| is_unreadable(id)),
            ClientAuth::Assertion { jwt, .. } => {
                UnverifiedAssertion::parse(jwt).is_ok_and(|assertion| is_unreadable(assertion.client().as_str()))
            }
        }
    }

    fn named_client(&self, id: Option<&str>) -> Result<Caller, CallerError> {
        let client = id.and_then(|id| self.replica.view.client(id)).filter(|client| !client.disabled);
        match client {
            Some(client) if client.settings.kind == ClientKind::Public => Ok(Caller { client, authenticated: false }),
            _ => Err(CallerError::Refused),
        }
    }

    fn client_by_secret(&self, candidates: &[(&str, &str)]) -> Result<Caller, CallerError> {
        let now = self.replica.clock.now();
        for (id, secret) in candidates {
            let digest = crypto::sha256(secret.as_bytes());
            match self.replica.view.client(id) {
                Some(client) if has_secret(&client, &digest, now) && !client.disabled => {
                    return Ok(Caller { client, authenticated: true });
                }
                // Some libraries send an empty secret for a public client. The client is then not authenticated.
                Some(client) if secret.is_empty() && client.settings.kind == ClientKind::Public && !client.disabled => {
                    return Ok(Caller { client, authenticated: false });
                }
                _ => {}
            }
        }
        Err(CallerError::Refused)
    }

    async fn client_by_assertion(&self, named: Option<&str>, jwt: &str) -> Result<Caller, CallerError> {
        // The client named by an unverified assertion only selects the keys to verify it with.
        let Ok(assertion) = UnverifiedAssertion::parse(jwt) else {
            return Err(CallerError::Refused);
        };
        let client = self.replica.view.client(assertion.client().as_str()).filter(|client| !client.disabled);
        let Some(client) = client.filter(|client| named.is_none_or(|named| named == client.id.as_str())) else {
            return Err(CallerError::Refused);
        };
        let Some(keys) = self.assertion_keys.of(&client) else {
            return Err(CallerError::Refused);
        };
        let keys = keys.map_err(Failure::internal)?;
        let now = self.replica.clock.now();
        let audiences: Vec<&str> = self.assertion_audiences.iter().map(String::as_str).collect();
        let assertion = assertion.verify(&keys, &audiences, now).map_err(|refusal| {
            tracing::info!(client = %client.id, %refusal, "client assertion refused");
            CallerError::Refused
        })?;
        let digest = crypto::sha256(format!("{}\n{}", client.id, assertion.jti).as_bytes());
        let is_first_use =
            self.replica.store.assertions().remember(digest, assertion.expires_at, now).await.map_err(Failure::from)?;
        if is_first_use { Ok(Caller { client, authenticated: true }) } else { Err(CallerError::Refused) }
    }
}

fn has_secret(client: &Client, digest: &[u8; 32], now: Timestamp) -> bool {
    let mut found = false;
    for secret in &client.secrets {
        let is_valid = secret.expires_at.is_none_or(|at| now < at);
        found |= is_valid & crypto::constant_time_eq(&secret.digest.0, digest);
    }
    found
}
