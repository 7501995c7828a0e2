//! The accept loop.

use std::collections::HashMap;
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

use super::settings::{ListenSettings, Shutdown};
use super::tls::TlsIdentity;
use super::vitals::{Stage, Vitals};
use super::{connection, http2};
use crate::http::Routes;

/// Connections that the kernel keeps for us while we are busy accepting others.
const BACKLOG: u32 = 4096;
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
    open: OpenConnections,
}

/// How many connections of a listener are open, for the figures.
#[derive(Debug, Clone, Default)]
pub struct OpenConnections(Arc<AtomicUsize>);

impl OpenConnections {
    /// How many they are now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
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
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        let (settings, open) = (Arc::new(settings), OpenConnections::default());
        Ok(Self { socket, address, settings, tls: None, protocol: Protocol::Http1, open })
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

    /// Counts its connections, also once it serves.
    pub fn open_connections(&self) -> OpenConnections {
        self.open.clone()
    }

    /// Serves `routes` until `shutdown` is through: every connection is over when this returns. Dropping it cuts them
    /// all.
    pub async fn serve(self, routes: impl Into<Routes>, shutdown: Shutdown) {
        let mut connections = Connections {
            tasks: JoinSet::new(),
            vitals: HashMap::new(),
            stage: Arc::default(),
            routes: Arc::new(routes.into()),
            settings: Arc::clone(&self.settings),
            tls: self.tls.clone(),
            protocol: self.protocol,
            shutdown: shutdown.clone(),
            open: self.open,
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
    vitals: HashMap<task::Id, Arc<Vitals>>,
    stage: Arc<Stage>,
    routes: Arc<Routes>,
    settings: Arc<ListenSettings>,
    tls: Option<Arc<TlsIdentity>>,
    protocol: Protocol,
    shutdown: Shutdown,
    open: OpenConnections,
}

impl Connections {
    /// At the cap, clients wait in the kernel's queue: a place is free within the head's deadline at the latest, and a
    /// refusal would cost as much as an answer.
    async fn accept_for_ever(&mut self, socket: &TcpListener, announced: &CancellationToken) {
        let mut is_exhausted = false;
        loop {
            self.open.0.store(self.tasks.len(), Ordering::Relaxed);
            let has_room = self.tasks.len() < self.settings.max_connections;
            let accepted = tokio::select! {
                biased;
                () = announced.cancelled(), if !self.stage.is_announced() => {
                    self.stage.announce();
                    continue;
                }
                Some(ended) = self.tasks.join_next_with_id() => {
                    self.vitals.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
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
        // Before it can answer anything: whoever has an answer is counted.
        self.open.0.store(self.tasks.len() + 1, Ordering::Relaxed);
        // An answer is written in one go: waiting for more to send along would only delay it. Without it we are slower.
        let _ = stream.set_nodelay(true);
        match self.protocol {
            Protocol::Http1 => self.open_http1(stream, peer),
            Protocol::Http2 => self.open_http2(stream, peer),
        }
    }

    fn open_http1(&mut self, stream: TcpStream, peer: SocketAddr) {
        let vitals = Arc::new(Vitals::new(Arc::clone(&self.settings), Arc::clone(&self.stage)));
        let routes = Arc::clone(&self.routes);
        let task = match &self.tls {
            None => self.tasks.spawn(connection::serve(stream, peer, false, routes, Arc::clone(&vitals))),
            Some(identity) => {
                let handshake = TlsAcceptor::from(identity.current()).accept(stream);
                self.tasks.spawn(connection::serve_tls(handshake, peer, routes, Arc::clone(&vitals)))
            }
        };
        self.vitals.insert(task.id(), vitals);
    }

    fn open_http2(&mut self, stream: TcpStream, peer: SocketAddr) {
        let connection = http2::Connection {
            peer,
            router: self.routes.router.clone(),
            settings: Arc::clone(&self.settings),
            shutdown: self.shutdown.clone(),
        };
        match &self.tls {
            None => self.tasks.spawn(connection.serve_plain(stream)),
            Some(identity) => {
                let handshake = TlsAcceptor::from(identity.current()).accept(stream);
                self.tasks.spawn(connection.serve_tls(handshake))
            }
        };
    }

    /// Lets what is in flight finish, and cuts off what has not finished in time.
    async fn drain(mut self, patience: Duration) {
        self.stage.stop();
        self.vitals.values().for_each(|vitals| vitals.waker.wake());
        let all = async {
            while self.tasks.join_next().await.is_some() {
                self.open.0.store(self.tasks.len(), Ordering::Relaxed);
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "connections did not end in time and were cut off");
        }
        self.tasks.shutdown().await;
        self.open.0.store(0, Ordering::Relaxed);
    }
}

/// Errors of a connection that is gone already, as opposed to a system out of resources.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
