//! `POST /v1/logout`.

use std::sync::Arc;

use axum::extract::State;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::http::bearer;
use crate::http::error::{ApiError, BodyProblems, ProblemBody, ProblemCode};
use crate::http::extract::OptionalJson;
use crate::http::middleware::{Principal, RequestContext, RequestFacts, note_caller};
use crate::http::state::Shared;
use crate::service::BearerError;

/// A refresh token of the session to end.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogoutRequest {
    /// Any refresh token of the session. Without it, the session of the access token ends.
    refresh_token: Option<String>,
}

/// Ends the session of the refresh token in the body, or of the access token in the header.
///
/// The header is ignored if the body has a refresh token.
#[utoipa::path(
    post, path = "/v1/logout", tag = "sessions", request_body = Option<LogoutRequest>,
    responses(
        (status = 204, description = "The session has ended, now or before"),
        (status = 401, description = "`invalid_token`, or `unauthenticated` if both tokens are missing", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The session may not have ended: retry", body = ProblemBody, content_type = "application/problem+json"), BodyProblems),
    security((), ("bearer" = []))
)]
pub async fn logout(
    State(shared): State<Arc<Shared>>,
    context: RequestContext,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson<LogoutRequest>,
) -> Result<(RequestFacts, StatusCode), ApiError> {
    let has_body = body.is_some();
    if let Some(token) = body.and_then(|body| body.refresh_token) {
        shared.service.sessions.log_out_by_refresh_token(&token, &context.requester()).await?;
        return Ok((RequestFacts::default(), StatusCode::NO_CONTENT));
    }
    if !headers.contains_key(AUTHORIZATION) {
        let missing = || ApiError::invalid_field("refresh_token", "is missing");
        return Err(if has_body { missing() } else { ApiError::new(ProblemCode::Unauthenticated) });
    }
    match shared.service.sessions.bearer(bearer::token(&headers)?).await {
        Ok(bearer) => {
            note_caller(Some(Principal::User(bearer.user)));
            shared.service.sessions.log_out_bearer(&bearer, &context.requester()).await?;
            Ok((bearer::facts(&bearer), StatusCode::NO_CONTENT))
        }
        Err(BearerError::SessionEnded) => Ok((RequestFacts::default(), StatusCode::NO_CONTENT)),
        Err(error) => Err(bearer::refusal(error)),
    }
}
