//! `/admin/v1/status`: the status of this replica.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;

use super::Administrator;
use super::keys::KeyItem;
use crate::domain::RevocationKind;
use crate::http::JsonBody;
use crate::http::error::AdminProblems;
use crate::http::state::Shared;

/// Status of this replica.
#[derive(Serialize, utoipa::ToSchema)]
pub struct StatusAnswer {
    /// Version of the program.
    version: &'static str,
    /// Whether the replica is ready.
    ready: bool,
    /// Problems of this replica and its database.
    problems: Vec<String>,
    /// Age of the view in seconds: the longest time for which a revocation by another replica may be missing.
    view_age_seconds: f64,
    /// Propagation delay in seconds of the last revocation received from another replica.
    revocation_lag_seconds: f64,
    /// Clock of this machine minus that of the database, in seconds.
    clock_offset_seconds: f64,
    /// Live revocations by kind.
    revocations: std::collections::BTreeMap<&'static str, usize>,
    /// Tokens in the verified-token cache.
    cached_tokens: usize,
    /// Clients in the view.
    clients: usize,
    /// Passwords that wait for the hashing pool.
    password_queue: usize,
    /// Published keys.
    keys: Vec<KeyItem>,
}

/// Shows the status of this replica.
#[utoipa::path(
    get, path = "/admin/v1/status", tag = "administration",
    responses((status = 200, body = StatusAnswer), AdminProblems),
    security(("bearer" = []))
)]
pub async fn status(State(shared): State<Arc<Shared>>, _: Administrator) -> JsonBody<StatusAnswer> {
    let status = shared.service.status.status();
    JsonBody(StatusAnswer {
        version: env!("CARGO_PKG_VERSION"),
        ready: status.readiness.is_ready(),
        problems: shared.service.status.problems(),
        view_age_seconds: status.view_age.as_secs_f64(),
        revocation_lag_seconds: status.last_lag.as_secs_f64(),
        clock_offset_seconds: status.clock_offset_millis as f64 / 1000.0,
        revocations: RevocationKind::ALL
            .iter()
            .map(|kind| (kind.as_str(), shared.service.status.revocations(*kind)))
            .collect(),
        cached_tokens: status.cached_tokens,
        clients: status.clients,
        password_queue: status.password_queue,
        keys: shared.service.keys.key_infos().iter().map(KeyItem::from).collect(),
    })
}
