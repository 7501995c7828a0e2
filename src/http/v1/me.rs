//! `/v1/me`: the account, password and sessions of the token's user.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::domain::{Password, Session, SessionId, Timestamp, User};
use crate::http::JsonBody;
use crate::http::bearer::{self, BearerUser};
use crate::http::error::{ApiError, BearerProblems, BodyProblems, ProblemBody, ProblemCode};
use crate::http::extract::{Json, PathSegment, QueryParams};
use crate::http::middleware::{RequestContext, RequestFacts};
use crate::http::state::Shared;
use crate::http::{attempts, token_answer};
use crate::service::PasswordChangeError;

/// Default and maximum number of sessions on a page.
const PAGE: (u32, u32) = (50, 200);

/// The account of the token's user.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Me {
    /// Immutable id: the `sub` of the user's tokens.
    id: String,
    /// Canonical user name.
    username: String,
    /// Roles of the user.
    roles: Vec<String>,
    /// Creation of the account (RFC 3339).
    created_at: String,
    /// Last login (RFC 3339).
    last_login_at: Option<String>,
}

impl From<User> for Me {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            username: user.username.to_string(),
            roles: user.roles.iter().map(ToString::to_string).collect(),
            created_at: user.created_at.rfc3339(),
            last_login_at: user.last_login_at.map(Timestamp::rfc3339),
        }
    }
}

/// The current and the new password.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The current password.
    #[schema(format = Password)]
    current_password: String,
    /// The new password.
    #[schema(format = Password)]
    new_password: String,
}

/// A live session.
#[derive(Serialize, utoipa::ToSchema)]
pub struct SessionItem {
    /// Id of the session: the `sid` of its access tokens.
    id: String,
    /// The client of the login.
    client_id: String,
    /// The granted scopes, separated by spaces.
    scope: String,
    /// The login (RFC 3339).
    authenticated_at: String,
    /// The last refresh (RFC 3339).
    last_refreshed_at: String,
    /// The end of the session if it is not refreshed (RFC 3339).
    expires_at: String,
    /// Whether the access token of the request belongs to this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<bool>,
}

impl SessionItem {
    /// A session as shown to its user or an administrator.
    pub fn new(session: &Session, current: Option<&SessionId>) -> Self {
        Self {
            id: session.id.to_string(),
            client_id: session.client.to_string(),
            scope: session.scope.to_string(),
            authenticated_at: session.authenticated_at.rfc3339(),
            last_refreshed_at: session.rotated_at.rfc3339(),
            expires_at: session.idle_expires_at.min(session.absolute_expires_at).rfc3339(),
            current: current.map(|id| *id == session.id),
        }
    }
}

/// A page of sessions.
#[derive(Serialize, utoipa::ToSchema)]
pub struct SessionList {
    /// Sessions, ordered by id.
    pub sessions: Vec<SessionItem>,
    /// For administrators: rows of this page that cannot be read, each with its table, column and problem.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Shows the account of the token's user.
#[utoipa::path(
    get, path = "/v1/me", tag = "account",
    responses(
        (status = 200, body = Me), BearerProblems),
    security(("bearer" = []))
)]
pub async fn me(
    State(shared): State<Arc<Shared>>,
    BearerUser(bearer): BearerUser,
) -> Result<(RequestFacts, JsonBody<Me>), ApiError> {
    let user = shared.service.account.me(&bearer).await?.ok_or(ProblemCode::InvalidToken)?;
    Ok((bearer::facts(&bearer), JsonBody(user.into())))
}

/// Changes the password. The current session gets the tokens in the answer, and every other session ends.
#[utoipa::path(
    put, path = "/v1/me/password", tag = "account", request_body = PasswordChange,
    responses(
        (status = 200, description = "New tokens of this session", body = token_answer::TokenAnswer),
        (status = 400, description = "`password_rejected`, or the request is not valid", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "`invalid_token`, or `invalid_credentials` for a wrong current password", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_attempts`", body = ProblemBody, content_type = "application/problem+json"), BodyProblems, BearerProblems),
    security(("bearer" = []))
)]
pub async fn change_password(
    State(shared): State<Arc<Shared>>,
    BearerUser(bearer): BearerUser,
    context: RequestContext,
    Json(request): Json<PasswordChange>,
) -> Result<(RequestFacts, Response), ApiError> {
    let current =
        Password::parse(&request.current_password).map_err(|error| ApiError::unparsable("current_password", &error))?;
    let new = Password::parse(&request.new_password).map_err(|error| ApiError::unparsable("new_password", &error))?;
    let result = shared.service.account.change_password(&bearer, current, new, &context.requester()).await;
    if let Err(PasswordChangeError::TooManyAttempts { limit, .. }) = &result {
        attempts::count(&shared.metrics, *limit);
    }
    let tokens = result?;
    Ok(token_answer::respond(&tokens, bearer::facts(&bearer).caller, "password_changed"))
}

/// Lists the live sessions of the token's user, ordered by id.
#[utoipa::path(
    get, path = "/v1/me/sessions", tag = "account",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "Sessions on a page"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page"),
    ),
    responses(
        (status = 200, body = SessionList), BearerProblems),
    security(("bearer" = []))
)]
pub async fn sessions(
    State(shared): State<Arc<Shared>>,
    BearerUser(bearer): BearerUser,
    QueryParams(query): QueryParams,
) -> Result<(RequestFacts, JsonBody<SessionList>), ApiError> {
    let query = query.only(&["limit", "cursor"])?;
    let limit = crate::http::page::limit(&query, PAGE)?;
    let after = crate::http::page::cursor(&query, SessionId::parse)?;
    let page = shared.service.sessions.sessions_of_user(bearer.user, after, limit).await?;
    let list = JsonBody(SessionList {
        sessions: page.sessions.iter().map(|session| SessionItem::new(session, Some(&bearer.session))).collect(),
        unreadable: Vec::new(),
        next_cursor: page.next.map(|id| id.to_string()),
    });
    Ok((bearer::facts(&bearer), list))
}

/// Ends a session of the token's user.
#[utoipa::path(
    delete, path = "/v1/me/sessions/{sid}", tag = "account",
    params(("sid" = String, Path, description = "Id of the session")),
    responses(
        (status = 204, description = "The session has ended, now or before"),
        (status = 404, description = "The user has no such session", body = ProblemBody, content_type = "application/problem+json"), BearerProblems),
    security(("bearer" = []))
)]
pub async fn end_session(
    State(shared): State<Arc<Shared>>,
    BearerUser(bearer): BearerUser,
    context: RequestContext,
    PathSegment(sid): PathSegment,
) -> Result<(RequestFacts, StatusCode), ApiError> {
    let session = SessionId::parse(&sid).map_err(|_| ProblemCode::NotFound)?;
    let found = shared.service.account.end_own_session(&bearer, session, &context.requester()).await?;
    Ok((bearer::facts(&bearer), ApiError::no_content(found)?))
}

/// Ends all sessions of the token's user, including the current one.
#[utoipa::path(
    delete, path = "/v1/me/sessions", tag = "account",
    responses(
        (status = 204, description = "Every session has ended"), BearerProblems),
    security(("bearer" = []))
)]
pub async fn end_all_sessions(
    State(shared): State<Arc<Shared>>,
    BearerUser(bearer): BearerUser,
    context: RequestContext,
) -> Result<(RequestFacts, StatusCode), ApiError> {
    shared.service.account.log_out_everywhere(&bearer, &context.requester()).await?;
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
