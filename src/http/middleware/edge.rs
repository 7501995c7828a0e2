//! The layer around every route: request id, client address, deadline, panics, problem bodies, security headers and the
//! record of the request. It is one layer, because each layer of a router costs every request one or two allocations.
//! Hot routes use it without a router, see [`Edge::pass`].

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use http::HeaderMap;
use tower::{Layer, Service};

use super::answer::{self, Finished};
use super::cors::{self, Grant};
use super::record::{self, CLIENT_CLOSED_REQUEST, Caller, RequestObserver, RequestRecord};
use super::{ClientAddress, Cors, RequestContext, RequestFacts, RequestId, TrustedProxies};
use crate::clock::Clock;
use crate::http::error::{ApiError, Cause, ErrorShape, ProblemCode};
use crate::http::listener::{Arrival, CoarseInstant, Refusal, Stage};

/// Source of the 16 bytes of a request id.
pub type RequestIdSource = Arc<dyn Fn() -> [u8; 16] + Send + Sync>;

/// The layer around a whole router, added after its routes: `router.layer(edge)`.
#[derive(Clone)]
pub struct Edge(Arc<EdgeParts>);

struct EdgeParts {
    trusted_proxies: TrustedProxies,
    clock: Arc<dyn Clock>,
    request_ids: RequestIdSource,
    observer: Arc<dyn RequestObserver>,
    base_path: Box<str>,
    /// `None` on listeners that pages do not use.
    cors: Option<Cors>,
}

impl Edge {
    /// A layer that reports to `observer`. Every route also answers below `base_path`, the path of the issuer.
    pub fn new(
        trusted_proxies: TrustedProxies,
        clock: Arc<dyn Clock>,
        request_ids: RequestIdSource,
        observer: Arc<dyn RequestObserver>,
        base_path: &str,
        cors: Option<Cors>,
    ) -> Self {
        let base_path = base_path.into();
        Self(Arc::new(EdgeParts { trusted_proxies, clock, request_ids, observer, base_path, cors }))
    }
}

impl Edge {
    /// Passes a valid request that matched the template `route` to `handler`.
    pub fn pass<B, F>(
        &self,
        route: &'static str,
        request: Request<B>,
        arrival: &Arrival,
        handler: impl FnOnce(Request<B>, &RequestContext) -> F,
    ) -> EdgeFuture<F> {
        let pending = Pending::new(&self.0, &request, Some(arrival), Some(RouteName::Known(route)));
        let state = State::Called(handler(request, &pending.context));
        EdgeFuture { state, deadline: arrival.deadline, pending }
    }
}

impl<S> Layer<S> for Edge {
    type Service = EdgeService<S>;

    fn layer(&self, inner: S) -> EdgeService<S> {
        EdgeService { edge: self.clone(), inner }
    }
}

/// A service inside the [`Edge`].
#[derive(Clone)]
pub struct EdgeService<S> {
    edge: Edge,
    inner: S,
}

impl<S> Service<Request> for EdgeService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = EdgeFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> EdgeFuture<S::Future> {
        let arrival = request.extensions().get::<Arrival>().cloned();
        let route = request.extensions().get::<MatchedPath>().cloned().map(RouteName::Matched);
        let pending = Pending::new(&self.edge.0, &request, arrival.as_ref(), route);
        let state = match arrival.as_ref().and_then(|arrival| arrival.refusal) {
            Some(refusal) => State::Refused(refusal),
            None if pending.is_preflight => State::Preflight,
            None => {
                request.extensions_mut().insert(pending.context.clone());
                State::Called(self.inner.call(request))
            }
        };
        EdgeFuture { state, deadline: arrival.and_then(|arrival| arrival.deadline), pending }
    }
}

/// Output of a route's future: an answer and the facts about its request.
pub trait Outcome {
    /// Splits the output. Missing facts are taken from the answer's extensions.
    fn split(self) -> (Option<RequestFacts>, Response);
}

impl Outcome for Result<Response, Infallible> {
    fn split(self) -> (Option<RequestFacts>, Response) {
        match self {
            Ok(response) => (None, response),
            Err(never) => match never {},
        }
    }
}

impl Outcome for (RequestFacts, Response) {
    fn split(self) -> (Option<RequestFacts>, Response) {
        (Some(self.0), self.1)
    }
}

/// A statement in progress completes although its request is cancelled.
const TOO_LATE: &str = "The request was cancelled before its answer. A requested change may have been made.";

/// The future of a request inside the [`Edge`].
pub struct EdgeFuture<F> {
    state: State<F>,
    /// The connection's task wakes this future at the deadline.
    deadline: Option<CoarseInstant>,
    pending: Pending,
}

enum State<F> {
    Called(F),
    /// The listener refused the head of this request, so no route gets it.
    Refused(Refusal),
    /// A preflight request, answered by the layer.
    Preflight,
}

