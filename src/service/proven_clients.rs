//! Which client stands behind a header that was checked before.
//!
//! A gateway sends the same `Authorization` header with every request. Reading it, digesting its secret and comparing that
//! costs as much as judging a token, so its result is remembered, for as long as nothing that it rests on can have changed.

use std::sync::Arc;

use crate::crypto;
use crate::domain::{Client, Timestamp};

use super::{Caller, Service};

/// Most headers that are remembered: more than an installation has gateways.
const MAX_HEADERS: usize = 1024;

/// Headers that were found good, by their SHA-256. Bounded; may forget anything at any time.
pub struct ProvenClients(quick_cache::sync::Cache<[u8; 32], Proven>);

#[derive(Clone)]
struct Proven {
    client: Arc<Client>,
    /// Generation of the view under which the secret was compared: any change makes it be compared again (security.md C6).
    generation: u64,
    /// The first of the client's secrets ends then.
    until: Option<Timestamp>,
}

impl Default for ProvenClients {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(MAX_HEADERS))
    }
}

/// The moment before a client was authenticated.
#[derive(Debug, Clone, Copy)]
pub struct BeforeAuthentication {
    generation: u64,
    now: Timestamp,
}

impl Service {
    /// The client that this header was found to prove, if nothing has changed since and the view is fresh. None says
    /// nothing: authenticate.
    pub fn recall_client(&self, header: &[u8]) -> Option<Caller> {
        let proven = self.proven_clients.0.get(&crypto::sha256(header))?;
        let now = self.clock.now();
        let is_known =
            proven.until.is_none_or(|until| now < until) && self.judge.doubt_at(now, self.clock.elapsed()).is_none();
        let caller = Caller { client: proven.client, authenticated: true };
        // Asked for last: what was applied before the view was found fresh has moved it.
        (is_known && self.view.generation() == proven.generation).then_some(caller)
    }

    /// What [`Service::remember_client`] needs to know of the moment before authentication.
    pub fn before_authentication(&self) -> BeforeAuthentication {
        BeforeAuthentication { generation: self.view.generation(), now: self.clock.now() }
    }

    /// Remembers that `header` proved `caller`, by what the view said since `before`.
    pub fn remember_client(&self, header: &[u8], caller: &Caller, before: &BeforeAuthentication) {
        if caller.authenticated {
            // A secret that ends while it is being compared ends what is remembered; one that had ended before took no part.
            let ends = caller.client.secrets.iter().filter_map(|secret| secret.expires_at);
            let until = ends.filter(|end| before.now < *end).min();
            let proven = Proven { client: Arc::clone(&caller.client), generation: before.generation, until };
            self.proven_clients.0.insert(crypto::sha256(header), proven);
        }
    }
}
