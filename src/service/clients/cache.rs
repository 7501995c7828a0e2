//! The client cache: `Authorization` headers that authenticated a client.
//!
//! A gateway sends the same header with every request. Parsing it, hashing the secret and comparing the digest costs as much
//! as judging a token. The result is cached until the view changes or a secret expires.

use std::sync::Arc;

use crate::crypto;
use crate::domain::{Client, Timestamp};
use crate::service::{Caller, Clients};

/// Maximum number of cached headers: more than an installation has gateways.
const MAX_HEADERS: usize = 1024;

/// Authenticated clients by the SHA-256 of the header. Bounded; entries may be lost at any time.
pub struct ClientCache(quick_cache::sync::Cache<[u8; 32], Entry>);

#[derive(Clone)]
struct Entry {
    client: Arc<Client>,
    /// View generation at which the secret was compared. After any change, it is compared again (security.md C6).
    generation: u64,
    /// When the first of the client's secrets expires.
    until: Option<Timestamp>,
}

impl Default for ClientCache {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(MAX_HEADERS))
    }
}

/// State read before a client was authenticated.
#[derive(Debug, Clone, Copy)]
pub struct BeforeAuthentication {
    generation: u64,
    now: Timestamp,
}

impl Clients {
    /// The client that this header authenticates, if it is cached and the view is fresh. `None` does not mean that the header
    /// is invalid.
    pub fn cached_client(&self, header: &[u8]) -> Option<Caller> {
        let entry = self.cache.0.get(&crypto::sha256(header))?;
        let now = self.replica.clock.now();
        let is_known = entry.until.is_none_or(|until| now < until)
            && self.judge.unavailable_at(now, self.replica.clock.elapsed()).is_none();
        let caller = Caller { client: entry.client, authenticated: true };
        // Read last, so that entries applied before the check of freshness are taken into account.
        (is_known && self.replica.view.generation() == entry.generation).then_some(caller)
    }

    /// The state that [`Clients::cache_client`] needs from before the authentication.
    pub fn before_authentication(&self) -> BeforeAuthentication {
        BeforeAuthentication { generation: self.replica.view.generation(), now: self.replica.clock.now() }
    }

    /// Caches that `header` authenticated `caller`. `before` must have been read before the authentication.
    pub fn cache_client(&self, header: &[u8], caller: &Caller, before: &BeforeAuthentication) {
        if caller.authenticated {
            // A secret that had expired before the comparison was not used. Any other ends the entry when it expires.
            let ends = caller.client.secrets.iter().filter_map(|secret| secret.expires_at);
            let until = ends.filter(|end| before.now < *end).min();
            let entry = Entry { client: Arc::clone(&caller.client), generation: before.generation, until };
            self.cache.0.insert(crypto::sha256(header), entry);
        }
    }
}
