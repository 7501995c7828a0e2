//! Data that the middleware provides to endpoints.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::{ClientAddress, RequestId};

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

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self {
            request_id: RequestId::from_random([0; 16]),
            client: ClientAddress::UNKNOWN,
            tls: false,
        }))
    }
}
