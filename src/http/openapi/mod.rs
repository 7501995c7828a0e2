//! The OpenAPI 3.1 document, and the page that shows it.

mod document;

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};

pub use document::document;

/// The documentation page: one file, nothing loaded from elsewhere.
const PAGE: &str = include_str!("docs.html");

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "discovery",
    responses((status = 200, description = "An OpenAPI 3.1 document", body = serde_json::Value))
)]
pub async fn json() -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
        (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    ];
    (headers, document()).into_response()
}

/// A page that shows this document to people. Loads nothing from elsewhere.
#[utoipa::path(
    get, path = "/docs", tag = "discovery",
    responses((status = 200, description = "A page", body = String, content_type = "text/html"))
)]
pub async fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
        (
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            ),
        ),
    ];
    (headers, PAGE).into_response()
}
