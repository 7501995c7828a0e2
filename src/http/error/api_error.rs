//! The error of every endpoint.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::content::{Cause, ErrorContent, FieldError};
use super::{Challenge, ProblemCode};
use crate::domain::ParseError;

/// The text of every internal error. The log contains the cause with the request id.
const INTERNAL_DETAIL: &str = "The cause was logged under the request id.";

/// An error of an endpoint, in the terms of every API. The answer contains code, detail and fields; the cause is for the
/// log.
#[derive(Debug)]
pub struct ApiError(Box<ErrorContent>);

impl ApiError {
    /// An error of the catalogue, with the challenge of its status.
    pub fn new(code: ProblemCode) -> Self {
        let challenge = match code {
            ProblemCode::InvalidToken => Some(Challenge::BearerInvalidToken),
            ProblemCode::InvalidClient => Some(Challenge::Basic),
            _ if code.status() == StatusCode::UNAUTHORIZED => Some(Challenge::Bearer),
            _ => None,
        };
        let detail = (code == ProblemCode::Internal).then_some(Cow::Borrowed(INTERNAL_DETAIL));
        let (error, description) = oauth(code);
        Self(Box::new(ErrorContent {
            code,
            detail,
            errors: Vec::new(),
            oauth: (error, Cow::Borrowed(description)),
            challenge,
            retry_after: None,
            cause: None,
        }))
    }

    /// A fault: a fixed text for the caller, the cause for the log.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(ProblemCode::Internal).because(cause)
    }

    /// `invalid_request` because of one field.
    pub fn invalid_field(field: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ProblemCode::InvalidRequest).field(field, detail)
    }

    /// `invalid_request` because a field does not parse.
    pub fn unparsable(field: impl Into<Cow<'static, str>>, error: &ParseError) -> Self {
        Self::invalid_field(field, error.0)
    }

    /// `invalid_request` of an OAuth endpoint.
    pub fn invalid_form(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ProblemCode::InvalidRequest).description(description)
    }

    /// Sets the explanation of this occurrence. An internal error keeps its fixed text.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        if self.0.code != ProblemCode::Internal {
            self.0.detail = Some(detail.into());
        }
        self
    }

    /// Sets the `error_description` of an OAuth answer: a fixed text, which may name a parameter of the API but contains
    /// no input (security.md H13).
    #[must_use]
    pub fn description(mut self, description: impl Into<Cow<'static, str>>) -> Self {
        self.0.oauth.1 = description.into();
        self
    }

    /// Sets the `error` of an OAuth answer that has no equivalent in the catalogue.
    #[must_use]
    pub fn oauth(mut self, error: &'static str) -> Self {
        self.0.oauth.0 = error;
        self
    }

    /// Adds the error of a field.
    #[must_use]
    pub fn field(mut self, field: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.errors.push(FieldError { field: field.into(), detail: detail.into() });
        self
    }

    #[must_use]
    pub fn challenge(mut self, challenge: Challenge) -> Self {
        self.0.challenge = Some(challenge);
        self
    }

    /// Sets `Retry-After`; the default is one second.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Sets the cause for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.cause = Some(Cause::new(cause));
        self
    }

    /// 204 if a resource was found, or else 404.
    pub fn no_content(was_found: bool) -> Result<StatusCode, Self> {
        if was_found { Ok(StatusCode::NO_CONTENT) } else { Err(Self::new(ProblemCode::NotFound)) }
    }

    pub fn code(&self) -> ProblemCode {
        self.0.code
    }

    pub(crate) fn into_content(self) -> Arc<ErrorContent> {
        self.0.into()
    }

    #[cfg(test)]
    pub(crate) fn content(&self) -> &ErrorContent {
        &self.0
    }
}

impl From<ProblemCode> for ApiError {
    fn from(code: ProblemCode) -> Self {
        Self::new(code)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.0.code.status().into_response();
        response.extensions_mut().insert(self.into_content());
        response
    }
}

/// `error` (RFC 6749 §5.2, RFC 8707 §2) and `error_description` of a code.
const fn oauth(code: ProblemCode) -> (&'static str, &'static str) {
    match code {
        ProblemCode::InvalidClient => ("invalid_client", "client authentication failed"),
        ProblemCode::InvalidRefreshToken | ProblemCode::RefreshTokenReused => {
            ("invalid_grant", "the grant is not valid")
        }
        ProblemCode::UnauthorizedClient => ("unauthorized_client", "the client may not use this grant"),
        ProblemCode::InvalidScope => ("invalid_scope", "the scope cannot be granted"),
        ProblemCode::InvalidAudience => ("invalid_target", "the audience cannot be granted"),
        ProblemCode::NotFound => ("invalid_request", "there is no such endpoint"),
        ProblemCode::MethodNotAllowed => ("invalid_request", "the method is not allowed here"),
        ProblemCode::PayloadTooLarge => ("invalid_request", "the body is too large"),
        ProblemCode::RequestTimeout => ("invalid_request", "the body did not arrive in time"),
        ProblemCode::UriTooLong => ("invalid_request", "the request target is too long"),
        ProblemCode::HeadersTooLarge => ("invalid_request", "the request header is too large"),
        ProblemCode::TooManyAttempts => ("temporarily_unavailable", "too many requests"),
        ProblemCode::Busy | ProblemCode::TemporarilyUnavailable => {
            ("temporarily_unavailable", "the service is temporarily unavailable")
        }
        ProblemCode::Internal => {
            ("server_error", "something went wrong on our side; the cause was logged under the request id")
        }
        // Endpoints describe what is wrong with a form, so the head is at fault.
        _ => ("invalid_request", "the request line or a header field is malformed"),
    }
}
