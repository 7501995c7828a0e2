//! The entrance of a listener: one service for all requests. What applies to every request is here, once: request id,
//! client address, deadline, panics, CORS, error bodies, security headers and the record of the request.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::MatchedPath;
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use http::header::ALLOW;
use http::{Request, StatusCode};
use tower::Service as _;

use super::cors::Grant;
use super::record::{self, CLIENT_CLOSED_REQUEST, Noted, RequestObserver, RequestRecord};
use super::{Cors, RequestContext, RequestFacts, RequestId, TrustedProxies, answer, cors};
use crate::clock::Clock;
use crate::http::error::{ApiError, Cause, ErrorShape, ProblemCode};
use crate::http::listener::{Arrival, CoarseInstant, RequestBody};
use crate::http::routes::{Answer, Routes};

/// Source of the 16 bytes of a request id.
pub type RequestIdSource = Arc<dyn Fn() -> [u8; 16] + Send + Sync>;

/// The entrance of a listener.
pub struct Edge {
    pub trusted_proxies: TrustedProxies,
    pub clock: Arc<dyn Clock>,
    pub request_ids: RequestIdSource,
    pub observer: Arc<dyn RequestObserver>,
    /// The path of the issuer, below which every route also answers.
    pub base_path: Box<str>,
    /// `None` on listeners that pages do not use.
    pub cors: Option<Cors>,
    pub routes: Routes,
}

impl Edge {
    /// Starts answering a request.
    pub fn call(self: &Arc<Self>, request: Request<RequestBody>, arrival: Arrival) -> EdgeFuture {
        let refusal = arrival.refusal;
        let mut pending = Pending::new(self, &request, arrival);
        let state = match refusal {
            Some(refusal) => State::Ready(ApiError::new(refusal.code).into_response()),
            None => self.start(request, &mut pending),
        };
        EdgeFuture { state, pending }
    }

    fn start(&self, mut request: Request<RequestBody>, pending: &mut Pending) -> State {
        let path = request.uri().path();
        match self.routes.hot.iter().enumerate().find(|(_, hot)| hot.matches(path)) {
            Some((index, hot)) => {
                pending.hot = Some(index);
                if !hot.allows(request.method()) {
                    return State::Ready((StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, hot.allow)]).into_response());
                }
                State::Hot((hot.handler)(Arc::clone(&hot.shared), request, &pending.context))
            }
            None => {
                request.extensions_mut().insert(pending.context.clone());
                State::Routed(self.routes.router.clone().call(request))
            }
        }
    }
}

/// A statement in progress completes although its request is cancelled.
const TOO_LATE: &str = "The request was cancelled before its answer. A requested change may have been made.";

/// The future of an answer.
pub struct EdgeFuture {
    state: State,
    pending: Pending,
}

enum State {
    /// An answer without a handler: a refused head, or a wrong method.
    Ready(Response),
    Hot(Answer),
    Routed(RouteFuture<Infallible>),
}

impl State {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(RequestFacts, Response)> {
        match self {
            Self::Ready(response) => Poll::Ready((RequestFacts::default(), std::mem::take(response))),
            Self::Hot(answer) => answer.as_mut().poll(context),
            Self::Routed(answer) => Pin::new(answer)
                .poll(context)
                .map(|Ok(mut response)| (response.extensions_mut().remove().unwrap_or_default(), response)),
        }
    }
}

impl Future for EdgeFuture {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { state, pending } = &mut *self;
        let polled = pending.within(|| catch_unwind(AssertUnwindSafe(|| state.poll(context))));
        let (facts, response) = match polled {
            Ok(Poll::Ready(answer)) => answer,
            Ok(Poll::Pending) => {
                let cause = if pending.arrival.stage.is_cut() {
                    "the service stopped before the request was answered"
                } else if pending.arrival.deadline.is_some_and(CoarseInstant::has_passed) {
                    "the request took too long"
                } else {
                    return Poll::Pending;
                };
                let error = ApiError::new(ProblemCode::TemporarilyUnavailable).detail(TOO_LATE);
                (RequestFacts::default(), error.because(cause).into_response())
            }
            // The payload of a panic can contain anything, so it is not recorded (security.md S1).
            Err(_payload) => (RequestFacts::default(), ApiError::internal("a handler panicked").into_response()),
        };
        Poll::Ready(Ok(pending.finish(facts, response)))
    }
}

/// A request that has no answer yet.
struct Pending {
    edge: Arc<Edge>,
    arrival: Arrival,
    method: &'static str,
    /// Index of the hot route.
    hot: Option<usize>,
    shape: ErrorShape,
    grant: Grant,
    is_preflight: bool,
    context: RequestContext,
    noted: Noted,
    started: Duration,
    is_finished: bool,
}

impl Pending {
    fn new(edge: &Arc<Edge>, request: &Request<RequestBody>, arrival: Arrival) -> Self {
        let (method, headers) = (request.method(), request.headers());
        let path = ErrorShape::path_below(&edge.base_path, request.uri().path());
        let grant = edge.cors.as_ref().map_or(Grant::Nothing, |cors| cors.grant(method, path, headers, &*edge.clock));
        let context = RequestContext {
            request_id: RequestId::of_caller(headers).unwrap_or_else(|| RequestId::from_random((edge.request_ids)())),
            client: edge.trusted_proxies.resolve(arrival.peer.ip(), headers),
            tls: arrival.tls,
        };
        Self {
            edge: Arc::clone(edge),
            method: record::method_label(method),
            hot: None,
            shape: arrival.refusal.map_or_else(|| ErrorShape::of(path), |refusal| refusal.shape),
            is_preflight: grant != Grant::Nothing && cors::is_preflight(method, headers),
            grant,
            context,
            noted: Noted::default(),
            started: edge.clock.elapsed(),
            arrival,
            is_finished: false,
        }
    }

    /// Polls the handler as part of this request.
    fn within<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        let noted = &mut self.noted;
        self.context.request_id.within(|| record::noting(noted, poll))
    }

    fn finish(&mut self, facts: RequestFacts, mut response: Response) -> Response {
        if self.is_preflight {
            response = self.grant.preflight();
        }
        let failure = answer::complete(&mut response, self.shape, &self.context.request_id, &self.grant);
        let error = failure.as_ref().map(|(code, _)| *code);
        let cause = failure.as_ref().and_then(|(_, failure)| failure.cause.as_ref());
        self.is_finished = true;
        if let Some(inner) = &facts.request_id {
            self.context.request_id = inner.clone();
        }
        let status = facts.status.unwrap_or(response.status().as_u16());
        self.report(status, &facts, error, cause);
        response
    }

    fn report(&self, status: u16, facts: &RequestFacts, error: Option<&'static str>, cause: Option<&Cause>) {
        let hot = self.hot.and_then(|index| self.edge.routes.hot.get(index)).map(|hot| &*hot.template);
        self.edge.observer.finished(&RequestRecord {
            method: self.method,
            route: hot.or_else(|| self.noted.route.as_ref().map(MatchedPath::as_str)),
            status,
            duration: self.edge.clock.elapsed().saturating_sub(self.started),
            request_id: &self.context.request_id,
            client: self.context.client,
            caller: facts.caller.as_ref().or(self.noted.caller.as_ref()),
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
        let (status, error) = if self.arrival.stage.is_cut() {
            let code = ProblemCode::TemporarilyUnavailable;
            (code.status().as_u16(), Some(code.as_str()))
        } else {
            (CLIENT_CLOSED_REQUEST, None)
        };
        self.report(status, &RequestFacts::default(), error, None);
    }
}
