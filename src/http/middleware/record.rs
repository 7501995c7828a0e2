//! What is worth knowing about a request once it is over.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use axum::response::{IntoResponseParts, ResponseParts};
use http::Method;

use super::{ClientAddress, RequestId};
use crate::domain::{ClientId, IdText, Subject, UserId};
use crate::http::error::Cause;
use crate::service;

/// The status recorded when the caller went away before there was an answer (nginx's number).
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Who called: not the same as whom the request was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A client that authenticated itself.
    Client(ClientId),
    /// A user, by a bearer token.
    User(UserId),
}

impl Caller {
    /// The client, if it proved who it is; a public one has only named itself.
    pub fn of(caller: &service::Caller) -> Option<Self> {
        caller.authenticated.then(|| Self::Client(caller.client.id.clone()))
    }

    /// The id as it is written.
    pub fn text(&self) -> IdText<'_> {
        match self {
            Self::Client(id) => IdText::Borrowed(id.as_str()),
            Self::User(id) => id.text(),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(id) => id.fmt(f),
            Self::User(id) => id.fmt(f),
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
