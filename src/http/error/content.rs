//! An error answer before it is written. Converting an error into a response has no side effects: the middleware, which
//! knows the request id and the path's API, writes and records it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::{Challenge, ErrorShape, ProblemCode};

/// The cause of a failure, for the log only.
pub struct Cause(Box<dyn Error + Send + Sync>);

impl Cause {
    /// Wraps the error that caused a failure.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Cause {
    /// The error and its sources, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Error of one field of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Path of the field, such as `username` or `tokens[3]`.
    pub field: Cow<'static, str>,
    /// Explanation for the caller; never contains input.
    pub detail: Cow<'static, str>,
}

/// The content of an error answer, for every API. An extension of the response until the middleware writes it.
#[derive(Debug)]
pub(crate) struct ErrorContent {
    pub(super) code: ProblemCode,
    pub(super) detail: Option<Cow<'static, str>>,
    pub(super) errors: Vec<FieldError>,
    /// `error` and `error_description` of RFC 6749.
    pub(crate) oauth: (&'static str, Cow<'static, str>),
    pub(super) challenge: Option<Challenge>,
    pub(super) retry_after: Option<Duration>,
    pub(crate) cause: Option<Cause>,
}

impl ErrorContent {
    /// Writes status, headers and body in the format `shape`. Returns the stable code for the log.
    pub(crate) fn write(&self, shape: ErrorShape, request_id: &str, response: &mut Response) -> &'static str {
        let (code, status, challenge) = match shape {
            ErrorShape::Problem => (self.code, self.code.status(), self.challenge.clone()),
            ErrorShape::OAuth => {
                let status = self.oauth_status();
                (self.code, status, (status == StatusCode::UNAUTHORIZED).then_some(Challenge::Basic))
            }
            ErrorShape::ForwardAuth => self.for_a_gateway(),
        };
        let (content_type, body) = match shape {
            ErrorShape::OAuth => ("application/json", self.oauth_object()),
            _ => ("application/problem+json", self.problem_as(code, status, request_id)),
        };
        let is_for_later = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        *response.status_mut() = status;
        *response.body_mut() = Body::from(body);
        let headers = response.headers_mut();
        // The router set it for the empty body of the unwritten error.
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, challenge.value());
        }
        if is_for_later {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(self.retry_after.unwrap_or_default())));
        }
        if shape == ErrorShape::OAuth { self.oauth.0 } else { code.as_str() }
    }

    #[cfg(test)]
    pub(crate) fn problem(&self, request_id: &str) -> Vec<u8> {
        self.problem_as(self.code, self.code.status(), request_id)
    }

    /// RFC 9457.
    fn problem_as(&self, code: ProblemCode, status: StatusCode, request_id: &str) -> Vec<u8> {
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
        let is_recoded = code != self.code;
        let members = Members {
            r#type: code.type_uri(),
            title: code.title(),
            status: status.as_u16(),
            detail: self.detail.as_deref().filter(|_| !is_recoded),
            code: code.as_str(),
            request_id,
            errors: if is_recoded { &[] } else { &self.errors },
        };
        // Serializing text and numbers with string keys cannot fail.
        serde_json::to_vec(&members).unwrap_or_default()
    }

    /// RFC 6749 §5.2.
    fn oauth_object(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Members<'a> {
            error: &'static str,
            error_description: &'a str,
        }
        let members = Members { error: self.oauth.0, error_description: &self.oauth.1 };
        serde_json::to_vec(&members).unwrap_or_default()
    }

    /// RFC 6749 §5.2: 401 only for `invalid_client`, and 400 for every other refusal of a grant.
    fn oauth_status(&self) -> StatusCode {
        match self.code.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.oauth.0 != "invalid_client" => {
                StatusCode::BAD_REQUEST
            }
            status => status,
        }
    }

    /// Gateways understand only 401, 403 and 503. A fault or a timeout becomes 503. An invalid request becomes 401 with
    /// RFC 6750's `invalid_request` (§3.1), because a retry would fail again.
    fn for_a_gateway(&self) -> (ProblemCode, StatusCode, Option<Challenge>) {
        match self.code.status() {
            // 404 means that this listener does not serve forward-auth.
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
                (self.code, status, self.challenge.clone())
            }
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                (ProblemCode::TemporarilyUnavailable, StatusCode::SERVICE_UNAVAILABLE, None)
            }
            _ => (self.code, StatusCode::UNAUTHORIZED, Some(Challenge::BearerMalformed)),
        }
    }
}

