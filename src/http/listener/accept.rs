//! The accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{self, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::http2::Calls;
use super::places::{Occupant, Places};
use super::settings::{ListenSettings, Shutdown};
use super::state::{ConnectionState, Stage};
use super::tls::TlsIdentity;
use super::{connection, http2};
use crate::http::middleware::Edge;

/// Length of the kernel's queue of connections that are not accepted yet.
const BACKLOG: u32 = 4096;
/// Size in bytes of the kernel's receive and send buffer of a connection. The kernel doubles the number. Without a
/// limit it would buffer megabytes of answers for a client that does not read.
const KERNEL_BUFFER_BYTES: u32 = 64 * 1024;
/// How long cancelled requests may still write their 503 answer during a shutdown.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Connections evicted when the system is out of file descriptors or memory.
const EVICTED_WHEN_EXHAUSTED: usize = 8;
/// Interval at which a listener at its limit evicts idle connections.
const EVICT_INTERVAL: Duration = Duration::from_millis(100);
/// Pause before the next `accept` when the system is out of file descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(200);

/// A bound socket that serves HTTP/1.1 with strict limits (security.md H5, H6, H9), or only HTTP/2.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    settings: Arc<ListenSettings>,
    tls: Option<Arc<TlsIdentity>>,
    protocol: Protocol,
    counts: ConnectionCounts,
}

/// Connection counters of a listener, for the metrics.
#[derive(Debug, Clone, Default)]
pub struct ConnectionCounts(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    refused: AtomicUsize,
    evicted: AtomicUsize,
}

impl ConnectionCounts {
    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Connections closed on arrival because their address had reached its limit.
    pub fn refused(&self) -> usize {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Idle connections closed to free a place.
    pub fn evicted(&self) -> usize {
        self.0.evicted.load(Ordering::Relaxed)
    }
}

/// The protocol of a listener. A listener never negotiates between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0.
    Http1,
    /// HTTP/2; without TLS, with prior knowledge.
    Http2,
}

impl Protocol {
    /// The ALPN protocol name (RFC 7301).
    pub(super) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

impl Listener {
    /// Binds `address`. Port 0 selects a free port.
    pub fn bind(settings: ListenSettings, address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted service can bind its port while old connections are in TIME-WAIT.
        socket.set_reuseaddr(true)?;
        // Accepted sockets inherit the buffer sizes.
        socket.set_recv_buffer_size(KERNEL_BUFFER_BYTES)?;
        socket.set_send_buffer_size(KERNEL_BUFFER_BYTES)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        let (settings, counts) = (Arc::new(settings), ConnectionCounts::default());
        Ok(Self { socket, address, settings, tls: None, protocol: Protocol::Http1, counts })
    }

    /// Uses TLS on every connection, with the protocol for which the identity was loaded.
    #[must_use]
    pub fn with_tls(mut self, identity: TlsIdentity) -> Self {
        self.protocol = identity.protocol();
        self.tls = Some(Arc::new(identity));
        self
    }

    /// Speaks HTTP/2 without TLS.
    #[must_use]
    pub const fn with_http2(mut self) -> Self {
        self.protocol = Protocol::Http2;
        self
    }

    /// The bound address, with the actual port.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connection counters; they stay valid while the listener serves.
    pub fn connection_counts(&self) -> ConnectionCounts {
        self.counts.clone()
    }

    /// Serves requests until `shutdown` is complete: every connection has ended when this returns. Dropping the future
    /// cuts all connections.
    pub async fn serve(self, edge: Edge, shutdown: Shutdown) {
        let mut connections = Connections {
            tasks: JoinSet::new(),
            places: Places::new(Arc::clone(&self.settings)),
            stage: Arc::default(),
            edge: Arc::new(edge),
            settings: Arc::clone(&self.settings),
            tls: self.tls.clone(),
            protocol: self.protocol,
            shutdown: shutdown.clone(),
            counts: self.counts,
        };
        tokio::select! {
            biased;
            () = shutdown.stopped.cancelled() => {}
            () = connections.accept_forever(&self.socket, &shutdown.announced) => {}
            () = reload_forever(self.tls, self.settings.reload) => {}
        }
        connections.accept_pending(&self.socket);
        drop(self.socket);
        connections.drain(shutdown.drain).await;
    }
}

async fn reload_forever(tls: Option<Arc<TlsIdentity>>, every: Duration) {
    let Some(identity) = tls else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        let identity = Arc::clone(&identity);
        // Reading files blocks. `reload` logs the result.
        let _ = task::spawn_blocking(move || identity.reload()).await;
    }
}

/// The open connections of a listener.
struct Connections {
    tasks: JoinSet<()>,
    places: Places,
    stage: Arc<Stage>,
    edge: Arc<Edge>,
    settings: Arc<ListenSettings>,
    tls: Option<Arc<TlsIdentity>>,
    protocol: Protocol,
    shutdown: Shutdown,
    counts: ConnectionCounts,
}

