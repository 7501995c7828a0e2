//! `/v1/me`: the bearer's own account, password and sessions.

use std::sync::Arc;

use crate::http::answer::JsonBody;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use crate::domain::{Password, Session, SessionId, User};
use crate::http::error::{ApiError, BearerProblems, BodyProblems, ProblemBody, ProblemCode};
use crate::http::extract::{Json, PathSegment, QueryParams};
use crate::http::middleware::RequestFacts;
use crate::http::requester::RequestedBy;
use crate::http::state::Shared;
use crate::http::time::rfc3339;
use crate::http::{attempts, bearer, token_answer};
use crate::service::PasswordChangeError;

/// Sessions on one page unless the request says otherwise, and at most.
const PAGE: (u32, u32) = (50, 200);

/// The bearer's account.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Me {
    /// Immutable id, the `sub` of the user's tokens.
    id: String,
    /// Canonical name.
    username: String,
    /// Roles.
    roles: Vec<String>,
    /// When the account was made (RFC 3339).
    created_at: String,
    /// The last login (RFC 3339).
    last_login_at: Option<String>,
}

impl From<User> for Me {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            username: user.username.to_string(),
            roles: user.roles.iter().map(ToString::to_string).collect(),
            created_at: rfc3339(user.created_at),
            last_login_at: user.last_login_at.map(rfc3339),
        }
    }
}

/// The present and the new password.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The present password.
    #[schema(format = Password)]
    current_password: String,
    /// The new one.
    #[schema(format = Password)]
    new_password: String,
}

/// One live session.
#[derive(Serialize, utoipa::ToSchema)]
pub struct SessionItem {
    /// Its id, the `sid` of its access tokens.
    id: String,
    /// The client that the user logged in on.
    client_id: String,
    /// What was granted.
    scope: String,
    /// When the user logged in (RFC 3339).
    authenticated_at: String,
    /// When it was last refreshed (RFC 3339).
    last_refreshed_at: String,
    /// When it ends if nothing refreshes it (RFC 3339).
    expires_at: String,
    /// Whether it is the session of the token that asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<bool>,
}

impl SessionItem {
    /// A session as its user, or an administrator, sees it.
    pub fn new(session: &Session, current: Option<&SessionId>) -> Self {
        Self {
            id: session.id.to_string(),
            client_id: session.client.to_string(),
            scope: session.scope.to_string(),
            authenticated_at: rfc3339(session.authenticated_at),
            last_refreshed_at: rfc3339(session.rotated_at),
            expires_at: rfc3339(session.idle_expires_at.min(session.absolute_expires_at)),
            current: current.map(|id| *id == session.id),
        }
    }
}

