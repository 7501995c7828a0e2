//! Authentication of the client of a request.

use std::net::IpAddr;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use crate::http::error::{ApiError, OAuthCode, OAuthDescription, OAuthError, ProblemCode};
use crate::http::extract::{BodyCredentials, ClientCredentialsInput, FormParams};
use crate::http::middleware::{self, note_caller};
use crate::http::state::Shared;
use crate::service::{BUILT_IN_CLIENT, Caller, CallerError, ClientAuth, Failure, HashingError};
use crate::telemetry::metrics;

/// The client of an OAuth request: an authenticated client, or a public client by its id.
pub async fn of_form(
    shared: &Shared,
    headers: &HeaderMap,
    address: IpAddr,
    form: &FormParams,
) -> Result<Caller, OAuthError> {
    let body = BodyCredentials::of_form(form)?;
    let header = if body.is_empty() { sole_authorization(headers) } else { None };
    if let Some(caller) = header.and_then(|header| shared.service.clients.cached_client(header)) {
        note_caller(middleware::Caller::of(&caller));
        return Ok(caller);
    }
    let before = shared.service.clients.before_authentication();
    let input = ClientCredentialsInput::gather(headers, body)?;
    let auth = credentials_of(&input, None);
    // On the heap, so that the future of the usual case stays small.
    let caller = Box::pin(authenticate(shared, &auth, address)).await.map_err(|error| match error {
        CallerError::Refused => OAuthError::invalid_client(),
        CallerError::TooManyFailures { retry_after } => OAuthError::too_many_requests(retry_after),
        CallerError::Failed(failure) => oauth_failure(failure),
    })?;
    if let Some(header) = header {
        shared.service.clients.cache_client(header, &caller, &before);
    }
    Ok(caller)
}

/// The `Authorization` header, if there is exactly one.
fn sole_authorization(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
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
    let input = ClientCredentialsInput::gather(headers, body).map_err(|error| match error.code() {
        // Two headers, or different clients in header and body (security.md H3).
        OAuthCode::InvalidRequest => {
            ApiError::new(ProblemCode::InvalidRequest).detail("The client authenticates in more than one way.")
        }
        _ => ApiError::new(ProblemCode::InvalidClient),
    })?;
    authenticate(shared, &credentials_of(&input, Some(BUILT_IN_CLIENT)), address).await.map_err(|error| match error {
        CallerError::Refused => ApiError::new(ProblemCode::InvalidClient),
        CallerError::TooManyFailures { retry_after } => {
            ApiError::new(ProblemCode::TooManyAttempts).retry_after(retry_after)
        }
        CallerError::Failed(failure) => failure.into(),
    })
}

async fn authenticate(shared: &Shared, auth: &ClientAuth<'_>, address: IpAddr) -> Result<Caller, CallerError> {
    let caller = shared.service.clients.authenticate(auth, address).await;
    match &caller {
        Ok(caller) => note_caller(middleware::Caller::of(caller)),
        Err(CallerError::TooManyFailures { .. }) => shared.metrics.attempts_refused.count(metrics::Limit::Client),
        Err(_) => {}
    }
    caller
}

fn credentials_of<'a>(input: &'a ClientCredentialsInput, default: Option<&'a str>) -> ClientAuth<'a> {
    match input {
        ClientCredentialsInput::Secret(candidates) => {
            ClientAuth::Secret(candidates.iter().map(|pair| (pair.id.as_str(), pair.secret.expose())).collect())
        }
        ClientCredentialsInput::Assertion { assertion, client_id } => {
            ClientAuth::Assertion { client: client_id.as_deref(), jwt: assertion.expose() }
        }
        ClientCredentialsInput::IdOnly(id) => ClientAuth::Named(Some(id)),
        ClientCredentialsInput::Absent => ClientAuth::Named(default),
    }
}

/// Converts a failure to an OAuth error.
pub fn oauth_failure(failure: Failure) -> OAuthError {
    match failure {
        Failure::Unavailable(cause) | Failure::UnreadableRow(cause) => {
            OAuthError::unavailable(RETRY_AFTER).because(cause)
        }
        Failure::NotChanged(cause) => {
            OAuthError::unavailable(RETRY_AFTER).described(OAuthDescription::NotChanged).because(cause)
        }
        Failure::OutcomeUnknown(cause) => {
            OAuthError::unavailable(RETRY_AFTER).described(OAuthDescription::OutcomeUnknown).because(cause)
        }
        Failure::Internal(cause) => OAuthError::internal(cause),
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(cause) | Failure::UnreadableRow(cause) => {
                Self::new(ProblemCode::TemporarilyUnavailable).because(cause)
            }
            Failure::NotChanged(cause) => {
                Self::new(ProblemCode::TemporarilyUnavailable).detail(NOT_CHANGED).because(cause)
            }
            Failure::OutcomeUnknown(cause) => {
                Self::new(ProblemCode::TemporarilyUnavailable).detail(OUTCOME_UNKNOWN).because(cause)
            }
            Failure::Internal(cause) => Self::internal(cause),
        }
    }
}

impl From<HashingError> for ApiError {
    fn from(error: HashingError) -> Self {
        match error {
            HashingError::Busy { retry_after } => Self::new(ProblemCode::Busy).retry_after(retry_after),
            HashingError::Failed => Self::internal(error),
        }
    }
}

const NOT_CHANGED: &str = "The database is unavailable. Nothing was changed.";

const OUTCOME_UNKNOWN: &str =
    "The answer of the database was lost. The change may have been made: read the state before you repeat the request.";

/// `Retry-After` of a 503: about the time in which a stale view becomes fresh again.
pub const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);
