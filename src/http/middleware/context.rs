//! Data that the middleware provides to endpoints.

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::{ClientAddress, RequestId};
use crate::http::error::ApiError;
use crate::service::Requester;

/// Identity of a request, for auditing and rate limits.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The id in the answer and in the log line.
    pub request_id: RequestId,
    /// The client's address.
    pub client: ClientAddress,
    /// Whether this listener terminated TLS.
    pub tls: bool,
}

impl RequestContext {
    /// The origin of the request for the audit trail, before authentication.
    pub fn requester(&self) -> Requester {
        let request_id = self.request_id.as_str().to_owned();
        Requester { address: Some(self.client.ip()), request_id, actor: "anonymous".to_owned() }
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let context = parts.extensions.get::<Self>().cloned();
        context.ok_or_else(|| ApiError::internal("the request did not pass the edge"))
    }
}
