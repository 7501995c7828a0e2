//! Errors of `/oauth2/*`: RFC 6749 §5.2 objects.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::failure::{self, Failure};
use super::{Cause, Challenge};

/// Default `Retry-After` of a 503.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// The `error` of an OAuth answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OAuthCode {
    /// RFC 6749 §5.2: malformed, repeated or missing parameters.
    InvalidRequest,
    /// RFC 6749 §5.2: client authentication failed; always 401 here.
    InvalidClient,
    /// RFC 6749 §5.2: the refresh token is invalid, expired, revoked or another client's.
    InvalidGrant,
    /// RFC 6749 §5.2: the client is not allowed to use this grant.
    UnauthorizedClient,
    /// RFC 6749 §5.2.
    UnsupportedGrantType,
    /// RFC 6749 §5.2.
    InvalidScope,
    /// RFC 8707 §2: an audience that cannot be granted.
    InvalidTarget,
    /// RFC 7009 §2.2.1.
    UnsupportedTokenType,
    /// RFC 6749 §4.1.2.1: the answer of the authorization endpoint.
    UnsupportedResponseType,
    /// RFC 6749 §4.1.2.1, with 500.
    ServerError,
    /// RFC 6749 §4.1.2.1, with 503: retry later.
    TemporarilyUnavailable,
}

impl OAuthCode {
    /// The member `error` of the answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::UnsupportedTokenType => "unsupported_token_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::ServerError => "server_error",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidClient => StatusCode::UNAUTHORIZED,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// The complete list of `error_description` texts (security.md H13). A name in a text is a parameter of the API, never
/// input of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OAuthDescription {
    /// The content type is not a form.
    NotAForm,
    /// The request line or a header field is malformed.
    MalformedHead,
    /// The request target exceeds its limit.
    TargetTooLong,
    /// The header exceeds its limits.
    HeaderTooLarge,
    /// Invalid percent-encoding, invalid UTF-8, or a NUL.
    MalformedForm,
    /// RFC 6749 §3.2: parameters are not repeated.
    RepeatedParameter,
    /// The number of parameters exceeds its limit.
    TooManyParameters,
    /// This parameter is missing or empty.
    Missing(&'static str),
    /// This parameter exceeds its limit.
    TooLong(&'static str),
    /// The syntax of this parameter does not allow its value.
    Malformed(&'static str),
    /// The body exceeds its limit.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body could not be read.
    BodyUnreadable,
    /// Two `Authorization` headers.
    RepeatedAuthorization,
    /// RFC 6749 §2.3: one method of client authentication per request.
    SeveralAuthentications,
    /// Client authentication failed; the answer has no reason.
    ClientAuthenticationFailed,
    /// The grant is unknown, expired, revoked or another client's; one text for all.
    GrantNotValid,
    /// The client may not use this grant.
    GrantNotAllowed,
    /// The grant type is not supported.
    GrantNotOffered,
    /// A scope cannot be granted.
    ScopeNotGranted,
    /// An audience cannot be granted.
    AudienceNotGranted,
    /// The token belongs to another client.
    NotYourToken,
    /// The service has no authorization endpoint.
    ResponseTypeNotOffered,
    /// The endpoint does not support the method.
    MethodNotAllowed,
    /// The path does not exist.
    NoSuchEndpoint,
    /// The request took too long.
    TooSlow,
    /// A fault of the service.
    Internal,
    /// The replica is unavailable.
    Unavailable,
    /// The database is unavailable, and nothing was changed.
    NotChanged,
    /// The answer of the database was lost.
    OutcomeUnknown,
    /// The caller reached a rate limit.
    TooManyRequests,
}

impl fmt::Display for OAuthDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Missing(name) => return write!(f, "the parameter `{name}` is missing"),
            Self::TooLong(name) => return write!(f, "the parameter `{name}` is too long"),
            Self::Malformed(name) => return write!(f, "the parameter `{name}` is malformed"),
            Self::NotAForm => "the body must be application/x-www-form-urlencoded in UTF-8",
            Self::MalformedHead => "the request line or a header field is malformed",
            Self::TargetTooLong => "the request target is too long",
            Self::HeaderTooLarge => "the request header is too large",
            Self::MalformedForm => "the form is malformed",
            Self::RepeatedParameter => "a parameter is repeated",
            Self::TooManyParameters => "there are too many parameters",
            Self::BodyTooLarge => "the body is too large",
            Self::BodyTimeout => "the body did not arrive in time",
            Self::BodyUnreadable => "the body could not be read",
            Self::RepeatedAuthorization => "there is more than one Authorization header",
            Self::SeveralAuthentications => "there is more than one client authentication",
            Self::ClientAuthenticationFailed => "client authentication failed",
            Self::GrantNotValid => "the grant is not valid",
            Self::GrantNotAllowed => "the client may not use this grant",
            Self::GrantNotOffered => "the grant type is not offered",
            Self::ScopeNotGranted => "the scope cannot be granted",
            Self::AudienceNotGranted => "the audience cannot be granted",
            Self::NotYourToken => "the token was issued to another client",
            Self::ResponseTypeNotOffered => "the response type is not offered",
            Self::MethodNotAllowed => "the method is not allowed here",
            Self::NoSuchEndpoint => "there is no such endpoint",
            Self::TooSlow => "the request took too long",
            Self::Internal => "something went wrong on our side; the cause was logged under the request id",
            Self::Unavailable => "the service is temporarily unavailable",
            Self::NotChanged => "the database is unavailable, and nothing was changed",
            Self::OutcomeUnknown => "the answer of the database was lost, and the change may have been made",
            Self::TooManyRequests => "too many requests",
        };
        f.write_str(text)
    }
}

