//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use super::answer::JsonBody;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::http::error::{ApiError, ErrorShape};
use crate::http::state::Shared;
use crate::service::{Readiness, Status};

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
    /// What the checks look at; on the operations listener only.
    #[serde(skip_serializing_if = "Option::is_none")]
    figures: Option<ReadyFigures>,
    /// Problems of this replica and its database; on the operations listener only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

/// One check.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Check {
    /// Its name.
    name: &'static str,
    /// Whether it passes.
    ok: bool,
}

/// What the checks go by, and the last revocation's lag, in seconds; named as in `/metrics` and `/admin/v1/status`.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ReadyFigures {
    /// Age of the view: how long a revocation elsewhere may have been missed. Unready at `revocation.max_lag`.
    view_age_seconds: f64,
    /// Of the last revocation that another replica took: from when that one began to write it until it was honoured here.
    revocation_lag_seconds: f64,
    /// This machine's clock minus the database's.
    clock_offset_seconds: f64,
}

impl From<&Status> for ReadyFigures {
    fn from(status: &Status) -> Self {
        Self {
            view_age_seconds: status.view_age.as_secs_f64(),
            revocation_lag_seconds: status.last_lag.as_secs_f64(),
            clock_offset_seconds: status.clock_offset_millis as f64 / 1000.0,
        }
    }
}

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, body = LiveAnswer)))]
pub async fn livez() -> Response {
    ([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], JsonBody(LiveAnswer { live: true })).into_response()
}

/// The replica can judge tokens and is not stopping. Says which check fails; what the checks look at is told on the operations
/// listener alone (security.md H14).
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, body = ReadyAnswer),
        (status = 503, description = "Send requests elsewhere", body = ReadyAnswer),
    )
)]
pub async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    answer(shared.service.readiness(), None, Vec::new())
}

/// The same for operators, who are told how near to its bounds the replica is.
pub async fn readyz_with_figures(State(shared): State<Arc<Shared>>) -> Response {
    let status = shared.service.status();
    answer(status.readiness, Some(ReadyFigures::from(&status)), shared.service.problems())
}

fn answer(readiness: Readiness, figures: Option<ReadyFigures>, problems: Vec<String>) -> Response {
    let checks = Readiness::CHECKS.iter().zip(readiness.passed()).map(|(name, ok)| Check { name, ok }).collect();
    let answer = JsonBody(ReadyAnswer { ready: readiness.is_ready(), checks, figures, problems });
    let no_store = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    if readiness.is_ready() {
        (no_store, answer).into_response()
    } else {
        let retry_after = [(RETRY_AFTER, HeaderValue::from_static("1"))];
        (StatusCode::SERVICE_UNAVAILABLE, no_store, retry_after, answer).into_response()
    }
}

/// The metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let metrics = Arc::clone(&shared.metrics);
    match tokio::task::spawn_blocking(move || metrics.render()).await {
        Ok(text) => (headers, text).into_response(),
        Err(_) => ErrorShape::Problem.answer(ApiError::internal("a metric could not be read")),
    }
}