/// A page of sessions.
#[derive(Serialize, utoipa::ToSchema)]
pub struct SessionList {
    /// In the order of their ids.
    pub sessions: Vec<SessionItem>,
    /// Send it as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// The bearer's account.
#[utoipa::path(
    get, path = "/v1/me", tag = "account",
    responses(
        (status = 200, body = Me), BearerProblems),
    security(("bearer" = []))
)]
pub async fn me(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<(RequestFacts, JsonBody<Me>), ApiError> {
    let bearer = bearer::user(&shared.service, &headers).await?;
    let user = shared.service.me(&bearer).await?.ok_or_else(|| ApiError::new(ProblemCode::InvalidToken))?;
    Ok((bearer::facts(&bearer), JsonBody(user.into())))
}

/// Changes the password. Every other session ends; this one goes on with the tokens in the answer.
#[utoipa::path(
    put, path = "/v1/me/password", tag = "account", request_body = PasswordChange,
    responses(
        (status = 200, description = "New tokens of this session", body = token_answer::TokenAnswer),
        (status = 400, description = "`password_rejected`, or the request is not valid", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "`invalid_token`, or `invalid_credentials` for a wrong present password", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_attempts`", body = ProblemBody, content_type = "application/problem+json"), BodyProblems, BearerProblems),
    security(("bearer" = []))
)]
pub async fn change_password(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    RequestedBy(from): RequestedBy,
    Json(request): Json<PasswordChange>,
) -> Result<(RequestFacts, Response), ApiError> {
    let bearer = bearer::user(&shared.service, &headers).await?;
    let current =
        Password::parse(&request.current_password).map_err(|error| ApiError::unparsable("current_password", &error))?;
    let new = Password::parse(&request.new_password).map_err(|error| ApiError::unparsable("new_password", &error))?;
    let result = shared.service.change_password(&bearer, current, new, &from).await;
    if let Err(PasswordChangeError::TooManyAttempts { limit, .. }) = &result {
        attempts::count(&shared.metrics, *limit);
    }
    let tokens = result?;
    Ok(token_answer::respond(&tokens, bearer::facts(&bearer).caller, "password_changed"))
}

/// The bearer's live sessions, in the order of their ids.
#[utoipa::path(
    get, path = "/v1/me/sessions", tag = "account",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "Sessions on a page"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, body = SessionList), BearerProblems),
    security(("bearer" = []))
)]
pub async fn sessions(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: QueryParams,
) -> Result<(RequestFacts, JsonBody<SessionList>), ApiError> {
    let bearer = bearer::user(&shared.service, &headers).await?;
    let query = query.only(&["limit", "cursor"])?;
    let limit = crate::http::page::limit(&query, PAGE)?;
    let after = crate::http::page::cursor(&query, SessionId::parse)?;
    let page = shared.service.sessions_of_user(bearer.user, after, limit).await?;
    let list = JsonBody(SessionList {
        sessions: page.sessions.iter().map(|session| SessionItem::new(session, Some(&bearer.session))).collect(),
        next_cursor: page.next.map(|id| id.to_string()),
    });
    Ok((bearer::facts(&bearer), list))
}

/// Ends one of the bearer's sessions.
#[utoipa::path(
    delete, path = "/v1/me/sessions/{sid}", tag = "account",
    params(("sid" = String, Path, description = "The session's id")),
    responses(
        (status = 204, description = "The session has ended, now or before"),
        (status = 404, description = "The bearer has no such session", body = ProblemBody, content_type = "application/problem+json"), BearerProblems),
    security(("bearer" = []))
)]
pub async fn end_session(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    RequestedBy(from): RequestedBy,
    PathSegment(sid): PathSegment,
) -> Result<(RequestFacts, StatusCode), ApiError> {
    let bearer = bearer::user(&shared.service, &headers).await?;
    let unknown = || ApiError::new(ProblemCode::NotFound);
    let session = SessionId::parse(&sid).map_err(|_| unknown())?;
    let found = shared.service.end_own_session(&bearer, session, &from).await?;
    if found { Ok((bearer::facts(&bearer), StatusCode::NO_CONTENT)) } else { Err(unknown()) }
}

/// Logs the bearer out everywhere, here included.
#[utoipa::path(
    delete, path = "/v1/me/sessions", tag = "account",
    responses(
        (status = 204, description = "Every session has ended"), BearerProblems),
    security(("bearer" = []))
)]
pub async fn end_all_sessions(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    RequestedBy(from): RequestedBy,
) -> Result<(RequestFacts, StatusCode), ApiError> {
    let bearer = bearer::user(&shared.service, &headers).await?;
    shared.service.log_out_everywhere(&bearer, &from).await?;
    Ok((bearer::facts(&bearer), StatusCode::NO_CONTENT))
}

impl From<PasswordChangeError> for ApiError {
    fn from(error: PasswordChangeError) -> Self {
        match error {
            PasswordChangeError::WrongPassword => Self::new(ProblemCode::InvalidCredentials),
            PasswordChangeError::Refused(refusal) => {
                Self::new(ProblemCode::PasswordRejected).field("new_password", refusal.to_string())
            }
            PasswordChangeError::TooManyAttempts { retry_after, .. } => {
                Self::new(ProblemCode::TooManyAttempts).retry_after(retry_after)
            }
            PasswordChangeError::Hashing(error) => error.into(),
            PasswordChangeError::SessionEnded => Self::new(ProblemCode::InvalidToken),
            PasswordChangeError::Failed(failure) => failure.into(),
        }
    }
}