impl Connections {
    /// At the limit, when no connection is idle, clients wait in the kernel's queue.
    async fn accept_forever(&mut self, socket: &TcpListener, announced: &CancellationToken) {
        let mut is_exhausted = false;
        loop {
            self.count_open(self.tasks.len());
            let has_free_place = self.tasks.len() < self.settings.max_connections;
            let accepted = tokio::select! {
                biased;
                () = announced.cancelled(), if !self.stage.is_announced() => {
                    self.stage.announce();
                    continue;
                }
                Some(ended) = self.tasks.join_next_with_id() => {
                    self.places.release(ended.map_or_else(|error| error.id(), |(id, ())| id));
                    continue;
                }
                () = tokio::time::sleep(EVICT_INTERVAL), if !has_free_place => {
                    self.evict_if_full();
                    continue;
                }
                accepted = socket.accept(), if has_free_place => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    is_exhausted = false;
                    self.open(stream, peer);
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    if !is_exhausted {
                        is_exhausted = true;
                        tracing::warn!(error = &error as &dyn std::error::Error, "connections cannot be accepted");
                    }
                    let evicted = self.places.evict(EVICTED_WHEN_EXHAUSTED);
                    self.counts.0.evicted.fetch_add(evicted, Ordering::Relaxed);
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// Accepts the connections that clients opened before the listener stopped.
    fn accept_pending(&mut self, socket: &TcpListener) {
        while self.tasks.len() < self.settings.max_connections {
            let Some(Ok((stream, peer))) = socket.accept().now_or_never() else { return };
            self.open(stream, peer);
        }
    }

    fn open(&mut self, stream: TcpStream, peer: SocketAddr) {
        if !self.places.admits(peer.ip()) {
            self.counts.0.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.evict_if_full();
        // Counted before the connection can answer, so that a scrape over it includes it.
        self.count_open(self.tasks.len() + 1);
        // An answer is written at once; Nagle's algorithm would only delay it. If the option cannot be set, answers are
        // slower.
        let _ = stream.set_nodelay(true);
        let (id, occupant) = match self.protocol {
            Protocol::Http1 => self.open_http1(stream, peer),
            Protocol::Http2 => self.open_http2(stream, peer),
        };
        self.places.take(id, peer.ip(), occupant);
    }

    fn evict_if_full(&mut self) {
        let evicted = self.places.evict_if_full();
        self.counts.0.evicted.fetch_add(evicted, Ordering::Relaxed);
    }

    fn count_open(&self, open: usize) {
        self.counts.0.open.store(open, Ordering::Relaxed);
    }

    fn open_http1(&mut self, stream: TcpStream, peer: SocketAddr) -> (task::Id, Occupant) {
        let state = Arc::new(ConnectionState::new(Arc::clone(&self.settings), Arc::clone(&self.stage)));
        let edge = Arc::clone(&self.edge);
        let task = match &self.tls {
            None => self.tasks.spawn(connection::serve(stream, peer, false, edge, Arc::clone(&state))),
            Some(identity) => {
                let handshake = TlsAcceptor::from(identity.current()).accept(stream);
                self.tasks.spawn(connection::serve_tls(handshake, peer, edge, Arc::clone(&state)))
            }
        };
        (task.id(), Occupant::Http1(state))
    }

    fn open_http2(&mut self, stream: TcpStream, peer: SocketAddr) -> (task::Id, Occupant) {
        let calls = Arc::new(Calls::new(&self.settings));
        let connection = http2::Connection {
            peer,
            edge: Arc::clone(&self.edge),
            settings: Arc::clone(&self.settings),
            shutdown: self.shutdown.clone(),
            stage: Arc::clone(&self.stage),
            calls: Arc::clone(&calls),
        };
        let task = match &self.tls {
            None => self.tasks.spawn(connection.serve_plain(stream)),
            Some(identity) => {
                let handshake = TlsAcceptor::from(identity.current()).accept(stream);
                self.tasks.spawn(connection.serve_tls(handshake))
            }
        };
        (task.id(), Occupant::Http2(calls))
    }

    /// Waits for requests in flight, answers 503 to those that do not finish in time, then closes all connections.
    async fn drain(mut self, limit: Duration) {
        self.stage.stop();
        self.places.wake_all();
        if !self.end_within(limit).await {
            tracing::warn!(connections = self.tasks.len(), "connections did not end in time and were cut off");
            self.stage.cut();
            self.places.wake_all();
            self.end_within(LAST_ANSWERS).await;
        }
        self.tasks.shutdown().await;
        self.count_open(0);
    }

    /// Waits for all connections to end; false if that takes longer than `limit`.
    async fn end_within(&mut self, limit: Duration) -> bool {
        let all = async {
            while self.tasks.join_next().await.is_some() {
                self.count_open(self.tasks.len());
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }
}

impl Drop for Connections {
    /// Marks requests that end with their connection as cut by the server, not cancelled by their clients.
    fn drop(&mut self) {
        self.stage.cut();
    }
}

/// Whether the error concerns one connection that has already closed, and not a system out of resources.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