/// An error of an OAuth endpoint.
#[derive(Debug)]
pub struct OAuthError {
    code: OAuthCode,
    status: StatusCode,
    description: OAuthDescription,
    retry_after: Option<Duration>,
    cause: Option<Cause>,
}

impl OAuthError {
    /// An error with the standard's status for `code`.
    pub fn new(code: OAuthCode, description: OAuthDescription) -> Self {
        let retry_after = (code == OAuthCode::TemporarilyUnavailable).then_some(DEFAULT_RETRY);
        Self { code, status: code.status(), description, retry_after, cause: None }
    }

    /// `invalid_request`.
    pub fn invalid_request(description: OAuthDescription) -> Self {
        Self::new(OAuthCode::InvalidRequest, description)
    }

    /// `invalid_client`: one answer for every reason (security.md I1).
    pub fn invalid_client() -> Self {
        Self::new(OAuthCode::InvalidClient, OAuthDescription::ClientAuthenticationFailed)
    }

    /// A fault: a fixed text for the caller, the cause for the log.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(OAuthCode::ServerError, OAuthDescription::Internal).because(cause)
    }

    /// 503: the replica is unavailable.
    pub fn unavailable(retry_after: Duration) -> Self {
        Self::new(OAuthCode::TemporarilyUnavailable, OAuthDescription::Unavailable).retry_after(retry_after)
    }

    /// 429: the caller reached a rate limit.
    pub fn too_many_requests(retry_after: Duration) -> Self {
        Self::new(OAuthCode::TemporarilyUnavailable, OAuthDescription::TooManyRequests)
            .status(StatusCode::TOO_MANY_REQUESTS)
            .retry_after(retry_after)
    }

    /// Replaces the description with a more precise one.
    #[must_use]
    pub fn described(self, description: OAuthDescription) -> Self {
        Self { description, ..self }
    }

    /// Replaces the status with a more precise one (413, 405, 429).
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Sets `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Sets the cause for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(Cause::new(cause));
        self
    }

    pub(super) fn caused_by(mut self, cause: Option<Cause>) -> Self {
        self.cause = cause;
        self
    }

    pub const fn code(&self) -> OAuthCode {
        self.code
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let code = self.code.as_str();
        // Codes and descriptions need no escapes in JSON; a test checks their characters.
        let body = format!(r#"{{"error":"{code}","error_description":"{}"}}"#, self.description);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let challenge = (self.status == StatusCode::UNAUTHORIZED).then_some(Challenge::Basic);
        failure::set_headers(response.headers_mut(), "application/json", challenge.as_ref(), self.retry_after);
        response.extensions_mut().insert(Failure { code, cause: self.cause, problem: None });
        response
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};

    use super::*;

    const DESCRIPTIONS: [OAuthDescription; 28] = [
        OAuthDescription::NotAForm,
        OAuthDescription::MalformedForm,
        OAuthDescription::RepeatedParameter,
        OAuthDescription::TooManyParameters,
        OAuthDescription::Missing("client_assertion_type"),
        OAuthDescription::TooLong("token"),
        OAuthDescription::Malformed("scope"),
        OAuthDescription::BodyTooLarge,
        OAuthDescription::BodyTimeout,
        OAuthDescription::BodyUnreadable,
        OAuthDescription::RepeatedAuthorization,
        OAuthDescription::SeveralAuthentications,
        OAuthDescription::ClientAuthenticationFailed,
        OAuthDescription::GrantNotValid,
        OAuthDescription::GrantNotAllowed,
        OAuthDescription::GrantNotOffered,
        OAuthDescription::ScopeNotGranted,
        OAuthDescription::AudienceNotGranted,
        OAuthDescription::NotYourToken,
        OAuthDescription::ResponseTypeNotOffered,
        OAuthDescription::MethodNotAllowed,
        OAuthDescription::NoSuchEndpoint,
        OAuthDescription::TooSlow,
        OAuthDescription::Internal,
        OAuthDescription::Unavailable,
        OAuthDescription::NotChanged,
        OAuthDescription::OutcomeUnknown,
        OAuthDescription::TooManyRequests,
    ];

    #[test]
    fn h13_descriptions_use_only_the_characters_of_rfc_6749() {
        for description in DESCRIPTIONS {
            let text = description.to_string();
            assert!(text.bytes().all(|byte| matches!(byte, 0x20 | 0x21 | 0x23..=0x5B | 0x5D..=0x7E)), "{text}");
        }
    }

    #[tokio::test]
    async fn h8_a_failed_client_gets_401_a_challenge_and_an_object_that_parses() {
        let response = OAuthError::invalid_client().into_response();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Basic realm=\"countersign\", charset=\"UTF-8\"");
        let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"error": "invalid_client", "error_description": "client authentication failed"})
        );
    }

    #[test]
    fn i10_an_unavailable_replica_answers_retry_after() {
        let response = OAuthError::unavailable(Duration::from_millis(1500)).into_response();
        assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (503, &"2".parse().unwrap()));
    }
}
