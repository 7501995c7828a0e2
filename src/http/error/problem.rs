//! Errors of the REST endpoints: `application/problem+json` (RFC 9457).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

use super::failure::{self, Failure};
use super::{Cause, Challenge, OAuthError, ProblemCode};
use crate::domain::ParseError;

/// The text of every internal error. The log contains the cause with the request id.
const INTERNAL_DETAIL: &str = "The cause was logged under the request id.";
/// Default `Retry-After` of a 503.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// Error of one field of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Path of the field, such as `username` or `tokens[3]`.
    pub field: Cow<'static, str>,
    /// Explanation for the caller; never contains input.
    pub detail: Cow<'static, str>,
}

/// The parts of a problem that do not depend on the request id.
#[derive(Debug)]
pub(crate) struct Problem {
    code: ProblemCode,
    status: StatusCode,
    detail: Option<Cow<'static, str>>,
    errors: Vec<FieldError>,
}

impl Problem {
    /// The complete body.
    pub(crate) fn render(&self, request_id: &str) -> Vec<u8> {
        #[derive(Serialize)]
        struct Members<'a> {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<&'a str>,
            code: &'static str,
            request_id: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
        }
        let members = Members {
            r#type: self.code.type_uri(),
            title: self.code.title(),
            status: self.status.as_u16(),
            detail: self.detail.as_deref(),
            code: self.code.as_str(),
            request_id,
            errors: &self.errors,
        };
        // Serializing text and numbers with string keys cannot fail.
        serde_json::to_vec(&members).unwrap_or_default()
    }
}

/// An error of `/v1` and `/admin/v1`. The answer contains code, detail and fields; the cause is for the log.
#[derive(Debug)]
pub struct ApiError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    problem: Problem,
    challenge: Option<Challenge>,
    retry_after: Option<Duration>,
    cause: Option<Cause>,
}

impl ApiError {
    /// An error of the catalogue, with the challenge and `Retry-After` of its status.
    pub fn new(code: ProblemCode) -> Self {
        let status = code.status();
        let challenge = match code {
            ProblemCode::InvalidToken => Some(Challenge::BearerInvalidToken),
            ProblemCode::InvalidClient => Some(Challenge::Basic),
            _ if status == StatusCode::UNAUTHORIZED => Some(Challenge::Bearer),
            _ => None,
        };
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS)
            .then_some(DEFAULT_RETRY);
        let detail = (code == ProblemCode::Internal).then_some(Cow::Borrowed(INTERNAL_DETAIL));
        let problem = Problem { code, status, detail, errors: Vec::new() };
        Self(Box::new(Parts { problem, challenge, retry_after, cause: None }))
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

    /// Sets the explanation of this occurrence. An internal error keeps its fixed text.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        if self.0.problem.code != ProblemCode::Internal {
            self.0.problem.detail = Some(detail.into());
        }
        self
    }

    /// Adds the error of a field.
    #[must_use]
    pub fn field(mut self, field: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.problem.errors.push(FieldError { field: field.into(), detail: detail.into() });
        self
    }

    #[must_use]
    pub fn challenge(mut self, challenge: Challenge) -> Self {
        self.0.challenge = Some(challenge);
        self
    }

    /// Replaces the status for a caller that understands only some.
    #[must_use]
    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.0.problem.status = status;
        self
    }

    /// Sets `Retry-After`.
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

    /// The same error with another code; only the cause is kept.
    pub(super) fn recode(self, code: ProblemCode) -> Self {
        let mut recoded = Self::new(code);
        recoded.0.cause = self.0.cause;
        recoded
    }

    /// Copies cause and `Retry-After` to the OAuth form of this error.
    pub(super) fn into_oauth(self, mut error: OAuthError) -> OAuthError {
        if let Some(wait) = self.0.retry_after {
            error = error.retry_after(wait);
        }
        error.caused_by(self.0.cause)
    }

    pub fn code(&self) -> ProblemCode {
        self.0.problem.code
    }
}

impl From<ProblemCode> for ApiError {
    fn from(code: ProblemCode) -> Self {
        Self::new(code)
    }
}

impl IntoResponse for ApiError {
    /// Leaves the body to the middleware, which knows the request id.
    fn into_response(self) -> Response {
        let parts = *self.0;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = parts.problem.status;
        let headers = response.headers_mut();
        failure::set_headers(headers, "application/problem+json", parts.challenge.as_ref(), parts.retry_after);
        let code = parts.problem.code.as_str();
        response.extensions_mut().insert(Failure { code, cause: parts.cause, problem: Some(Arc::new(parts.problem)) });
        response
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};

    use super::*;

    fn render(error: ApiError) -> serde_json::Value {
        let response = error.into_response();
        let failure = response.extensions().get::<Failure>().unwrap();
        serde_json::from_slice(&failure.problem.as_ref().unwrap().render("req-1")).unwrap()
    }

    #[test]
    fn every_error_forbids_caching_and_names_its_type() {
        for code in ProblemCode::ALL {
            let response = ApiError::new(*code).into_response();
            assert_eq!(response.status(), code.status());
            assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            let is_unauthorized = code.status() == StatusCode::UNAUTHORIZED;
            assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), is_unauthorized, "h8 {code:?}");
            let is_for_later = matches!(code.status().as_u16(), 429 | 503);
            assert_eq!(response.headers().contains_key(RETRY_AFTER), is_for_later, "l5 {code:?}");
        }
    }

    #[test]
    fn the_body_has_the_documented_members() {
        let body = render(ApiError::invalid_field("username", "is missing").detail("Look at errors."));
        insta::assert_json_snapshot!(body, @r#"
        {
          "code": "invalid_request",
          "detail": "Look at errors.",
          "errors": [
            {
              "detail": "is missing",
              "field": "username"
            }
          ],
          "request_id": "req-1",
          "status": 400,
          "title": "The request is not valid",
          "type": "urn:countersign:problem:invalid_request"
        }
        "#);
    }

    #[test]
    fn s1_an_internal_error_does_not_reveal_its_cause() {
        let error = ApiError::internal(std::io::Error::other("password=hunter2")).detail("more");
        let response = error.into_response();
        let failure = response.extensions().get::<Failure>().unwrap();
        let body = String::from_utf8(failure.problem.as_ref().unwrap().render("r")).unwrap();
        assert!(!body.contains("hunter2") && body.contains(INTERNAL_DETAIL) && !body.contains("more"));
        assert_eq!(failure.cause.as_ref().unwrap().to_string(), "password=hunter2");
    }
}
