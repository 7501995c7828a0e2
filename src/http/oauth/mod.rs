//! The OAuth endpoints: they read forms and answer JSON, and errors of RFC 6749.

pub mod authorize;
pub mod introspect;
pub mod revoke;
pub mod token;

/// Errors of every form endpoint.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "describes answers in the API document")]
pub enum OAuthProblems {
    /// RFC 6749 §5.2: the form or a parameter is invalid, or the client may not do this
    #[response(status = 400)]
    Invalid(OAuthErrorBody),
    /// `invalid_client`
    #[response(status = 401)]
    InvalidClient(OAuthErrorBody),
    /// The form did not arrive in time
    #[response(status = 408)]
    TooSlow(OAuthErrorBody),
    /// The form is too large
    #[response(status = 413)]
    TooLarge(OAuthErrorBody),
    /// `temporarily_unavailable`: too many failed authentications of this client from this address, or too many
    /// revocations of access tokens
    #[response(status = 429)]
    TooManyFailures(OAuthErrorBody),
    /// `server_error`: a fault of the service; the log contains its cause with the request id
    #[response(status = 500)]
    Internal(OAuthErrorBody),
    /// `temporarily_unavailable`: retry, here or at another replica. A repeated refresh or revocation has the same
    /// result
    #[response(status = 503)]
    Unavailable(OAuthErrorBody),
}

/// An error object of RFC 6749 §5.2.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub struct OAuthErrorBody {
    /// A registered error code.
    error: &'static str,
    /// A text from a fixed list.
    error_description: &'static str,
}
