//! Who stands behind a request, as the use cases want to know it.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::middleware::RequestContext;
use crate::service::Requester;

/// Extracts the client's address alone.
pub struct Address(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let context = RequestContext::from_request_parts(parts, state).await?;
        Ok(Self(context.client.ip()))
    }
}

/// Extracts the [`Requester`]; who acts is filled in by whoever authenticates the request.
pub struct RequestedBy(pub Requester);

impl<S: Sync> FromRequestParts<S> for RequestedBy {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let context = RequestContext::from_request_parts(parts, state).await?;
        Ok(Self(of(&context)))
    }
}

/// Who stands behind a request that came as `context` says, as long as nobody has authenticated.
pub fn of(context: &RequestContext) -> Requester {
    let request_id = context.request_id.as_str().to_owned();
    Requester { address: Some(context.client.ip()), request_id, actor: "anonymous".to_owned() }
}
