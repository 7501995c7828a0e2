//! The path parameter of an endpoint.

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;

use crate::http::error::{ApiError, ProblemCode};

/// The last parameter of the matched path, decoded. A segment that is not valid UTF-8 matches no resource: 404.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSegment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathSegment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let not_found = || ApiError::new(ProblemCode::NotFound);
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| not_found())?;
        params.iter().last().map(|(_, value)| Self(value.to_owned())).ok_or_else(not_found)
    }
}
