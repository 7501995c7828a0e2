//! Origin of a request, for the audit trail and rate limits.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::middleware::RequestContext;
use crate::service::Requester;

/// Extracts only the client's address.
pub struct Address(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let context = RequestContext::from_request_parts(parts, state).await?;
        Ok(Self(context.client.ip()))
    }
}

/// Extracts the [`Requester`]; authentication sets the actor later.
pub struct RequestedBy(pub Requester);

impl<S: Sync> FromRequestParts<S> for RequestedBy {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let context = RequestContext::from_request_parts(parts, state).await?;
        Ok(Self(of(&context)))
    }
}

/// The requester before authentication.
pub fn of(context: &RequestContext) -> Requester {
    let request_id = context.request_id.as_str().to_owned();
    Requester { address: Some(context.client.ip()), request_id, actor: "anonymous".to_owned() }
}
