//! `/admin/v1/revocations`.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Administrator;
use crate::domain::{ClientId, Jti, Kid, Revocation, SessionId, UserId};
use crate::http::JsonBody;
use crate::http::error::{AdminProblems, ApiError, BodyProblems, ProblemBody, ProblemCode};
use crate::http::extract::{Json, QueryParams};
use crate::http::page;
use crate::http::state::Shared;
use crate::service::Target;

/// Default and maximum number of revocations on a page.
const PAGE: (u32, u32) = (100, 1000);

/// The target of a revocation; exactly one field is required.
#[derive(Deserialize, utoipa::ToSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub struct RevocationOrder {
    /// A token, by its `jti`.
    jti: Option<String>,
    /// A session, by its id.
    session: Option<String>,
    /// All tokens of a user so far, by the user's id.
    user: Option<String>,
    /// All tokens of a client so far.
    client: Option<String>,
    /// All tokens of a key; the key is withdrawn.
    key: Option<String>,
}

/// A live revocation.
#[derive(Serialize, utoipa::ToSchema)]
pub struct RevocationItem {
    /// `jti`, `session`, `user`, `client`, `key` or `everything`.
    kind: &'static str,
    /// Id of the revoked token, session, user, client or key. Empty for `everything`.
    subject: String,
    /// For users, clients and `everything`: tokens with a lower epoch are inactive.
    #[serde(skip_serializing_if = "Option::is_none")]
    below_epoch: Option<u32>,
    /// Time of the revocation (RFC 3339).
    created_at: String,
    /// No affected token is alive after this time (RFC 3339).
    expires_at: String,
}

/// A page of revocations.
#[derive(Serialize, utoipa::ToSchema)]
pub struct RevocationList {
    /// Revocations, oldest first.
    revocations: Vec<RevocationItem>,
    /// Rows of this page that cannot be read, each with its table, column and problem.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<String>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists the live revocations.
#[utoipa::path(
    get, path = "/admin/v1/revocations", tag = "administration",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 1000), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = RevocationList), AdminProblems),
    security(("bearer" = []))
)]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    _: Administrator,
    QueryParams(query): QueryParams,
) -> Result<JsonBody<RevocationList>, ApiError> {
    let query = query.only(&["limit", "cursor"])?;
    let after = page::cursor(&query, page::number)?;
    let page = shared.service.administration.live_revocations(after, page::limit(&query, PAGE)?).await?;
    let item = |live: &crate::service::LiveRevocation| {
        let (subject, below_epoch) = match &live.revocation {
            Revocation::Jti(jti) => (jti.to_string(), None),
            Revocation::Session(session) => (session.to_string(), None),
            Revocation::User(user, epoch) => (user.to_string(), Some(*epoch)),
            Revocation::Client(client, epoch) => (client.to_string(), Some(*epoch)),
            Revocation::Key(kid) => (kid.to_string(), None),
            Revocation::Everything(epoch) => (String::new(), Some(*epoch)),
        };
        RevocationItem {
            kind: live.revocation.kind().as_str(),
            subject,
            below_epoch,
            created_at: live.created_at.rfc3339(),
            expires_at: live.expires_at.rfc3339(),
        }
    };
    let next_cursor = page.next.map(|after| after.to_string());
    let revocations = page.items.iter().map(item).collect();
    Ok(JsonBody(RevocationList { revocations, unreadable: page.unreadable, next_cursor }))
}

/// Revokes a token, session, user, client or key. When acknowledged, it is applied locally; every other replica applies
/// it within the revocation bound.
#[utoipa::path(
    post, path = "/admin/v1/revocations", tag = "administration", request_body = RevocationOrder,
    responses((status = 204, description = "Revoked"), (status = 404, description = "The session, user, client or key does not exist", body = ProblemBody, content_type = "application/problem+json"), AdminProblems, BodyProblems),
    security(("bearer" = []))
)]
pub async fn revoke(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    Json(order): Json<RevocationOrder>,
) -> Result<StatusCode, ApiError> {
    ApiError::no_content(shared.service.revocations.revoke(target(&order)?, &from).await?)
}

fn target(order: &RevocationOrder) -> Result<Target, ApiError> {
    let unparsable = |field: &'static str| move |error| ApiError::unparsable(field, &error);
    let RevocationOrder { jti, session, user, client, key } = order;
    match (jti, session, user, client, key) {
        (Some(jti), None, None, None, None) => Jti::parse(jti).map(Target::Jti).map_err(unparsable("jti")),
        (None, Some(id), None, None, None) => SessionId::parse(id).map(Target::Session).map_err(unparsable("session")),
        (None, None, Some(id), None, None) => UserId::parse(id).map(Target::User).map_err(unparsable("user")),
        (None, None, None, Some(id), None) => ClientId::parse(id).map(Target::Client).map_err(unparsable("client")),
        (None, None, None, None, Some(kid)) => Kid::parse(kid).map(Target::Key).map_err(unparsable("key")),
        _ => Err(ApiError::new(ProblemCode::InvalidRequest)
            .detail("Send exactly one of `jti`, `session`, `user`, `client`, `key`.")),
    }
}
