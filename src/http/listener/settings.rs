//! Limits and shutdown of a listener.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::http::middleware::TrustedProxies;

/// Limits of one listener. The maximum size of a head is a constant in `head.rs`.
#[derive(Debug, Clone)]
pub struct ListenSettings {
    /// Open connections; at the limit, none is accepted until one ends.
    pub max_connections: usize,
    /// Open connections from one address (IPv6: one /64); further ones are closed on arrival.
    pub max_per_address: usize,
    /// Peers that forward requests of many clients: they have no limit per address, and their connections are not
    /// evicted.
    pub trusted_proxies: TrustedProxies,
    /// Bytes of unfinished bodies, of all connections together; a body that needs more is answered 503.
    pub body_memory: usize,
    /// Time limit of a head, from the accepted connection (TLS handshake included) or from the first byte of a later
    /// request.
    pub head: Duration,
    /// Time limit of a body, from the end of the head.
    pub body: Duration,
    /// Time limit of an answer, from the end of the head.
    pub request: Duration,
    /// Idle time after which a connection is closed.
    pub idle: Duration,
    /// Idle time after which a connection releases its buffers. An earlier request costs no allocation.
    pub rest: Duration,
    /// Time limit of a request in flight after the client closed its side. It is short, because a disconnected client
    /// looks the same.
    pub half_closed: Duration,
    /// Longest time without progress of a write.
    pub write: Duration,
    /// Interval at which the certificate files are checked for changes.
    pub reload: Duration,
    /// Path of the issuer, below which every route answers too. It helps to select the error format for a refused head.
    pub base_path: Box<str>,
}

impl Default for ListenSettings {
    /// The limits of security.md H6.
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_per_address: 20_000,
            trusted_proxies: TrustedProxies::default(),
            body_memory: 64 * 1024 * 1024,
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            request: Duration::from_secs(15),
            idle: Duration::from_secs(130),
            rest: Duration::from_secs(1),
            half_closed: Duration::from_millis(250),
            write: Duration::from_secs(10),
            reload: Duration::from_secs(5),
            base_path: Box::default(),
        }
    }
}

/// The two steps of a graceful stop. All listeners and the readiness probe share it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// When cancelled, every answer has `Connection: close`, while connections are still accepted. Clients move to
    /// other replicas without a failed request.
    pub announced: CancellationToken,
    /// When cancelled, no connection is accepted, and requests in flight are finished.
    pub stopped: CancellationToken,
    /// Time limit of requests in flight after `stopped`.
    pub drain: Duration,
}

impl Shutdown {
    /// A shutdown that has not begun.
    pub fn new(drain: Duration) -> Self {
        Self { announced: CancellationToken::new(), stopped: CancellationToken::new(), drain }
    }
}
