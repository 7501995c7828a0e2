//! `GET /.well-known/jwks.json` (RFC 7517). Answered from memory, even without the database (security.md K9).

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Request, StatusCode};

use crate::http::error::{ApiError, ProblemBody, ProblemCode};
use crate::http::listener::RequestBody;
use crate::http::middleware::RequestFacts;
use crate::http::state::Shared;

/// Capacity for the headers of an answer, including those added by the middleware.
const EXPECTED_HEADERS: usize = 6;

/// The public keys that verify access tokens.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "discovery",
    responses(
        (status = 200, description = "A JWK set", body = serde_json::Value, content_type = "application/jwk-set+json"),
        (status = 304, description = "The key set matches `If-None-Match`"),
        (status = 503, description = "The replica has not loaded the keys yet", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn jwks(shared: Arc<Shared>, request: Request<RequestBody>) -> (RequestFacts, Response) {
    (RequestFacts::default(), answer(&shared, request.headers()))
}

fn answer(shared: &Shared, headers: &HeaderMap) -> Response {
    // Verifiers would cache an empty set, and treat every token as forged.
    if !shared.service.status.has_started() {
        return ApiError::new(ProblemCode::TemporarilyUnavailable)
            .because("the keys are not loaded yet")
            .into_response();
    }
    let (document, max_age) = shared.service.status.jwks();
    let cache = match max_age.as_secs() {
        300 => Ok(HeaderValue::from_static("public, max-age=300")),
        seconds => HeaderValue::try_from(format!("public, max-age={seconds}")),
    };
    let etag = HeaderValue::from_maybe_shared(document.etag.clone());
    let (Ok(cache), Ok(etag)) = (cache, etag) else {
        return ApiError::internal("a header of the JWKS cannot be written").into_response();
    };
    let is_cached = has_etag(headers, &etag);
    let mut response = Response::new(if is_cached { Body::empty() } else { document.body.clone().into() });
    let headers = response.headers_mut();
    headers.reserve(EXPECTED_HEADERS);
    headers.insert(CACHE_CONTROL, cache);
    headers.insert(ETAG, etag);
    if is_cached {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    }
    response
}

/// Whether `If-None-Match` contains `etag`; weak comparison (RFC 9110 §13.1.2).
fn has_etag(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let Ok(etag) = etag.to_str() else { return false };
    let listed = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    listed
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}