/// `Retry-After` in whole seconds, rounded up, at least 1: an early retry would only be refused again.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::response::IntoResponse;
    use serde_json::{Value, json};

    use super::super::ApiError;
    use super::*;

    fn written(error: ApiError, shape: ErrorShape) -> (Response, &'static str) {
        let mut response = error.into_response();
        let failure = response.extensions_mut().remove::<Arc<ErrorContent>>().unwrap();
        let code = failure.write(shape, "req-1", &mut response);
        (response, code)
    }

    async fn body(response: Response) -> Value {
        let bytes = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn l5_retry_after_is_rounded_up() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(30)), 30);
    }

    #[test]
    fn a_cause_prints_the_whole_chain() {
        #[derive(Debug, thiserror::Error)]
        #[error("the session could not be read")]
        struct Outer(#[source] std::io::Error);
        let cause = Cause::new(Outer(std::io::Error::other("disk full")));
        assert_eq!(cause.to_string(), "the session could not be read: disk full");
    }

    #[test]
    fn every_error_names_its_type_and_has_the_headers_of_its_status() {
        for code in ProblemCode::ALL {
            for (shape, content_type) in
                [(ErrorShape::Problem, "application/problem+json"), (ErrorShape::OAuth, "application/json")]
            {
                let (response, _) = written(ApiError::new(*code), shape);
                assert_eq!(response.headers()[CONTENT_TYPE], content_type);
                let status = response.status().as_u16();
                assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), status == 401, "h8 {code:?}");
                assert_eq!(response.headers().contains_key(RETRY_AFTER), matches!(status, 429 | 503), "l5 {code:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_problem_has_the_documented_members() {
        let error = ApiError::invalid_field("username", "is missing").detail("Look at errors.");
        let (response, _) = written(error, ErrorShape::Problem);
        insta::assert_json_snapshot!(body(response).await, @r#"
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

    #[tokio::test]
    async fn s1_an_internal_error_does_not_reveal_its_cause() {
        for shape in [ErrorShape::Problem, ErrorShape::OAuth, ErrorShape::ForwardAuth] {
            let error = ApiError::internal(std::io::Error::other("password=hunter2")).detail("more");
            assert_eq!(error.content().cause.as_ref().unwrap().to_string(), "password=hunter2");
            let text = body(written(error, shape).0).await.to_string();
            assert!(!text.contains("hunter2") && !text.contains("more"), "{text}");
        }
    }

    #[tokio::test]
    async fn h8_a_failed_client_gets_401_a_challenge_and_an_object_that_parses() {
        let (response, code) = written(ApiError::new(ProblemCode::InvalidClient), ErrorShape::OAuth);
        assert_eq!((response.status().as_u16(), code), (401, "invalid_client"));
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Basic realm=\"countersign\", charset=\"UTF-8\"");
        let expected = json!({"error": "invalid_client", "error_description": "client authentication failed"});
        assert_eq!(body(response).await, expected);
    }

    #[test]
    fn h13_descriptions_use_only_the_characters_of_rfc_6749() {
        for code in ProblemCode::ALL {
            let text = ApiError::new(*code).content().oauth.1.to_string();
            assert!(text.bytes().all(|byte| matches!(byte, 0x20 | 0x21 | 0x23..=0x5B | 0x5D..=0x7E)), "{text}");
        }
    }

    #[test]
    fn h1_in_the_oauth_format_only_a_failed_client_is_401_and_a_refused_grant_400() {
        for code in ProblemCode::ALL {
            let expected = match code.status().as_u16() {
                401 | 403 if *code != ProblemCode::InvalidClient => 400,
                status => status,
            };
            assert_eq!(written(ApiError::new(*code), ErrorShape::OAuth).0.status(), expected, "{code:?}");
        }
    }

    #[test]
    fn h8_forward_auth_answers_only_statuses_that_gateways_understand() {
        for code in ProblemCode::ALL.iter().filter(|code| **code != ProblemCode::NotFound) {
            let (response, _) = written(ApiError::new(*code), ErrorShape::ForwardAuth);
            assert!(matches!(response.status().as_u16(), 401 | 403 | 503), "{code:?}");
            let has_challenge = response.headers().contains_key(WWW_AUTHENTICATE);
            assert_eq!(has_challenge, response.status() == 401, "{code:?}");
        }
        for code in [ProblemCode::InvalidRequest, ProblemCode::UriTooLong, ProblemCode::HeadersTooLarge] {
            let (response, logged) = written(ApiError::new(code), ErrorShape::ForwardAuth);
            let challenge = response.headers()[WWW_AUTHENTICATE].to_str().unwrap();
            assert_eq!(challenge, "Bearer realm=\"countersign\", error=\"invalid_request\"");
            assert_eq!((response.status().as_u16(), logged), (401, code.as_str()));
        }
    }
}
