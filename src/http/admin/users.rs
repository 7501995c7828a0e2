//! `/admin/v1/users`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Administrator;
use crate::domain::{Password, Role, Timestamp, User, UserId, UserState, Username};
use crate::http::JsonBody;
use crate::http::error::{AdminProblems, ApiError, BodyProblems, ProblemBody, ProblemCode};
use crate::http::extract::{Json, PathSegment, QueryParams};
use crate::http::page;
use crate::http::state::Shared;
use crate::service::{IMPORT_BATCH, ImportReport, UserError};

/// Default and maximum number of users on a page.
const PAGE: (u32, u32) = (50, 500);
/// Maximum size of an import in one request, in bytes. For larger files there is `countersign users import`.
const MAX_IMPORT_BYTES: usize = 1024 * 1024;

/// A user as shown to administrators.
#[derive(Serialize, utoipa::ToSchema)]
pub struct UserItem {
    /// Immutable id: the `sub` of the user's tokens.
    pub id: String,
    /// Canonical user name.
    pub username: String,
    /// Roles of the user.
    pub roles: Vec<String>,
    /// Whether the user can log in.
    pub enabled: bool,
    /// Tokens below this epoch are inactive.
    pub epoch: u32,
    /// Creation of the account (RFC 3339).
    pub created_at: String,
    /// Last login (RFC 3339).
    pub last_login_at: Option<String>,
}

impl From<&User> for UserItem {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.to_string(),
            username: user.username.to_string(),
            roles: user.roles.iter().map(ToString::to_string).collect(),
            enabled: user.state == UserState::Enabled,
            epoch: user.epoch,
            created_at: user.created_at.rfc3339(),
            last_login_at: user.last_login_at.map(Timestamp::rfc3339),
        }
    }
}

/// A page of users.
#[derive(Serialize, utoipa::ToSchema)]
pub struct UserList {
    users: Vec<UserItem>,
    /// Rows of this page that cannot be read, each with its table, column and problem.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<String>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A new user.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUserRequest {
    username: String,
    #[schema(format = Password)]
    password: String,
    #[serde(default)]
    roles: Vec<String>,
}

/// Changes of a user. An omitted field keeps its value.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    roles: Option<Vec<String>>,
    /// False ends every session and token of the user.
    enabled: Option<bool>,
}

/// A new password.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    #[schema(format = Password)]
    password: String,
}

/// Result of an import.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ImportAnswer {
    /// Number of users created.
    created: u64,
    /// Number of lines whose users an earlier import created.
    skipped: u64,
    /// Refused lines.
    errors: Vec<LineError>,
}

/// A refused line.
#[derive(Serialize, utoipa::ToSchema)]
pub struct LineError {
    /// Number of the line, from 1.
    line: u64,
    /// Why the line was refused.
    detail: String,
}

/// Lists users, ordered by name.
#[utoipa::path(
    get, path = "/admin/v1/users", tag = "administration",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "Users on a page"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page"),
        ("username" = Option<String>, Query, description = "Only the user with this name"),
    ),
    responses((status = 200, body = UserList), AdminProblems),
    security(("bearer" = []))
)]
pub async fn list(
    State(shared): State<Arc<Shared>>,
    _: Administrator,
    QueryParams(query): QueryParams,
) -> Result<JsonBody<UserList>, ApiError> {
    let query = query.only(&["limit", "cursor", "username"])?;
    if let Some(name) = query.optional("username", 1024)? {
        let name = Username::parse(name).map_err(|error| ApiError::unparsable("username", &error))?;
        let users = shared.service.users.user_named(&name).await?.iter().map(UserItem::from).collect();
        return Ok(JsonBody(UserList { users, unreadable: Vec::new(), next_cursor: None }));
    }
    let after = page::cursor(&query, Username::parse)?;
    let (page, next) = shared.service.users.users(after.as_ref(), page::limit(&query, PAGE)?).await?;
    let unreadable = page.unreadable.iter().map(|row| row.error.to_string()).collect();
    let users = page.readable.iter().map(UserItem::from).collect();
    Ok(JsonBody(UserList { users, unreadable, next_cursor: next.map(|name| name.to_string()) }))
}

/// Creates a user.
#[utoipa::path(
    post, path = "/admin/v1/users", tag = "administration", request_body = NewUserRequest,
    responses((status = 201, body = UserItem), (status = 409, description = "The name is in use", body = ProblemBody, content_type = "application/problem+json"), AdminProblems, BodyProblems),
    security(("bearer" = []))
)]
pub async fn create(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    Json(request): Json<NewUserRequest>,
) -> Result<(StatusCode, JsonBody<UserItem>), ApiError> {
    let username = Username::parse_new(&request.username).map_err(|error| ApiError::unparsable("username", &error))?;
    let password = Password::parse(&request.password).map_err(|error| ApiError::unparsable("password", &error))?;
    let user = shared.service.users.create_user(username, password, roles(&request.roles)?, &from).await?;
    Ok((StatusCode::CREATED, JsonBody(UserItem::from(&user))))
}

