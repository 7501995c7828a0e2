//! `GET /.well-known/jwks.json` (RFC 7517), from memory, also while the database is away (security.md K9).

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::http::state::Shared;

/// The public keys that verify access tokens.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "discovery",
    responses(
        (status = 200, description = "A JWK set", body = serde_json::Value, content_type = "application/jwk-set+json"),
        (status = 304, description = "The set has the `ETag` that was sent"),
    )
)]
pub async fn jwks(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let (document, max_age) = shared.service.jwks();
    let cache = HeaderValue::try_from(format!("public, max-age={}", max_age.as_secs()));
    let etag = HeaderValue::try_from(&document.etag);
    let (Ok(cache), Ok(etag)) = (cache, etag) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let common = [(CACHE_CONTROL, cache), (ETAG, etag), (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))];
    if has_etag(&headers, &document.etag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let content_type = [(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"))];
    (common, content_type, document.body.clone()).into_response()
}

/// Whether `If-None-Match` names this validator; compared weakly (RFC 9110 §13.1.2).
pub fn has_etag(headers: &HeaderMap, etag: &str) -> bool {
    let listed = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    listed
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}
