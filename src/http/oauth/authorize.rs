//! `/oauth2/authorize`: strict discovery clients require this URL. The service has no authorization code flow.

use crate::http::error::ApiError;
use crate::http::oauth::OAuthErrorBody;

/// Answers `unsupported_response_type` to every request; never redirects.
#[utoipa::path(
    get, path = "/oauth2/authorize", tag = "oauth",
    responses((status = 400, description = "`unsupported_response_type`", body = OAuthErrorBody))
)]
pub async fn authorize() -> ApiError {
    ApiError::invalid_form("the response type is not offered").oauth("unsupported_response_type")
}
