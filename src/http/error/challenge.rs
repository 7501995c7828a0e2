//! `WWW-Authenticate`: the credentials that are required (RFC 9110 §11.6.1).

use http::HeaderValue;

use crate::domain::ScopeSet;

/// A challenge of a 401 or 403.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// Client authentication (RFC 7617).
    Basic,
    /// The token is missing. The challenge has no error code (RFC 6750 §3.1).
    Bearer,
    /// The request is malformed (RFC 6750 §3.1 `invalid_request`).
    BearerMalformed,
    /// The token is inactive.
    BearerInvalidToken,
    /// The token is active but lacks a scope, role or audience. Contains the required scopes if scopes are missing.
    BearerInsufficientScope(ScopeSet),
}

impl Challenge {
    /// The header's value.
    pub fn value(&self) -> HeaderValue {
        match self {
            Self::Basic => HeaderValue::from_static("Basic realm=\"countersign\", charset=\"UTF-8\""),
            Self::Bearer => HeaderValue::from_static("Bearer realm=\"countersign\""),
            Self::BearerMalformed => {
                HeaderValue::from_static("Bearer realm=\"countersign\", error=\"invalid_request\"")
            }
            Self::BearerInvalidToken => {
                HeaderValue::from_static("Bearer realm=\"countersign\", error=\"invalid_token\"")
            }
            Self::BearerInsufficientScope(scopes) => insufficient_scope(scopes),
        }
    }
}

fn insufficient_scope(scopes: &ScopeSet) -> HeaderValue {
    const PLAIN: HeaderValue = HeaderValue::from_static("Bearer realm=\"countersign\", error=\"insufficient_scope\"");
    if scopes.is_empty() {
        return PLAIN;
    }
    // Scope tokens contain no quote, backslash or control character, so a quoted string needs no escapes.
    let text = format!("Bearer realm=\"countersign\", error=\"insufficient_scope\", scope=\"{scopes}\"");
    HeaderValue::try_from(text).unwrap_or(PLAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h8_challenges_follow_rfc_6750() {
        assert_eq!(Challenge::Bearer.value(), "Bearer realm=\"countersign\"");
        let scopes = ScopeSet::parse("read write").unwrap();
        assert_eq!(
            Challenge::BearerInsufficientScope(scopes).value(),
            "Bearer realm=\"countersign\", error=\"insufficient_scope\", scope=\"read write\""
        );
        let none = Challenge::BearerInsufficientScope(ScopeSet::default());
        assert_eq!(none.value(), "Bearer realm=\"countersign\", error=\"insufficient_scope\"");
    }
}
