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
use super::tls::TlsIdentity;
use super::vitals::{Stage, Vitals};
use super::{connection, http2};
use crate::http::Routes;

/// Connections that the kernel keeps for us while we are busy accepting others.
const BACKLOG: u32 = 4096;
/// Bytes that the kernel keeps of a connection in each direction until either side reads them; it counts twice as many. Without a
/// bound it would keep megabytes of answers for a client that does not read.
const KERNEL_BUFFER_BYTES: u32 = 64 * 1024;
/// Time for the last answers of requests that a shutdown cut.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Connections that are evicted when the system has no resources for another one.
const EVICTED_WHEN_EXHAUSTED: usize = 8;
/// How often a listener without a free place looks for idle connections.
const MAKE_ROOM_EVERY: Duration = Duration::from_millis(100);
/// How long accepting pauses when the system has no resources for another connection.
const BACK_OFF: Duration = Duration::from_millis(200);

/// A bound socket that speaks HTTP/1.1 with strict limits (security.md H5, H6, H9), or HTTP/2 alone if asked to.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    settings: Arc<ListenSettings>,
    tls: Option<Arc<TlsIdentity>>,
    protocol: Protocol,
    counts: ConnectionCounts,
}

/// Numbers of connections of a listener, for the metrics.
#[derive(Debug, Clone, Default)]
pub struct ConnectionCounts(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    refused: AtomicUsize,
    evicted: AtomicUsize,
}

impl ConnectionCounts {
    /// How many are open now.
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// How many were closed at once, because their address had as many as it may.
    pub fn refused(&self) -> usize {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// How many idle ones were closed to make room.
    pub fn evicted(&self) -> usize {
        self.0.evicted.load(Ordering::Relaxed)
    }
}

/// What a listener speaks: one protocol, never two by negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0.
    Http1,
    /// HTTP/2, on plain sockets with prior knowledge.
    Http2,
}

impl Protocol {
    /// Its name in a TLS handshake (RFC 7301).
    pub(super) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

impl Listener {
    /// Binds `address`; port 0 takes a free one.
    pub fn bind(settings: ListenSettings, address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted service takes its port back although old connections linger in the kernel.
        socket.set_reuseaddr(true)?;
        // Accepted sockets inherit them.
        socket.set_recv_buffer_size(KERNEL_BUFFER_BYTES)?;
        socket.set_send_buffer_size(KERNEL_BUFFER_BYTES)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        let (settings, counts) = (Arc::new(settings), ConnectionCounts::default());
        Ok(Self { socket, address, settings, tls: None, protocol: Protocol::Http1, counts })
    }

    /// Speaks TLS on every connection, and the protocol that the identity was loaded for.
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

    /// Where it listens, with the port that was taken.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The numbers of its connections, also once it serves.
    pub fn connection_counts(&self) -> ConnectionCounts {
        self.counts.clone()
    }

    /// Serves `routes` until `shutdown` is through: every connection is over when this returns. Dropping it cuts them
    /// all.
    pub async fn serve(self, routes: impl Into<Routes>, shutdown: Shutdown) {
        let mut connections = Connections {
            tasks: JoinSet::new(),
            places: Places::new(Arc::clone(&self.settings)),
            stage: Arc::default(),
            routes: Arc::new(routes.into()),
            settings: Arc::clone(&self.settings),
            tls: self.tls.clone(),
            protocol: self.protocol,
            shutdown: shutdown.clone(),
            counts: self.counts,
        };
        tokio::select! {
            biased;
            () = shutdown.stopped.cancelled() => {}
            () = connections.accept_for_ever(&self.socket, &shutdown.announced) => {}
            () = reload_for_ever(self.tls, self.settings.reload) => {}
        }
        connections.accept_what_waits(&self.socket);
        drop(self.socket);
        connections.drain(shutdown.drain).await;
    }
}

async fn reload_for_ever(tls: Option<Arc<TlsIdentity>>, every: Duration) {
    let Some(identity) = tls else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        let identity = Arc::clone(&identity);
        // Reading files blocks. How it went is logged there.
        let _ = task::spawn_blocking(move || identity.reload()).await;
    }
}

