//! The OpenAPI 3.1 document and its documentation page.

mod document;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY};

use crate::http::error::{ApiError, ProblemBody, ProblemCode};
use crate::http::extract::names;
use crate::http::state::Shared;
pub use document::{Servers, document, document_of};

/// The documentation page: a single file that loads nothing from other servers.
const PAGE: &str = include_str!("docs.html");

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "discovery",
    responses((status = 200, description = "An OpenAPI 3.1 document", body = serde_json::Value))
)]
pub async fn json(State(shared): State<Arc<Shared>>) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=300")];
    (headers, shared.api_document.clone()).into_response()
}

/// Redirects a browser to the documentation page. Any other client gets 404.
#[utoipa::path(
    get, path = "/", tag = "discovery",
    responses(
        (status = 303, description = "To `/docs`, for a client that accepts `text/html`"),
        (status = 404, description = "`not_found`", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn root(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, ApiError> {
    if !names(&headers, "text/html") {
        return Err(ApiError::new(ProblemCode::NotFound));
    }
    // A relative redirect: a browser on another machine cannot reach the `localhost` of a default issuer.
    let path = shared.service.issuer().splitn(4, '/').nth(3).map_or_else(String::new, |path| format!("/{path}"));
    Ok(([(VARY, "accept")], Redirect::to(&format!("{path}/docs"))).into_response())
}

/// The documentation page of this document. It loads nothing from other servers.
#[utoipa::path(
    get, path = "/docs", tag = "discovery",
    responses((status = 200, description = "A page", body = String, content_type = "text/html"))
)]
pub async fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "public, max-age=300"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ];
    (headers, PAGE).into_response()
}
