//! The OAuth endpoints: form in, JSON out, RFC 6749 errors.

pub mod authorize;
pub mod introspect;
pub mod revoke;
pub mod token;

/// An RFC 6749 §5.2 error object, for the API document.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub struct OAuthErrorBody {
    /// A registered code.
    error: &'static str,
    /// A sentence from a closed list.
    error_description: &'static str,
}
