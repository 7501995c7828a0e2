//! `POST /oauth2/revoke` (RFC 7009).

use std::sync::Arc;

use axum::extract::State;
use http::{HeaderMap, StatusCode};

use crate::http::caller;
use crate::http::error::{ApiError, ProblemCode};
use crate::http::extract::FormParams;
use crate::http::middleware::RequestContext;
use crate::http::oauth::OAuthProblems;
use crate::http::state::Shared;
use crate::service::RevokeError;
use crate::telemetry::metrics;

/// Parameters of a revocation; others are ignored.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the form in the API document; the form itself is read parameter by parameter")]
pub struct RevocationRequest {
    /// The token.
    token: String,
    /// Ignored: the format of a token shows its type.
    token_type_hint: Option<String>,
    /// The client, unless it authenticates in the `Authorization` header.
    client_id: Option<String>,
    /// `client_secret_post`.
    client_secret: Option<String>,
}

/// Revokes a token of the client. A refresh token revokes its session.
#[utoipa::path(
    post, path = "/oauth2/revoke", tag = "oauth",
    request_body(content = RevocationRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token is inactive, now or before"),
        OAuthProblems,
    ),
    security((), ("client" = []))
)]
pub async fn revoke(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    context: RequestContext,
    FormParams(form): FormParams,
) -> Result<StatusCode, ApiError> {
    let caller = caller::of_form(&shared, &headers, context.client.ip(), &form).await?;
    let token = form.required("token", usize::MAX)?;
    let revoked = shared.service.revocations.revoke_token(&caller, token, &context.requester()).await;
    if let Err(RevokeError::TooMany(_)) = &revoked {
        shared.metrics.attempts_refused.count(metrics::Limit::Client);
    }
    revoked?;
    Ok(StatusCode::OK)
}

impl From<RevokeError> for ApiError {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::ForeignToken => {
                Self::new(ProblemCode::UnauthorizedClient).description("the token was issued to another client")
            }
            RevokeError::TooMany(wait) => Self::new(ProblemCode::TooManyAttempts).retry_after(wait),
            RevokeError::Failed(failure) => failure.into(),
        }
    }
}
