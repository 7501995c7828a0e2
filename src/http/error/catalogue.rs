//! The catalogue of problem codes: what a program may branch on, with the status and title that belong to each.

use http::StatusCode;

/// Defines [`ProblemCode`] from one table, so that code, status and title cannot drift apart.
macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// What went wrong, as the stable `code` of a problem (RFC 9457). Names are never reused for another meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemCode {
            $($(#[$doc])* $name,)*
        }

        impl ProblemCode {
            /// Every code, for the documentation.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The wire's `code`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),* }
            }

            /// The status that it is answered with.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),* }
            }

            /// The wire's `title`: the same words for every occurrence (RFC 9457 §3.1.3).
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }

            /// The wire's `type`: a name, not a page (RFC 9457 §3.1.1).
            pub const fn type_uri(self) -> &'static str {
                match self { $(Self::$name => concat!("urn:countersign:problem:", $code)),* }
            }
        }
    };
}

catalogue! {
    /// Something in the request is missing, malformed or not allowed; `errors` names the fields where there are any.
    InvalidRequest = "invalid_request", BAD_REQUEST, "The request is not valid";
    /// The body is not one JSON document that a strict reader accepts.
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not valid JSON";
    /// A new password does not satisfy the policy.
    PasswordRejected = "password_rejected", BAD_REQUEST, "The new password is not acceptable";
    /// A scope was asked for that cannot be granted.
    InvalidScope = "invalid_scope", BAD_REQUEST, "The scope cannot be granted";
    /// An audience was asked for that the client may not ask for.
    InvalidAudience = "invalid_audience", BAD_REQUEST, "The audience cannot be granted";
    /// The access token would be over 4 KiB.
    TokenTooLong = "token_too_long", BAD_REQUEST, "The access token would be too long";
    /// Unknown user, wrong password, disabled user: one answer.
    InvalidCredentials = "invalid_credentials", UNAUTHORIZED, "The credentials are not valid";
    /// No credentials came where they are needed.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Credentials are required";
    /// The bearer token is not valid here.
    InvalidToken = "invalid_token", UNAUTHORIZED, "The access token is not valid";
    /// Unknown, expired or ended.
    InvalidRefreshToken = "invalid_refresh_token", UNAUTHORIZED, "The refresh token is not valid";
    /// A refresh token that was used before came again; its session has been ended.
    RefreshTokenReused = "refresh_token_reused", UNAUTHORIZED, "The refresh token was used before";
    /// The client did not authenticate itself.
    InvalidClient = "invalid_client", UNAUTHORIZED, "Client authentication failed";
    /// The client may not do this.
    UnauthorizedClient = "unauthorized_client", FORBIDDEN, "The client is not allowed to do this";
    /// The token is valid but lacks a scope, role or audience.
    InsufficientScope = "insufficient_scope", FORBIDDEN, "The access token does not allow this";
    /// Nothing is there.
    NotFound = "not_found", NOT_FOUND, "There is nothing here";
    /// The resource exists and knows other methods, named in `Allow`.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request did not arrive in time";
    /// It exists already, or changed meanwhile.
    Conflict = "conflict", CONFLICT, "The request conflicts with what is there";
    /// The body is over the limit of its endpoint.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// The request target is over 2 KiB.
    UriTooLong = "uri_too_long", URI_TOO_LONG, "The request target is too long";
    /// The content type is not the one that the endpoint reads.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The content type is not supported";
    /// A limit on attempts was reached; `Retry-After` says when it lifts.
    TooManyAttempts = "too_many_attempts", TOO_MANY_REQUESTS, "Too many attempts";
    /// The header block is over 16 KiB or 64 fields.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The request header is too large";
    /// A fault of ours; the log has its cause under the request id.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong on our side";
    /// All workers for this kind of request are taken.
    Busy = "busy", SERVICE_UNAVAILABLE, "The service is busy";
    /// The replica cannot judge or act now.
    TemporarilyUnavailable = "temporarily_unavailable", SERVICE_UNAVAILABLE, "The service is temporarily unavailable";
    /// Neither HTTP/1.1 nor HTTP/1.0.
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
