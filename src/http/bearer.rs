//! The bearer token of a REST request (RFC 6750 §2.1).

use http::HeaderMap;

use crate::domain::Subject;
use crate::http::caller::RETRY_AFTER;
use crate::http::error::{ApiError, Challenge, ProblemCode};
use crate::http::extract::{Authorization, AuthorizationFault, authorization};
use crate::http::middleware::{Caller, RequestFacts, note_caller};
use crate::service::{Bearer, BearerError, Service, Unavailable, WrongAudience};

/// The user of the request's access token.
pub async fn user(service: &Service, headers: &HeaderMap) -> Result<Bearer, ApiError> {
    let bearer = service.sessions.bearer(token(headers)?).await.map_err(refusal)?;
    note_caller(Some(Caller::User(bearer.user)));
    Ok(bearer)
}

/// The answer to a refused bearer token.
pub fn refusal(error: BearerError) -> ApiError {
    match error {
        BearerError::Inactive | BearerError::SessionEnded => ApiError::new(ProblemCode::InvalidToken),
        BearerError::WrongAudience(error) => wrong_audience(&error),
        BearerError::Unavailable(reason) => unavailable(reason),
    }
}

/// 401 for a token whose audiences are only resource servers.
pub fn wrong_audience(_: &WrongAudience) -> ApiError {
    ApiError::new(ProblemCode::InvalidToken).detail(
        "The token's `aud` does not name this service. Use a token whose audience is the issuer: add the issuer to the \
         client's audiences.",
    )
}

/// Facts about the bearer, for the request log.
pub fn facts(bearer: &Bearer) -> RequestFacts {
    RequestFacts {
        caller: Some(Caller::User(bearer.user)),
        subject: Some(Subject::User(bearer.user)),
        ..RequestFacts::default()
    }
}

/// The token in the `Authorization` header.
pub fn token(headers: &HeaderMap) -> Result<&str, ApiError> {
    match authorization(headers) {
        Ok(Some(Authorization::Bearer(token))) => Ok(token.expose()),
        Ok(_) => Err(ApiError::new(ProblemCode::Unauthenticated)),
        Err(AuthorizationFault::Repeated) => {
            Err(ApiError::new(ProblemCode::InvalidRequest).detail("There is more than one Authorization header."))
        }
        Err(AuthorizationFault::Malformed) => {
            Err(ApiError::new(ProblemCode::InvalidToken).challenge(Challenge::BearerInvalidToken))
        }
    }
}

/// 503: no verdict on the token.
pub fn unavailable(reason: Unavailable) -> ApiError {
    ApiError::new(ProblemCode::TemporarilyUnavailable).retry_after(RETRY_AFTER).because(format!("no verdict: {reason}"))
}
