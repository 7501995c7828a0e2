//! Addresses and limits of the listeners.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::reader::Reader;

/// Loopback: what is not configured is not reachable from elsewhere.
pub(super) const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// `public.listen` where it is not set.
pub(super) const PUBLIC: SocketAddr = loopback(8080);

/// More than the 10,000 sockets that one hostile machine opens with ease (security.md H6). With less than 8 GiB of memory the
/// default is lower, see `app::Memory`.
pub const MOST_DEFAULT_CONNECTIONS: usize = 16_384;
/// Administrators, scrapers and probes.
const OPERATIONS_CONNECTIONS: usize = 256;

/// Each Envoy keeps one connection for each of its threads: some hundreds of sidecars.
const GRPC_CONNECTIONS: usize = 1024;

/// A caller on the slowest link sends a header block within a second; ten leave room for retransmissions (security.md H6).
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// As for headers.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Above the longest wait for a password hash and the database together; below what gateways wait for us.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Above what gateways wait by default: a connection that both sides close at the same moment fails a POST with 502. AWS ALB, nginx
/// and Kong wait 60 s, Traefik 90 s, Caddy 120 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(130);
/// A peer that takes nothing for so long is gone or hostile (security.md H6).
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

const MOST_CONNECTIONS: usize = 1_000_000;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Address and port; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Serve TLS with these files; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// Peers whose `X-Forwarded-For` and `Forwarded` are believed (security.md L7).
    pub trusted_proxies: Vec<IpNet>,
    /// Connections at once; as many as the memory allows when not set.
    pub max_connections: Option<usize>,
    /// Connections at once from one address that is no trusted proxy; a quarter of all when not set.
    pub max_connections_per_address: Option<usize>,
    /// From the first wait for a request until its header block is complete.
    pub header_timeout: Duration,
    /// From the end of the header block until the body is complete.
    pub body_timeout: Duration,
    /// From the end of the header block until the answer is ready.
    pub request_timeout: Duration,
    /// Between an answer and the next request.
    pub idle_timeout: Duration,
    /// During which a peer may take nothing of an answer.
    pub write_timeout: Duration,
}

/// The listener that Envoy asks over gRPC. It exists only where an address is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grpc {
    /// Address and port; none: there is no such listener.
    pub listen: Option<SocketAddr>,
    /// Serve TLS with these files; plain HTTP/2 without.
    pub tls: Option<TlsFiles>,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once from one address; a quarter of all when not set.
    pub max_connections_per_address: Option<usize>,
}

/// The files of a TLS identity, read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, PEM, leaf first.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

impl Listener {
    pub(super) fn load_public(read: &mut Reader<'_>) -> Self {
        read.section("Public listener");
        Self::load(read, "public", PUBLIC, None)
    }

    pub(super) fn load_operations(read: &mut Reader<'_>) -> Self {
        read.section("Operations listener");
        Self::load(read, "operations", loopback(9090), Some(OPERATIONS_CONNECTIONS))
    }

    fn load(read: &mut Reader<'_>, prefix: &str, listen: SocketAddr, connections: Option<usize>) -> Self {
        const CONNECTIONS: &str = "Connections at once. Near the limit, connections that have been idle longest are closed; beyond \
                                   it, further ones wait in the kernel's queue.";
        let name = |key: &str| format!("{prefix}.{key}");
        Self {
            listen: read.setting(name("listen"), listen, "Address and port; port 0 takes any free one."),
            tls: TlsFiles::load(read, prefix),
            trusted_proxies: read.setting(
                name("trusted_proxies"),
                Vec::new(),
                "Addresses and networks of proxies whose `X-Forwarded-For` and `Forwarded` are believed; from anyone else \
                 they are ignored.",
            ),
            max_connections: match connections {
                Some(connections) => {
                    Some(read.within(name("max_connections"), connections, 1..=MOST_CONNECTIONS, CONNECTIONS))
                }
                None => read.optional_within(
                    name("max_connections"),
                    format!("one per 512 KiB of memory, {MOST_DEFAULT_CONNECTIONS} at most"),
                    1..=MOST_CONNECTIONS,
                    CONNECTIONS,
                ),
            },
            max_connections_per_address: per_address(read, prefix),
            header_timeout: read.within(
                name("header_timeout"),
                HEADER_TIMEOUT,
                SECOND..=MINUTE,
                "From the first byte that is waited for until the header block is complete.",
            ),
            body_timeout: read.within(
                name("body_timeout"),
                BODY_TIMEOUT,
                SECOND..=MINUTE,
                "From the end of the header block until the body is complete.",
            ),
            request_timeout: read.within(
                name("request_timeout"),
                REQUEST_TIMEOUT,
                SECOND..=5 * MINUTE,
                "From the end of the header block until the answer is ready; 503 afterwards.",
            ),
            idle_timeout: read.within(
                name("idle_timeout"),
                IDLE_TIMEOUT,
                SECOND..=60 * MINUTE,
                "How long a connection may wait for its next request.",
            ),
            write_timeout: read.within(
                name("write_timeout"),
                WRITE_TIMEOUT,
                SECOND..=MINUTE,
                "How long a peer may take nothing of an answer.",
            ),
        }
    }
}

impl Grpc {
    pub(super) fn load(read: &mut Reader<'_>) -> Self {
        read.section("gRPC listener");
        Self {
            listen: read.optional(
                "grpc.listen",
                "off",
                "Address and port on which Envoy asks over gRPC (`envoy.service.auth.v3.Authorization`); port 0 takes any free \
                 one. Without it nothing listens.",
            ),
            tls: TlsFiles::load(read, "grpc"),
            max_connections: read.within(
                "grpc.max_connections",
                GRPC_CONNECTIONS,
                1..=MOST_CONNECTIONS,
                "Connections at once; further ones wait in the kernel's queue. Envoy opens one for each of its threads.",
            ),
            max_connections_per_address: per_address(read, "grpc"),
        }
    }
}

fn per_address(read: &mut Reader<'_>, prefix: &str) -> Option<usize> {
    read.optional_within(
        format!("{prefix}.max_connections_per_address"),
        "a quarter of `max_connections`",
        1..=MOST_CONNECTIONS,
        "Connections at once from one address (IPv6: one /64) that is no trusted proxy; further ones are closed at once.",
    )
}

impl TlsFiles {
    fn load(read: &mut Reader<'_>, prefix: &str) -> Option<Self> {
        let (cert_name, key_name) = (format!("{prefix}.tls.cert"), format!("{prefix}.tls.key"));
        let cert = read.optional(
            cert_name.as_str(),
            "none",
            "Certificate chain in PEM, leaf first; TLS is served when it and the key are set. Read again when it changes.",
        );
        let key = read.optional(
            key_name.as_str(),
            "none",
            "Private key of the certificate, in PEM. Refused when every user of the machine may read or write it.",
        );
        let remedy = format!("set both {cert_name} and {key_name}, or neither");
        read.rule(&[&cert_name, &key_name], key.is_none() || cert.is_some(), "is missing", &remedy);
        read.rule(&[&key_name, &cert_name], cert.is_none() || key.is_some(), "is missing", &remedy);
        Some(Self { cert: cert?, key: key? })
    }
}
