//! `POST /oauth2/revoke` (RFC 7009).

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::http::caller;
use crate::http::error::{OAuthCode, OAuthDescription, OAuthError};
use crate::http::extract::FormParams;
use crate::http::oauth::OAuthProblems;
use crate::http::requester::{Address, RequestedBy};
use crate::http::state::Shared;
use crate::service::RevokeError;

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
    Address(address): Address,
    RequestedBy(from): RequestedBy,
    form: FormParams,
) -> Result<Response, OAuthError> {
    let caller = caller::of_form(&shared, &headers, address, &form).await?;
    let token = form.required("token", usize::MAX)?;
    shared.service.revocations.revoke_token(&caller, token, &from).await?;
    Ok((StatusCode::OK, [(CACHE_CONTROL, HeaderValue::from_static("no-store"))]).into_response())
}

impl From<RevokeError> for OAuthError {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::ForeignToken => Self::new(OAuthCode::UnauthorizedClient, OAuthDescription::NotYourToken),
            RevokeError::TooMany(wait) => Self::too_many_requests(wait),
            RevokeError::Failed(failure) => caller::oauth_failure(failure),
        }
    }
}
