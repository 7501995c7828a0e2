//! `/admin/v1/sessions`.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;

use super::Administrator;
use crate::domain::{ClientId, EndReason, SessionId, UserId};
use crate::http::JsonBody;
use crate::http::error::{AdminProblems, ApiError, ProblemBody, ProblemCode};
use crate::http::extract::{PathSegment, QueryParams};
use crate::http::page;
use crate::http::state::Shared;
use crate::http::v1::me::{SessionItem, SessionList};
use crate::service::SessionOwner;

/// Default and maximum number of sessions on a page.
const PAGE: (u32, u32) = (50, 500);
/// The required parameters.
const OWNER: &str = "either `user`, the id of a user (`usr_…`), or `client`, the id of a client";
/// A name can be reused by another user, so it does not identify sessions.
const NOT_AN_ID: &str =
    "must be the id of a user (`usr_…`), not a name: GET /admin/v1/users?username=NAME returns the id";

/// Lists the live sessions of a user or a client, ordered by id.
#[utoipa::path(
    get, path = "/admin/v1/sessions", tag = "administration",
    params(
        ("user" = Option<String>, Query, description = "Id of a user (`usr_…`), not a name; either this or `client`"),
        ("client" = Option<String>, Query, description = "Id of a client; either this or `user`"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page"),
    ),
    responses((status = 200, body = SessionList), AdminProblems),
    security(("bearer" = []))
)]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    _: Administrator,
    QueryParams(query): QueryParams,
) -> Result<JsonBody<SessionList>, ApiError> {
    let query = query.only(&["user", "client", "limit", "cursor"])?;
    let limit = page::limit(&query, PAGE)?;
    let after = page::cursor(&query, SessionId::parse)?;
    let page = match (query.optional("user", 64)?, query.optional("client", 64)?) {
        (Some(user), None) => {
            let user = UserId::parse(user).map_err(|_| ApiError::invalid_field("user", NOT_AN_ID))?;
            shared.service.sessions.sessions_of_user(user, after, limit).await?
        }
        (None, Some(client)) => {
            let client = ClientId::parse(client).map_err(|error| ApiError::unparsable("client", &error))?;
            shared.service.sessions.sessions_of_client(&client, after, limit).await?
        }
        (None, None) => return Err(ApiError::new(ProblemCode::InvalidRequest).detail(format!("Send {OWNER}."))),
        (Some(_), Some(_)) => {
            let detail = format!("Send {OWNER}, but not both.");
            return Err(ApiError::new(ProblemCode::InvalidRequest).detail(detail));
        }
    };
    Ok(JsonBody(SessionList {
        sessions: page.sessions.iter().map(|session| SessionItem::new(session, None)).collect(),
        unreadable: page.unreadable,
        next_cursor: page.next.map(|id| id.to_string()),
    }))
}

/// Ends a session. Its access tokens become inactive.
#[utoipa::path(
    delete, path = "/admin/v1/sessions/{sid}", tag = "administration",
    params(("sid" = String, Path)),
    responses((status = 204, description = "The session has ended, now or before"), (status = 404, body = ProblemBody, content_type = "application/problem+json"), AdminProblems),
    security(("bearer" = []))
)]
pub async fn end(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    PathSegment(sid): PathSegment,
) -> Result<StatusCode, ApiError> {
    let session = SessionId::parse(&sid).map_err(|_| ProblemCode::NotFound)?;
    let ending = shared.service.sessions.end_session(session, SessionOwner::Anyone, EndReason::Administrator, &from);
    ApiError::no_content(ending.await?)
}
