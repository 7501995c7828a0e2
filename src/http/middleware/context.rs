//! What the middleware tells an endpoint about its request.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::{ClientAddress, RequestId};

/// Extracted by endpoints that audit, limit or name the request.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The id that the answer and the log line bear.
    pub request_id: RequestId,
    /// Who is asking, by address.
    pub client: ClientAddress,
    /// Whether this listener spoke TLS itself.
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
