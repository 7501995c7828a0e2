//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::response::Response;
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

use super::state::{Admission, CoarseInstant, ConnectionState, Refusal, Stage};
use super::wire::{SharedWire, Wire};
use crate::http::middleware::{Edge, EdgeFuture};

/// Time after a missed deadline at which the connection is dropped, if handling the deadline had no effect.
const OVERTIME: Duration = Duration::from_secs(2);
/// Sleep of the timer when no deadline is set.
const FAR: Duration = Duration::from_secs(3600);
/// Limit in bytes of hyper's read buffer of a connection; a head fits.
const MAX_BUFFER_BYTES: usize = 32 * 1024;

/// The connection of a request, and its deadline.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Address of the peer of the socket.
    pub peer: SocketAddr,
    /// Whether this listener terminated TLS.
    pub tls: bool,
    /// Deadline for the answer. The connection's task is woken then.
    pub deadline: Option<CoarseInstant>,
    /// Why the head was refused. Such a request reaches no route and gets this answer.
    pub refusal: Option<Refusal>,
    /// Progress of the listener's shutdown. The connection's task is woken when requests in flight are cut.
    pub stage: Arc<Stage>,
}

/// Serves HTTP/1.1 and HTTP/1.0 on `stream` until either side ends it.
pub(super) async fn serve<S>(stream: S, peer: SocketAddr, tls: bool, edge: Arc<Edge>, state: Arc<ConnectionState>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wire = SharedWire::new(Wire::new(stream, Arc::clone(&state)));
    loop {
        let head = drive(poll_fn(|context| wire.lock().poll_first_head(context)), &state, OVERTIME).await;
        if !matches!(head, Some(Ok(true))) {
            return;
        }
        let service = Requests { edge: Arc::clone(&edge), state: Arc::clone(&state), peer, tls };
        let connection = http1::Builder::new()
            // By default hyper drops a request as soon as the client closes its side, even before a handler runs. The
            // driver detects the close, see `Wire::poll_hang_up`.
            .half_close(true)
            // Answers are small: one contiguous buffer costs less than vectored I/O.
            .writev(false)
            .header_read_timeout(None)
            .max_buf_size(MAX_BUFFER_BYTES)
            .serve_connection(TokioIo::new(wire.clone()), service);
        // On the heap, so that a connection without a request needs little memory.
        let mut connection = Box::pin(connection);
        let serving = poll_fn(|context| {
            if connection.as_mut().poll(context).is_ready() {
                // Errors are ignored here: requests have been answered and logged.
                return Poll::Ready(Next::End);
            }
            if state.awaits_answer() && wire.lock().poll_hang_up(context).is_ready() {
                return Poll::Ready(Next::End);
            }
            if state.may_rest() { Poll::Ready(Next::Rest) } else { Poll::Pending }
        });
        match drive(serving, &state, OVERTIME).await {
            Some(Next::Rest) => state.begin_rest(),
            Some(Next::End) | None => return,
        }
    }
}

/// The next step after hyper returns.
enum Next {
    /// Wait for the next request without hyper's buffers.
    Rest,
    /// Close the connection.
    End,
}

/// Serves HTTP/1 over TLS. The handshake counts towards the time limit of the first head.
pub(super) async fn serve_tls(
    handshake: Accept<TcpStream>,
    peer: SocketAddr,
    edge: Arc<Edge>,
    state: Arc<ConnectionState>,
) {
    if let Some(Ok(stream)) = drive(Box::pin(handshake), &state, Duration::ZERO).await {
        serve(stream, peer, true, edge, state).await;
    }
}

/// Polls `future`, and again at each deadline. Returns `None` if it is still pending `overtime` after a missed
/// deadline.
async fn drive<F: Future>(future: F, state: &ConnectionState, overtime: Duration) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = pin!(tokio::time::sleep(FAR));
    let mut fires_at = CoarseInstant::now() + FAR;
    let mut missed = None;
    poll_fn(|context| {
        state.waker.register(context.waker());
        state.apply_eviction();
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            let next = state.next_deadline();
            let has_missed = next.is_some() && next == missed;
            let due = next.map(|deadline| if has_missed { deadline + overtime } else { deadline });
            // A timer that fires too early costs one poll. Moving it back on every request would cost more.
            if let Some(due) = due.filter(|due| *due < fires_at) {
                fires_at = due;
                timer.as_mut().reset(instant_of(due));
            }
            ready!(timer.as_mut().poll(context));
            let now = CoarseInstant::now();
            fires_at = match due {
                Some(due) if due > now => due,
                Some(_) if has_missed => return Poll::Ready(None),
                Some(due) => {
                    missed = next;
                    due + overtime
                }
                None => now + FAR,
            };
            timer.as_mut().reset(instant_of(fires_at));
        }
    })
    .await
}

/// Converts a coarse instant to the clock of tokio's timers.
#[expect(clippy::disallowed_methods, reason = "timeouts of sockets run on real time, and nothing else does here")]
fn instant_of(tick: CoarseInstant) -> Instant {
    Instant::now() + tick.since(CoarseInstant::now())
}

/// Passes the requests of one connection to the edge.
struct Requests {
    edge: Arc<Edge>,
    state: Arc<ConnectionState>,
    peer: SocketAddr,
    tls: bool,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn call(&self, request: Request<Incoming>) -> AnswerFuture {
        let Admission { deadline, refusal } = self.state.admit();
        let stage = Arc::clone(self.state.stage());
        let arrival = Arrival { peer: self.peer, tls: self.tls, deadline, refusal, stage };
        let request = request.map(|body| RequestBody::counted(body, &self.state));
        AnswerFuture { inner: self.edge.call(request, arrival), state: Arc::clone(&self.state) }
    }
}

/// The body of a request. Its bytes count towards `body_memory` until it is complete or dropped.
pub struct RequestBody {
    body: Incoming,
    /// `None` for an empty or uncounted body.
    state: Option<Arc<ConnectionState>>,
    charged: usize,
}

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// The connection broke or is too slow, or the framing is invalid.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The limit on the memory of unfinished bodies is reached.
    #[error("unfinished request bodies take too much memory")]
    Crowded,
}

impl RequestBody {
    fn counted(body: Incoming, state: &Arc<ConnectionState>) -> Self {
        let state = (!body.is_end_stream()).then(|| Arc::clone(state));
        Self { body, state, charged: 0 }
    }

    /// The body of an HTTP/2 request. Flow control limits its memory.
    pub(super) fn uncounted(body: Incoming) -> Self {
        Self { body, state: None, charged: 0 }
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
        if let Some(state) = &this.state {
            match &frame {
                Some(frame) if !this.body.is_end_stream() => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    if !state.charge_body(bytes) {
                        return Poll::Ready(Some(Err(RequestBodyError::Crowded)));
                    }
                    this.charged += bytes;
                }
                _ => state.complete_body(),
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
        if let Some(state) = &self.state {
            state.release_body(self.charged);
        }
    }
}

/// Marks an answer that is written for as long as its body lasts. Only a peer that reads nothing ends it.
#[derive(Debug, Clone, Copy)]
pub struct Streamed;

/// The future of an answer; it records the end of the request.
struct AnswerFuture {
    inner: EdgeFuture,
    state: Arc<ConnectionState>,
}

impl Future for AnswerFuture {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(Pin::new(&mut self.inner).poll(context));
        let is_stream = response.extensions_mut().remove::<Streamed>().is_some();
        if self.state.end_request(is_stream) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response))
    }
}
