//! `/admin/v1/status`: how this replica is, in one glance.

use std::sync::Arc;

use crate::http::answer::JsonBody;
use axum::extract::State;
use serde::Serialize;

use super::Administrator;
use super::keys::KeyItem;
use crate::domain::RevocationKind;
use crate::http::error::AdminProblems;
use crate::http::state::Shared;

/// How this replica is.
#[derive(Serialize, utoipa::ToSchema)]
pub struct StatusAnswer {
    /// The program's version.
    version: &'static str,
    /// Whether it is ready.
    ready: bool,
    /// Problems of this replica and its database.
    problems: Vec<String>,
    /// Age of the view in seconds: how long a revocation elsewhere may have been missed.
    view_age_seconds: f64,
    /// Of the last revocation that another replica took: from when that one began to write it until it was honoured here.
    revocation_lag_seconds: f64,
    /// This machine's clock minus the database's.
    clock_offset_seconds: f64,
    /// Live revocations by kind.
    revocations: std::collections::BTreeMap<&'static str, usize>,
    /// Verified tokens in memory.
    cached_tokens: usize,
    /// Clients in memory.
    clients: usize,
    /// Passwords that wait to be hashed.
    password_queue: usize,
    /// Published keys.
    keys: Vec<KeyItem>,
}

/// How this replica is.
#[utoipa::path(
    get, path = "/admin/v1/status", tag = "administration",
    responses((status = 200, body = StatusAnswer), AdminProblems),
    security(("bearer" = []))
)]
pub async fn status(State(shared): State<Arc<Shared>>, _: Administrator) -> JsonBody<StatusAnswer> {
    let status = shared.service.status();
    JsonBody(StatusAnswer {
        version: env!("CARGO_PKG_VERSION"),
        ready: status.readiness.is_ready(),
        problems: shared.service.problems(),
        view_age_seconds: status.view_age.as_secs_f64(),
        revocation_lag_seconds: status.last_lag.as_secs_f64(),
        clock_offset_seconds: status.clock_offset_millis as f64 / 1000.0,
        revocations: RevocationKind::ALL
            .iter()
            .map(|kind| (kind.as_str(), shared.service.revocations(*kind)))
            .collect(),
        cached_tokens: status.cached_tokens,
        clients: status.clients,
        password_queue: status.password_queue,
        keys: shared.service.key_infos().iter().map(KeyItem::from).collect(),
    })
}
