//! Errors that no endpoint raises itself (no such path, wrong method, too slow, a panic), in the shape of the API that
//! the path belongs to.

use axum::response::{IntoResponse, Response};

use super::{ApiError, OAuthCode, OAuthDescription, OAuthError, ProblemCode};

/// Which API a path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorShape {
    /// `/oauth2/*`: RFC 6749 objects.
    OAuth,
    /// `/v1/verify`: gateways understand 401, 403 and 503 alone, so whatever fails on our side is 503.
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
        let inner = path.strip_prefix(base).filter(|inner| inner.starts_with('/'));
        Self::of(inner.unwrap_or(path))
    }

    /// The answer for `error` in this shape. The cause and the waiting time are kept.
    pub fn answer(self, error: ApiError) -> Response {
        match self {
            Self::Problem => error.into_response(),
            Self::OAuth => oauth(error).into_response(),
            Self::ForwardAuth if error.code().status().is_server_error() => {
                error.recode(ProblemCode::TemporarilyUnavailable).into_response()
            }
            Self::ForwardAuth => error.into_response(),
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
        _ => (OAuthCode::InvalidRequest, OAuthDescription::MalformedForm),
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
    fn forward_auth_turns_our_faults_into_503() {
        let response = ErrorShape::ForwardAuth.answer(ApiError::internal("boom"));
        assert_eq!(response.status(), 503);
        assert!(response.extensions().get::<super::super::Failure>().unwrap().cause.is_some());
    }
}
