//! What is worth knowing about a request once it is over.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponseParts, ResponseParts};
use http::Method;

use super::{ClientAddress, RequestId};
use crate::domain::{Client, IdText, Subject, UserId};
use crate::http::error::Cause;
use crate::service;

/// The status recorded when the caller went away before there was an answer (nginx's number).
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

thread_local! {
    /// The caller of the request that is being polled.
    static CALLER: Cell<Option<Caller>> = const { Cell::new(None) };
}

/// The caller of a request, which need not be its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A client that authenticated itself.
    Client(Arc<Client>),
    /// A user, by a bearer token.
    User(UserId),
    /// An administrator, as the audit trail names the actor.
    Administrator(Arc<str>),
}

/// Notes who called, for the log line, also of a request that is refused later.
pub fn note_caller(caller: Option<Caller>) {
    if caller.is_some() {
        CALLER.set(caller);
    }
}

/// Calls `poll` and keeps in `caller` what [`note_caller`] noted meanwhile. `poll` does not unwind.
pub(super) fn noting<T>(caller: &mut Option<Caller>, poll: impl FnOnce() -> T) -> T {
    CALLER.set(caller.take());
    let polled = poll();
    *caller = CALLER.take();
    polled
}

impl Caller {
    /// The client, if it proved who it is; a public one has only named itself.
    pub fn of(caller: &service::Caller) -> Option<Self> {
        caller.authenticated.then(|| Self::Client(Arc::clone(&caller.client)))
    }

    /// The id as it is written.
    pub fn text(&self) -> IdText<'_> {
        match self {
            Self::Client(client) => IdText::Borrowed(client.id.as_str()),
            Self::User(id) => id.text(),
            Self::Administrator(actor) => IdText::Borrowed(actor),
        }
    }
}

/// What an endpoint adds to the record, by putting it into its answer: `(facts, body)`.
#[derive(Debug, Clone, Default)]
pub struct RequestFacts {
    /// Who called.
    pub caller: Option<Caller>,
    /// Whom it was about.
    pub subject: Option<Subject>,
    /// Whether the verified-token cache answered.
    pub cache_hit: Option<bool>,
    /// One word for what came of it, such as `rotated` or `inactive`.
    pub outcome: Option<&'static str>,
    /// The status that the answer carries inside, where its own says nothing: gRPC answers 200 to everything.
    pub status: Option<u16>,
    /// The id of the request that it was about, where another request brought it.
    pub request_id: Option<RequestId>,
}

impl IntoResponseParts for RequestFacts {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}

/// One finished request. Holds nothing secret and nothing of the caller's wording but a well-formed request id.
#[derive(Debug)]
pub struct RequestRecord<'a> {
    /// A standard method, or `OTHER`: a bounded set, fit for a label.
    pub method: &'static str,
    /// The template of the matched route, never the path; none when nothing matched.
    pub route: Option<&'a str>,
    /// The status that was answered, or [`CLIENT_CLOSED_REQUEST`].
    pub status: u16,
    /// From the complete header to the answer's header.
    pub duration: Duration,
    /// The id in the answer.
    pub request_id: &'a RequestId,
    /// Who is asking, by address.
    pub client: ClientAddress,
    /// The caller, if it authenticated.
    pub caller: Option<&'a Caller>,
    /// What the endpoint added.
    pub facts: &'a RequestFacts,
    /// The stable code of an error answer.
    pub error: Option<&'static str>,
    /// What stands behind an error answer.
    pub cause: Option<&'a Cause>,
}

/// Is told of every finished request: the log line, the metrics. Must not block.
pub trait RequestObserver: Send + Sync + 'static {
    /// A request is over.
    fn finished(&self, record: &RequestRecord<'_>);
}

/// The method as a label.
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
