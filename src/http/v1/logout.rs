//! `POST /v1/logout`.

use std::sync::Arc;

use axum::extract::{Request, State};
use http::StatusCode;
use http::header::AUTHORIZATION;
use serde::Deserialize;

use crate::http::bearer;
use crate::http::error::{ApiError, BodyProblems, ProblemBody};
use crate::http::extract::Json;
use crate::http::middleware::RequestFacts;
use crate::http::requester::From;
use crate::http::state::Shared;
use axum::extract::FromRequest;

/// The refresh token of the session that is to end.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogoutRequest {
    /// Any refresh token of the session.
    refresh_token: String,
}

/// Ends the session that a refresh token in the body, or an access token in the header, belongs to.
#[utoipa::path(
    post, path = "/v1/logout", tag = "sessions", request_body = Option<LogoutRequest>,
    responses(
        (status = 204, description = "The session has ended, now or before"),
        (status = 401, description = "The access token is not valid", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The session may not have ended: try again", body = ProblemBody, content_type = "application/problem+json"), BodyProblems),
    security((), ("bearer" = []))
)]
pub async fn logout(
    State(shared): State<Arc<Shared>>,
    From(from): From,
    request: Request,
) -> Result<(RequestFacts, StatusCode), ApiError> {
    if request.headers().contains_key(AUTHORIZATION) {
        let bearer = bearer::user(&shared.service, request.headers()).await?;
        shared.service.log_out_bearer(&bearer, &from).await?;
        Ok((bearer::facts(&bearer), StatusCode::NO_CONTENT))
    } else {
        let Json(body) = Json::<LogoutRequest>::from_request(request, &()).await?;
        shared.service.log_out_by_refresh_token(&body.refresh_token, &from).await?;
        Ok((RequestFacts::default(), StatusCode::NO_CONTENT))
    }
}
