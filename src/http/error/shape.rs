//! Errors that no endpoint raises itself (no such path, wrong method, too slow, a panic), in the shape of the API that
//! the path belongs to.

use axum::response::{IntoResponse, Response};

use http::StatusCode;

use super::{ApiError, Challenge, OAuthCode, OAuthDescription, OAuthError, ProblemCode};

/// Which API a path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorShape {
    /// `/oauth2/*`: RFC 6749 objects.
    OAuth,
    /// `/v1/verify`: gateways understand 401, 403 and 503 alone. What fails on our side or could not be waited for is 503; a
    /// request that cannot be read is 401 with RFC 6750's `invalid_request` (§3.1): asked again, it would fail again.
    ForwardAuth,
    /// Everything else: RFC 9457 problems.
    Problem,
}

impl ErrorShape {
    /// The shape of errors on `path`.
    pub fn of(path: &str) -> Self {
        if path.starts_with("/oauth2/") {
            Self::OAuth
        } else if path == "/v1/verify" || path.starts_with("/v1/verify/") {
            Self::ForwardAuth
        } else {
            Self::Problem
        }
    }

    /// The shape of errors on `path`, which may begin with `base`.
    pub fn below(base: &str, path: &str) -> Self {
        Self::of(Self::path_below(base, path))
    }

    /// `path` without `base`, if it begins with it.
    pub fn path_below<'a>(base: &str, path: &'a str) -> &'a str {
        path.strip_prefix(base).filter(|inner| inner.starts_with('/')).unwrap_or(path)
    }

    /// The answer for `error` in this shape. The cause and the waiting time are kept.
    pub fn answer(self, error: ApiError) -> Response {
        match self {
            Self::Problem => error.into_response(),
            Self::OAuth => oauth(error).into_response(),
            Self::ForwardAuth => match error.code().status() {
                // Not found: this listener has no forward-auth.
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
        // Whatever is in a form is refused by its endpoint.
        _ => (OAuthCode::InvalidRequest, OAuthDescription::MalformedHead),
    };
    error.into_oauth(OAuthError::new(oauth_code, description).status(code.status()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_decides_the_shape() {
        assert_eq!(ErrorShape::of("/oauth2/token"), ErrorShape::OAuth);
        assert_eq!(ErrorShape::of("/v1/verify"), ErrorShape::ForwardAuth);
        assert_eq!(ErrorShape::of("/v1/verify/app/login"), ErrorShape::ForwardAuth);
        for path in ["/v1/verifyx", "/v1/login", "/oauth2", "/", "*", ""] {
            assert_eq!(ErrorShape::of(path), ErrorShape::Problem, "{path}");
        }
    }

    #[test]
    fn below_the_issuers_path_the_same_shapes_hold() {
        assert_eq!(ErrorShape::below("/auth", "/auth/oauth2/token"), ErrorShape::OAuth);
        assert_eq!(ErrorShape::below("/auth", "/oauth2/token"), ErrorShape::OAuth);
        assert_eq!(ErrorShape::below("/auth", "/auth/v1/verify"), ErrorShape::ForwardAuth);
        assert_eq!(ErrorShape::below("/auth", "/authoauth2/token"), ErrorShape::Problem);
        assert_eq!(ErrorShape::below("", "/oauth2/token"), ErrorShape::OAuth);
    }

    #[test]
    fn h1_every_failure_keeps_its_status_in_the_oauth_shape() {
        for code in ProblemCode::ALL {
            let response = ErrorShape::OAuth.answer(ApiError::new(*code));
            assert_eq!(response.status(), code.status(), "{code:?}");
        }
    }

    #[test]
    fn h8_forward_auth_knows_no_status_that_gateways_do_not() {
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
    fn forward_auth_turns_our_faults_into_503() {
        let response = ErrorShape::ForwardAuth.answer(ApiError::internal("boom"));
        assert_eq!(response.status(), 503);
        assert!(response.extensions().get::<super::super::Failure>().unwrap().cause.is_some());
    }
}
