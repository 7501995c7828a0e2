//! `/admin/v1/keys`.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Administrator;
use crate::domain::{Algorithm, Kid, Timestamp};
use crate::http::JsonBody;
use crate::http::error::{AdminProblems, ApiError, BodyProblems, ProblemBody, ProblemCode};
use crate::http::extract::{Json, OptionalJson, PathSegment};
use crate::http::state::Shared;
use crate::service::{AddKeyError, KeyInfo};

/// The public part of a signing key.
#[derive(Serialize, utoipa::ToSchema)]
pub struct KeyItem {
    kid: String,
    algorithm: &'static str,
    /// `announced`, `signing` or `retiring`.
    state: &'static str,
    /// Time of the announcement (RFC 3339).
    announced_at: String,
    /// Start of signing (RFC 3339).
    signs_from: String,
    /// End of signing (RFC 3339); `null` without a successor.
    retires_at: Option<String>,
    /// Removal from the JWK set (RFC 3339); `null` without a successor.
    gone_at: Option<String>,
}

impl From<&KeyInfo> for KeyItem {
    fn from(key: &KeyInfo) -> Self {
        Self {
            kid: key.kid.to_string(),
            algorithm: key.algorithm.as_str(),
            state: key.phase.as_str(),
            announced_at: key.schedule.announced_at.rfc3339(),
            signs_from: key.schedule.signs_from.rfc3339(),
            retires_at: key.schedule.retires_at.map(Timestamp::rfc3339),
            gone_at: key.schedule.gone_at.map(Timestamp::rfc3339),
        }
    }
}

/// The published keys.
#[derive(Serialize, utoipa::ToSchema)]
pub struct KeyList {
    keys: Vec<KeyItem>,
}

/// Options for a new key. The default algorithm is the service's.
#[derive(Deserialize, utoipa::ToSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub struct RotateOrder {
    algorithm: Option<String>,
}

/// A private signing key.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportOrder {
    /// PEM in PKCS#8, PKCS#1 or SEC1.
    pem: String,
    /// `PS256` for an RSA key that must not use `RS256`, the default. Every other key supports one algorithm only.
    algorithm: Option<String>,
}

/// A generated or imported key.
#[derive(Serialize, utoipa::ToSchema)]
pub struct NewKey {
    kid: String,
}

/// Lists the published keys with their states.
#[utoipa::path(
    get, path = "/admin/v1/keys", tag = "administration",
    responses((status = 200, body = KeyList), AdminProblems),
    security(("bearer" = []))
)]
pub async fn list(State(shared): State<Arc<Shared>>, _: Administrator) -> JsonBody<KeyList> {
    JsonBody(KeyList { keys: shared.service.keys.key_infos().iter().map(KeyItem::from).collect() })
}

/// Generates and announces a new key. It signs after `keys.announce_for`.
#[utoipa::path(
    post, path = "/admin/v1/keys/rotate", tag = "administration", request_body = Option<RotateOrder>,
    responses((status = 201, body = NewKey), (status = 409, description = "Five keys are published, or another replica rotated the key first", body = ProblemBody, content_type = "application/problem+json"), AdminProblems, BodyProblems),
    security(("bearer" = []))
)]
pub async fn rotate(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    OptionalJson(order): OptionalJson<RotateOrder>,
) -> Result<(StatusCode, JsonBody<NewKey>), ApiError> {
    let order = order.unwrap_or_default();
    let algorithm = algorithm(order.algorithm.as_deref())?.unwrap_or_else(|| shared.service.status.default_algorithm());
    let kid = shared.service.keys.rotate_key(algorithm, &from).await?;
    Ok((StatusCode::CREATED, JsonBody(NewKey { kid: kid.to_string() })))
}

/// Withdraws a compromised key: removes it from the JWK set. Its tokens become inactive on every replica within the
/// revocation bound.
#[utoipa::path(
    post, path = "/admin/v1/keys/{kid}/withdraw", tag = "administration",
    params(("kid" = String, Path)),
    responses((status = 204, description = "Withdrawn"), (status = 404, body = ProblemBody, content_type = "application/problem+json"), AdminProblems),
    security(("bearer" = []))
)]
pub async fn withdraw(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    PathSegment(kid): PathSegment,
) -> Result<StatusCode, ApiError> {
    let kid = Kid::parse(&kid).map_err(|_| ProblemCode::NotFound)?;
    ApiError::no_content(shared.service.keys.withdraw_key(&kid, &from).await?)
}

/// Imports and announces a private key. It signs after `keys.announce_for`.
#[utoipa::path(
    post, path = "/admin/v1/keys", tag = "administration", request_body = ImportOrder,
    responses((status = 201, body = NewKey), (status = 409, description = "The key exists already, or five keys are published", body = ProblemBody, content_type = "application/problem+json"), AdminProblems, BodyProblems),
    security(("bearer" = []))
)]
pub async fn import(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    Json(order): Json<ImportOrder>,
) -> Result<(StatusCode, JsonBody<NewKey>), ApiError> {
    let kid = shared.service.keys.import_key(&order.pem, algorithm(order.algorithm.as_deref())?, &from).await?;
    Ok((StatusCode::CREATED, JsonBody(NewKey { kid: kid.to_string() })))
}

fn algorithm(text: Option<&str>) -> Result<Option<Algorithm>, ApiError> {
    text.map(Algorithm::parse).transpose().map_err(|error| ApiError::unparsable("algorithm", &error))
}

impl From<AddKeyError> for ApiError {
    fn from(error: AddKeyError) -> Self {
        match error {
            AddKeyError::Import(error) => Self::invalid_field("pem", error.to_string()),
            AddKeyError::NotGenerated(_) => Self::invalid_field("algorithm", error.to_string()),
            AddKeyError::Duplicate | AddKeyError::TooMany | AddKeyError::Overtaken => {
                Self::new(ProblemCode::Conflict).detail(error.to_string())
            }
            AddKeyError::Failed(failure) => failure.into(),
        }
    }
}
