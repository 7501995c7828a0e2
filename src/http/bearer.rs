//! The bearer token of a REST request (RFC 6750 §2.1).

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;

use crate::domain::Subject;
use crate::http::error::{ApiError, ProblemCode};
use crate::http::extract::Authorization;
use crate::http::middleware::{Principal, RequestFacts, note_caller};
use crate::http::state::Shared;
use crate::service::{Bearer, BearerError, Unavailable, WrongAudience};

/// Extracts the user of the request's access token.
pub struct BearerUser(pub Bearer);

impl FromRequestParts<Arc<Shared>> for BearerUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let bearer = shared.service.sessions.bearer(token(&parts.headers)?).await.map_err(refusal)?;
        note_caller(Some(Principal::User(bearer.user)));
        Ok(Self(bearer))
    }
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
        caller: Some(Principal::User(bearer.user)),
        subject: Some(Subject::User(bearer.user)),
        ..RequestFacts::default()
    }
}

/// The token in the `Authorization` header.
pub fn token(headers: &HeaderMap) -> Result<&str, ApiError> {
    match Authorization::of(headers) {
        Authorization::Bearer(Some(token)) => Ok(token),
        Authorization::Bearer(None) => Err(ApiError::new(ProblemCode::InvalidToken)),
        Authorization::Repeated => {
            Err(ApiError::new(ProblemCode::InvalidRequest).detail("There is more than one Authorization header."))
        }
        _ => Err(ApiError::new(ProblemCode::Unauthenticated)),
    }
}

/// 503: no verdict on the token.
pub fn unavailable(reason: Unavailable) -> ApiError {
    ApiError::new(ProblemCode::TemporarilyUnavailable).because(format!("no verdict: {reason}"))
}
