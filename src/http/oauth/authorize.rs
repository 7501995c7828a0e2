//! `/oauth2/authorize`: the URL that strict discovery clients insist on. There is no authorization code flow here.

use crate::http::error::{OAuthCode, OAuthDescription, OAuthError};
use crate::http::oauth::OAuthErrorBody;

/// Answers `unsupported_response_type` to everyone; redirects to nobody.
#[utoipa::path(
    get, path = "/oauth2/authorize", tag = "oauth",
    responses((status = 400, description = "`unsupported_response_type`", body = OAuthErrorBody))
)]
pub async fn authorize() -> OAuthError {
    OAuthError::new(OAuthCode::UnsupportedResponseType, OAuthDescription::ResponseTypeNotOffered)
}
