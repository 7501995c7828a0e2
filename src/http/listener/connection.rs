//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::response::Response;
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::Accept;
use tower::Service as _;

use super::vitals::{Refusal, Stage, Tick, Vitals};
use super::wire::{SharedWire, Wire};
use crate::http::Routes;
use crate::http::direct::{Answer, Endpoint};
use crate::http::middleware::{EdgeFuture, X_REQUEST_ID};

/// How long after a deadline a connection is cut off, when nothing came of the deadline itself.
const OVERTIME: Duration = Duration::from_secs(2);
/// How far the timer sleeps when nothing is due.
const FAR: Duration = Duration::from_secs(3600);
/// Bytes that the HTTP library buffers for one connection at most; a head fits.
const MAX_BUFFER_BYTES: usize = 32 * 1024;

/// How and when a request arrived; in the extensions of every request that a listener took.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// Whether this listener spoke TLS itself.
    pub tls: bool,
    /// Until when there must be an answer. The connection's task is woken then.
    pub deadline: Option<Tick>,
    /// Why the head was refused: such a request reaches no route and is answered with this.
    pub refusal: Option<Refusal>,
    /// How far the listener's shutdown is. The connection's task is woken when requests in flight are cut.
    pub stage: Arc<Stage>,
}

/// Serves HTTP/1.1 and HTTP/1.0 on `stream` until either side ends it.
pub(super) async fn serve<S>(stream: S, peer: SocketAddr, tls: bool, routes: Arc<Routes>, vitals: Arc<Vitals>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wire = SharedWire::new(Wire::new(stream, Arc::clone(&vitals)));
    loop {
        let head = drive(poll_fn(|context| wire.lock().poll_first_head(context)), &vitals, OVERTIME).await;
        if !matches!(head, Some(Ok(true))) {
            return;
        }
        let service = Requests { routes: Arc::clone(&routes), vitals: Arc::clone(&vitals), peer, tls };
        let connection = http1::Builder::new()
            // The HTTP library gives up a request as soon as the client closes its side, before a handler can run. The driver
            // notices that, see `Wire::poll_hang_up`.
            .half_close(true)
            // Answers are small: one buffer costs less than a list of two.
            .writev(false)
            .header_read_timeout(None)
            .max_buf_size(MAX_BUFFER_BYTES)
            .serve_connection(TokioIo::new(wire.clone()), service);
        // On the heap, so that a connection without a request costs little.
        let mut connection = Box::pin(connection);
        let serving = poll_fn(|context| {
            if connection.as_mut().poll(context).is_ready() {
                // Its errors concern nobody: requests have been answered and logged.
                return Poll::Ready(Next::End);
            }
            if vitals.awaits_answer() && wire.lock().poll_hang_up(context).is_ready() {
                return Poll::Ready(Next::End);
            }
            if vitals.may_rest() { Poll::Ready(Next::Rest) } else { Poll::Pending }
        });
        match drive(serving, &vitals, OVERTIME).await {
            Some(Next::Rest) => vitals.begin_rest(),
            Some(Next::End) | None => return,
        }
    }
}

/// What follows when the HTTP library is no longer needed.
enum Next {
    /// The next request, some time.
    Rest,
    /// The end of the connection.
    End,
}

/// The same over TLS. The handshake's time is part of the head's.
pub(super) async fn serve_tls(
    handshake: Accept<TcpStream>,
    peer: SocketAddr,
    routes: Arc<Routes>,
    vitals: Arc<Vitals>,
) {
    if let Some(Ok(stream)) = drive(Box::pin(handshake), &vitals, Duration::ZERO).await {
        serve(stream, peer, true, routes, vitals).await;
    }
}

