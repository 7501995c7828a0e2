//! Who is calling: client authentication (RFC 6749 §2.3), from memory.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::crypto::{self, UnverifiedAssertion};
use crate::domain::{Client, ClientKind, Timestamp};

use super::judge::Doubt;
use super::{Failure, Service};

/// What a request brought to prove which client it comes from.
#[derive(Clone)]
pub enum ClientProof<'a> {
    /// Nothing but, perhaps, a name: enough for a public client.
    Named(Option<&'a str>),
    /// An id and a secret; several spellings of the same pair where the encoding is ambiguous (RFC 6749 §2.3.1).
    Secret(Vec<(&'a str, &'a str)>),
    /// A signed assertion (RFC 7523 §2.2), and the `client_id` parameter if there was one.
    Assertion {
        /// `client_id`.
        client: Option<&'a str>,
        /// `client_assertion`.
        jwt: &'a str,
    },
}

impl ClientProof<'_> {
    /// The client that it names, as far as it names one outside of a signature that is not verified.
    fn name(&self) -> &str {
        match self {
            Self::Named(id) => id.unwrap_or_default(),
            Self::Secret(candidates) => candidates.first().map_or("", |(id, _)| *id),
            Self::Assertion { client, .. } => client.unwrap_or_default(),
        }
    }
}

impl std::fmt::Debug for ClientProof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Named(_) => "ClientProof::Named",
            Self::Secret(_) => "ClientProof::Secret(hidden)",
            Self::Assertion { .. } => "ClientProof::Assertion(hidden)",
        })
    }
}

/// A client, and whether it proved who it is.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The client.
    pub client: Arc<Client>,
    /// False for a public client that only named itself.
    pub authenticated: bool,
}

/// Why a caller is not let in. Unknown, disabled and wrong look alike (security.md I1).
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// No client is named, or the proof does not hold.
    #[error("client authentication failed")]
    Refused,
    /// The same, and it happened too often from this address.
    #[error("client authentication failed too often")]
    TooManyFailures {
        /// When the next failure is borne.
        retry_after: Duration,
    },
    /// It could not be decided.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Service {
    /// Finds the client that a request comes from. Secrets are compared in memory; an assertion costs one insert, which
    /// keeps it from being used twice on any replica.
    ///
    /// A replica whose view is too old lets nobody in: it would not know of a client that was disabled, or of a secret that
    /// was made, since. And nobody is turned away by a view that does not know of a client or a secret *yet*: what refuses is
    /// a view that is proven to be no older than the request. Whoever failed too often is spared that look.
    pub async fn authenticate(&self, proof: &ClientProof<'_>, address: IpAddr) -> Result<Caller, CallerError> {
        if let Some(doubt) = self.judge.doubt() {
            return Err(Failure::doubt(doubt).into());
        }
        let generation = self.view.generation();
        match self.caller_by(proof).await {
            Err(CallerError::Refused) if self.names_unreadable_client(proof) => {
                return Err(Failure::doubt(Doubt::UnreadableClient).into());
            }
            Err(CallerError::Refused) => {}
            decided => return decided,
        }
        let counted = self.client_failures.count(proof.name(), address, self.clock.elapsed());
        counted.map_err(|retry_after| CallerError::TooManyFailures { retry_after })?;
        if matches!(proof, ClientProof::Named(None)) {
            return Err(CallerError::Refused);
        }
        let Ok(_permit) = self.unknown_clients.try_acquire() else {
            return Err(Failure::doubt(Doubt::BehindCaller).into());
        };
        let caught_up = Box::pin(self.follower.catch_up_for_stranger()).await;
        caught_up.map_err(|_| Failure::doubt(Doubt::BehindCaller))?;
        if self.view.generation() == generation {
            return Err(CallerError::Refused);
        }
        self.caller_by(proof).await
    }

    async fn caller_by(&self, proof: &ClientProof<'_>) -> Result<Caller, CallerError> {
        match proof {
            ClientProof::Named(id) => self.named_client(*id),
            ClientProof::Secret(candidates) => self.client_by_secret(candidates),
            ClientProof::Assertion { client, jwt } => Box::pin(self.client_by_assertion(*client, jwt)).await,
        }
    }

    /// Whether the caller says that it is a client whose row cannot be read.
    fn names_unreadable_client(&self, proof: &ClientProof<'_>) -> bool {
        let is_unreadable = |id: &str| self.view.is_unreadable_client(id);
        match proof {
            ClientProof::Named(id) => id.is_some_and(is_unreadable),
            ClientProof::Secret(candidates) => candidates.iter().any(|(id, _)| is_unreadable(id)),
            ClientProof::Assertion { jwt, .. } => {
                UnverifiedAssertion::parse(jwt).is_ok_and(|assertion| is_unreadable(assertion.client().as_str()))
            }
        }
    }

    fn named_client(&self, id: Option<&str>) -> Result<Caller, CallerError> {
        let client = id.and_then(|id| self.view.client(id)).filter(|client| !client.disabled);
        match client {
            Some(client) if client.settings.kind == ClientKind::Public => Ok(Caller { client, authenticated: false }),
            _ => Err(CallerError::Refused),
        }
    }

    fn client_by_secret(&self, candidates: &[(&str, &str)]) -> Result<Caller, CallerError> {
        let now = self.clock.now();
        for (id, secret) in candidates {
            let digest = crypto::sha256(secret.as_bytes());
            match self.view.client(id) {
                Some(client) if has_secret(&client, &digest, now) && !client.disabled => {
                    return Ok(Caller { client, authenticated: true });
                }
                // A public client that sends an empty secret, as some libraries do, has only named itself.
                Some(client) if secret.is_empty() && client.settings.kind == ClientKind::Public && !client.disabled => {
                    return Ok(Caller { client, authenticated: false });
                }
                _ => {}
            }
        }
        Err(CallerError::Refused)
    }

    async fn client_by_assertion(&self, named: Option<&str>, jwt: &str) -> Result<Caller, CallerError> {
        // What an unverified assertion says of its client only finds the keys that it must verify under.
        let Ok(assertion) = UnverifiedAssertion::parse(jwt) else {
            return Err(CallerError::Refused);
        };
        let client = self.view.client(assertion.client().as_str()).filter(|client| !client.disabled);
        let Some(client) = client.filter(|client| named.is_none_or(|named| named == client.id.as_str())) else {
            return Err(CallerError::Refused);
        };
        let Some(keys) = self.assertion_keys.of(&client) else {
            return Err(CallerError::Refused);
        };
        let keys = keys.map_err(Failure::internal)?;
        let now = self.clock.now();
        let audiences: Vec<&str> = self.assertion_audiences.iter().map(String::as_str).collect();
        let assertion = assertion.verify(&keys, &audiences, now).map_err(|refusal| {
            tracing::info!(client = %client.id, %refusal, "client assertion refused");
            CallerError::Refused
        })?;
        let digest = crypto::sha256(format!("{}\n{}", client.id, assertion.jti).as_bytes());
        let is_first_use =
            self.store.assertions().remember(digest, assertion.expires_at, now).await.map_err(Failure::from)?;
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
