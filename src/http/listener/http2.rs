//! HTTP/2, for the one caller that speaks nothing else: gRPC. Every limit of security.md H10 stands in [`limited`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
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
use tower::Service as _;

use super::connection::Arrival;
use super::flood::Frames;
use super::settings::{ListenSettings, Shutdown};
use super::vitals::{STOPPING_IDLE, Stage, Tick};

/// Requests of one connection at a time. A gateway that has more waits for one to end.
const MAX_STREAMS: u32 = 128;
/// Bytes of a header block, as on the other listeners (security.md H5).
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Bytes of a frame; the least that the protocol allows.
const MAX_FRAME_BYTES: u32 = 16 * 1024;
/// Bytes of one request that may be on their way without having been read. A judgement's request is smaller.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for a connection: what one peer can make us hold beside the messages being read.
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// Bytes of answers that wait for one stream's peer to take them. An answer has some hundreds.
const MAX_SEND_BYTES: usize = 16 * 1024;
/// Requests that a peer reset before we looked at them (CVE-2023-44487): beyond it the connection ends.
const MAX_PENDING_RESETS: usize = 20;
/// Requests that we had to reset because of the peer's mistakes (RUSTSEC-2024-0003): beyond it the connection ends.
const MAX_OWN_RESETS: usize = 64;

/// One connection that speaks HTTP/2 from its first byte.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) router: Router,
    pub(super) settings: Arc<ListenSettings>,
    pub(super) shutdown: Shutdown,
    pub(super) stage: Arc<Stage>,
    pub(super) calls: Arc<Calls>,
}

impl Connection {
    /// Serves `stream` until either side ends it. A connection that says nothing is not served at all.
    pub(super) async fn serve_plain(self, stream: TcpStream) {
        if let Some(Ok(())) = self.first(stream.readable()).await {
            self.serve(stream, false).await;
        }
    }

    /// The same over TLS. The handshake has the time of a head.
    pub(super) async fn serve_tls(self, handshake: Accept<TcpStream>) {
        if let Some(Ok(stream)) = self.first(handshake).await {
            self.serve(stream, true).await;
        }
    }

    /// What a connection begins with; none where that takes longer than a head may, or than a service that stops waits.
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
        let Self { peer, router, settings, shutdown, stage, calls } = self;
        let cut = CancellationToken::new();
        // Requests in flight end with their connection.
        let _requests = cut.clone().drop_guard();
        let arrival = Arrival { peer, tls, deadline: None, refusal: None, stage: Arc::clone(&stage) };
        let service = Requests { router, calls: Arc::clone(&calls), arrival };
        let mut connection =
            pin!(limited(Streams(cut), &settings).serve_connection(TokioIo::new(Frames::new(stream)), service));
        let mut deadline = calls.idle_until();
        // Whoever connects to a service that is about to stop has nowhere else to go: it stays until the end.
        let (mut leaves_early, mut is_ending) = (!shutdown.announced.is_cancelled(), false);
        loop {
            tokio::select! {
                biased;
                // How it ends concerns nobody: requests have been answered and logged.
                _ = connection.as_mut() => return,
                () = shutdown.announced.cancelled(), if leaves_early => {
                    leaves_early = false;
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

/// The instant that this listener's timers compare with.
#[expect(clippy::disallowed_methods, reason = "timeouts of sockets run on real time, and nothing else does here")]
fn now() -> Instant {
    Instant::now()
}

/// A peer that takes nothing, or is gone, does not answer a ping either.
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

/// Runs the requests of one connection, and gives them up when the connection is over.
#[derive(Clone)]
struct Streams(CancellationToken);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, request: F) {
        let cut = self.0.clone();
        tokio::spawn(async move { cut.run_until_cancelled(request).await });
    }
}

/// The requests of one connection, and since when there are none.
pub(super) struct Calls {
    idle: Duration,
    state: Mutex<CallsState>,
    evicted: Notify,
}

struct CallsState {
    running: usize,
    /// When the last request ended.
    idle_since: Tick,
    /// Until when the next request must have begun, unless one is being answered.
    next: Instant,
}

impl Calls {
    /// None yet: the first has the time of a head.
    pub(super) fn new(settings: &ListenSettings) -> Self {
        let state = CallsState { running: 0, idle_since: Tick::now(), next: now() + settings.head };
        Self { idle: settings.idle, state: Mutex::new(state), evicted: Notify::new() }
    }

    /// Since when the connection has been idle, if it is.
    pub(super) fn idle_since(&self) -> Option<Tick> {
        let state = self.lock();
        (state.running == 0).then_some(state.idle_since)
    }

    /// Asks the connection to end, if it is still idle when it notices.
    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    /// The earliest instant at which the connection has been idle for too long.
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

/// A request that is being answered.
struct Call(Arc<Calls>);

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running -= 1;
        state.idle_since = Tick::now();
        state.next = now() + self.0.idle;
    }
}

/// Requests of one connection, on their way to the routes.
struct Requests {
    router: Router,
    calls: Arc<Calls>,
    arrival: Arrival,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.arrival.clone());
        let answer = self.router.clone().call(request);
        let call = self.calls.begin();
        Box::pin(async move {
            let _call = call;
            answer.await
        })
    }
}