/// Polls `future`, also whenever a deadline passes; gives up when that has not helped after some `overtime`.
async fn drive<F: Future>(future: F, vitals: &Vitals, overtime: Duration) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = pin!(tokio::time::sleep(FAR));
    let mut rings_at = Tick::now() + FAR;
    let mut missed = None;
    poll_fn(|context| {
        vitals.waker.register(context.waker());
        vitals.apply_eviction();
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            let next = vitals.next_deadline();
            let has_missed = next.is_some() && next == missed;
            let due = next.map(|deadline| if has_missed { deadline + overtime } else { deadline });
            // A timer that rings too early costs one look; moving it back on every request would cost more.
            if let Some(due) = due.filter(|due| *due < rings_at) {
                rings_at = due;
                timer.as_mut().reset(instant_of(due));
            }
            ready!(timer.as_mut().poll(context));
            let now = Tick::now();
            rings_at = match due {
                Some(due) if due > now => due,
                Some(_) if has_missed => return Poll::Ready(None),
                Some(due) => {
                    missed = next;
                    due + overtime
                }
                None => now + FAR,
            };
            timer.as_mut().reset(instant_of(rings_at));
        }
    })
    .await
}

/// Where a tick is on the clock of the timers.
#[expect(clippy::disallowed_methods, reason = "timeouts of sockets run on real time, and nothing else does here")]
fn instant_of(tick: Tick) -> Instant {
    Instant::now() + tick.since(Tick::now())
}

/// Requests of one connection, on their way to the routes.
struct Requests {
    routes: Arc<Routes>,
    vitals: Arc<Vitals>,
    peer: SocketAddr,
    tls: bool,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let mut request = request.map(|body| RequestBody::new(body, &self.vitals));
        let admission = self.vitals.admit();
        let arrival = Arrival {
            peer: self.peer,
            tls: self.tls,
            deadline: admission.deadline,
            refusal: admission.refusal,
            stage: Arc::clone(self.vitals.stage()),
        };
        let direct = self.routes.direct.as_ref().filter(|_| admission.refusal.is_none());
        let inner = match direct.and_then(|direct| Some((direct, Endpoint::of(&request)?))) {
            Some((direct, endpoint)) => Inner::Direct(direct.answer(endpoint, request, &arrival)),
            None => {
                request.extensions_mut().insert(arrival);
                Inner::Routed(self.routes.router.clone().call(request))
            }
        };
        Answering { inner, vitals: Arc::clone(&self.vitals), refusal: admission.refusal }
    }
}

/// The body of a request. Its bytes count towards the memory of unfinished bodies until it is complete or dropped.
pub struct RequestBody {
    body: Incoming,
    /// None when there is nothing to read.
    vitals: Option<Arc<Vitals>>,
    charged: usize,
}

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// The connection broke or is too slow, or the framing is invalid.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// Other unfinished bodies take all of the memory that is meant for them.
    #[error("unfinished request bodies take too much memory")]
    Crowded,
}

impl RequestBody {
    fn new(body: Incoming, vitals: &Arc<Vitals>) -> Self {
        let vitals = (!body.is_end_stream()).then(|| Arc::clone(vitals));
        Self { body, vitals, charged: 0 }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context)).transpose()?;
        if let Some(vitals) = &this.vitals {
            match &frame {
                Some(frame) if !this.body.is_end_stream() => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    if !vitals.charge_body(bytes) {
                        return Poll::Ready(Some(Err(RequestBodyError::Crowded)));
                    }
                    this.charged += bytes;
                }
                _ => vitals.complete_body(),
            }
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(vitals) = &self.vitals {
            vitals.release_body(self.charged);
        }
    }
}

/// A request whose answer is being made.
struct Answering {
    inner: Inner,
    vitals: Arc<Vitals>,
    refusal: Option<Refusal>,
}

/// Where the answer comes from.
enum Inner {
    Routed(RouteFuture<Infallible>),
    Direct(EdgeFuture<Answer>),
}

impl Future for Inner {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Routed(future) => Pin::new(future).poll(context),
            Self::Direct(future) => Pin::new(future).poll(context),
        }
    }
}

impl Future for Answering {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(Pin::new(&mut self.inner).poll(context));
        if let Some(refusal) = self.refusal.filter(|_| !response.headers().contains_key(X_REQUEST_ID)) {
            // A router without the middleware does not know of refusals.
            response = refusal.answer();
        }
        if self.vitals.end_request() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response))
    }
}
