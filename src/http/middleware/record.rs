//! The record of a finished request.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponseParts, ResponseParts};
use http::Method;

use super::{ClientAddress, RequestId};
use crate::domain::{Client, IdText, Subject, UserId};
use crate::http::error::Cause;
use crate::service;

/// The status recorded when the client disconnected before the answer (nginx's code).
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

thread_local! {
    /// Facts about the request that this thread polls.
    static NOTED: RefCell<Noted> = const { RefCell::new(Noted { caller: None, route: None }) };
}

/// The caller of a request, which need not be its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// An authenticated client.
    Client(Arc<Client>),
    /// A user, authenticated by a bearer token.
    User(UserId),
    /// An administrator, by the actor's name in the audit trail.
    Administrator(Arc<str>),
}

/// Facts that are known before the answer, and recorded even if there is none.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) caller: Option<Principal>,
    /// The route of the router that matched.
    pub(super) route: Option<MatchedPath>,
}

/// Records the caller for the log line, also for a request that is refused later.
pub fn note_caller(caller: Option<Principal>) {
    if caller.is_some() {
        NOTED.with_borrow_mut(|noted| noted.caller = caller);
    }
}

/// Records the matched route. A layer of the router.
pub async fn note_route(request: Request) -> Request {
    let route = request.extensions().get::<MatchedPath>().cloned();
    NOTED.with_borrow_mut(|noted| noted.route = route);
    request
}

/// Calls `poll` and stores in `noted` what it recorded. `poll` must not unwind.
pub(super) fn noting<T>(noted: &mut Noted, poll: impl FnOnce() -> T) -> T {
    NOTED.set(std::mem::take(noted));
    let polled = poll();
    *noted = NOTED.take();
    polled
}

impl Principal {
    /// The client, if it is authenticated. A public client only states its id.
    pub fn of(caller: &service::Caller) -> Option<Self> {
        caller.authenticated.then(|| Self::Client(Arc::clone(&caller.client)))
    }

    /// The id as text.
    pub fn text(&self) -> IdText<'_> {
        match self {
            Self::Client(client) => IdText::Borrowed(client.id.as_str()),
            Self::User(id) => id.text(),
            Self::Administrator(actor) => IdText::Borrowed(actor),
        }
    }
}

/// Facts that an endpoint adds to the record, as part of its answer: `(facts, body)`.
#[derive(Debug, Clone, Default)]
pub struct RequestFacts {
    pub caller: Option<Principal>,
    /// The user or client that the request concerns.
    pub subject: Option<Subject>,
    /// Whether the verified-token cache answered.
    pub cache_hit: Option<bool>,
    /// Outcome in one word, such as `rotated` or `inactive`.
    pub outcome: Option<&'static str>,
    /// The status inside the answer, where the HTTP status is always 200: gRPC.
    pub status: Option<u16>,
    /// Id of the original request, if another request carries it.
    pub request_id: Option<RequestId>,
}

impl IntoResponseParts for RequestFacts {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}

/// A finished request. Contains no secret, and no text of the caller except a well-formed request id.
#[derive(Debug)]
pub struct RequestRecord<'a> {
    /// A standard method, or `OTHER`: a bounded set for a metric label.
    pub method: &'static str,
    /// The template of the matched route, never the path; `None` if no route matched.
    pub route: Option<&'a str>,
    /// The status of the answer, or [`CLIENT_CLOSED_REQUEST`].
    pub status: u16,
    /// From the complete head of the request to the head of the answer.
    pub duration: Duration,
    pub request_id: &'a RequestId,
    /// The client's address.
    pub client: ClientAddress,
    /// The caller, if it is authenticated.
    pub caller: Option<&'a Principal>,
    /// Facts of the endpoint.
    pub facts: &'a RequestFacts,
    /// The stable code of an error answer.
    pub error: Option<&'static str>,
    /// The cause of an error answer.
    pub cause: Option<&'a Cause>,
}

/// Receives every finished request, for the log line and the metrics. Must not block.
pub trait RequestObserver: Send + Sync + 'static {
    /// A request has finished.
    fn finished(&self, record: &RequestRecord<'_>);
}

/// The metric label of a method.
pub(super) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "OTHER",
    }
}
