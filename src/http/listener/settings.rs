//! How long, how many and until when.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::http::middleware::TrustedProxies;

/// Limits of one listener. The size of a head is not among them: it is the same everywhere.
#[derive(Debug, Clone)]
pub struct ListenSettings {
    /// Connections at a time; beyond it, none is accepted until one ends.
    pub max_connections: usize,
    /// Connections at a time from one address (IPv6: one /64); further ones are closed at once.
    pub max_per_address: usize,
    /// Peers that forward requests of many clients: they are exempt from that limit, and their connections are not evicted.
    pub trusted_proxies: TrustedProxies,
    /// Bytes of unfinished bodies that all connections may hold together; a body that needs more is answered 503.
    pub body_memory: usize,
    /// From the connection (TLS handshake included), or from the first byte of a later request, to the end of the head.
    pub head: Duration,
    /// From the end of the head to the end of the body.
    pub body: Duration,
    /// From the end of the head to the answer.
    pub request: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Between an answer and the release of the connection's buffers: a client that asks again within it costs no allocation.
    pub rest: Duration,
    /// Between the end of the client's side of the connection and the end of its request in flight. Short, because a
    /// client that left looks the same.
    pub half_closed: Duration,
    /// Without a byte taken by a client that is being written to.
    pub write: Duration,
    /// Between two looks at the certificate files.
    pub reload: Duration,
    /// The issuer's path, below which every route answers as well: it tells for which API a refused head was.
    pub base_path: Box<str>,
}

impl Default for ListenSettings {
    /// The numbers of security.md H6.
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

/// The two steps of a graceful stop. Both listeners and whoever reports readiness share it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// From here on every answer says `Connection: close`, while connections are still accepted: clients move over to
    /// other replicas without one failed request.
    pub announced: CancellationToken,
    /// From here on no connection is accepted, and what is in flight is finished.
    pub stopped: CancellationToken,
    /// How long what is in flight may take after that.
    pub drain: Duration,
}

impl Shutdown {
    /// Nothing announced yet.
    pub fn new(drain: Duration) -> Self {
        Self { announced: CancellationToken::new(), stopped: CancellationToken::new(), drain }
    }
}
