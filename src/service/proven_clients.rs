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

    /// Remembers that `header` proved `caller`, by what the view said under `generation`: read that before authenticating.
    pub fn remember_client(&self, header: &[u8], caller: &Caller, generation: u64) {
        if caller.authenticated {
            let until = caller.client.secrets.iter().filter_map(|secret| secret.expires_at).min();
            let proven = Proven { client: Arc::clone(&caller.client), generation, until };
            self.proven_clients.0.insert(crypto::sha256(header), proven);
        }
    }

    /// The generation of the view: it moves with every change that is applied.
    pub fn view_generation(&self) -> u64 {
        self.view.generation()
    }
}
