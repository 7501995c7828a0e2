//! The catalogue of problem codes, which programs may branch on, each with its status and title.

use http::StatusCode;

/// Defines [`ProblemCode`] from one table of code, status and title.
macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// The stable `code` of a problem (RFC 9457). A name is never reused for another meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemCode {
            $($(#[$doc])* $name,)*
        }

        impl ProblemCode {
            /// Every code, for the documentation.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The member `code` of the answer.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),* }
            }

            /// The HTTP status of the answer.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),* }
            }

            /// The member `title`: the same text for every occurrence (RFC 9457 §3.1.3).
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }

            /// The member `type`: a URN, not the address of a page (RFC 9457 §3.1.1).
            pub const fn type_uri(self) -> &'static str {
                match self { $(Self::$name => concat!("urn:countersign:problem:", $code)),* }
            }
        }
    };
}

catalogue! {
    /// Some part of the request is missing, malformed or not allowed. `errors` names the fields, if any.
    InvalidRequest = "invalid_request", BAD_REQUEST, "The request is not valid";
    /// The body is not exactly one JSON document, or a strict check failed.
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not valid JSON";
    /// A new password does not satisfy the policy.
    PasswordRejected = "password_rejected", BAD_REQUEST, "The new password is not acceptable";
    /// A requested scope cannot be granted.
    InvalidScope = "invalid_scope", BAD_REQUEST, "The scope cannot be granted";
    /// The client may not request this audience.
    InvalidAudience = "invalid_audience", BAD_REQUEST, "The audience cannot be granted";
    /// Unknown user, wrong password, disabled user: one answer.
    InvalidCredentials = "invalid_credentials", UNAUTHORIZED, "The credentials are not valid";
    /// Required credentials are missing.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Credentials are required";
    /// The bearer token is inactive, or it has the wrong audience.
    InvalidToken = "invalid_token", UNAUTHORIZED, "The access token is not valid";
    /// The refresh token is unknown or expired, or its session has ended.
    InvalidRefreshToken = "invalid_refresh_token", UNAUTHORIZED, "The refresh token is not valid";
    /// A refresh token was used again; its session was revoked.
    RefreshTokenReused = "refresh_token_reused", UNAUTHORIZED, "The refresh token was used before";
    /// The client failed to authenticate.
    InvalidClient = "invalid_client", UNAUTHORIZED, "Client authentication failed";
    /// The client may not do this.
    UnauthorizedClient = "unauthorized_client", FORBIDDEN, "The client is not allowed to do this";
    /// The token is active but lacks a scope, role or audience.
    InsufficientScope = "insufficient_scope", FORBIDDEN, "The access token does not allow this";
    /// The path or the resource does not exist.
    NotFound = "not_found", NOT_FOUND, "There is nothing here";
    /// The resource supports other methods, listed in `Allow`.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request did not arrive in time";
    /// The resource exists already, or was changed concurrently.
    Conflict = "conflict", CONFLICT, "The request conflicts with what is there";
    /// The body exceeds the limit of its endpoint.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// The request target exceeds 2 KiB.
    UriTooLong = "uri_too_long", URI_TOO_LONG, "The request target is too long";
    /// The endpoint does not support the content type.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The content type is not supported";
    /// A rate limit was reached; `Retry-After` says when to retry.
    TooManyAttempts = "too_many_attempts", TOO_MANY_REQUESTS, "Too many attempts";
    /// The header block exceeds 16 KiB or 64 fields.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The request header is too large";
    /// A fault; the log contains its cause with the request id.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong on our side";
    /// The queue for this kind of request is full.
    Busy = "busy", SERVICE_UNAVAILABLE, "The service is busy";
    /// The replica is unavailable: no fresh view, or no database.
    TemporarilyUnavailable = "temporarily_unavailable", SERVICE_UNAVAILABLE, "The service is temporarily unavailable";
    /// The HTTP version is neither 1.1 nor 1.0.
    HttpVersionNotSupported = "http_version_not_supported", HTTP_VERSION_NOT_SUPPORTED, "The HTTP version is not supported";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_name_errors() {
        let codes: HashSet<_> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), ProblemCode::ALL.len());
        for code in ProblemCode::ALL {
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
            assert!(code.type_uri().ends_with(code.as_str()));
        }
    }
}