/// The connections that are open.
struct Connections {
    tasks: JoinSet<()>,
    places: Places,
    stage: Arc<Stage>,
    routes: Arc<Routes>,
    settings: Arc<ListenSettings>,
    tls: Option<Arc<TlsIdentity>>,
    protocol: Protocol,
    shutdown: Shutdown,
    counts: ConnectionCounts,
}

impl Connections {
    /// At the cap, where no connection is idle, clients wait in the kernel's queue.
    async fn accept_for_ever(&mut self, socket: &TcpListener, announced: &CancellationToken) {
        let mut is_exhausted = false;
        loop {
            self.count_open(self.tasks.len());
            let has_room = self.tasks.len() < self.settings.max_connections;
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
                () = tokio::time::sleep(MAKE_ROOM_EVERY), if !has_room => {
                    self.make_room();
                    continue;
                }
                accepted = socket.accept(), if has_room => accepted,
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

    /// Takes the connections that clients made before they could know that the listener stops.
    fn accept_what_waits(&mut self, socket: &TcpListener) {
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
        self.make_room();
        // Before the connection can answer: a scrape over it counts it.
        self.count_open(self.tasks.len() + 1);
        // An answer is written in one go: waiting for more to send along would only delay it. Without it we are slower.
        let _ = stream.set_nodelay(true);
        let (id, occupant) = match self.protocol {
            Protocol::Http1 => self.open_http1(stream, peer),
            Protocol::Http2 => self.open_http2(stream, peer),
        };
        self.places.take(id, peer.ip(), occupant);
    }

    fn make_room(&mut self) {
        let evicted = self.places.make_room();
        self.counts.0.evicted.fetch_add(evicted, Ordering::Relaxed);
    }

    fn count_open(&self, open: usize) {
        self.counts.0.open.store(open, Ordering::Relaxed);
    }

    fn open_http1(&mut self, stream: TcpStream, peer: SocketAddr) -> (task::Id, Occupant) {
        let vitals = Arc::new(Vitals::new(Arc::clone(&self.settings), Arc::clone(&self.stage)));
        let routes = Arc::clone(&self.routes);
        let task = match &self.tls {
            None => self.tasks.spawn(connection::serve(stream, peer, false, routes, Arc::clone(&vitals))),
            Some(identity) => {
                let handshake = TlsAcceptor::from(identity.current()).accept(stream);
                self.tasks.spawn(connection::serve_tls(handshake, peer, routes, Arc::clone(&vitals)))
            }
        };
        (task.id(), Occupant::Http1(vitals))
    }

    fn open_http2(&mut self, stream: TcpStream, peer: SocketAddr) -> (task::Id, Occupant) {
        let calls = Arc::new(Calls::new(&self.settings));
        let connection = http2::Connection {
            peer,
            router: self.routes.router.clone(),
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

    /// Lets requests in flight finish, answers 503 to those that have not finished in time, and closes what is left.
    async fn drain(mut self, patience: Duration) {
        self.stage.stop();
        self.places.wake_all();
        if !self.end_within(patience).await {
            tracing::warn!(connections = self.tasks.len(), "connections did not end in time and were cut off");
            self.stage.cut();
            self.places.wake_all();
            self.end_within(LAST_ANSWERS).await;
        }
        self.tasks.shutdown().await;
        self.count_open(0);
    }

    /// Waits for the end of all connections; false where that takes longer.
    async fn end_within(&mut self, patience: Duration) -> bool {
        let all = async {
            while self.tasks.join_next().await.is_some() {
                self.count_open(self.tasks.len());
            }
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }
}

impl Drop for Connections {
    /// Requests that end with their connections were not given up by their clients.
    fn drop(&mut self) {
        self.stage.cut();
    }
}

/// Errors of a connection that is gone already, as opposed to a system out of resources.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
