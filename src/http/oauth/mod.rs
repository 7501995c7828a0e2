//! The OAuth endpoints: form in, JSON out, RFC 6749 errors.

pub mod authorize;
pub mod introspect;
pub mod revoke;
pub mod token;

/// What every form endpoint can answer instead.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "describes answers in the API document")]
pub enum OAuthProblems {
    /// RFC 6749 §5.2: the form, a parameter, the client's rights, or whose token it is.
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
    /// `temporarily_unavailable`: this client failed to authenticate too often from this address, or revoked too many access
    /// tokens
    #[response(status = 429)]
    TooManyFailures(OAuthErrorBody),
    /// `server_error`: a fault of ours; the log has its cause under the request id
    #[response(status = 500)]
    Internal(OAuthErrorBody),
    /// `temporarily_unavailable`: not answered. Ask again, here or at another replica: a repeated refresh or revocation has the
    /// same result
    #[response(status = 503)]
    Unavailable(OAuthErrorBody),
}

/// An RFC 6749 §5.2 error object, for the API document.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub struct OAuthErrorBody {
    /// A registered code.
    error: &'static str,
    /// A sentence from a closed list.
    error_description: &'static str,
}
