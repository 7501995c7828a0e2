//! `POST /v1/refresh`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde::Deserialize;

use crate::domain::{Grant, RefreshRefusal, ScopeSet};
use crate::http::error::{ApiError, BodyProblems, ProblemBody, ProblemCode};
use crate::http::extract::Json;
use crate::http::middleware::{self, RequestContext, RequestFacts};
use crate::http::state::Shared;
use crate::http::{caller, token_answer};
use crate::service::{Caller, Narrowing, RefreshError, Refreshed};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::RefreshResult;

/// A refresh token, and the requested scopes.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// The latest refresh token of the session.
    refresh_token: String,
    /// Scopes of the session, separated by spaces. Default: all of them.
    scope: Option<String>,
    /// The client of the session. Default: the built-in public client.
    client_id: Option<String>,
}

/// Exchanges a refresh token for the next pair of tokens. A retry within the retry window gets the same pair.
#[utoipa::path(
    post, path = "/v1/refresh", tag = "sessions", request_body = RefreshRequest,
    responses(
        (status = 200, description = "The next pair of tokens", body = token_answer::TokenAnswer),
        (status = 401, description = "`invalid_refresh_token`, `refresh_token_reused` or `invalid_client`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "The client may not refresh", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_attempts`: too many failed authentications of this client from this address", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`temporarily_unavailable`: retry with the same refresh token; within the retry window the result is the same", body = ProblemBody, content_type = "application/problem+json"), BodyProblems),
    security((), ("client" = []))
)]
pub async fn refresh(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    context: RequestContext,
    Json(request): Json<RefreshRequest>,
) -> Result<(RequestFacts, Response), ApiError> {
    let scope = request.scope.as_deref().map(ScopeSet::parse).transpose();
    let scope = scope.map_err(|error| ApiError::unparsable("scope", &error))?.filter(|scope| !scope.is_empty());
    let caller = caller::of_rest(&shared, &headers, context.client.ip(), request.client_id.as_deref()).await?;
    let narrowing = Narrowing { scope, ..Narrowing::default() };
    let result =
        shared.service.sessions.refresh(&caller, &request.refresh_token, &narrowing, &context.requester()).await;
    count(&shared.metrics, &result);
    let names_client = request.client_id.is_some() || headers.contains_key(AUTHORIZATION);
    match result {
        Ok(refreshed) => Ok(respond(&refreshed, &caller)),
        // The text depends only on the request, so it reveals nothing about the token.
        Err(RefreshError::Refused(refusal)) if refusal != RefreshRefusal::Reused && !names_client => {
            Err(ApiError::new(ProblemCode::InvalidRefreshToken).detail(
                "The request names no client, so only sessions of the built-in client were searched. Send the `client_id` of the login.",
            ))
        }
        Err(error) => Err(error.into()),
    }
}

/// The answer to a refresh, for both endpoints.
pub fn respond(refreshed: &Refreshed, caller: &Caller) -> (RequestFacts, Response) {
    let (tokens, outcome) = match refreshed {
        Refreshed::Rotated(tokens) => (tokens, "rotated"),
        Refreshed::Retried(tokens) => (tokens, "retried"),
    };
    token_answer::respond(tokens, middleware::Principal::of(caller), outcome)
}

/// Counts a refresh, for both endpoints.
pub fn count(metrics: &Metrics, result: &Result<Refreshed, RefreshError>) {
    let label = match result {
        Ok(Refreshed::Rotated(_)) => RefreshResult::Rotated,
        Ok(Refreshed::Retried(_)) => RefreshResult::Retried,
        Err(RefreshError::Refused(refusal)) => (*refusal).into(),
        Err(RefreshError::Failed(_)) => RefreshResult::Unavailable,
        Err(RefreshError::ClientNotAllowed | RefreshError::InvalidScope | RefreshError::InvalidAudience) => return,
    };
    metrics.refreshes.count(label);
    if label == RefreshResult::Rotated {
        metrics.tokens_issued.count(Grant::RefreshToken);
    }
}

impl From<RefreshError> for ApiError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Refused(RefreshRefusal::Reused) => Self::new(ProblemCode::RefreshTokenReused),
            RefreshError::Refused(_) => Self::new(ProblemCode::InvalidRefreshToken),
            RefreshError::ClientNotAllowed => Self::new(ProblemCode::UnauthorizedClient),
            RefreshError::InvalidScope => Self::new(ProblemCode::InvalidScope),
            RefreshError::InvalidAudience => Self::new(ProblemCode::InvalidAudience),
            RefreshError::Failed(failure) => failure.into(),
        }
    }
}
