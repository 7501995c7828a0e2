//! Authentication of the client of a request.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};

use crate::http::error::{ApiError, ProblemCode};
use crate::http::extract::{BodyCredentials, Params, header_credentials, only_authorization};
use crate::http::middleware::{self, note_caller};
use crate::http::state::Shared;
use crate::service::{BUILT_IN_CLIENT, Caller, CallerError, ClientAuth, Failure, HashingError};
use crate::telemetry::metrics;

/// The client of an OAuth request: an authenticated client, or a public client by its id.
pub async fn of_form(shared: &Shared, headers: &HeaderMap, address: IpAddr, form: &Params) -> Result<Caller, ApiError> {
    let body = BodyCredentials::of_form(form)?;
    let header = if body.is_empty() { only_authorization(headers).ok().flatten() } else { None };
    let header = header.map(HeaderValue::as_bytes);
    if let Some(caller) = header.and_then(|header| shared.service.clients.cached_client(header)) {
        note_caller(middleware::Principal::of(&caller));
        return Ok(caller);
    }
    let before = shared.service.clients.before_authentication();
    // On the heap, so that the future of the usual case stays small.
    let caller = Box::pin(authenticate(shared, headers, address, body, None)).await?;
    if let Some(header) = header {
        shared.service.clients.cache_client(header, &caller, &before);
    }
    Ok(caller)
}

/// The client of a REST request: `client_id` in the body, with Basic authentication for a confidential client. Without
/// both, the built-in client.
pub async fn of_rest(
    shared: &Shared,
    headers: &HeaderMap,
    address: IpAddr,
    client_id: Option<&str>,
) -> Result<Caller, ApiError> {
    let body = BodyCredentials { client_id, ..BodyCredentials::default() };
    authenticate(shared, headers, address, body, Some(BUILT_IN_CLIENT)).await
}

/// Authenticates the client that header and body name, or else `default`.
async fn authenticate(
    shared: &Shared,
    headers: &HeaderMap,
    address: IpAddr,
    body: BodyCredentials<'_>,
    default: Option<&str>,
) -> Result<Caller, ApiError> {
    let header = header_credentials(headers)?;
    let auth = match body.with(header.as_deref())? {
        ClientAuth::Named(None) => ClientAuth::Named(default),
        auth => auth,
    };
    let caller = shared.service.clients.authenticate(&auth, address).await.map_err(|error| match error {
        CallerError::Refused => ApiError::new(ProblemCode::InvalidClient),
        CallerError::TooManyFailures { retry_after } => {
            shared.metrics.attempts_refused.count(metrics::Limit::Client);
            ApiError::new(ProblemCode::TooManyAttempts).retry_after(retry_after)
        }
        CallerError::Failed(failure) => failure.into(),
    })?;
    note_caller(middleware::Principal::of(&caller));
    Ok(caller)
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let unavailable = |cause| Self::new(ProblemCode::TemporarilyUnavailable).because(cause);
        match failure {
            Failure::Unavailable(cause) | Failure::UnreadableRow(cause) => unavailable(cause),
            Failure::NotChanged(cause) => unavailable(cause)
                .detail("The database is unavailable. Nothing was changed.")
                .description("the database is unavailable, and nothing was changed"),
            Failure::OutcomeUnknown(cause) => unavailable(cause)
                .detail(OUTCOME_UNKNOWN)
                .description("the answer of the database was lost, and the change may have been made"),
            Failure::Internal(cause) => Self::internal(cause),
        }
    }
}

const OUTCOME_UNKNOWN: &str =
    "The answer of the database was lost. The change may have been made: read the state before you repeat the request.";

impl From<HashingError> for ApiError {
    fn from(error: HashingError) -> Self {
        match error {
            HashingError::Busy { retry_after } => Self::new(ProblemCode::Busy).retry_after(retry_after),
            HashingError::Failed => Self::internal(error),
        }
    }
}
