//! Addresses, limits and timeouts of the listeners.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::reader::Reader;
use super::section::section;

/// A loopback address: without configuration, other machines cannot reach the service.
pub(super) const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

pub(super) const PUBLIC: SocketAddr = loopback(8080);

/// More than the 10,000 sockets that one hostile machine can easily open (security.md H6). With less than 8 GiB of memory,
/// the default is lower: see `app::Memory`.
pub const MOST_DEFAULT_CONNECTIONS: usize = 16_384;
/// Enough for administrators, metrics scrapers and probes.
const OPERATIONS_CONNECTIONS: usize = 256;

/// Enough for some hundreds of sidecars: Envoy keeps one connection per worker thread.
const GRPC_CONNECTIONS: usize = 1024;

/// A peer on the slowest link sends a header block within one second; the rest allows for retransmissions (security.md H6).
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// For the same reason as `HEADER_TIMEOUT`.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the waits for a password hash and the database together, and shorter than the usual timeouts of gateways.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Longer than the default idle timeouts of gateways: AWS ALB, nginx and Kong 60 s, Traefik 90 s, Caddy 120 s. Otherwise the
/// service could close a connection while the gateway sends a POST on it, which the gateway answers with 502.
const IDLE_TIMEOUT: Duration = Duration::from_secs(130);
/// A peer that reads nothing for this long is disconnected or hostile (security.md H6).
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

const MOST_CONNECTIONS: usize = 1_000_000;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

section! {
    /// The public or the operations listener.
    Listener(read, prefix: &str, default: SocketAddr, connections: Option<usize>) in [prefix] {
        /// Address and port. Port 0 means any free port.
        listen: SocketAddr = default;
        /// `None`: plain HTTP.
        tls: Option<TlsFiles>, load TlsFiles::load(read, prefix);
        /// Addresses and networks of proxies whose `X-Forwarded-For` and `Forwarded` headers are used. From other
        /// peers, these headers are ignored.
        trusted_proxies: Vec<IpNet> = Vec::new();
        /// `None`: derived from the available memory.
        max_connections: Option<usize>, load max_connections(read, format!("{prefix}.max_connections"), connections);
        /// Not applied to trusted proxies. `None`: a quarter of `max_connections`.
        max_connections_per_address: Option<usize>, load per_address(read, prefix);
        /// Time from the start of waiting for a request's first byte until its header block is complete. On a
        /// connection that has served a request, `idle_timeout` bounds the wait for the first byte.
        header_timeout: Duration = HEADER_TIMEOUT, in SECOND..=MINUTE;
        /// Time from the end of the header block until the body is complete.
        body_timeout: Duration = BODY_TIMEOUT, in SECOND..=MINUTE;
        /// Time from the end of the header block until the response is ready. After it, the response is 503.
        request_timeout: Duration = REQUEST_TIMEOUT, in SECOND..=5 * MINUTE;
        /// How long a connection may wait for its next request.
        idle_timeout: Duration = IDLE_TIMEOUT, in SECOND..=60 * MINUTE;
        /// How long a peer may read nothing of a response before the connection is closed.
        write_timeout: Duration = WRITE_TIMEOUT, in SECOND..=MINUTE;
    }
}

section! {
    /// The listener for Envoy's gRPC calls.
    Grpc(read) in ["grpc"] as "gRPC listener" {
        /// Address and port for Envoy's external authorization over gRPC (`envoy.service.auth.v3.Authorization`). Port 0
        /// means any free port. If it is not set, there is no gRPC listener.
        listen: Option<SocketAddr>, else "off";
        /// `None`: plain HTTP/2.
        tls: Option<TlsFiles>, load TlsFiles::load(read, "grpc");
        /// Maximum number of open connections. Further connections wait in the kernel's queue. Envoy opens one
        /// connection per worker thread.
        max_connections: usize = GRPC_CONNECTIONS, in 1..=MOST_CONNECTIONS;
        /// `None`: a quarter of `max_connections`.
        max_connections_per_address: Option<usize>, load per_address(read, "grpc");
    }
}

/// The files of a TLS identity. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM chain, leaf first.
    pub cert: PathBuf,
    /// PEM private key.
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
}

fn max_connections(read: &mut Reader<'_>, name: String, default: Option<usize>) -> Option<usize> {
    const MEANING: &str = "Maximum number of open connections. Near the limit, the connections that have been idle longest \
                           are closed. At the limit, new connections wait in the kernel's queue.";
    let range = 1..=MOST_CONNECTIONS;
    match default {
        Some(default) => Some(read.within(name, default, range, MEANING)),
        None => {
            let otherwise = format!("one per 512 KiB of memory, {MOST_DEFAULT_CONNECTIONS} at most");
            read.optional_within(name, otherwise, range, MEANING)
        }
    }
}

fn per_address(read: &mut Reader<'_>, prefix: &str) -> Option<usize> {
    read.optional_within(
        format!("{prefix}.max_connections_per_address"),
        "a quarter of `max_connections`",
        1..=MOST_CONNECTIONS,
        "Maximum number of open connections from one address (IPv6: one /64) that is not a trusted proxy. Further \
         connections are closed immediately.",
    )
}

impl TlsFiles {
    fn load(read: &mut Reader<'_>, prefix: &str) -> Option<Self> {
        let (cert_name, key_name) = (format!("{prefix}.tls.cert"), format!("{prefix}.tls.key"));
        let cert = read.optional(
            cert_name.as_str(),
            "none",
            "PEM file with the certificate chain, leaf first. The listener serves TLS if certificate and key are set. The \
             file is read again when it changes.",
        );
        let key = read.optional(
            key_name.as_str(),
            "none",
            "PEM file with the certificate's private key. It must not be readable or writable by every user of the machine.",
        );
        let remedy = format!("set both {cert_name} and {key_name}, or neither");
        read.rule(&[&cert_name, &key_name], key.is_none() || cert.is_some(), "is missing", &remedy);
        read.rule(&[&key_name, &cert_name], cert.is_none() || key.is_some(), "is missing", &remedy);
        Some(Self { cert: cert?, key: key? })
    }
}
