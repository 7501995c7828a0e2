//! Errors raised outside endpoints (unknown path, wrong method, timeout, panic), in the error format of the path's API.

use axum::response::{IntoResponse, Response};

use http::StatusCode;

use super::{ApiError, Challenge, OAuthCode, OAuthDescription, OAuthError, ProblemCode};

/// The error format of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorShape {
    /// `/oauth2/*`: RFC 6749 objects.
    OAuth,
    /// `/v1/verify`: gateways understand only 401, 403 and 503. Faults and timeouts are 503. An invalid request is 401
    /// with RFC 6750's `invalid_request` (§3.1), because a retry would fail again.
    ForwardAuth,
    /// Everything else: RFC 9457 problems.
    Problem,
}

impl ErrorShape {
    /// The error format of `path`.
    pub fn of(path: &str) -> Self {
        if path.starts_with("/oauth2/") {
            Self::OAuth
        } else if path == "/v1/verify" || path.starts_with("/v1/verify/") {
            Self::ForwardAuth
        } else {
            Self::Problem
        }
    }

    /// The error format of `path`, which may begin with `base`.
    pub fn below(base: &str, path: &str) -> Self {
        Self::of(Self::path_below(base, path))
    }

    /// `path` without `base`, if it begins with it.
    pub fn path_below<'a>(base: &str, path: &'a str) -> &'a str {
        path.strip_prefix(base).filter(|inner| inner.starts_with('/')).unwrap_or(path)
    }

    /// Converts `error` to an answer of this format; keeps cause and `Retry-After`.
    pub fn answer(self, error: ApiError) -> Response {
        match self {
            Self::Problem => error.into_response(),
            Self::OAuth => oauth(error).into_response(),
            Self::ForwardAuth => match error.code().status() {
                // 404 means that this listener does not serve forward-auth.
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => error.into_response(),
                status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                    error.recode(ProblemCode::TemporarilyUnavailable).into_response()
                }
                _ => error.status(StatusCode::UNAUTHORIZED).challenge(Challenge::BearerMalformed).into_response(),
            },
        }
    }
}

fn oauth(error: ApiError) -> OAuthError {
    let code = error.code();
    let (oauth_code, description) = match code {
        ProblemCode::NotFound => (OAuthCode::InvalidRequest, OAuthDescription::NoSuchEndpoint),
        ProblemCode::MethodNotAllowed => (OAuthCode::InvalidRequest, OAuthDescription::MethodNotAllowed),
        ProblemCode::PayloadTooLarge => (OAuthCode::InvalidRequest, OAuthDescription::BodyTooLarge),
        ProblemCode::RequestTimeout => (OAuthCode::InvalidRequest, OAuthDescription::BodyTimeout),
        ProblemCode::TooManyAttempts => (OAuthCode::TemporarilyUnavailable, OAuthDescription::TooManyRequests),
        ProblemCode::Internal => (OAuthCode::ServerError, OAuthDescription::Internal),
        ProblemCode::Busy | ProblemCode::TemporarilyUnavailable => {
            (OAuthCode::TemporarilyUnavailable, OAuthDescription::Unavailable)
        }
        ProblemCode::InvalidClient => (OAuthCode::InvalidClient, OAuthDescription::ClientAuthenticationFailed),
        ProblemCode::UriTooLong => (OAuthCode::InvalidRequest, OAuthDescription::TargetTooLong),
        ProblemCode::HeadersTooLarge => (OAuthCode::InvalidRequest, OAuthDescription::HeaderTooLarge),
        // Endpoints refuse invalid forms themselves, so the head is at fault.
        _ => (OAuthCode::InvalidRequest, OAuthDescription::MalformedHead),
    };
    error.into_oauth(OAuthError::new(oauth_code, description).status(code.status()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_selects_the_error_format() {
        assert_eq!(ErrorShape::of("/oauth2/token"), ErrorShape::OAuth);
        assert_eq!(ErrorShape::of("/v1/verify"), ErrorShape::ForwardAuth);
        assert_eq!(ErrorShape::of("/v1/verify/app/login"), ErrorShape::ForwardAuth);
        for path in ["/v1/verifyx", "/v1/login", "/oauth2", "/", "*", ""] {
            assert_eq!(ErrorShape::of(path), ErrorShape::Problem, "{path}");
        }
    }

    #[test]
    fn paths_below_the_issuers_path_have_the_same_error_format() {
        assert_eq!(ErrorShape::below("/auth", "/auth/oauth2/token"), ErrorShape::OAuth);
        assert_eq!(ErrorShape::below("/auth", "/oauth2/token"), ErrorShape::OAuth);
        assert_eq!(ErrorShape::below("/auth", "/auth/v1/verify"), ErrorShape::ForwardAuth);
        assert_eq!(ErrorShape::below("/auth", "/authoauth2/token"), ErrorShape::Problem);
        assert_eq!(ErrorShape::below("", "/oauth2/token"), ErrorShape::OAuth);
    }

    #[test]
    fn h1_every_error_keeps_its_status_in_the_oauth_format() {
        for code in ProblemCode::ALL {
            let response = ErrorShape::OAuth.answer(ApiError::new(*code));
            assert_eq!(response.status(), code.status(), "{code:?}");
        }
    }

    #[test]
    fn h8_forward_auth_answers_only_statuses_that_gateways_understand() {
        for code in ProblemCode::ALL.iter().filter(|code| **code != ProblemCode::NotFound) {
            let response = ErrorShape::ForwardAuth.answer(ApiError::new(*code));
            assert!(matches!(response.status().as_u16(), 401 | 403 | 503), "{code:?}");
            let has_challenge = response.headers().contains_key(http::header::WWW_AUTHENTICATE);
            assert_eq!(has_challenge, response.status() == 401, "{code:?}");
        }
        for code in [ProblemCode::InvalidRequest, ProblemCode::UriTooLong, ProblemCode::HeadersTooLarge] {
            let response = ErrorShape::ForwardAuth.answer(ApiError::new(code));
            let challenge = response.headers()[http::header::WWW_AUTHENTICATE].to_str().unwrap();
            assert_eq!(
                (response.status().as_u16(), challenge),
                (401, "Bearer realm=\"countersign\", error=\"invalid_request\"")
            );
            assert_eq!(
                response.extensions().get::<super::super::Failure>().unwrap().code,
                code.as_str(),
                "for the log"
            );
        }
    }

    #[test]
    fn forward_auth_answers_503_for_a_fault() {
        let response = ErrorShape::ForwardAuth.answer(ApiError::internal("boom"));
        assert_eq!(response.status(), 503);
        assert!(response.extensions().get::<super::super::Failure>().unwrap().cause.is_some());
    }
}
