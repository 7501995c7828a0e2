//! From what a request says about its client to the client.

use http::HeaderMap;

use crate::http::error::{ApiError, OAuthCode, OAuthError, ProblemCode};
use crate::http::extract::{BodyCredentials, ClientCredentialsInput, FormParams};
use crate::service::{BUILT_IN_CLIENT, Caller, CallerError, ClientProof, Failure, HashingError, Service};

/// The client of an OAuth request: authenticated, or a public client that names itself.
pub async fn of_form(service: &Service, headers: &HeaderMap, form: &FormParams) -> Result<Caller, OAuthError> {
    let input = ClientCredentialsInput::gather(headers, BodyCredentials::of_form(form)?)?;
    service.authenticate(&proof_of(&input, None)).await.map_err(|error| match error {
        CallerError::Refused => OAuthError::invalid_client(),
        CallerError::Failed(failure) => oauth_failure(failure),
    })
}

/// The client of a REST request: `client_id` in the body, with Basic authentication for a confidential one; without
/// either, the built-in client.
pub async fn of_rest(service: &Service, headers: &HeaderMap, client_id: Option<&str>) -> Result<Caller, ApiError> {
    let body = BodyCredentials { client_id, ..BodyCredentials::default() };
    let input = ClientCredentialsInput::gather(headers, body).map_err(|error| match error.code() {
        // Two headers, or a header and a body that name different clients (security.md H3).
        OAuthCode::InvalidRequest => {
            ApiError::new(ProblemCode::InvalidRequest).detail("The client authenticates in more than one way.")
        }
        _ => ApiError::new(ProblemCode::InvalidClient),
    })?;
    service.authenticate(&proof_of(&input, Some(BUILT_IN_CLIENT))).await.map_err(|error| match error {
        CallerError::Refused => ApiError::new(ProblemCode::InvalidClient),
        CallerError::Failed(failure) => failure.into(),
    })
}

fn proof_of<'a>(input: &'a ClientCredentialsInput, otherwise: Option<&'a str>) -> ClientProof<'a> {
    match input {
        ClientCredentialsInput::Secret(candidates) => {
            ClientProof::Secret(candidates.iter().map(|pair| (pair.id.as_str(), pair.secret.expose())).collect())
        }
        ClientCredentialsInput::Assertion { assertion, client_id } => {
            ClientProof::Assertion { client: client_id.as_deref(), jwt: assertion.expose() }
        }
        ClientCredentialsInput::IdOnly(id) => ClientProof::Named(Some(id)),
        ClientCredentialsInput::Absent => ClientProof::Named(otherwise),
    }
}

/// A failure in the OAuth shape.
pub fn oauth_failure(failure: Failure) -> OAuthError {
    match failure {
        Failure::Unavailable(cause) => OAuthError::unavailable(RETRY_AFTER).because(cause),
        Failure::Internal(cause) => OAuthError::internal(cause),
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(cause) => Self::new(ProblemCode::TemporarilyUnavailable).because(cause),
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

/// When a caller should come back after a 503: about the time that a view needs to be fresh again.
pub const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);
