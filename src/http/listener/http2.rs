//! HTTP/2, for gRPC only. [`limited`] sets the limits of security.md H10.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::Accept;
use tokio_util::sync::CancellationToken;

use super::connection::{Arrival, RequestBody};
use super::flood::Frames;
use super::settings::{ListenSettings, Shutdown};
use super::state::{CoarseInstant, STOPPING_IDLE, Stage};
use crate::http::middleware::Edge;

/// Concurrent requests of one connection. A gateway with more waits for one to end.
const MAX_STREAMS: u32 = 128;
/// Maximum size in bytes of a header block, as on the other listeners (security.md H5).
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Maximum size in bytes of a frame: the minimum that the protocol allows.
const MAX_FRAME_BYTES: u32 = 16 * 1024;
/// Flow-control window of a stream in bytes. An introspection request is smaller.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Flow-control window of a connection in bytes: the limit of unread bytes of all its streams.
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// Send buffer of a stream in bytes. An answer has some hundreds.
const MAX_SEND_BYTES: usize = 16 * 1024;
/// Requests that a peer reset before they were accepted (CVE-2023-44487); with more, the connection ends.
const MAX_PENDING_RESETS: usize = 20;
/// Streams reset here because of protocol errors of the peer (RUSTSEC-2024-0003); with more, the connection ends.
const MAX_OWN_RESETS: usize = 64;

/// An HTTP/2 connection with prior knowledge or ALPN.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) edge: Arc<Edge>,
    pub(super) settings: Arc<ListenSettings>,
    pub(super) shutdown: Shutdown,
    pub(super) stage: Arc<Stage>,
    pub(super) calls: Arc<Calls>,
}

impl Connection {
    /// Serves `stream` until either side ends it. A connection that sends no byte is closed without being served.
    pub(super) async fn serve_plain(self, stream: TcpStream) {
        if let Some(Ok(())) = self.first(stream.readable()).await {
            self.serve(stream, false).await;
        }
    }

    /// Serves HTTP/2 over TLS. The handshake has the time limit of a head.
    pub(super) async fn serve_tls(self, handshake: Accept<TcpStream>) {
        if let Some(Ok(stream)) = self.first(handshake).await {
            self.serve(stream, true).await;
        }
    }

    /// Waits for `beginning`: the handshake or the first byte. `None` at the time limit of a head, on eviction, or soon
    /// after the listener stops.
    async fn first<F: Future>(&self, beginning: F) -> Option<F::Output> {
        let stopping = async {
            self.shutdown.stopped.cancelled().await;
            sleep(STOPPING_IDLE).await;
        };
        tokio::select! {
            biased;
            begun = timeout(self.settings.head, beginning) => begun.ok(),
            () = stopping => None,
            () = self.calls.evicted.notified() => None,
        }
    }

    async fn serve<S>(self, stream: S, tls: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { peer, edge, settings, shutdown, stage, calls } = self;
        let cut = CancellationToken::new();
        // Requests in flight are cancelled when their connection ends.
        let _requests = cut.clone().drop_guard();
        let arrival = Arrival { peer, tls, deadline: None, refusal: None, stage: Arc::clone(&stage) };
        let service = Requests { edge, calls: Arc::clone(&calls), arrival };
        let mut connection =
            pin!(limited(Streams(cut), &settings).serve_connection(TokioIo::new(Frames::new(stream)), service));
        let mut deadline = calls.idle_until();
        // A connection opened after the announcement is kept until the listener stops: the client has no other replica
        // to use.
        let (mut ends_when_announced, mut is_ending) = (!shutdown.announced.is_cancelled(), false);
        loop {
            tokio::select! {
                biased;
                // Errors are ignored here: requests have been answered and logged.
                _ = connection.as_mut() => return,
                () = shutdown.announced.cancelled(), if ends_when_announced => {
                    ends_when_announced = false;
                    connection.as_mut().graceful_shutdown();
                }
                () = shutdown.stopped.cancelled(), if !is_ending => {
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                    deadline = now() + shutdown.drain;
                }
                () = calls.evicted.notified(), if !is_ending => {
                    if calls.idle_since().is_some() {
                        is_ending = true;
                        connection.as_mut().graceful_shutdown();
                        deadline = now() + settings.write;
                    }
                }
                () = sleep_until(deadline) => {
                    if is_ending {
                        if shutdown.stopped.is_cancelled() {
                            stage.cut();
                        }
                        return;
                    }
                    deadline = calls.idle_until();
                    if deadline <= now() {
                        is_ending = true;
                        connection.as_mut().graceful_shutdown();
                        deadline = now() + settings.write;
                    }
                }
            }
        }
    }
}

/// The current instant, for comparison with tokio's timers.
#[expect(clippy::disallowed_methods, reason = "timeouts of sockets run on real time, and nothing else does here")]
fn now() -> Instant {
    Instant::now()
}

/// Sets all limits. A ping detects a peer that does not read or has disconnected.
fn limited(streams: Streams, settings: &ListenSettings) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_OWN_RESETS)
        .keep_alive_interval(settings.write)
        .keep_alive_timeout(settings.write);
    builder
}

/// Runs the requests of one connection; cancels them when the connection ends.
#[derive(Clone)]
struct Streams(CancellationToken);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, request: F) {
        let cut = self.0.clone();
        tokio::spawn(async move { cut.run_until_cancelled(request).await });
    }
}

/// Counts the requests of one connection, to detect an idle one.
pub(super) struct Calls {
    idle: Duration,
    state: Mutex<CallsState>,
    evicted: Notify,
}

struct CallsState {
    running: usize,
    /// End of the last request.
    idle_since: CoarseInstant,
    /// Deadline for the start of the next request, unless one is in flight.
    next: Instant,
}

impl Calls {
    /// The first request has the time limit of a head.
    pub(super) fn new(settings: &ListenSettings) -> Self {
        let state = CallsState { running: 0, idle_since: CoarseInstant::now(), next: now() + settings.head };
        Self { idle: settings.idle, state: Mutex::new(state), evicted: Notify::new() }
    }

    /// Start of the current idle time; `None` if a request is in flight.
    pub(super) fn idle_since(&self) -> Option<CoarseInstant> {
        let state = self.lock();
        (state.running == 0).then_some(state.idle_since)
    }

    /// Asks the connection to end, if it is still idle when it notices.
    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    /// The earliest instant at which the idle time may be over.
    fn idle_until(&self) -> Instant {
        let state = self.lock();
        if state.running > 0 { now() + self.idle } else { state.next }
    }

    fn begin(self: &Arc<Self>) -> Call {
        self.lock().running += 1;
        Call(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, CallsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guard of a request in flight; its drop ends the request.
struct Call(Arc<Calls>);

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running -= 1;
        state.idle_since = CoarseInstant::now();
        state.next = now() + self.0.idle;
    }
}

/// Passes the requests of one connection to the edge.
struct Requests {
    edge: Arc<Edge>,
    calls: Arc<Calls>,
    arrival: Arrival,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let answer = self.edge.call(request.map(RequestBody::uncounted), self.arrival.clone());
        let call = self.calls.begin();
        Box::pin(async move {
            let _call = call;
            answer.await
        })
    }
}
