//! `/v1/verify` and `/v1/verify/*`: forward-auth for gateways.
//!
//! Answers 200, 401, 403 or 503 and nothing else: nginx turns anything else into 500, Envoy passes only 200. Method, path
//! suffix, body, and conditional, range and encoding headers are not looked at.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use crate::http::extract::LenientQuery;
use crate::http::forward_auth::{self, Demands};
use crate::http::middleware::RequestFacts;
use crate::http::state::Shared;

/// Judges the bearer token of a request that a gateway holds back.
#[utoipa::path(
    method(get, head, post, put, patch, delete, options, trace), path = "/v1/verify", tag = "judging",
    params(
        ("aud" = Option<String>, Query, description = "An audience that the token must have"),
        ("scope" = Option<String>, Query, description = "Scopes that the token must all have"),
        ("role" = Option<String>, Query, description = "A role that the user must have"),
    ),
    responses(
        (status = 200, description = "Let it pass; who it is stands in the `X-Auth-Request-*` headers"),
        (status = 401, description = "No token, or one that is not active; or the request is malformed, or its target or header too long (`error=\"invalid_request\"`)"),
        (status = 403, description = "The token lacks an audience, scope or role that was asked for"),
        (status = 503, description = "This replica cannot judge now"),
    ),
    security(("bearer" = []))
)]
pub async fn verify(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    answer(&shared, &head).await.into_response()
}

/// The answer to a request with this head: nothing else of it is looked at.
pub async fn answer(shared: &Shared, request: &Parts) -> (RequestFacts, Response) {
    let demands = LenientQuery::new(request.uri.query());
    let decided = forward_auth::decide(shared, &request.method, &request.headers, demands).await;
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
