//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use super::answer::JsonBody;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::http::state::Shared;
use crate::service::Readiness;

/// That the process runs: whoever cannot say so says nothing.
#[derive(Serialize, utoipa::ToSchema)]
pub struct LiveAnswer {
    /// True.
    live: bool,
}

/// Whether the replica can do its work, check by check.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ReadyAnswer {
    /// Whether every check passes.
    ready: bool,
    /// What was checked.
    checks: Vec<Check>,
}

/// One check.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Check {
    /// Its name.
    name: &'static str,
    /// Whether it passes.
    ok: bool,
}

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, body = LiveAnswer)))]
pub async fn livez() -> Response {
    ([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], JsonBody(LiveAnswer { live: true })).into_response()
}

/// The replica can judge tokens and is not stopping. Says which check fails and nothing of the inside (security.md H14).
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, body = ReadyAnswer),
        (status = 503, description = "Send requests elsewhere", body = ReadyAnswer),
    )
)]
pub async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let readiness = shared.service.readiness();
    let checks = Readiness::CHECKS.iter().zip(readiness.passed()).map(|(name, ok)| Check { name, ok }).collect();
    let answer = JsonBody(ReadyAnswer { ready: readiness.is_ready(), checks });
    let no_store = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    if readiness.is_ready() {
        (no_store, answer).into_response()
    } else {
        let retry_after = [(RETRY_AFTER, HeaderValue::from_static("1"))];
        (StatusCode::SERVICE_UNAVAILABLE, no_store, retry_after, answer).into_response()
    }
}

/// The figures in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, shared.metrics.render()).into_response()
}
