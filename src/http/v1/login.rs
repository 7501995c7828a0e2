//! `POST /v1/login`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;

use crate::domain::{Audience, Grant, Password, ScopeSet, Username};
use crate::http::error::{ApiError, BodyProblems, ProblemBody, ProblemCode};
use crate::http::extract::Json;
use crate::http::middleware::{self, RequestContext, RequestFacts};
use crate::http::state::Shared;
use crate::http::{attempts, caller, token_answer};
use crate::service::{Login, LoginError};
use crate::telemetry::metrics::LoginResult;

/// Maximum size of a login body in bytes (security.md H5).
const MAX_LOGIN_BYTES: usize = 8 * 1024;

/// User name and password, and the requested scopes and audience.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// Name of the user; case and character width do not matter.
    username: String,
    /// Password of the user.
    #[schema(format = Password)]
    password: String,
    /// A client that may log users in. Default: the built-in public client.
    client_id: Option<String>,
    /// Scopes, separated by spaces. Default: all that the client may request.
    scope: Option<String>,
    /// One of the client's audiences. Default: all of them.
    audience: Option<String>,
}

/// Logs a user in.
#[utoipa::path(
    post, path = "/v1/login", tag = "sessions", request_body = LoginRequest,
    responses(
        (status = 200, description = "A new session", body = token_answer::TokenAnswer),
        (status = 401, description = "`invalid_credentials`, or `invalid_client`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "The client may not log users in", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_attempts`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`busy`, or `temporarily_unavailable`", body = ProblemBody, content_type = "application/problem+json"), BodyProblems),
    security((), ("client" = []))
)]
pub async fn login(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    context: RequestContext,
    Json(request): Json<LoginRequest, MAX_LOGIN_BYTES>,
) -> Result<(RequestFacts, Response), ApiError> {
    let login = read(&request)?;
    let caller = caller::of_rest(&shared, &headers, context.client.ip(), request.client_id.as_deref()).await?;
    let result = shared.service.sessions.log_in(&caller, login, &context.requester()).await;
    if let Err(LoginError::TooManyAttempts { limit, .. }) = &result {
        attempts::count(&shared.metrics, *limit);
    }
    if let Some(outcome) = outcome(&result) {
        shared.metrics.logins.count(outcome);
    }
    let tokens = result?;
    shared.metrics.tokens_issued.count(Grant::PasswordLogin);
    Ok(token_answer::respond(&tokens, middleware::Principal::of(&caller), "logged_in"))
}

/// Parses the fields; reports all errors together.
fn read(request: &LoginRequest) -> Result<Login, ApiError> {
    let username = Username::parse(&request.username).map_err(|error| ("username", error));
    let password = Password::parse(&request.password).map_err(|error| ("password", error));
    let scope = request.scope.as_deref().map(ScopeSet::parse).transpose().map_err(|error| ("scope", error));
    let audience = request.audience.as_deref().map(Audience::parse).transpose().map_err(|error| ("audience", error));
    match (username, password, scope, audience) {
        (Ok(username), Ok(password), Ok(scope), Ok(audience)) => {
            Ok(Login { username, password, scope: scope.filter(|scope| !scope.is_empty()), audience })
        }
        (username, password, scope, audience) => {
            let faults = [username.err(), password.err(), scope.err(), audience.err()];
            Err(faults
                .into_iter()
                .flatten()
                .fold(ApiError::new(ProblemCode::InvalidRequest), |error, (field, fault)| error.field(field, fault.0)))
        }
    }
}

/// The metric label of a login; `None` if the client or a parameter was refused.
fn outcome<T>(result: &Result<T, LoginError>) -> Option<LoginResult> {
    match result {
        Ok(_) => Some(LoginResult::Success),
        Err(LoginError::InvalidCredentials) => Some(LoginResult::InvalidCredentials),
        Err(LoginError::TooManyAttempts { .. }) => Some(LoginResult::TooManyAttempts),
        Err(LoginError::Hashing(_)) => Some(LoginResult::Busy),
        Err(LoginError::Failed(_)) => Some(LoginResult::Unavailable),
        Err(LoginError::ClientNotAllowed | LoginError::InvalidScope | LoginError::InvalidAudience) => None,
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::InvalidCredentials => Self::new(ProblemCode::InvalidCredentials),
            LoginError::TooManyAttempts { retry_after, .. } => {
                Self::new(ProblemCode::TooManyAttempts).retry_after(retry_after)
            }
            LoginError::Hashing(error) => error.into(),
            LoginError::ClientNotAllowed => Self::new(ProblemCode::UnauthorizedClient),
            LoginError::InvalidScope => Self::new(ProblemCode::InvalidScope),
            LoginError::InvalidAudience => Self::new(ProblemCode::InvalidAudience),
            LoginError::Failed(failure) => failure.into(),
        }
    }
}