impl<F: Future<Output: Outcome> + Unpin> Future for EdgeFuture<F> {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let shape = this.pending.shape;
        let (facts, response) = match &mut this.state {
            State::Refused(refusal) => (None, refusal.answer()),
            State::Preflight => (None, this.pending.grant.preflight().unwrap_or_default()),
            State::Called(inner) => match this.pending.within(|| Pin::new(inner).poll(context)) {
                Ok(Poll::Ready(outcome)) => outcome.split(),
                Ok(Poll::Pending) => {
                    let cause = if this.pending.is_cut() {
                        "the service stopped before the request was answered"
                    } else if this.deadline.is_some_and(CoarseInstant::has_passed) {
                        "the request took too long"
                    } else {
                        return Poll::Pending;
                    };
                    let error = ApiError::new(ProblemCode::TemporarilyUnavailable).detail(TOO_LATE);
                    (None, shape.answer(error.because(cause)))
                }
                // The payload of a panic can contain anything, so it is not recorded (security.md S1).
                Err(_payload) => (None, shape.answer(ApiError::internal("a handler panicked"))),
            },
        };
        Poll::Ready(Ok(this.pending.finish(facts, response)))
    }
}

/// The path template of the route.
enum RouteName {
    Matched(MatchedPath),
    Known(&'static str),
}

impl RouteName {
    fn as_str(&self) -> &str {
        match self {
            Self::Matched(path) => path.as_str(),
            Self::Known(template) => template,
        }
    }
}

/// A request that has no answer yet.
struct Pending {
    edge: Arc<EdgeParts>,
    method: &'static str,
    route: Option<RouteName>,
    shape: ErrorShape,
    grant: Grant,
    is_preflight: bool,
    context: RequestContext,
    /// The caller, as soon as a handler has authenticated it.
    caller: Option<Caller>,
    started: Duration,
    stage: Option<Arc<Stage>>,
    is_finished: bool,
}

impl Pending {
    fn new<B>(
        edge: &Arc<EdgeParts>,
        request: &Request<B>,
        arrival: Option<&Arrival>,
        route: Option<RouteName>,
    ) -> Self {
        let headers: &HeaderMap = request.headers();
        let path = ErrorShape::path_below(&edge.base_path, request.uri().path());
        let grant =
            edge.cors.as_ref().map_or(Grant::Nothing, |cors| cors.grant(request.method(), path, headers, &*edge.clock));
        let peer = arrival.map(|arrival| arrival.peer.ip());
        let context = RequestContext {
            request_id: RequestId::of_caller(headers).unwrap_or_else(|| RequestId::from_random((edge.request_ids)())),
            client: peer.map_or(ClientAddress::UNKNOWN, |peer| edge.trusted_proxies.resolve(peer, headers)),
            tls: arrival.is_some_and(|arrival| arrival.tls),
        };
        Self {
            edge: Arc::clone(edge),
            method: record::method_label(request.method()),
            route,
            shape: ErrorShape::of(path),
            is_preflight: grant != Grant::Nothing && cors::is_preflight(request.method(), headers),
            grant,
            context,
            caller: None,
            started: edge.clock.elapsed(),
            stage: arrival.map(|arrival| Arc::clone(&arrival.stage)),
            is_finished: false,
        }
    }

    /// Whether the time limit of the shutdown has passed.
    fn is_cut(&self) -> bool {
        self.stage.as_ref().is_some_and(|stage| stage.is_cut())
    }

    /// Polls the handler as part of this request.
    fn within<T>(&mut self, poll: impl FnOnce() -> T) -> std::thread::Result<T> {
        let caller = &mut self.caller;
        self.context.request_id.within(|| record::noting(caller, || catch_unwind(AssertUnwindSafe(poll))))
    }

    fn finish(&mut self, facts: Option<RequestFacts>, response: Response) -> Response {
        let Finished { response, facts, failure } =
            answer::complete(response, facts, self.shape, &self.context.request_id, &self.grant);
        let (error, cause) = failure.map_or((None, None), |failure| (Some(failure.code), failure.cause));
        self.is_finished = true;
        if let Some(inner) = &facts.request_id {
            self.context.request_id = inner.clone();
        }
        let status = facts.status.unwrap_or(response.status().as_u16());
        self.report(status, &facts, error, cause.as_ref());
        response
    }

    fn report(&self, status: u16, facts: &RequestFacts, error: Option<&'static str>, cause: Option<&Cause>) {
        self.edge.observer.finished(&RequestRecord {
            method: self.method,
            route: self.route.as_ref().map(RouteName::as_str),
            status,
            duration: self.edge.clock.elapsed().saturating_sub(self.started),
            request_id: &self.context.request_id,
            client: self.context.client,
            caller: facts.caller.as_ref().or(self.caller.as_ref()),
            facts,
            error,
            cause,
        });
    }
}

impl Drop for Pending {
    /// The connection ended before the answer: the client disconnected, or the shutdown cut the request.
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let (status, error) = if self.is_cut() {
            let code = ProblemCode::TemporarilyUnavailable;
            (code.status().as_u16(), Some(code.as_str()))
        } else {
            (CLIENT_CLOSED_REQUEST, None)
        };
        self.report(status, &RequestFacts::default(), error, None);
    }
}
