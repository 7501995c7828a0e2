//! `/v1/verify` and `/v1/verify/*`: forward-auth for gateways.
//!
//! Answers only 200, 401, 403 or 503: nginx turns any other status into 500, and Envoy passes only 200. Method, path
//! suffix, body, and conditional, range and encoding headers are ignored.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::Request;

use crate::http::extract::LenientQuery;
use crate::http::forward_auth::{self, Demands};
use crate::http::listener::RequestBody;
use crate::http::middleware::RequestFacts;
use crate::http::state::Shared;

/// Judges the bearer token of a request at a gateway.
#[utoipa::path(
    method(get, head, post, put, patch, delete, options, trace), path = "/v1/verify", tag = "judging",
    params(
        ("aud" = Option<String>, Query, description = "An audience that the token must have"),
        ("scope" = Option<String>, Query, description = "Scopes that the token must all have"),
        ("role" = Option<String>, Query, description = "A role that the user must have"),
    ),
    responses(
        (status = 200, description = "The request is allowed; the `X-Auth-Request-*` headers identify the user or client"),
        (status = 401, description = "The token is missing or inactive; or the request is malformed, or its target or header too long (`error=\"invalid_request\"`)"),
        (status = 403, description = "The token lacks a required audience, scope or role"),
        (status = 503, description = "This replica has no fresh view; retry"),
    ),
    security(("bearer" = []))
)]
pub async fn verify(shared: Arc<Shared>, request: Request<RequestBody>) -> (RequestFacts, Response) {
    let demands = LenientQuery::new(request.uri().query());
    let decided = forward_auth::decide(&shared, request.method(), request.headers(), demands).await;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = decided.status;
    *response.headers_mut() = decided.headers(&shared.settings.forward_auth);
    (decided.facts, response)
}

impl Demands for LenientQuery<'_> {
    fn values(&self, name: &str) -> impl Iterator<Item = Option<impl AsRef<str>>> {
        LenientQuery::values(*self, name)
    }
}