/// Shows a user.
#[utoipa::path(
    get, path = "/admin/v1/users/{id}", tag = "administration",
    params(("id" = String, Path, description = "Id of the user")),
    responses((status = 200, body = UserItem), (status = 404, body = ProblemBody, content_type = "application/problem+json"), AdminProblems),
    security(("bearer" = []))
)]
pub async fn read(
    State(shared): State<Arc<Shared>>,
    _: Administrator,
    PathSegment(id): PathSegment,
) -> Result<JsonBody<UserItem>, ApiError> {
    let user = shared.service.users.user(user_id(&id)?).await?.ok_or(ProblemCode::NotFound)?;
    Ok(JsonBody(UserItem::from(&user)))
}

/// Changes a user's roles, or disables or enables the account.
#[utoipa::path(
    patch, path = "/admin/v1/users/{id}", tag = "administration", request_body = UserChange,
    params(("id" = String, Path, description = "Id of the user")),
    responses((status = 200, body = UserItem), (status = 404, body = ProblemBody, content_type = "application/problem+json"), AdminProblems, BodyProblems),
    security(("bearer" = []))
)]
pub async fn change(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    PathSegment(id): PathSegment,
    Json(request): Json<UserChange>,
) -> Result<JsonBody<UserItem>, ApiError> {
    let id = user_id(&id)?;
    let roles = request.roles.as_deref().map(roles).transpose()?;
    let user = shared.service.users.change_user(id, roles, request.enabled, &from).await?;
    Ok(JsonBody(UserItem::from(&user)))
}

/// Sets the password of a user. Every session of the user ends.
#[utoipa::path(
    put, path = "/admin/v1/users/{id}/password", tag = "administration", request_body = NewPassword,
    params(("id" = String, Path, description = "Id of the user")),
    responses((status = 204, description = "The password was set"), (status = 404, body = ProblemBody, content_type = "application/problem+json"), AdminProblems, BodyProblems),
    security(("bearer" = []))
)]
pub async fn set_password(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    PathSegment(id): PathSegment,
    Json(request): Json<NewPassword>,
) -> Result<StatusCode, ApiError> {
    let password = Password::parse(&request.password).map_err(|error| ApiError::unparsable("password", &error))?;
    shared.service.users.set_password(user_id(&id)?, password, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a user and their sessions. The id is never reused.
#[utoipa::path(
    delete, path = "/admin/v1/users/{id}", tag = "administration",
    params(("id" = String, Path, description = "Id of the user")),
    responses((status = 204, description = "Deleted"), (status = 404, body = ProblemBody, content_type = "application/problem+json"), AdminProblems),
    security(("bearer" = []))
)]
pub async fn delete(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    PathSegment(id): PathSegment,
) -> Result<StatusCode, ApiError> {
    shared.service.users.delete_user(user_id(&id)?, &from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Imports users with their existing password hashes: one JSON object per line.
#[utoipa::path(
    post, path = "/admin/v1/users/import", tag = "administration",
    request_body(content = String, content_type = "application/jsonl"),
    responses((status = 200, body = ImportAnswer), AdminProblems, BodyProblems),
    security(("bearer" = []))
)]
pub async fn import(
    State(shared): State<Arc<Shared>>,
    Administrator(from): Administrator,
    request: Request,
) -> Result<Response, ApiError> {
    let body = crate::http::extract::lines(request, MAX_IMPORT_BYTES).await?;
    let mut report = ImportReport::default();
    let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').collect();
    for batch in lines.chunks(IMPORT_BATCH) {
        shared.service.users.import_users(batch, &mut report, &from).await?;
    }
    let errors = report.refused.into_iter().map(|line| LineError { line: line.number, detail: line.reason }).collect();
    let skipped = report.progress.unchanged;
    Ok(JsonBody(ImportAnswer { created: report.progress.created, skipped, errors }).into_response())
}

fn user_id(text: &str) -> Result<UserId, ApiError> {
    UserId::parse(text).map_err(|_| ProblemCode::NotFound.into())
}

fn roles(texts: &[String]) -> Result<Vec<Role>, ApiError> {
    let parse = |(index, text): (usize, &String)| {
        Role::parse(text).map_err(|error| ApiError::unparsable(format!("roles[{index}]"), &error))
    };
    let mut roles: Vec<Role> = texts.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    roles.sort_unstable();
    roles.dedup();
    Ok(roles)
}

impl From<UserError> for ApiError {
    fn from(error: UserError) -> Self {
        match error {
            UserError::Taken => Self::new(ProblemCode::Conflict).detail("A user with this name exists already."),
            UserError::Unknown => Self::new(ProblemCode::NotFound),
            UserError::Roles(error) => Self::unparsable("roles", &error),
            UserError::Password(refusal) => {
                Self::new(ProblemCode::PasswordRejected).field("password", refusal.to_string())
            }
            UserError::Hashing(error) => error.into(),
            UserError::Failed(failure) => failure.into(),
        }
    }
}
