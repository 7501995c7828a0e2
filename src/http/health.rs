//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use serde::Serialize;

use crate::http::JsonBody;
use crate::http::error::ApiError;
use crate::http::state::Shared;
use crate::service::{Readiness, Status};

/// Liveness probe.
#[derive(Serialize, utoipa::ToSchema)]
pub struct LiveAnswer {
    /// Always true.
    live: bool,
}

/// Readiness probe with the result of each check.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ReadyAnswer {
    /// Whether every check passes.
    ready: bool,
    /// Results of the checks.
    checks: Vec<Check>,
    /// Measured values behind the checks; only on the operations listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    figures: Option<ReadyFigures>,
    /// Problems of this replica and its database; on the operations listener only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

/// Result of one check.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Check {
    /// Name of the check.
    name: &'static str,
    /// Whether the check passes.
    ok: bool,
}

/// Measured values behind the checks, and the last propagation delay, in seconds. The names are those of `/metrics` and
/// `/admin/v1/status`.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ReadyFigures {
    /// Age of the view: the longest time for which a revocation by another replica may be missing. Not ready at
    /// `revocation.max_lag`.
    view_age_seconds: f64,
    /// Propagation delay of the last revocation received from another replica.
    revocation_lag_seconds: f64,
    /// Clock of this machine minus that of the database.
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

/// Answers while the process runs.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, body = LiveAnswer)))]
pub async fn livez() -> JsonBody<LiveAnswer> {
    JsonBody(LiveAnswer { live: true })
}

/// Answers whether the replica can judge tokens and is not stopping, with the result of each check. Only the operations
/// listener adds the measured values (security.md H14).
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, body = ReadyAnswer),
        (status = 503, description = "Send requests to another replica", body = ReadyAnswer),
    )
)]
pub async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    answer(shared.service.status.readiness(), None, Vec::new())
}

/// Readiness with the measured values, for operators.
pub async fn readyz_with_details(State(shared): State<Arc<Shared>>) -> Response {
    let status = shared.service.status.status();
    answer(status.readiness, Some(ReadyFigures::from(&status)), shared.service.status.problems())
}

fn answer(readiness: Readiness, figures: Option<ReadyFigures>, problems: Vec<String>) -> Response {
    let checks = Readiness::CHECKS.iter().zip(readiness.passed()).map(|(name, ok)| Check { name, ok }).collect();
    let answer = JsonBody(ReadyAnswer { ready: readiness.is_ready(), checks, figures, problems });
    if readiness.is_ready() {
        answer.into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], answer).into_response()
    }
}

/// The metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let metrics = Arc::clone(&shared.metrics);
    match tokio::task::spawn_blocking(move || metrics.render()).await {
        Ok(text) => (headers, text).into_response(),
        Err(_) => ApiError::internal("a metric could not be read").into_response(),
    }
}
